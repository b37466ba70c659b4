/* pairing.c - the pairs, their lists, and who owns which descriptor
 *
 * Always true:
 *  1. A pair is in the list of its state and in no other: WAITING in one list
 *     of all, HANDING, LIVE and MOVING in one of its worker slot each.
 *  2. It has a slot exactly while it is HANDING, LIVE or MOVING; that slot's
 *     process may work on its sockets, no other may.
 *  3. Both sockets are this struct's from its creation to DONE, whoever has
 *     duplicates. A pipe with bytes is the struct's while it is WAITING, and the
 *     slot's table's otherwise (pipes.h).
 *  4. Each pair has one `ended` line, and counts for the operator A that asked
 *     for it from its creation to that line.
 *
 * Not here: when a state changes (meet.c, hand.c, rescue.c).
 */
#include "proxy/master/pairing.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "hyper/base/bug.h"
#include "hyper/base/clock.h"
#include "hyper/base/fd.h"
#include "hyper/base/log.h"
#include "hyper/wire/chanmsg.h"
#include "proxy/master/names.h"
#include "proxy/master/tally.h"

static const struct {
	const char *name;
	unsigned to;
} pair_tab[] = {
#define X(n, to) { #n, to },
	PAIR_STATES(X)
#undef X
};

struct pairs *
pairs_new(struct quota *quota, unsigned workers, size_t max_pairs)
{
	struct pairs *all = calloc(1, sizeof(*all));

	if (!all || idmap_init(&all->by_id) < 0) {
		free(all);
		return NULL;
	}
	all->memory = (struct slab)SLAB_OF(struct pair);
	all->quota = quota;
	pairs_apply(all, workers, max_pairs);
	TAILQ_INIT(&all->waiting);
	for (unsigned i = 0; i < SLOTS_MAX; i++)
		for (int s = 0; s < PAIR_STATE_MAX; s++)
			TAILQ_INIT(&all->loads[i].of_state[s]);
	return all;
}

void
pairs_apply(struct pairs *all, unsigned workers, size_t max_pairs)
{
	all->n_workers = workers;
	if (all->n_loads < workers)
		all->n_loads = workers;
	all->max_pairs = max_pairs;
}

void
pairs_free(struct pairs *all)
{
	struct pair *p, *next;

	if (!all)
		return;
	for (p = idmap_next(&all->by_id, NULL); p; p = next) {
		next = idmap_next(&all->by_id, p);
		pairing_end(all, p, END_STOPPED, true);
	}
	idmap_fini(&all->by_id);
	slab_fini(&all->memory);
	free(all);
}

struct load *
pairs_load(struct pairs *all, const struct slot *s)
{
	BUG_ON(slot_no(s) >= all->n_loads);
	return &all->loads[slot_no(s)];
}

struct pair *
pairing_find(struct pairs *all, uint64_t id)
{
	return idmap_find(&all->by_id, id);
}

const char *
pairing_from(const struct pair *p)
{
	return quota_name(p->op);
}

const char *
pairing_to(const struct pair *p)
{
	return p->to ? p->to : "?";
}

void
pairing_kick(struct pair *p)
{
	p->is_kicked = true;
}

int
pairing_new(struct pairs *all, const struct pairing_of *of, struct pair **ret)
{
	int rc = quota_take(all->quota, of->op, QUOTA_PAIRS);
	struct pair *p;

	if (rc < 0)
		return rc;
	p = slab_get(&all->memory);
	if (!p) {
		quota_give(all->quota, of->op, QUOTA_PAIRS);
		return -ENOMEM;
	}
	p->id = all->last_id + 1;
	p->state = PAIR_WAITING;
	p->fd[0] = p->fd[1] = p->pipe_fd[0] = p->pipe_fd[1] = -1;
	p->pipe_no[0] = p->pipe_no[1] = CHAN_NO_PIPE;
	p->since_ms = p->entered_ms = p->waits_ms = clock_now_ms();
	memcpy(p->session, of->session, strnlen(of->session, sizeof(p->session) - 1));
	p->note = of->note;
	idmap_add(&all->by_id, &p->item);
	p->op = of->op;
	p->to = names_take(of->to);
	all->last_id = p->id;
	TAILQ_INSERT_TAIL(&all->waiting, p, link);
	*ret = p;
	return 0;
}

int
pairing_restore(struct pairs *all, const struct pair *as, const char *from, const char *to)
{
	bool is_known = pairing_find(all, as->id) != NULL;
	struct pair *p = is_known ? NULL : slab_get(&all->memory);

	if (!p)
		return is_known ? -EEXIST : -ENOMEM;
	*p = (struct pair){ .id = as->id,
		.since_ms = as->since_ms,
		.flags = as->flags,
		.suspect = as->suspect,
		.state = PAIR_WAITING,
		.crashes = as->crashes,
		.last_worker = as->last_worker,
		.crash_s = as->crash_s };
	memcpy(p->fd, as->fd, sizeof(p->fd));
	memcpy(p->pipe_fd, as->pipe_fd, sizeof(p->pipe_fd));
	memcpy(p->bytes, as->bytes, sizeof(p->bytes));
	memcpy(p->session, as->session, sizeof(p->session));
	p->shared_bytes = as->bytes[0] + as->bytes[1];
	p->pipe_no[0] = p->pipe_no[1] = CHAN_NO_PIPE;
	p->entered_ms = p->waits_ms = clock_now_ms();
	p->op = quota_restore(all->quota, from, QUOTA_PAIRS);
	if (!p->op) {
		slab_put(&all->memory, p);
		return -ENOMEM;
	}
	idmap_add(&all->by_id, &p->item);
	p->to = names_take(to);
	p->note = tally_resume(p->session, from, to);
	all->loose_pipes += (p->pipe_fd[0] >= 0) + (p->pipe_fd[1] >= 0);
	if (p->id > all->last_id)
		all->last_id = p->id;
	TAILQ_INSERT_TAIL(&all->waiting, p, link);
	return 0;
}

static void
pair_leave(struct pairs *all, struct pair *p)
{
	struct load *l = p->slot ? pairs_load(all, p->slot) : NULL;

	TAILQ_REMOVE(l ? &l->of_state[p->state] : &all->waiting, p, link);
	if (!l)
		return;
	l->pairs--;
	l->handing -= p->state == PAIR_HANDING;
	l->moving -= p->state == PAIR_MOVING;
}

static void
pair_join(struct pairs *all, struct pair *p)
{
	struct load *l = p->slot ? pairs_load(all, p->slot) : NULL;

	TAILQ_INSERT_TAIL(l ? &l->of_state[p->state] : &all->waiting, p, link);
	if (!l)
		return;
	l->pairs++;
	l->handing += p->state == PAIR_HANDING;
	l->moving += p->state == PAIR_MOVING;
	p->last_worker = (uint16_t)slot_no(p->slot);
}

void
pairing_enter(struct pairs *all, struct pair *p, enum pair_state to, struct slot *slot, const char *why)
{
	BUG_ON(!(pair_tab[p->state].to & (1u << to)));
	log_debug(
	    "pair_state", "pair=%" PRIu64 " %s>%s why=\"%s\"", p->id, pair_tab[p->state].name, pair_tab[to].name, why);
	pair_leave(all, p);
	if (slot)
		p->slot = slot;
	if (to == PAIR_WAITING || to == PAIR_DONE)
		p->slot = NULL;
	p->state = (uint8_t)to;
	p->entered_ms = clock_now_ms();
	if (to == PAIR_LIVE)
		p->waits_ms = 0;
	else if (p->waits_ms == 0)
		p->waits_ms = p->entered_ms;
	if (to != PAIR_DONE) {
		BUG_ON((to == PAIR_WAITING) != !p->slot);
		pair_join(all, p);
	}
}

void
pairing_end(struct pairs *all, struct pair *p, enum end_reason reason, bool reset)
{
	int i;

	if (p->is_kicked)
		reason = END_KICKED;
	log_info("ended",
	    "pair=%" PRIu64 " session=%s worker=%u reason=%s bytes_ab=%" PRIu64 " bytes_ba=%" PRIu64 " ms=%" PRId64,
	    p->id, p->session, (unsigned)p->last_worker, end_reason_word(reason), p->bytes[0], p->bytes[1],
	    clock_now_ms() - p->since_ms);
	tally_ended(p->note, reason, p->bytes, clock_now_ms() - p->since_ms);
	pairing_enter(all, p, PAIR_DONE, NULL, end_reason_word(reason));
	for (i = 0; i < 2; i++) {
		if (reset)
			fd_reset(&p->fd[i]);
		else
			fd_close(&p->fd[i]);
		all->loose_pipes -= p->pipe_fd[i] >= 0;
		fd_close(&p->pipe_fd[i]);
	}
	quota_give(all->quota, p->op, QUOTA_PAIRS);
	idmap_remove(&all->by_id, &p->item);
	names_give(p->to);
	slab_put(&all->memory, p);
}
