/* gather.c - see the header
 *
 * Always true: nothing is changed by it, so it may be asked while all serve.
 *
 * Not here: when that is (upgrade.c), the layout (state.c).
 */
#include "proxy/master/gather.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "hyper/base/fd.h"
#include "proxy/master/meet.h"
#include "proxy/master/recall.h"
#include "proxy/master/slots.h"
#include "proxy/master/tally.h"
#include "proxy/master/upgrade.h"

static int
gather_sessions(const struct gather_of *of, struct state *s)
{
	size_t n = sessions_save(of->conf->sessions, NULL, 0);

	s->sessions = calloc(n + 1, sizeof(*s->sessions));
	if (!s->sessions)
		return -ENOMEM;
	s->n_sessions = sessions_save(of->conf->sessions, s->sessions, n);
	return 0;
}

static void
gather_pair(struct state *s, const struct pair *p)
{
	struct state_pair *v = &s->pairs[s->n_pairs++];

	*v = (struct state_pair){ .as = *p, .from = quota_name(p->op), .to = pairing_to(p) };
	if (p->state == PAIR_WAITING)
		return;
	/* its worker has them */
	v->as.flags = 0;
	v->as.pipe_fd[0] = v->as.pipe_fd[1] = -1;
}

/* Those that wait; any other stays with its worker. */
static int
gather_pairs(const struct gather_of *of, struct state *s)
{
	const struct pairs *all = meet_pairs(of->conf->meet);
	const struct pair *p;
	size_t n = all->by_id.n;

	s->pairs = calloc(n + 1, sizeof(*s->pairs));
	if (!s->pairs)
		return -ENOMEM;
	if (!of->is_trial) {
		TAILQ_FOREACH (p, &all->waiting, link)
			gather_pair(s, p);
	} else {
		for (p = idmap_next(&all->by_id, NULL); p; p = idmap_next(&all->by_id, p))
			if (p->fd[0] >= 0 && p->fd[1] >= 0)
				gather_pair(s, p);
	}
	s->last_pair = all->last_id;
	return 0;
}

static void
save_counter(const char *name, uint64_t *value, void *arg)
{
	/* out of memory costs a counter, not the upgrade */
	(void)json_object_set_new(arg, name, json_integer((json_int_t)*value));
}

static int
gather_rest(const struct gather_of *of, struct state *s)
{
	const struct listeners_named *l;
	size_t n;

	n = listeners_opened(&l);
	s->listeners = calloc(n + 1, sizeof(*s->listeners));
	s->left = calloc(2 * GATHER_LEFT_MAX, sizeof(*s->left));
	if (!s->listeners || !s->left)
		return -ENOMEM;
	memcpy(s->listeners, l, n * sizeof(*l));
	s->n_listeners = n;
	memcpy(s->left, of->left, of->n_left * sizeof(*s->left));
	n = slots_left(of->conf->slots, s->left + of->n_left, GATHER_LEFT_MAX);
	s->n_left = of->n_left + (n < GATHER_LEFT_MAX ? n : GATHER_LEFT_MAX);
	if (s->n_left > GATHER_LEFT_MAX)
		s->n_left = GATHER_LEFT_MAX; /* the others are reaped by init when we end */
	s->counters = json_object();
	if (s->counters) {
		tally_each(save_counter, s->counters);
		slots_past_each(of->conf->slots, save_counter, s->counters);
		sessions_counts_each(of->conf->sessions, save_counter, s->counters);
	}
	s->notes = recall_save();
	s->began_ms = of->began_ms;
	s->upgrades = of->upgrades + 1;
	return 0;
}

/* A memfd with these bytes, or -errno. */
static int
memfd_of(const uint8_t *data, size_t len)
{
	int fd = memfd_create("hyper-proxy-state", MFD_CLOEXEC);
	size_t done = 0;
	ssize_t n = 0;

	if (fd < 0)
		return -errno;
	while (done < len && (n = write(fd, data + done, len - done)) > 0)
		done += (size_t)n;
	if (done == len)
		return fd;
	fd_close(&fd);
	return -ENOSPC;
}

void
gather_fini(struct state *s)
{
	json_decref(s->counters);
	json_decref(s->notes);
	state_fini(s);
}

int
gather(const struct gather_of *of, struct state *ret, int *ret_fd)
{
	struct state s = { 0 }, again;
	char err[STATE_ERR_MAX];
	uint8_t *data = NULL;
	size_t len;
	int rc = gather_sessions(of, &s);

	if (rc == 0)
		rc = gather_pairs(of, &s);
	if (rc == 0)
		rc = gather_rest(of, &s);
	if (rc == 0)
		rc = state_pack(&s, &data, &len);
	/* What we cannot read nobody can: better to know it now. */
	if (rc == 0)
		rc = state_unpack(data, len, &again, err);
	if (rc == 0) {
		state_fini(&again);
		rc = memfd_of(data, len);
	}
	free(data);
	if (rc < 0) {
		gather_fini(&s);
		return rc;
	}
	*ret = s;
	*ret_fd = rc;
	return 0;
}
