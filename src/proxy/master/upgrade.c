/* upgrade.c - the master executes its program anew, in place (docs/ipc.md "Over an exec")
 *
 *   1 `PATH check` as a child: a broken program or wrong settings end it here
 *   2 no JSON-RPC connection is accepted, requests under way get their answers
 *   3 workers accept no more and give their pairs back; the kernel's queues hold who comes
 *   4 exec with listeners, parked sockets and pairs, described in a memfd (state.h)
 *   5 the new master starts new workers, which go on with the pairs
 *
 * Always true:
 *  1. Until the exec has happened everything can go back: the old program starts
 *     workers again, and they go on with the pairs.
 *  2. Each phase has a deadline. What is not at rest then: a request is answered
 *     -32004; a pair with bytes in its worker's memory stays with that worker to
 *     its end; a worker that does not answer fails the order.
 *  3. Every descriptor is close-on-exec, but in the instant of the exec.
 *  4. No signal can end the process between the exec and its handlers: they are blocked.
 *
 * Not here: what is in the state (state.c), what the successor does with it (inherit.c), who asks for this (master.c).
 */
#include "proxy/master/upgrade.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <event2/event.h>

#include "hyper/base/bug.h"
#include "hyper/base/clock.h"
#include "hyper/base/daemon.h"
#include "hyper/base/fd.h"
#include "hyper/base/log.h"
#include "hyper/net/rpcserver.h"
#include "proxy/master/hand.h"
#include "proxy/master/meet.h"
#include "proxy/master/slots.h"
#include "proxy/master/tally.h"

#define TICK_MS  2
#define CHECK_MS 15000
#define QUIET_MS 2000
#define DRAIN_MS 3000

#define ARGS_MAX  64
#define ARGS_SIZE 8192
#define LEFT_MAX  512

#define BIT(s) (1u << (s))

#define UPGRADE_STATES(X)                                   \
	X(IDLE, BIT(UPGRADE_CHECKING))                      \
	X(CHECKING, BIT(UPGRADE_QUIET) | BIT(UPGRADE_IDLE)) \
	X(QUIET, BIT(UPGRADE_DRAINING) | BIT(UPGRADE_IDLE)) \
	X(DRAINING, BIT(UPGRADE_IDLE))

enum upgrade_state {
#define X(n, to) UPGRADE_##n,
	UPGRADE_STATES(X)
#undef X
	    UPGRADE_STATE_MAX
};

static const struct {
	const char *name;
	unsigned to;
} upgrade_tab[] = {
#define X(n, to) { #n, to },
	UPGRADE_STATES(X)
#undef X
};

struct upgrade {
	struct upgrade_conf conf;
	enum upgrade_state state;
	int64_t began_ms, entered_ms;
	struct event *timer;
	pid_t check; /* 0 none */
	uint64_t count;
	size_t n_left;
	pid_t left[LEFT_MAX];
	char path[PATH_MAX];
	char args[ARGS_SIZE];
	char *argv[ARGS_MAX + 1];
};

/* The only place that writes u->state. */
static void
upgrade_enter(struct upgrade *u, enum upgrade_state to, const char *why)
{
	const struct timeval tv = { 0, TICK_MS * 1000 };

	BUG_ON(!(upgrade_tab[u->state].to & BIT(to)));
	log_info("upgrade", "%s>%s why=\"%s\" ms=%" PRId64, upgrade_tab[u->state].name, upgrade_tab[to].name, why,
	    clock_now_ms() - u->began_ms);
	u->state = to;
	u->entered_ms = clock_now_ms();
	if (to == UPGRADE_IDLE)
		event_del(u->timer);
	else
		event_add(u->timer, &tv);
}

/* Everything goes on as it was. */
static void ATTR_PRINTF(2, 3) upgrade_failed(struct upgrade *u, const char *fmt, ...)
{
	enum upgrade_state was = u->state;
	char why[UPGRADE_WHY_MAX];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why, sizeof(why), fmt, ap);
	va_end(ap);
	log_error("upgrade_failed", "why=\"%s\" help=\"the old program goes on\"", why);
	upgrade_enter(u, UPGRADE_IDLE, "failed");
	if (was == UPGRADE_DRAINING)
		slots_hold(u->conf.slots, false);
	if (was == UPGRADE_DRAINING || was == UPGRADE_QUIET)
		rpc_server_hold(u->conf.server, false);
	u->conf.on_failed(why, u->conf.arg);
}

/* --- our program --- */

/* Where it lies, also when that file was replaced since. */
static int
find_path(struct upgrade *u)
{
	static const char deleted[] = " (deleted)";
	ssize_t n = readlink("/proc/self/exe", u->path, sizeof(u->path) - 1);
	size_t tail = sizeof(deleted) - 1;

	if (n <= 0)
		return -ENOENT;
	u->path[n] = '\0';
	if ((size_t)n > tail && strcmp(u->path + n - tail, deleted) == 0)
		u->path[(size_t)n - tail] = '\0';
	return 0;
}

/* As we were called, to be called so again. */
static int
find_args(struct upgrade *u)
{
	int fd = open("/proc/self/cmdline", O_RDONLY | O_CLOEXEC), n = 0;
	ssize_t len = fd < 0 ? -1 : read(fd, u->args, sizeof(u->args));
	char *at = u->args;

	fd_close(&fd);
	if (len <= 0 || len == (ssize_t)sizeof(u->args) || u->args[len - 1] != '\0')
		return -E2BIG;
	while (at < u->args + len && n < ARGS_MAX) {
		u->argv[n++] = at;
		at += strlen(at) + 1;
	}
	u->argv[n] = NULL;
	return at == u->args + len ? 0 : -E2BIG;
}

/* --- the check --- */

_Noreturn static void
child_check(const struct upgrade *u)
{
	struct sigaction sa = { .sa_handler = SIG_DFL };
	char check[] = "check", version[16];
	char *argv[] = { u->argv[0], check, NULL };
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	sigset_t none;

	for (int sig = 1; sig < NSIG; sig++)
		sigaction(sig, &sa, NULL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	snprintf(version, sizeof(version), "%d", STATE_VERSION);
	if (null >= 0 && dup2(null, 0) >= 0 && dup2(null, 1) >= 0 && setenv(UPGRADE_ENV_VERSION, version, 1) == 0)
		execv(u->path, argv);
	_exit(127);
}

static int
start_check(struct upgrade *u)
{
	sigset_t all, old;
	pid_t pid;

	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, &old);
	pid = fork();
	if (pid == 0)
		child_check(u);
	sigprocmask(SIG_SETMASK, &old, NULL);
	if (pid < 0)
		return -errno;
	u->check = pid;
	return 0;
}

static void
on_checked(struct upgrade *u, int status)
{
	u->check = 0;
	if (u->state != UPGRADE_CHECKING)
		return;
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
		upgrade_enter(u, UPGRADE_QUIET, "checked");
		rpc_server_hold(u->conf.server, true);
	} else if (WIFEXITED(status) && WEXITSTATUS(status) == 127) {
		upgrade_failed(u, "%s cannot be executed", u->path);
	} else {
		upgrade_failed(u, "`%s check` ended with %s %d", u->path, WIFEXITED(status) ? "status" : "signal",
		    WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status));
	}
}

/* --- the state --- */

static int
gather_sessions(const struct upgrade *u, struct state *s)
{
	size_t n = sessions_save(u->conf.sessions, NULL, 0);

	s->sessions = calloc(n + 1, sizeof(*s->sessions));
	if (!s->sessions)
		return -ENOMEM;
	s->n_sessions = sessions_save(u->conf.sessions, s->sessions, n);
	return 0;
}

/* Those that wait; any other stays with its worker. */
static int
gather_pairs(const struct upgrade *u, struct state *s)
{
	const struct pairs *all = meet_pairs(u->conf.meet);
	const struct pair *p;
	size_t n = 0;

	TAILQ_FOREACH (p, &all->waiting, link)
		n++;
	s->pairs = calloc(n + 1, sizeof(*s->pairs));
	if (!s->pairs)
		return -ENOMEM;
	TAILQ_FOREACH (p, &all->waiting, link)
		s->pairs[s->n_pairs++] =
		    (struct state_pair){ .as = *p, .from = quota_name(p->op), .to = pairing_to(p) };
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
gather_rest(const struct upgrade *u, struct state *s)
{
	const struct listeners_named *l;
	size_t n;

	n = listeners_opened(&l);
	s->listeners = calloc(n + 1, sizeof(*s->listeners));
	s->left = calloc(2 * LEFT_MAX, sizeof(*s->left));
	if (!s->listeners || !s->left)
		return -ENOMEM;
	memcpy(s->listeners, l, n * sizeof(*l));
	s->n_listeners = n;
	memcpy(s->left, u->left, u->n_left * sizeof(*s->left));
	n = slots_left(u->conf.slots, s->left + u->n_left, LEFT_MAX);
	s->n_left = u->n_left + (n < LEFT_MAX ? n : LEFT_MAX);
	if (s->n_left > LEFT_MAX)
		s->n_left = LEFT_MAX; /* the others are reaped by init when we end */
	s->counters = json_object();
	if (s->counters) {
		tally_each(save_counter, s->counters);
		slots_past_each(u->conf.slots, save_counter, s->counters);
	}
	s->began_ms = u->began_ms;
	s->upgrades = u->count + 1;
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

static int
pack(const struct upgrade *u, struct state *s, int *ret_fd)
{
	char err[STATE_ERR_MAX];
	struct state again;
	uint8_t *data;
	size_t len;
	int rc = gather_sessions(u, s);

	if (rc == 0)
		rc = gather_pairs(u, s);
	if (rc == 0)
		rc = gather_rest(u, s);
	if (rc == 0)
		rc = state_pack(s, &data, &len);
	if (rc < 0)
		return rc;
	/* What we cannot read nobody can: better to know it now. */
	rc = state_unpack(data, len, &again, err);
	if (rc == 0) {
		state_fini(&again);
		rc = memfd_of(data, len);
	}
	free(data);
	if (rc < 0)
		return rc;
	*ret_fd = rc;
	return 0;
}

/* --- the exec --- */

static void
keep_fd(int fd, void *arg)
{
	const bool *on = arg;

	(void)!fd_set_cloexec(fd, !*on);
}

/* Returns only when it failed. */
static int
exec_anew(struct upgrade *u, const struct state *s, int state_fd)
{
	bool keep = true;
	sigset_t all, old;
	char number[16];
	int rc;

	snprintf(number, sizeof(number), "%d", state_fd);
	if (setenv(UPGRADE_ENV_STATE, number, 1) < 0)
		return -errno;
	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, &old);
	/* libcurl opens sockets that an exec would keep */
	(void)!close_range(3, ~0U, CLOSE_RANGE_CLOEXEC);
	state_each_fd(s, keep_fd, &keep);
	keep_fd(state_fd, &keep);
	log_flush();
	execv(u->path, u->argv);
	rc = -errno;
	keep = false;
	state_each_fd(s, keep_fd, &keep);
	sigprocmask(SIG_SETMASK, &old, NULL);
	unsetenv(UPGRADE_ENV_STATE);
	return rc;
}

static void
upgrade_exec(struct upgrade *u)
{
	struct state s = { 0 };
	int fd = -1, rc;

	/* their answers leave now, or have left */
	sessions_end_asked(u->conf.sessions, END_STOPPED);
	rc = pack(u, &s, &fd);
	if (rc == 0) {
		log_info("upgrade",
		    "exec=%s sessions=%zu pairs=%zu listeners=%zu old_workers=%zu count=%" PRIu64 " ms=%" PRId64,
		    u->path, s.n_sessions, s.n_pairs, s.n_listeners, s.n_left, s.upgrades,
		    clock_now_ms() - u->began_ms);
		rc = exec_anew(u, &s, fd);
	}
	fd_close(&fd);
	json_decref(s.counters);
	state_fini(&s);
	upgrade_failed(u, "%s could not be executed: %s", u->path, strerror(-rc));
}

/* --- by the clock --- */

/* Is a pair between two hands? Then nobody may be cut off. */
static bool
is_between(const struct upgrade *u)
{
	const struct pairs *all = meet_pairs(u->conf.meet);

	for (unsigned i = 0; i < all->n_loads; i++)
		if (all->loads[i].handing || all->loads[i].moving)
			return true;
	return false;
}

static void
tick_quiet(struct upgrade *u, int64_t ms)
{
	if (!rpc_server_is_quiet(u->conf.server)) {
		if (ms < QUIET_MS)
			return;
		sessions_end_asked(u->conf.sessions, END_STOPPED);
	}
	upgrade_enter(u, UPGRADE_DRAINING, ms < QUIET_MS ? "no request is under way" : "time is over");
	slots_hold(u->conf.slots, true);
}

static void
tick_draining(struct upgrade *u, int64_t ms)
{
	bool is_still = slots_left(u->conf.slots, NULL, 0) == 0;

	/* who stayed is asked again and again; after the deadline nobody is, so that all answers have come */
	if (ms < DRAIN_MS)
		hand_empty(meet_pairs(u->conf.meet));
	if (is_still && (rpc_server_is_quiet(u->conf.server) || ms >= DRAIN_MS))
		upgrade_exec(u);
	else if (ms >= DRAIN_MS && !is_between(u))
		upgrade_exec(u);
	else if (ms >= 2 * DRAIN_MS)
		upgrade_failed(u, "a worker did not give its pairs back in time");
}

static void
on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct upgrade *u = arg;
	int64_t ms = clock_now_ms() - u->entered_ms;

	(void)fd;
	(void)what;
	if (!u->conf.may_go_on(u->conf.arg))
		upgrade_failed(u, "the proxy was told to stop");
	else if (u->state == UPGRADE_CHECKING && ms >= CHECK_MS && u->check)
		kill(u->check, SIGKILL); /* its end says the rest */
	else if (u->state == UPGRADE_QUIET)
		tick_quiet(u, ms);
	else if (u->state == UPGRADE_DRAINING)
		tick_draining(u, ms);
}

int
upgrade_begin(struct upgrade *u)
{
	int rc;

	if (u->state != UPGRADE_IDLE || u->check)
		return -EALREADY;
	u->began_ms = clock_now_ms();
	upgrade_enter(u, UPGRADE_CHECKING, "told to");
	rc = start_check(u);
	if (rc < 0)
		upgrade_failed(u, "no process for the check: %s", strerror(-rc));
	return 0;
}

bool
upgrade_is_running(const struct upgrade *u)
{
	return u->state != UPGRADE_IDLE;
}

void
upgrade_reap(struct upgrade *u)
{
	size_t i = 0;
	int status;

	if (u->check && waitpid(u->check, &status, WNOHANG) == u->check)
		on_checked(u, status);
	while (i < u->n_left) {
		pid_t rc = waitpid(u->left[i], &status, WNOHANG);

		if (rc == 0) {
			i++;
			continue;
		}
		log_info("old_worker_exited", "pid=%d left=%zu", (int)u->left[i], u->n_left - 1);
		u->left[i] = u->left[--u->n_left];
	}
}

void
upgrade_stop(struct upgrade *u)
{
	if (u->state != UPGRADE_IDLE)
		upgrade_failed(u, "the proxy was told to stop");
	for (size_t i = 0; i < u->n_left; i++)
		kill(u->left[i], SIGKILL);
}

int
upgrade_new(const struct upgrade_conf *conf, const struct state *inherited, struct upgrade **ret)
{
	struct upgrade *u = calloc(1, sizeof(*u));
	int rc = u ? 0 : -ENOMEM;

	if (rc == 0) {
		u->conf = *conf;
		u->timer = event_new(conf->base, -1, EV_PERSIST, on_timer, u);
		rc = u->timer ? find_path(u) : -ENOMEM;
	}
	if (rc == 0)
		rc = find_args(u);
	if (rc < 0) {
		upgrade_free(u);
		return rc;
	}
	if (inherited) {
		u->count = inherited->upgrades;
		u->n_left = inherited->n_left < LEFT_MAX ? inherited->n_left : LEFT_MAX;
		memcpy(u->left, inherited->left, u->n_left * sizeof(u->left[0]));
		upgrade_reap(u); /* who ended meanwhile sends no signal again */
	}
	*ret = u;
	return 0;
}

void
upgrade_free(struct upgrade *u)
{
	if (!u)
		return;
	if (u->check) {
		kill(u->check, SIGKILL);
		waitpid(u->check, NULL, 0);
	}
	for (size_t i = 0; i < u->n_left; i++) {
		kill(u->left[i], SIGKILL);
		waitpid(u->left[i], NULL, 0);
	}
	if (u->timer)
		event_free(u->timer);
	free(u);
}

uint64_t
upgrade_count(const struct upgrade *u)
{
	return u->count;
}

size_t
upgrade_left(const struct upgrade *u)
{
	return u->n_left;
}
