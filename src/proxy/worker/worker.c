/* worker.c - one worker of the proxy: accepts, authenticates by the table, splices
 *
 *      close what is not mine > name > limits > check descriptors > map the table > READY > loop
 *
 * Exec'ed fresh by the master (`proxy worker SLOT GEN`) with the descriptors of
 * worker_abi.h, so it has no key, no settings and no memory of the master's.
 *
 * Always true:
 *  1. The loop never waits anywhere but in epoll_wait(), and at most a second:
 *     once a second it must show the master that it lives.
 *  2. It accepts only while it SERVEs, its messages get through, it has
 *     descriptors and room for pairs; otherwise the listeners are out of epoll
 *     and the other workers take what comes.
 *  3. Signals mean nothing to it: a Ctrl-C in a terminal reaches the whole
 *     process group, and only the master decides what becomes of a pair.
 *
 * Not here: who may meet whom, expiry, parked sockets: the master's.
 */
#include "hyper/proxy/programs.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "hyper/base/bug.h"
#include "hyper/base/clock.h"
#include "hyper/base/daemon.h"
#include "hyper/base/fd.h"
#include "hyper/base/log.h"
#include "proxy/worker/worker.h"

#define HEARTBEAT_MS 1000
#define EVENTS       64

static const struct {
	const char *name;
	unsigned to;
} state_tab[] = {
#define X(n, to) { #n, to },
	WORKER_STATES(X)
#undef X
};

_Static_assert(END_REASON_MAX <= ARRAY_LEN(((struct worker_stats *)0)->refused), "docs/shm.md");

/* The only place that writes w->state. */
void
worker_enter(struct worker *w, enum worker_state to, const char *why)
{
	BUG_ON(!(state_tab[w->state].to & WRK_BIT(to)));
	log_info("state", "%s>%s why=%s", state_tab[w->state].name, state_tab[to].name, why);
	w->state = to;
}

void
worker_name(const struct worker *w, char ret[32])
{
	snprintf(ret, 32, "proxy-worker-%u", w->slot);
}

int
worker_watch(struct worker *w, int fd, uint32_t events, struct item *item)
{
	struct epoll_event ev = { .events = events, .data.ptr = item };

	return epoll_ctl(w->epoll_fd, EPOLL_CTL_ADD, fd, &ev) < 0 ? -errno : 0;
}

void
worker_unwatch(struct worker *w, int fd)
{
	if (fd >= 0)
		epoll_ctl(w->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
}

/* --- listeners ------------------------------------------------------------- */

static void
listener_arm(struct worker *w, struct listener *l, bool on)
{
	if (l->armed == on || l->fd < 0)
		return;
	/* EPOLLEXCLUSIVE knows no MOD: in or out. */
	if (on && worker_watch(w, l->fd, EPOLLIN | EPOLLEXCLUSIVE, &l->item) < 0)
		return;
	if (!on)
		worker_unwatch(w, l->fd);
	l->armed = on;
}

static bool
may_accept(const struct worker *w)
{
	return w->state == WRK_SERVING && !channel_is_blocked(w) && w->now_ms >= w->accept_after_ms &&
	       w->pairs.n < w->settings.max_pairs;
}

static void
listeners_update(struct worker *w)
{
	bool on = may_accept(w);

	for (size_t i = 0; i < w->n_listeners; i++)
		listener_arm(w, &w->listeners[i], on);
}

/* The kernel wakes the last one that was added: who is busy would get ever
 * more. Going to the other end of the queue from time to time evens it out. */
static void
listener_on_event(struct worker *w, struct listener *l)
{
	uint64_t before = w->accepted / WORKER_TURN;

	if (!l->armed)
		return; /* an event of the batch in which it was taken out */
	conns_accept(w, l);
	if (w->accepted / WORKER_TURN != before) {
		listener_arm(w, l, false);
		listener_arm(w, l, may_accept(w));
	}
}

/* For each connection the kernel wakes one worker (EPOLLEXCLUSIVE). Where that one dies before it accepts, or has no
 * descriptor to do so, nobody is woken again before the next connection: so each worker looks once a second. */
static void
listeners_look(struct worker *w)
{
	if (w->now_ms < w->look_after_ms || !may_accept(w))
		return;
	w->look_after_ms = w->now_ms + HEARTBEAT_MS;
	for (size_t i = 0; i < w->n_listeners; i++)
		listener_on_event(w, &w->listeners[i]);
}

void
worker_close_listeners(struct worker *w)
{
	for (size_t i = 0; i < w->n_listeners; i++) {
		listener_arm(w, &w->listeners[i], false);
		fd_close(&w->listeners[i].fd);
	}
}

static bool
fd_is_listener(int fd)
{
	int on = 0;
	socklen_t len = sizeof(on);

	return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &on, &len) == 0 && on;
}

static int
listeners_init(struct worker *w)
{
	for (int fd = WORKER_FD_LISTENER; fd <= WORKER_FD_LISTENER_MAX && fd_is_listener(fd); fd++) {
		int lowat = 1, r = fd_set_nonblock(fd);
		struct listener *l = &w->listeners[w->n_listeners++];

		if (r < 0)
			return r;
		*l = (struct listener){ .item.tag = ITEM_LISTENER, .fd = fd };
		/* An older program of ours set it for what it accepts, and an upgrade keeps the listener. */
		(void)!setsockopt(fd, SOL_SOCKET, SO_RCVLOWAT, &lowat, sizeof(lowat));
	}
	return w->n_listeners > 0 ? 0 : -ENOTSOCK;
}

/* --- the stats page -------------------------------------------------------- */

static int
stats_init(struct worker *w)
{
	struct stat st;
	void *map;

	if (fstat(WORKER_FD_STATS, &st) < 0)
		return -errno;
	if (st.st_size < (off_t)sizeof(*w->stats))
		return -EPROTO;
	map = mmap(NULL, sizeof(*w->stats), PROT_READ | PROT_WRITE, MAP_SHARED, WORKER_FD_STATS, 0);
	if (map == MAP_FAILED)
		return -errno;
	close_range(WORKER_FD_STATS, WORKER_FD_STATS, 0);
	w->stats = map;
	w->stats->version = 1;
	w->stats->slot = w->slot;
	w->stats->gen = w->gen;
	__atomic_store_n(
	    &w->stats->magic, WORKER_STATS_MAGIC, __ATOMIC_RELEASE); /* last: now the rest means something */
	return 0;
}

#define PUT(field, value) __atomic_store_n(&w->stats->field, (value), __ATOMIC_RELAXED)

static void
stats_put(struct worker *w)
{
	struct relay_counts c = { 0 };

	if (w->relay)
		c = relay_counts(w->relay);
	PUT(heartbeat_ns, (uint64_t)clock_now_ns());
	PUT(accepted, w->accepted);
	PUT(unauthenticated, w->n_fresh);
	PUT(waiting, w->n_waiting);
	PUT(pairs, w->pairs.n);
	PUT(pairs_total, w->pairs_total);
	PUT(bytes, c.bytes);
	PUT(accept_errors, w->accept_errors);
	PUT(pipes, c.pipes_used + c.pipes_idle);
	for (size_t i = 0; i < END_REASON_MAX; i++)
		PUT(refused[i], w->refused[i]);
}

/* --- start ----------------------------------------------------------------- */

/* Programs that the master starts inherit nothing but what worker_abi.h names;
 * who comes with more has a bug, and what came is not ours to keep. */
static void
close_others(void)
{
	int fd = WORKER_FD_LISTENER;

	while (fd <= WORKER_FD_LISTENER_MAX && fd_is_listener(fd))
		fd++;
	close_range((unsigned)fd, ~0u, 0);
	for (int i = WORKER_FD_CHANNEL; i < fd; i++)
		(void)!fd_set_cloexec(i, true);
}

static void
ignore_signals(void)
{
	static const int ignored[] = { SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2, SIGPIPE, SIGXFSZ };
	struct sigaction sa = { .sa_handler = SIG_IGN };
	sigset_t none;

	for (size_t i = 0; i < ARRAY_LEN(ignored); i++)
		sigaction(ignored[i], &sa, NULL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

static void
raise_limits(void)
{
	struct rlimit rl;

	if (getrlimit(RLIMIT_NOFILE, &rl) == 0 && rl.rlim_cur < rl.rlim_max) {
		rl.rlim_cur = rl.rlim_max;
		setrlimit(RLIMIT_NOFILE, &rl);
	}
}

static int
channel_check(void)
{
	int type = 0;
	socklen_t len = sizeof(type);

	if (getsockopt(WORKER_FD_CHANNEL, SOL_SOCKET, SO_TYPE, &type, &len) < 0)
		return -errno;
	return type == SOCK_SEQPACKET ? fd_set_nonblock(WORKER_FD_CHANNEL) : -EPROTOTYPE;
}

static int
worker_init(struct worker *w, const char **ret_what)
{
	int r;

	*ret_what = "epoll";
	w->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (w->epoll_fd < 0)
		return -errno;
	*ret_what = "listeners (7 to 14)";
	r = listeners_init(w);
	if (r < 0)
		return r;
	*ret_what = "token table (4)";
	r = toktab_map(WORKER_FD_TABLE, &w->table);
	if (r < 0)
		return r;
	close_range(WORKER_FD_TABLE, WORKER_FD_TABLE, 0);
	*ret_what = "stats page (5)";
	r = stats_init(w);
	if (r < 0)
		return r;
	*ret_what = "ledger (6)";
	r = lent_init(w);
	if (r == 0)
		r = pairs_init(w);
	if (r < 0)
		return r;
	*ret_what = "channel (3)";
	r = channel_check();
	if (r < 0)
		return r;
	w->chan_fd = WORKER_FD_CHANNEL;
	return channel_init(w);
}

/* All that lives is ended and reported first, then the memory goes. */
static void
worker_fini(struct worker *w)
{
	enum end_reason reason = w->state == WRK_DONE ? END_STOPPED : END_INTERNAL;

	conns_drop_all(w, reason);
	if (w->relay)
		relay_close_all(w->relay, reason);
	channel_flush_last(w);
	if (w->stats) {
		stats_put(w);
		munmap(w->stats, sizeof(*w->stats));
	}
	relay_free(w->relay);
	w->relay = NULL;
	conns_fini(w);
	channel_fini(w); /* what has not been said is freed by this */
	pairs_fini(w);
	lent_fini(w);
	worker_close_listeners(w);
	toktab_free(w->table);
	fd_close(&w->epoll_fd);
}

/* --- loop ------------------------------------------------------------------ */

/* Milliseconds that epoll may wait. */
static int
wait_ms(const struct worker *w, bool busy)
{
	int64_t next = w->now_ms + HEARTBEAT_MS, t;

	if (busy)
		return 0;
	t = conns_next_ms(w);
	next = t < next ? t : next;
	t = channel_next_ms(w);
	next = t < next ? t : next;
	t = w->relay ? relay_next_ms(w->relay) : INT64_MAX;
	next = t < next ? t : next;
	t = w->accept_after_ms;
	if (t > w->now_ms && t < next)
		next = t;
	return next <= w->now_ms ? 0 : (int)(next - w->now_ms);
}

static int
on_event(struct worker *w, const struct epoll_event *ev)
{
	struct item *item = ev->data.ptr;

	switch (item->tag) {
	case RELAY_TAG: relay_on_event(w->relay, ev->data.ptr, ev->events); return 0;
	case ITEM_CONN: conn_on_event(w, item); return 0;
	case ITEM_LISTENER: listener_on_event(w, (struct listener *)item); return 0;
	case ITEM_CHANNEL: return channel_on_event(w);
	default: BUG_ON(true);
	}
}

/* What a state leads to by itself. */
static void
state_tick(struct worker *w)
{
	bool idle = w->n_fresh == 0 && w->n_waiting == 0 && w->pairs.n == 0;

	if (w->state == WRK_DRAINING && idle) {
		worker_enter(w, WRK_DRAINED, "nothing left");
		channel_put(w, &w->drained_out);
	} else if (w->state == WRK_ORPHANED && idle) {
		worker_enter(w, WRK_DONE, "last pair ended");
	}
}

/* One turn. 0, or -errno: this worker is of no more use. */
static int
worker_turn(struct worker *w)
{
	struct epoll_event ev[EVENTS];
	bool busy = w->relay && relay_run(w->relay);
	int n, r = 0;

	conns_tick(w);
	channel_tick(w);
	listeners_look(w);
	state_tick(w);
	if (w->state == WRK_DONE)
		return 0;
	channel_flush(w);
	listeners_update(w);
	stats_put(w);
	log_flush();
	n = epoll_wait(w->epoll_fd, ev, EVENTS, wait_ms(w, busy));
	if (n < 0)
		return errno == EINTR ? 0 : -errno;
	w->now_ms = clock_now_ms();
	for (int i = 0; i < n && r == 0 && w->state != WRK_DONE; i++)
		r = on_event(w, &ev[i]);
	return r;
}

int
proxy_worker_run(unsigned slot, uint32_t gen)
{
	struct worker w = { .slot = slot, .gen = gen, .epoll_fd = -1, .chan_fd = -1, .reserve_fd = -1, .next_conn = 1 };
	const char *what = "";
	char name[32];
	int r;

	close_others();
	worker_name(&w, name);
	log_open(name, LOG_LVL_INFO);
	log_batch(true);
	prctl(PR_SET_NAME, name);
	ignore_signals();
	raise_limits();
	conns_init(&w);
	TAILQ_INIT(&w.outbox);
	w.now_ms = clock_now_ms();
	r = worker_init(&w, &what);
	if (r < 0)
		log_error("start",
		    "what=\"%s\" err=\"%s\" help=\"`proxy worker` is started by `proxy run public` only\"", what,
		    strerror(-r));
	while (r == 0 && w.state != WRK_DONE)
		r = worker_turn(&w);
	worker_fini(&w);
	log_info("exit", "code=%d", r == 0 ? EXIT_OK : EXIT_FAIL);
	return r == 0 ? EXIT_OK : EXIT_FAIL;
}
