/* inherit.c - what a predecessor in this process left: listeners, tokens, parked sockets, pairs
 *
 * Always true:
 *  1. Nothing is taken before the whole state was read and found right, and each
 *     descriptor is what it is said to be; each is close-on-exec from then on.
 *  2. A token or pair that cannot be restored is closed and counted as lost; the
 *     others go on.
 *
 * Not here: what comes before the exec (upgrade.c).
 */
#include "proxy/master/upgrade.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "hyper/base/clock.h"
#include "hyper/base/daemon.h"
#include "hyper/base/fd.h"
#include "hyper/base/log.h"
#include "hyper/proxy/toktab.h"
#include "proxy/master/back.h"
#include "proxy/master/meet.h"
#include "proxy/master/recall.h"
#include "proxy/master/slots.h"
#include "proxy/master/tally.h"

static char back_why[BACK_WHY_MAX]; /* "": nobody had to come back */

/* The bytes, malloc'd. */
static int
read_all(int fd, uint8_t **ret, size_t *ret_len)
{
	struct stat st;
	uint8_t *data;
	size_t done = 0;
	ssize_t n = 1;

	if (fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode) || st.st_size <= 0 || (uint64_t)st.st_size > STATE_BYTES_MAX)
		return -EPROTO;
	data = malloc((size_t)st.st_size);
	if (!data)
		return -ENOMEM;
	while (done < (size_t)st.st_size && n > 0) {
		n = pread(fd, data + done, (size_t)st.st_size - done, (off_t)done);
		done += n > 0 ? (size_t)n : 0;
	}
	if (done < (size_t)st.st_size) {
		free(data);
		return -EIO;
	}
	*ret = data;
	*ret_len = done;
	return 0;
}

static void
close_on_exec(int fd, void *arg)
{
	int *rc = arg;

	if (fd_set_cloexec(fd, true) < 0)
		*rc = -EPROTO;
}

static bool
is_pipe(int fd)
{
	struct stat st;

	return fd < 0 || (fstat(fd, &st) == 0 && S_ISFIFO(st.st_mode));
}

/* Is each descriptor what it is said to be? */
static int
check_fds(const struct state *s, char err[STATE_ERR_MAX])
{
	int rc = 0;
	size_t i;

	state_each_fd(s, close_on_exec, &rc);
	for (i = 0; rc == 0 && i < s->n_sessions; i++)
		if (s->sessions[i].parked_fd >= 0 && !fd_is_tcp(s->sessions[i].parked_fd))
			rc = -EPROTO;
	for (i = 0; rc == 0 && i < s->n_pairs; i++) {
		const struct pair *p = &s->pairs[i].as;

		if (!is_pipe(p->pipe_fd[0]) || !is_pipe(p->pipe_fd[1]))
			rc = -EPROTO;
	}
	for (i = 0; rc == 0 && i < s->n_listeners; i++)
		rc = listeners_give(s->listeners[i].hostport, &s->listeners[i].l);
	if (rc < 0)
		snprintf(err, STATE_ERR_MAX, "a descriptor in it is not there, or not what it should be");
	return rc;
}

/* Did our own successor execute us again? */
static void
find_back_why(struct state *s)
{
	const char *why = getenv(BACK_ENV_WHY);

	if (!why)
		return;
	snprintf(back_why, sizeof(back_why), "%s", *why ? why : "it did not say why");
	unsetenv(BACK_ENV_WHY);
	if (s->upgrades > 0)
		s->upgrades--;
}

int
upgrade_inherit(struct state *ret, char err[STATE_ERR_MAX])
{
	const char *text = getenv(UPGRADE_ENV_STATE);
	uint8_t *data = NULL;
	char *end;
	size_t len = 0;
	long number;
	int fd, rc;

	if (!text)
		return -ENOENT;
	number = strtol(text, &end, 10);
	rc = *text == '\0' || *end || number < 3 || number > INT_MAX ? -EPROTO : 0;
	unsetenv(UPGRADE_ENV_STATE);
	fd = (int)number;
	if (rc == 0)
		rc = read_all(fd, &data, &len);
	if (rc < 0) {
		snprintf(
		    err, STATE_ERR_MAX, "%s names no state: it is set by the proxy itself only", UPGRADE_ENV_STATE);
		return rc == -ENOENT ? -EPROTO : rc;
	}
	if (!back_owns(fd))
		fd_close(&fd);
	rc = state_unpack(data, len, ret, err);
	free(data);
	if (rc < 0)
		return rc;
	rc = check_fds(ret, err);
	if (rc == 0)
		back_keep(ret);
	if (rc < 0)
		state_fini(ret);
	else
		find_back_why(ret);
	return rc;
}

const char *
upgrade_came_back(void)
{
	return back_why[0] ? back_why : NULL;
}

static void
restore_counter(const char *name, uint64_t *value, void *arg)
{
	*value += (uint64_t)json_integer_value(json_object_get(arg, name));
}

void
upgrade_restore_counts(const struct state *s, struct slots *slots)
{
	slots_past_each(slots, restore_counter, s->counters);
}

void
upgrade_restore(const struct state *s, struct sessions *sessions, struct meet *meet)
{
	struct pairs *all = meet_pairs(meet);
	size_t i, lost = 0;

	tally_each(restore_counter, s->counters);
	sessions_counts_each(sessions, restore_counter, s->counters);
	recall_restore(s->notes);
	for (i = 0; i < s->n_sessions; i++)
		lost += session_restore(sessions, &s->sessions[i]) < 0;
	for (i = 0; i < s->n_pairs; i++) {
		struct pair as = s->pairs[i].as;

		if (pairing_restore(all, &as, s->pairs[i].from, s->pairs[i].to) == 0)
			continue;
		lost++;
		fd_close(&as.fd[0]);
		fd_close(&as.fd[1]);
		fd_close(&as.pipe_fd[0]);
		fd_close(&as.pipe_fd[1]);
	}
	if (s->last_pair > all->last_id)
		all->last_id = s->last_pair;
	if (back_why[0])
		log_error("upgrade_failed",
		    "why=\"the new program could not start: %s\" help=\"the old program goes on again\"", back_why);
	log_line(lost ? LOG_LVL_ERROR : LOG_LVL_INFO, back_why[0] ? "came_back" : "upgraded",
	    "count=%" PRIu64 " sessions=%zu pairs=%zu old_workers=%zu lost=%zu ms=%" PRId64, s->upgrades, s->n_sessions,
	    s->n_pairs, s->n_left, lost, clock_now_ms() - s->began_ms);
}

/* Can it be listened on, where it does not come with the state? */
static int
try_address(const struct state *s, const char *hostport, char err[STATE_ERR_MAX])
{
	char why[LISTEN_ERR_MAX];
	struct listeners l;
	int rc;

	for (size_t i = 0; i < s->n_listeners; i++)
		if (hostport && strcmp(s->listeners[i].hostport, hostport) == 0)
			return 0;
	rc = hostport ? listeners_open(hostport, &l, why) : 0;
	if (rc < 0)
		snprintf(err, STATE_ERR_MAX, "%s", why);
	else if (hostport)
		listeners_close(&l);
	return rc;
}

/* What would end the start when it is too late. */
static int
try_start(const struct conf_proxy *conf, const struct state *s, char err[STATE_ERR_MAX])
{
	int rc = 0;

	if (conf->public)
		rc = try_address(s, conf->public->internal_bind_address, err);
	if (rc == 0 && conf->public)
		rc = try_address(s, conf->public->rpc_server->bind_address, err);
	if (rc == 0 && conf->metrics)
		rc = try_address(s, conf->metrics->bind_address, err);
	return rc;
}

/* Reads what stands in the trial's memfd, and says so behind it. */
static int
try_state(const struct conf_proxy *conf, int fd, char err[STATE_ERR_MAX])
{
	struct state s;
	uint8_t *data;
	size_t len;
	int rc = read_all(fd, &data, &len);

	if (rc < 0) {
		snprintf(err, STATE_ERR_MAX, "%s names no state", UPGRADE_ENV_TRIAL);
		return rc;
	}
	rc = state_unpack(data, len, &s, err);
	free(data);
	if (rc < 0)
		return rc;
	rc = try_start(conf, &s, err);
	state_fini(&s);
	if (rc < 0)
		return rc;
	if (write(fd, UPGRADE_TRIAL_READ, strlen(UPGRADE_TRIAL_READ)) == (ssize_t)strlen(UPGRADE_TRIAL_READ))
		return 0;
	snprintf(err, STATE_ERR_MAX, "the answer could not be written");
	return -EIO;
}

static int
try_table(size_t slots, char err[STATE_ERR_MAX])
{
	struct toktab *table = NULL, *seen = NULL;
	int rc = toktab_new(slots, &table);

	if (rc == 0)
		rc = toktab_map(toktab_fd(table), &seen);
	toktab_free(seen);
	toktab_free(table);
	if (rc < 0)
		snprintf(err, STATE_ERR_MAX, "no token table of %zu slots: %s", slots, strerror(-rc));
	return rc;
}

int
upgrade_check(const struct conf_proxy *conf)
{
	size_t slots = conf->public ? conf->public->table_slots : 1;
	const char *text = getenv(UPGRADE_ENV_VERSION), *trial = getenv(UPGRADE_ENV_TRIAL);
	char err[STATE_ERR_MAX];

	if (text && strtol(text, NULL, 10) != STATE_VERSION) {
		fprintf(stderr,
		    "proxy: the running proxy would hand over a state of version %.16s, this program reads version %d: "
		    "restart it instead of upgrading it\n",
		    text, STATE_VERSION);
		return EXIT_UNAVAILABLE;
	}
	if (!trial)
		return EXIT_OK;
	if (try_table(slots, err) == 0 && try_state(conf, (int)strtol(trial, NULL, 10), err) == 0)
		return EXIT_OK;
	fprintf(stderr, "proxy: this program could not go on from what the running proxy would hand over: %s\n", err);
	return EXIT_UNAVAILABLE;
}
