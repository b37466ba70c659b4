/* channel.c - the messages between this worker and its master, docs/ipc.md
 *
 * Always true:
 *  1. What the master may send when is one table; anything else, a message that
 *     does not parse, or a descriptor where none belongs ends this worker: only
 *     our own master is at the other end, so one of us is broken.
 *  2. The channel is read only while a descriptor is free for what may come: near the limit the
 *     reserve is given up for the receive and taken again before the next one; below it there is room in any
 *     case. At the limit the kernel would drop the socket without an error. A datagram has one descriptor at most.
 *  3. A message stays queued until it was sent whole. EAGAIN, EMFILE and
 *     ETOOMANYREFS mean "later": by the clock, as writable and "has room for a
 *     descriptor" are not the same and waiting for the first could spin.
 *  4. The end of the channel means that the master is gone: pairs live on.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/uio.h>
#include <unistd.h>

#include "hyper/base/bug.h"
#include "hyper/base/clock.h"
#include "hyper/base/fd.h"
#include "hyper/base/log.h"
#include "proxy/worker/worker.h"

#define SEND_PAUSE_MS  5
#define RECV_PAUSE_MS  100
#define FD_MARGIN      8 /* descriptors that nobody told channel_saw_fd() of: the log's */
#define LAST_FLUSH_MS  1000
#define TIMEOUT_MAX_MS INT64_C(31536000000) /* a year; keeps sums of times from overflowing */

static void
ready_make(struct worker *w, struct out *o, struct chan_msg *ret, int *ret_fd)
{
	(void)w;
	(void)o;
	(void)ret_fd;
	ret->type = CHAN_READY;
	ret->pid = (uint32_t)getpid();
}

static void
drained_make(struct worker *w, struct out *o, struct chan_msg *ret, int *ret_fd)
{
	(void)w;
	(void)o;
	(void)ret_fd;
	ret->type = CHAN_DRAINED;
}

static const struct out_kind ready_kind = { ready_make, NULL }, drained_kind = { drained_make, NULL };

int
channel_init(struct worker *w)
{
	TAILQ_INIT(&w->outbox);
	w->chan_item.tag = ITEM_CHANNEL;
	w->reserve_fd = fcntl(w->epoll_fd, F_DUPFD_CLOEXEC, 0);
	if (w->reserve_fd < 0)
		return -errno;
	/* What is open now has the lowest numbers, the reserve the highest of them. */
	channel_saw_fd(w, w->reserve_fd);
	w->ready_out.kind = &ready_kind;
	w->drained_out.kind = &drained_kind;
	channel_put(w, &w->ready_out);
	return worker_watch(w, w->chan_fd, EPOLLIN, &w->chan_item);
}

/* --- to the master --------------------------------------------------------- */

/* Its first message was sent, or nobody will ever read it. Who has more to say keeps his place. */
static void
out_sent(struct worker *w, struct out *o)
{
	TAILQ_REMOVE(&w->outbox, o, link);
	o->queued = false;
	if (!o->kind->sent || !o->kind->sent(w, o))
		return;
	o->queued = true;
	TAILQ_INSERT_HEAD(&w->outbox, o, link);
}

void
channel_put(struct worker *w, struct out *o)
{
	if (o->queued)
		return;
	o->queued = true;
	TAILQ_INSERT_TAIL(&w->outbox, o, link);
	while (w->chan_fd < 0 && !TAILQ_EMPTY(&w->outbox))
		out_sent(w, TAILQ_FIRST(&w->outbox));
}

void
channel_cancel(struct worker *w, struct out *o)
{
	if (!o->queued)
		return;
	TAILQ_REMOVE(&w->outbox, o, link);
	o->queued = false;
}

static void
channel_lost(struct worker *w, const char *why)
{
	struct out *o;

	worker_unwatch(w, w->chan_fd);
	fd_close(&w->chan_fd);
	while ((o = TAILQ_FIRST(&w->outbox)))
		out_sent(w, o);
	if (w->state == WRK_DONE)
		return;
	log_warn("master_gone", "why=%s pairs=%zu", why, w->pairs.n);
	/* First of all: while somebody holds the listeners no new master can bind. */
	worker_close_listeners(w);
	worker_enter(w, WRK_ORPHANED, why);
	if (w->relay)
		relay_orphan(w->relay);
	conns_drop_all(w, END_STOPPED);
}

/* What the first of the outbox have to say, one message each, as one datagram. How many they are, and who, or -errno. */
static int
send_first(struct worker *w, struct out *ret_outs[CHAN_DATAGRAM_MSGS])
{
	uint8_t buf[CHAN_DATAGRAM_MAX];
	struct iovec iov = { .iov_base = buf };
	int fds[CHAN_DATAGRAM_MSGS] = { -1 }, n = 0, len, err;
	size_t n_fds = 0;
	struct out *o;

	TAILQ_FOREACH (o, &w->outbox, link) {
		struct chan_msg msg = { .gen = w->gen };
		int fd = -1;

		o->kind->make(w, o, &msg, &fd);
		len = chan_pack(&msg, buf + iov.iov_len);
		BUG_ON(len < 0);
		if (msg.type == CHAN_ARRIVED)
			explicit_bzero(msg.token, sizeof(msg.token));
		iov.iov_len += (size_t)len;
		if (fd >= 0)
			fds[n_fds++] = fd;
		ret_outs[n++] = o;
		if (n == CHAN_DATAGRAM_MSGS)
			break;
	}
	err = fd_send_many(w->chan_fd, &iov, 1, fds, n_fds);
	if (n_fds > 0)
		explicit_bzero(buf, iov.iov_len); /* tokens */
	return err < 0 ? err : n;
}

void
channel_flush(struct worker *w)
{
	static struct log_limit limit;
	struct out *sent[CHAN_DATAGRAM_MSGS];
	int n;

	if (w->now_ms < w->send_after_ms)
		return;
	while (!TAILQ_EMPTY(&w->outbox)) {
		n = send_first(w, sent);
		if (n == -EAGAIN || n == -EMFILE || n == -ENFILE || n == -ETOOMANYREFS || n == -ENOBUFS ||
		    n == -ENOMEM) {
			log_limited(&limit, LOG_LVL_DEBUG, "channel", "what=send err=\"%s\"", strerror(-n));
			w->send_after_ms = w->now_ms + SEND_PAUSE_MS;
			return;
		}
		if (n < 0) {
			channel_lost(w, "send");
			return;
		}
		/* from the last to the first: those that have more to say keep their order */
		while (n > 0)
			out_sent(w, sent[--n]);
	}
}

void
channel_flush_last(struct worker *w)
{
	int64_t until = clock_now_ms() + LAST_FLUSH_MS;

	while (w->chan_fd >= 0 && !TAILQ_EMPTY(&w->outbox) && w->now_ms < until) {
		channel_flush(w);
		if (!TAILQ_EMPTY(&w->outbox))
			poll(NULL, 0, SEND_PAUSE_MS);
		w->now_ms = clock_now_ms();
	}
}

bool
channel_is_blocked(const struct worker *w)
{
	return w->n_waiting >= WORKER_WAIT_MAX || w->now_ms < w->send_after_ms;
}

int64_t
channel_next_ms(const struct worker *w)
{
	int64_t next = w->recv_after_ms > 0 ? w->recv_after_ms : INT64_MAX;

	if (!TAILQ_EMPTY(&w->outbox) && w->send_after_ms < next)
		next = w->send_after_ms;
	return next;
}

/* --- from the master ------------------------------------------------------- */

static int64_t
timeout_ms(uint64_t ms)
{
	return (int64_t)(ms < TIMEOUT_MAX_MS ? ms : TIMEOUT_MAX_MS);
}

static int
on_settings(struct worker *w, const struct chan_msg *m, int *fd, bool lost)
{
	struct relay_conf conf = {
		.epoll_fd = w->epoll_fd,
		.pipe_size = m->settings.pipe_size,
		.max_pipes = WORKER_IDLE_PIPES,
		.copy_mode = m->settings.copy_mode,
		.copy_small = m->settings.copy_small,
		.idle_timeout_ms = timeout_ms(m->settings.idle_timeout_ms),
		.half_closed_timeout_ms = timeout_ms(m->settings.half_closed_timeout_ms),
		.keep = { .idle_s = (int)m->settings.keepalive_idle_s,
		    .interval_s = (int)m->settings.keepalive_interval_s,
		    .count = (int)m->settings.keepalive_count,
		    .user_timeout_ms = (int)m->settings.user_timeout_ms },
		.ledger = lent_ledger(w),
		.holds_seats = true,
		.on_want = lent_on_want,
		.on_pipe_gone = lent_on_pipe_gone,
	};
	const uint64_t limits[RATES_WINDOWS] = {
		[RATES_SECOND] = m->settings.per_second,
		[RATES_MINUTE] = m->settings.per_minute,
		[RATES_HOUR] = m->settings.per_hour,
	};
	char name[32];

	(void)fd;
	(void)lost;
	w->settings = m->settings;
	w->settings.accept_timeout_ms = (uint64_t)timeout_ms(m->settings.accept_timeout_ms);
	w->settings.barred_ms = (uint64_t)timeout_ms(m->settings.barred_ms);
	rates_set(&w->rates, limits);
	conns_on_settings(w);
	worker_name(w, name);
	log_inherit(name, &(struct log_shared){ .level = (enum log_level)m->settings.log_level,
			      .format = (enum log_format)m->settings.log_format,
			      .ip = (enum log_ip)m->settings.log_ip,
			      .to = (enum log_to)m->settings.log_to });
	for (size_t i = 0; i < w->n_listeners; i++)
		if (w->listeners[i].fd >= 0)
			relay_tune_listener(w->listeners[i].fd, &conf.keep);
	if (w->state != WRK_STARTING) {
		relay_apply(w->relay, &conf);
		return 0;
	}
	w->relay = relay_new(&conf, pairs_on_end, w);
	if (!w->relay)
		return -ENOMEM;
	worker_enter(w, WRK_SERVING, "settings");
	return 0;
}

static int
on_parked(struct worker *w, const struct chan_msg *m, int *fd, bool lost)
{
	(void)fd;
	(void)lost;
	conn_on_parked(w, m->conn);
	return 0;
}

static int
on_pair(struct worker *w, const struct chan_msg *m, int *fd, bool lost)
{
	int first_fd = *fd;

	(void)lost;
	*fd = -1;
	return pairs_join(w, m, first_fd);
}

static int
on_refused(struct worker *w, const struct chan_msg *m, int *fd, bool lost)
{
	(void)fd;
	(void)lost;
	conn_on_refused(w, m->conn, m->reason);
	return 0;
}

static int
on_drain(struct worker *w, const struct chan_msg *m, int *fd, bool lost)
{
	(void)m;
	(void)fd;
	(void)lost;
	worker_close_listeners(w);
	worker_enter(w, WRK_DRAINING, "drain");
	return 0;
}

static int
on_stop(struct worker *w, const struct chan_msg *m, int *fd, bool lost)
{
	(void)m;
	(void)fd;
	(void)lost;
	worker_enter(w, WRK_DONE, "stop");
	return 0;
}

static int
on_log(struct worker *w, const struct chan_msg *m, int *fd, bool lost)
{
	int log_fd = *fd, rc = -EMFILE;

	(void)w;
	(void)m;
	*fd = -1;
	if (!lost)
		rc = log_take(log_fd);
	if (rc < 0)
		log_warn("reopen", "err=\"%s\" why=\"the old log is written on\"", strerror(-rc));
	return 0;
}

static int
on_pipe(struct worker *w, const struct chan_msg *m, int *fd, bool lost)
{
	int pipe_fd = *fd;

	*fd = -1;
	return lent_on_pipe(w, m->pipe, pipe_fd, lost);
}

static int
on_nopipe(struct worker *w, const struct chan_msg *m, int *fd, bool lost)
{
	(void)m;
	(void)fd;
	(void)lost;
	lent_on_nopipe(w);
	return 0;
}

static int
on_adopt(struct worker *w, const struct chan_msg *m, int *fd, bool lost)
{
	int part_fd = *fd;

	*fd = -1;
	return pairs_adopt(w, m, part_fd, lost);
}

static int
on_resume(struct worker *w, const struct chan_msg *m, int *fd, bool lost)
{
	(void)fd;
	(void)lost;
	return pairs_resume(w, m);
}

static int
on_move(struct worker *w, const struct chan_msg *m, int *fd, bool lost)
{
	(void)fd;
	(void)lost;
	return pairs_move(w, m);
}

static int
on_end(struct worker *w, const struct chan_msg *m, int *fd, bool lost)
{
	(void)fd;
	(void)lost;
	return pairs_end(w, m);
}

static int
on_rate(struct worker *w, const struct chan_msg *m, int *fd, bool lost)
{
	(void)fd;
	(void)lost;
	pairs_rate(w, m->asker, m->rate);
	return 0;
}

/* What may come when (docs/ipc.md has the same table). */
static const struct chan_rule {
	enum chan_type type;
	unsigned in; /* states of the worker */
	int (*serve)(struct worker *, const struct chan_msg *, int *fd, bool lost);
} rules[] = {
	{ CHAN_SETTINGS, WRK_BIT(WRK_STARTING) | WRK_BIT(WRK_SERVING) | WRK_BIT(WRK_DRAINING) | WRK_BIT(WRK_DRAINED),
	    on_settings },
	{ CHAN_PARKED, WRK_BIT(WRK_SERVING) | WRK_BIT(WRK_DRAINING) | WRK_BIT(WRK_DRAINED), on_parked },
	{ CHAN_PAIR, WRK_BIT(WRK_SERVING) | WRK_BIT(WRK_DRAINING) | WRK_BIT(WRK_DRAINED), on_pair },
	{ CHAN_REFUSED, WRK_BIT(WRK_SERVING) | WRK_BIT(WRK_DRAINING) | WRK_BIT(WRK_DRAINED), on_refused },
	{ CHAN_DRAIN, WRK_BIT(WRK_STARTING) | WRK_BIT(WRK_SERVING), on_drain },
	{ CHAN_STOP, WRK_BIT(WRK_STARTING) | WRK_BIT(WRK_SERVING) | WRK_BIT(WRK_DRAINING) | WRK_BIT(WRK_DRAINED),
	    on_stop },
	{ CHAN_LOG, WRK_BIT(WRK_STARTING) | WRK_BIT(WRK_SERVING) | WRK_BIT(WRK_DRAINING) | WRK_BIT(WRK_DRAINED),
	    on_log },
	{ CHAN_PIPE, WRK_BIT(WRK_SERVING) | WRK_BIT(WRK_DRAINING) | WRK_BIT(WRK_DRAINED), on_pipe },
	{ CHAN_NOPIPE, WRK_BIT(WRK_SERVING) | WRK_BIT(WRK_DRAINING) | WRK_BIT(WRK_DRAINED), on_nopipe },
	{ CHAN_ADOPT, WRK_BIT(WRK_SERVING) | WRK_BIT(WRK_DRAINING), on_adopt },
	{ CHAN_RESUME, WRK_BIT(WRK_SERVING) | WRK_BIT(WRK_DRAINING), on_resume },
	{ CHAN_MOVE, WRK_BIT(WRK_SERVING) | WRK_BIT(WRK_DRAINING) | WRK_BIT(WRK_DRAINED), on_move },
	{ CHAN_END, WRK_BIT(WRK_SERVING) | WRK_BIT(WRK_DRAINING) | WRK_BIT(WRK_DRAINED), on_end },
	{ CHAN_RATE, WRK_BIT(WRK_SERVING) | WRK_BIT(WRK_DRAINING) | WRK_BIT(WRK_DRAINED), on_rate },
};

/* 0, or -errno: nothing sensible can follow. *fd is closed by the caller unless it was taken. */
static int
dispatch(struct worker *w, const struct chan_msg *m, int *fd, bool lost)
{
	if (m->gen != w->gen) {
		log_debug("late", "msg=%s gen=%u", chan_type_name(m->type), m->gen);
		return 0;
	}
	for (size_t i = 0; i < ARRAY_LEN(rules); i++) {
		if (rules[i].type == m->type && (rules[i].in & WRK_BIT(w->state)))
			return rules[i].serve(w, m, fd, lost);
	}
	return -EPROTO;
}

/* Room for the descriptor that may come with the next datagram. */
static bool
reserve_is_there(struct worker *w)
{
	static struct log_limit limit;

	if (w->reserve_fd < 0)
		w->reserve_fd = fcntl(w->epoll_fd, F_DUPFD_CLOEXEC, 0);
	if (w->reserve_fd >= 0)
		return true;
	log_limited(
	    &limit, LOG_LVL_WARN, "channel", "what=receive err=\"%s\" pause_ms=%d", strerror(errno), RECV_PAUSE_MS);
	worker_unwatch(w, w->chan_fd);
	w->recv_after_ms = w->now_ms + RECV_PAUSE_MS;
	return false;
}

void
channel_saw_fd(struct worker *w, int fd)
{
	if (fd > w->top_fd)
		w->top_fd = fd;
}

/* The kernel gives the lowest number that is free, and none was ever above top_fd. (The limit is looked at each time: an
 * operator may change that of a running process.) */
static bool
room_is_sure(const struct worker *w)
{
	struct rlimit rl;

	return getrlimit(RLIMIT_NOFILE, &rl) == 0 && rl.rlim_cur > (rlim_t)w->top_fd + FD_MARGIN;
}

/* Serves the messages of one datagram. 0 or -errno. */
static int
dispatch_all(struct worker *w, const struct chan_msg *m, int n, int *fd, bool lost)
{
	int r = 0;

	for (int i = 0; i < n && r == 0 && w->state != WRK_DONE; i++) {
		int none = -1;
		bool has_fd = chan_has_fd(m[i].type);

		r = dispatch(w, &m[i], has_fd ? fd : &none, has_fd && lost);
		if (r < 0)
			log_error("channel", "what=\"not permitted now or not possible\" msg=%s state=%d err=\"%s\"",
			    chan_type_name(m[i].type), w->state, strerror(-r));
	}
	return r;
}

/* The number of messages of one datagram, 0: nothing there; -errno: nothing sensible can follow. */
static int
receive_some(struct worker *w)
{
	uint8_t buf[CHAN_DATAGRAM_MAX];
	struct chan_msg m[CHAN_DATAGRAM_MSGS];
	bool lost = false;
	size_t wanted = 0;
	int fd, n, r = 0;
	ssize_t len;

	if (!room_is_sure(w))
		fd_close(&w->reserve_fd);
	len = fd_recv(w->chan_fd, buf, sizeof(buf), &fd, &lost);
	if (len == -EAGAIN)
		return 0;
	if (len == 0 || (len < 0 && len != -EPROTO)) {
		channel_lost(w, "end");
		return 0;
	}
	channel_saw_fd(w, fd);
	n = len < 0 ? -EPROTO : chan_unpack_all(buf, (size_t)len, m, &wanted);
	if (n < 0 || wanted != (size_t)(fd >= 0 || lost)) {
		log_error("channel", "what=\"malformed message from the master\" bytes=%zd", len);
		r = -EPROTO;
	} else {
		r = dispatch_all(w, m, n, &fd, lost);
	}
	fd_close(&fd);
	return r < 0 ? r : n;
}

int
channel_on_event(struct worker *w)
{
	int left = WORKER_TURN, r;

	do {
		if (!reserve_is_there(w))
			return 0;
		r = receive_some(w);
		left -= r;
		/* one that is not full is the last one most of the time; should it not be, epoll says so again */
	} while (r == CHAN_DATAGRAM_MSGS && left > 0 && w->state != WRK_DONE && w->chan_fd >= 0);
	return r < 0 ? r : 0;
}

void
channel_tick(struct worker *w)
{
	if (w->recv_after_ms == 0 || w->now_ms < w->recv_after_ms || w->chan_fd < 0)
		return;
	w->recv_after_ms = 0;
	if (worker_watch(w, w->chan_fd, EPOLLIN, &w->chan_item) < 0)
		w->recv_after_ms = w->now_ms + RECV_PAUSE_MS;
}

void
channel_fini(struct worker *w)
{
	struct out *o;

	while ((o = TAILQ_FIRST(&w->outbox)))
		out_sent(w, o);
	fd_close(&w->reserve_fd);
	fd_close(&w->chan_fd);
}
