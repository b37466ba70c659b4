/* upgrade.c - the master executes its program anew, in place (docs/ipc.md "Over an exec")
 *
 *   1 `PATH check` as a child, with a state to read: a broken program or wrong settings end it here
 *   2 no JSON-RPC connection is accepted, requests under way get their answers
 *   3 workers accept no more and give their pairs back; the kernel's queues hold who comes
 *   4 exec with listeners, parked sockets and pairs, described in a memfd (state.h)
 *   5 the new master starts new workers, which go on with the pairs; where it cannot start, it executes the
 *     old program again (back.h)
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
#include "proxy/master/back.h"
#include "proxy/master/gather.h"
#include "proxy/master/hand.h"
#include "proxy/master/meet.h"
#include "proxy/master/slots.h"

#define TICK_MS  2
#define CHECK_MS 15000
#define QUIET_MS 2000
#define DRAIN_MS 3000

/* After an upgrade some worker has to serve by then, and before so many have ended. */
#define SERVE_MS    20000
#define SERVE_TRIES 6

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
	int64_t made_ms;
	uint64_t made_restarts;
	pid_t check;  /* 0 none */
	int trial_fd; /* what `check` is to read; -1 none */
	off_t trial_len;
	int program_fd; /* our own program, to come back to */
	int old_fd;     /* that of our predecessor while no worker of ours has served; -1 none */
	bool goes_back; /* to that one */
	uint64_t count;
	size_t n_left;
	pid_t left[GATHER_LEFT_MAX];
	char path[PATH_MAX];
	struct back_args args;
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

/* --- the check --- */

_Noreturn static void
child_check(const struct upgrade *u)
{
	struct sigaction sa = { .sa_handler = SIG_DFL };
	char check[] = "check", version[16], number[16];
	char *argv[] = { u->args.argv[0], check, NULL };
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	sigset_t none;

	for (int sig = 1; sig < NSIG; sig++)
		sigaction(sig, &sa, NULL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	snprintf(version, sizeof(version), "%d", STATE_VERSION);
	snprintf(number, sizeof(number), "%d", u->trial_fd);
	if (null >= 0 && dup2(null, 0) >= 0 && dup2(null, 1) >= 0 && setenv(UPGRADE_ENV_VERSION, version, 1) == 0 &&
	    setenv(UPGRADE_ENV_TRIAL, number, 1) == 0 && fd_set_cloexec(u->trial_fd, false) == 0)
		execv(u->path, argv);
	_exit(127);
}

static struct gather_of
gather_what(const struct upgrade *u, bool is_trial)
{
	return (struct gather_of){ .conf = &u->conf,
		.began_ms = u->began_ms,
		.upgrades = u->goes_back ? u->count - 1 : u->count,
		.left = u->left,
		.n_left = u->n_left,
		.is_trial = is_trial };
}

/* What we would leave if all stood still now, for `check` to read. */
static int
make_trial(struct upgrade *u)
{
	const struct gather_of what = gather_what(u, true);
	struct state s;
	int rc = gather(&what, &s, &u->trial_fd);

	if (rc < 0)
		return rc;
	gather_fini(&s);
	u->trial_len = lseek(u->trial_fd, 0, SEEK_END);
	return 0;
}

/* Who did not say so has not read it: a script, another program, or one that knows nothing of this. */
static bool
trial_was_read(const struct upgrade *u)
{
	char said[sizeof(UPGRADE_TRIAL_READ)] = "";
	ssize_t n = pread(u->trial_fd, said, sizeof(said) - 1, u->trial_len);

	return n == (ssize_t)sizeof(said) - 1 && strcmp(said, UPGRADE_TRIAL_READ) == 0;
}

static int
start_check(struct upgrade *u)
{
	sigset_t all, old;
	pid_t pid;
	int rc = make_trial(u);

	if (rc < 0)
		return rc;
	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, &old);
	pid = fork();
	if (pid == 0)
		child_check(u);
	sigprocmask(SIG_SETMASK, &old, NULL);
	if (pid < 0) {
		rc = -errno;
		fd_close(&u->trial_fd);
		return rc;
	}
	u->check = pid;
	return 0;
}

static void
on_checked(struct upgrade *u, int status)
{
	bool was_read = trial_was_read(u);

	u->check = 0;
	fd_close(&u->trial_fd);
	if (u->state != UPGRADE_CHECKING)
		return;
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0 && !was_read) {
		upgrade_failed(
		    u, "`%s check` did not say that it can read our state: it is no proxy of this kind", u->path);
	} else if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
		upgrade_enter(u, UPGRADE_QUIET, "checked");
		rpc_server_hold(u->conf.server, true);
	} else if (WIFEXITED(status) && WEXITSTATUS(status) == 127) {
		upgrade_failed(u, "%s cannot be executed", u->path);
	} else {
		upgrade_failed(u, "`%s check` ended with %s %d", u->path, WIFEXITED(status) ? "status" : "signal",
		    WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status));
	}
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
	rc = u->goes_back ? 0 : back_offer(u->program_fd, state_fd, true);
	log_flush();
	if (rc == 0) {
		execv(u->path, u->args.argv);
		rc = -errno;
	}
	(void)!back_offer(u->program_fd, state_fd, false);
	keep = false;
	state_each_fd(s, keep_fd, &keep);
	sigprocmask(SIG_SETMASK, &old, NULL);
	unsetenv(UPGRADE_ENV_STATE);
	return rc;
}

static void
upgrade_exec(struct upgrade *u)
{
	const struct gather_of what = gather_what(u, false);
	struct state s = { 0 };
	int fd = -1, rc;

	/* their answers leave now, or have left */
	sessions_end_asked(u->conf.sessions, END_STOPPED);
	rc = gather(&what, &s, &fd);
	if (rc == 0) {
		log_info("upgrade",
		    "exec=%s sessions=%zu pairs=%zu listeners=%zu old_workers=%zu count=%" PRIu64 " ms=%" PRId64,
		    u->path, s.n_sessions, s.n_pairs, s.n_listeners, s.n_left, s.upgrades,
		    clock_now_ms() - u->began_ms);
		rc = exec_anew(u, &s, fd);
	}
	fd_close(&fd);
	gather_fini(&s);
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
		upgrade_failed(u, "no check of the new program: %s", strerror(-rc));
	return 0;
}

/* Our workers do not serve: nobody does. The old program's did. */
static void
upgrade_back(struct upgrade *u, const char *why)
{
	if (setenv(BACK_ENV_WHY, why, 1) < 0)
		return;
	log_error("upgrade", "what=\"back to the old program\" why=\"%s\"", why);
	snprintf(u->path, sizeof(u->path), "/proc/self/fd/%d", u->old_fd);
	u->goes_back = true;
	if (upgrade_begin(u) < 0)
		BUG_ON(true); /* none can be under way while we start */
}

void
upgrade_served(struct upgrade *u)
{
	if (!u->goes_back)
		fd_close(&u->old_fd);
}

void
upgrade_tick(struct upgrade *u)
{
	bool is_late = clock_now_ms() - u->made_ms >= SERVE_MS;

	if (u->old_fd < 0 || u->state != UPGRADE_IDLE || u->goes_back)
		return;
	if (is_late || slots_past(u->conf.slots)->restarts - u->made_restarts >= SERVE_TRIES)
		upgrade_back(u, is_late ? "none of its workers served in time" : "its workers end before they serve");
}

bool
upgrade_goes_back(const struct upgrade *u)
{
	return u->goes_back;
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

/* Workers of a successor that had to give up: nobody knows them. */
static void
find_strays(struct upgrade *u)
{
	char name[64];
	FILE *f;
	int pid;

	snprintf(name, sizeof(name), "/proc/self/task/%d/children", (int)getpid());
	f = fopen(name, "re");
	if (!f)
		return;
	while (u->n_left < GATHER_LEFT_MAX && fscanf(f, "%d", &pid) == 1) {
		bool is_known = slots_has_pid(u->conf.slots, (pid_t)pid);

		for (size_t i = 0; i < u->n_left; i++)
			is_known |= u->left[i] == (pid_t)pid;
		if (!is_known)
			u->left[u->n_left++] = (pid_t)pid;
	}
	fclose(f);
}

int
upgrade_new(const struct upgrade_conf *conf, const struct state *inherited, int old_fd, struct upgrade **ret)
{
	struct upgrade *u = calloc(1, sizeof(*u));
	int rc = u ? 0 : -ENOMEM;

	if (rc == 0) {
		u->conf = *conf;
		u->trial_fd = u->program_fd = -1;
		u->old_fd = old_fd;
		u->made_ms = clock_now_ms();
		u->made_restarts = slots_past(conf->slots)->restarts;
		u->timer = event_new(conf->base, -1, EV_PERSIST, on_timer, u);
		rc = u->timer ? find_path(u) : -ENOMEM;
	}
	if (rc == 0)
		rc = back_args(&u->args);
	if (rc == 0)
		rc = u->program_fd = back_open();
	if (rc < 0) {
		upgrade_free(u);
		return rc;
	}
	if (inherited) {
		u->count = inherited->upgrades;
		u->n_left = inherited->n_left < GATHER_LEFT_MAX ? inherited->n_left : GATHER_LEFT_MAX;
		memcpy(u->left, inherited->left, u->n_left * sizeof(u->left[0]));
		if (upgrade_came_back())
			find_strays(u);
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
	fd_close(&u->trial_fd);
	fd_close(&u->program_fd);
	fd_close(&u->old_fd);
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
