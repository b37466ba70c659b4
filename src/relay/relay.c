/* relay.c - moves bytes between two joined sockets until both directions ended
 *
 *        peer a  --fill-->  [carrier ab]  --drain-->  peer b
 *        peer a  <--drain-- [carrier ba]  <--fill--   peer b
 *
 * Always true between two events:
 *  1. A direction has a carrier only while bytes are in it: an idle pair costs
 *     two sockets and this struct, no pipe and no buffer.
 *  2. A direction is read only while its carrier is empty. A stalled reader so
 *     stops its own writer, by TCP's window, after one carrier of bytes.
 *  3. The end of a stream is passed on with shutdown(SHUT_WR) only after its
 *     carrier is empty, and the other direction goes on, for hours if need be.
 *  4. A reset is passed on as a reset, after what came before it was passed on
 *     as far as the other side takes it at once. Nothing that was broken, or
 *     stopped by us, ever looks like a clean end; nor does what this process
 *     leaves behind when it is killed: its sockets linger for no time, so the
 *     kernel resets them.
 *  5. A pair that is GONE is in neither epoll nor the run queue; its memory
 *     waits for the next relay_run(), because events of the same batch may
 *     still name it.
 *  6. Each pair ends with exactly one call of on_end.
 *
 * Events only note facts: readable, writable, broken. Sockets are armed once,
 * edge-triggered, and a fact is taken back only by EAGAIN; so EPOLLHUP and
 * EPOLLRDHUP, which may come together with the last data, are never believed
 * before a read returned 0. pair_turn() alone decides what moves.
 *
 * Other processes may hold duplicates of our sockets (the master does, for a
 * moment). Closing then neither removes a socket from epoll nor sends anything:
 * so EPOLL_CTL_DEL, shutdown() and connect(AF_UNSPEC), which act on the socket.
 *
 * Not here: who may meet whom (the broker), deadlines before pairing (worker).
 */
#include "hyper/relay/relay.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/queue.h>
#include <sys/socket.h>

#include "hyper/base/bug.h"
#include "hyper/base/clock.h"
#include "hyper/base/fd.h"
#include "hyper/base/log.h"
#include "relay/carrier.h"

#define TURN_FILLS 8  /* of one direction in one turn; then it is the others' turn */
#define RUN_PAIRS  32 /* of the run queue in one call; then it is the turn of the caller's other work */

#define BIT(s) (1u << (s))

/*            .--eof of a--> ONLY_BA --eof of b--.
 *   BOTH ----+                                  +--> NONE --closed--> GONE
 *            `--eof of b--> ONLY_AB --eof of a--'                       ^
 *     `--------------------- reset, stop, failure ---------------------'
 * The name says which direction is open. NONE lasts until the end of the turn. */
#define PAIR_STATES(X)                                                  \
	X(BOTH, BIT(PAIR_ONLY_AB) | BIT(PAIR_ONLY_BA) | BIT(PAIR_GONE)) \
	X(ONLY_AB, BIT(PAIR_NONE) | BIT(PAIR_GONE))                     \
	X(ONLY_BA, BIT(PAIR_NONE) | BIT(PAIR_GONE))                     \
	X(NONE, BIT(PAIR_GONE))                                         \
	X(GONE, 0)

enum pair_state {
#define X(n, to) PAIR_##n,
	PAIR_STATES(X)
#undef X
};

static const struct {
	const char *name;
	unsigned to;
} pair_tab[] = {
#define X(n, to) { #n, to },
	PAIR_STATES(X)
#undef X
};

enum { A, B }; /* sides; also the directions that start there: A is ab, B is ba */

struct side {
	struct relay_item item; /* first: what epoll gives back */
	struct relay_pair *pair;
	int fd;
	bool readable, writable;
	bool broken; /* reset or dead; what it sent before is still passed on */
	bool urgent; /* splice(2) stops at TCP urgent data for ever (Linux 6.18): read it by copying */
};

struct relay_pair {
	TAILQ_ENTRY(relay_pair) all;
	TAILQ_ENTRY(relay_pair) run;
	enum pair_state state;
	bool queued; /* in the run queue */
	uint64_t id;
	int64_t start_ms;
	struct side side[2];
	struct carrier *carrier[2]; /* of a direction; NULL while no bytes are in flight */
	uint64_t bytes[2];
};
_Static_assert(offsetof(struct side, item) == 0, "relay_on_event() casts it back");

TAILQ_HEAD(pair_list, relay_pair);

struct relay {
	struct relay_conf conf;
	relay_on_end on_end;
	void *arg;
	struct carrier_pool pool;
	struct pair_list pairs; /* alive */
	struct pair_list runq;  /* alive, with work left over from their last turn */
	struct pair_list gone;  /* to be freed */
	size_t n_pairs;
	uint64_t bytes;
};

/* The only place that writes p->state. */
static void
pair_enter(struct relay_pair *p, enum pair_state to, const char *why)
{
	BUG_ON(!(pair_tab[p->state].to & BIT(to)));
	log_debug("relay", "pair=%llu %s>%s why=%s", (unsigned long long)p->id, pair_tab[p->state].name,
	    pair_tab[to].name, why);
	p->state = to;
}

static bool
dir_is_open(const struct relay_pair *p, int dir)
{
	return p->state == PAIR_BOTH || p->state == (dir == A ? PAIR_ONLY_AB : PAIR_ONLY_BA);
}

static void
runq_add(struct relay *r, struct relay_pair *p)
{
	if (p->queued)
		return;
	TAILQ_INSERT_TAIL(&r->runq, p, run);
	p->queued = true;
}

static void
runq_remove(struct relay *r, struct relay_pair *p)
{
	if (!p->queued)
		return;
	TAILQ_REMOVE(&r->runq, p, run);
	p->queued = false;
}

/* --- sockets --------------------------------------------------------------- */

static void
set_opt(int fd, int level, int name, int value)
{
	/* Only a socket that is no TCP socket refuses; tests may join such ones. */
	(void)!setsockopt(fd, level, name, &value, sizeof(value));
}

/* What close() does to bytes that wait, and to the peer: a reset, or what TCP does by itself. */
static void
set_linger(int fd, bool is_reset)
{
	struct linger linger = { .l_onoff = is_reset, .l_linger = 0 };

	(void)!setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
}

/* TCP_USER_TIMEOUT cannot tell a peer that vanished from one that answers probes but leaves its
 * window shut: a reader that takes nothing at all for 30 s is reset too
 * (30.5 s on Linux 6.18). One that reads slowly is not. */
static void
sock_tune(int fd)
{
	fd_notice_vanished(fd);
	set_opt(fd, IPPROTO_TCP, TCP_NODELAY, 1);
	set_opt(fd, SOL_SOCKET, SO_OOBINLINE, 1); /* an urgent byte keeps its place in the stream */
	set_opt(fd, SOL_SOCKET, SO_RCVLOWAT, 1);  /* it was 32 while the token was awaited */
	set_linger(fd, true);                     /* invariant 4: until pair_end() knows better */
}

/* Sends a reset now, also when other processes hold duplicates, and closes our descriptor. */
static void
sock_reset(int *fd)
{
	struct sockaddr sa = { .sa_family = AF_UNSPEC };

	if (connect(*fd, &sa, sizeof(sa)) < 0)
		set_linger(*fd, true);
	fd_close(fd);
}

/* Both streams have ended: what is still on its way arrives, then their ends. */
static void
sock_finish(int *fd)
{
	set_linger(*fd, false);
	fd_close(fd);
}

/* It stays readable, so that one more turn passes on what came before. */
static void
side_break(struct side *s)
{
	s->broken = true;
	s->readable = true;
}

/* --- the life of a pair ---------------------------------------------------- */

static void
pair_end(struct relay *r, struct relay_pair *p, enum end_reason reason, const char *why)
{
	struct relay_end end = { .id = p->id, .reason = reason, .bytes_ab = p->bytes[A], .bytes_ba = p->bytes[B] };

	pair_enter(p, PAIR_GONE, why);
	runq_remove(r, p);
	for (int i = A; i <= B; i++) {
		struct side *s = &p->side[i];

		epoll_ctl(r->conf.epoll_fd, EPOLL_CTL_DEL, s->fd, NULL);
		carrier_put(&r->pool, p->carrier[i]);
		p->carrier[i] = NULL;
		if (reason == END_CLOSED)
			sock_finish(&s->fd);
		else
			sock_reset(&s->fd);
	}
	TAILQ_REMOVE(&r->pairs, p, all);
	TAILQ_INSERT_TAIL(&r->gone, p, all);
	r->n_pairs--;
	end.ms = clock_now_ms() - p->start_ms;
	r->on_end(&end, r->arg);
}

static int
side_arm(struct relay *r, struct side *s)
{
	struct epoll_event ev = {
		.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLPRI | EPOLLET,
		.data.ptr = s,
	};

	return epoll_ctl(r->conf.epoll_fd, EPOLL_CTL_ADD, s->fd, &ev) < 0 ? -errno : 0;
}

int
relay_pair_new(struct relay *r, uint64_t id, int a_fd, int b_fd)
{
	struct relay_pair *p = calloc(1, sizeof(*p));
	int err;

	if (!p) {
		sock_reset(&a_fd);
		sock_reset(&b_fd);
		return -ENOMEM;
	}
	p->id = id;
	p->start_ms = clock_now_ms();
	p->side[A].fd = a_fd;
	p->side[B].fd = b_fd;
	for (int i = A; i <= B; i++) {
		p->side[i].item.tag = RELAY_TAG;
		p->side[i].pair = p;
		sock_tune(p->side[i].fd);
	}
	err = side_arm(r, &p->side[A]);
	if (err == 0) {
		err = side_arm(r, &p->side[B]);
		if (err < 0)
			epoll_ctl(r->conf.epoll_fd, EPOLL_CTL_DEL, a_fd, NULL);
	}
	if (err < 0) {
		sock_reset(&p->side[A].fd);
		sock_reset(&p->side[B].fd);
		free(p);
		return err;
	}
	TAILQ_INSERT_TAIL(&r->pairs, p, all);
	r->n_pairs++;
	return 0;
}

/* --- moving bytes ---------------------------------------------------------- */

static bool
is_our_failure(int err)
{
	return err == -ENOMEM || err == -ENOBUFS || err == -EINVAL || err == -EBADF || err == -EIO;
}

/* Writes once. 1: something moved or changed, look again; 0: nothing can move now; -errno: our failure. */
static int
dir_drain(struct relay *r, struct relay_pair *p, int dir)
{
	struct side *to = &p->side[!dir];
	ssize_t n;

	if (!to->writable)
		return 0;
	n = carrier_drain(p->carrier[dir], to->fd);
	if (n == -EAGAIN) {
		to->writable = false;
		return 0;
	}
	if (n < 0 && is_our_failure((int)n))
		return (int)n;
	if (n < 0) {
		side_break(to);
		return 0;
	}
	p->bytes[dir] += (uint64_t)n;
	r->bytes += (uint64_t)n;
	if (carrier_bytes(p->carrier[dir]) == 0) {
		/* Not kept for the next fill: the pool's last pipe is the warmest, and 1. holds without a timer. */
		carrier_put(&r->pool, p->carrier[dir]);
		p->carrier[dir] = NULL;
	}
	return 1;
}

/* The carrier is empty and the stream ended. */
static void
dir_eof(struct relay_pair *p, int dir)
{
	struct side *from = &p->side[dir], *to = &p->side[!dir];

	from->readable = false;
	if (from->broken)
		return; /* the error was taken by a write: what looks like an end is a reset */
	if (shutdown(to->fd, SHUT_WR) < 0) {
		side_break(to);
		return;
	}
	if (p->state == PAIR_BOTH)
		pair_enter(p, dir == A ? PAIR_ONLY_BA : PAIR_ONLY_AB, "eof");
	else
		pair_enter(p, PAIR_NONE, "eof");
}

/* Has splice(2) taken an urgent byte for the end of the stream? It does where a
 * FIN has come too (Linux 6.18), and the EPOLLPRI may still be on its way to us. */
static bool
is_no_end(struct side *from)
{
	char c;

	if (from->urgent || recv(from->fd, &c, 1, MSG_PEEK | MSG_DONTWAIT) <= 0)
		return false;
	from->urgent = true;
	return true;
}

/* Reads once into an empty carrier. Results as dir_drain(). */
static int
dir_fill(struct relay *r, struct relay_pair *p, int dir)
{
	struct side *from = &p->side[dir];
	struct carrier *c;
	ssize_t n;

	if (!from->readable)
		return 0;
	c = carrier_get(&r->pool, from->urgent);
	if (!c)
		return -ENOMEM;
	n = carrier_fill(c, from->fd);
	if (n > 0) {
		p->carrier[dir] = c;
		return 1;
	}
	carrier_put(&r->pool, c);
	if (n == 0 && is_no_end(from))
		return 1;
	if (n == 0) {
		dir_eof(p, dir);
		return 0;
	}
	if (n != -EAGAIN && is_our_failure((int)n))
		return (int)n;
	if (n != -EAGAIN)
		side_break(from);
	from->readable = false;
	return 0;
}

/* Moves one direction as far as it goes now or the budget permits. 1: budget
 * used up; 0: it waits for an event, or is over; -errno: our failure. */
static int
dir_turn(struct relay *r, struct relay_pair *p, int dir)
{
	int fills = 0, res = 1;

	while (res > 0 && dir_is_open(p, dir) && !p->side[!dir].broken) {
		if (carrier_bytes(p->carrier[dir]) > 0) {
			res = dir_drain(r, p, dir);
		} else {
			if (fills++ == TURN_FILLS)
				return 1;
			res = dir_fill(r, p, dir);
		}
	}
	return res < 0 ? res : 0;
}

static bool
pair_is_broken(const struct relay_pair *p)
{
	return p->side[A].broken || p->side[B].broken;
}

/* Everything that a pair can do now, within its budget. It may be GONE afterwards. */
static void
pair_turn(struct relay *r, struct relay_pair *p)
{
	bool was_broken = pair_is_broken(p);
	int ab = dir_turn(r, p, A);
	int ba = dir_turn(r, p, B);

	if (ab < 0 || ba < 0) {
		log_warn(
		    "pair_failed", "pair=%llu err=\"%s\"", (unsigned long long)p->id, strerror(ab < 0 ? -ab : -ba));
		pair_end(r, p, END_INTERNAL, "failure");
	} else if (pair_is_broken(p)) {
		/* One turn more after the news, so that what came before it is passed on. */
		if (was_broken && ab == 0 && ba == 0)
			pair_end(r, p, END_RESET, "reset");
		else
			runq_add(r, p);
	} else if (p->state == PAIR_NONE) {
		pair_end(r, p, END_CLOSED, "eof");
	} else if (ab > 0 || ba > 0) {
		runq_add(r, p);
	}
}

/* Taking the error from the socket here is what makes a reset known even while its direction is stalled. */
static bool
sock_has_error(int fd)
{
	int err = 0;
	socklen_t len = sizeof(err);

	return getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len) == 0 && err != 0;
}

void
relay_on_event(struct relay *r, struct relay_item *item, uint32_t events)
{
	struct side *s = (struct side *)item;
	struct relay_pair *p = s->pair;

	BUG_ON(item->tag != RELAY_TAG);
	if (p->state == PAIR_GONE)
		return; /* ended by an earlier event of this batch */
	if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR | EPOLLPRI))
		s->readable = true;
	if (events & (EPOLLOUT | EPOLLHUP | EPOLLERR))
		s->writable = true;
	if (events & EPOLLPRI)
		s->urgent = true;
	if ((events & EPOLLERR) && sock_has_error(s->fd))
		side_break(s);
	pair_turn(r, p);
}

static void
free_gone(struct relay *r)
{
	struct relay_pair *p;

	while ((p = TAILQ_FIRST(&r->gone))) {
		TAILQ_REMOVE(&r->gone, p, all);
		free(p);
	}
}

bool
relay_run(struct relay *r)
{
	struct relay_pair *p, *last = TAILQ_LAST(&r->runq, pair_list);
	size_t left = RUN_PAIRS;

	free_gone(r);
	/* Those that were queued before; who queues itself again comes after the next look at epoll. */
	while (last && left-- > 0 && (p = TAILQ_FIRST(&r->runq))) {
		runq_remove(r, p);
		pair_turn(r, p);
		if (p == last)
			break;
	}
	return !TAILQ_EMPTY(&r->runq);
}

/* --- the engine ------------------------------------------------------------ */

struct relay *
relay_new(const struct relay_conf *conf, relay_on_end on_end, void *arg)
{
	struct relay *r = calloc(1, sizeof(*r));

	if (!r)
		return NULL;
	r->conf = *conf;
	r->on_end = on_end;
	r->arg = arg;
	r->pool.max_idle = conf->max_pipes;
	r->pool.pipe_size = conf->pipe_size;
	r->pool.copy_mode = conf->copy_mode;
	TAILQ_INIT(&r->pairs);
	TAILQ_INIT(&r->runq);
	TAILQ_INIT(&r->gone);
	return r;
}

void
relay_close_all(struct relay *r, enum end_reason reason)
{
	struct relay_pair *p;

	BUG_ON(reason == END_CLOSED); /* only the peers can end a pair cleanly */
	while ((p = TAILQ_FIRST(&r->pairs)))
		pair_end(r, p, reason, "close_all");
}

void
relay_free(struct relay *r)
{
	if (!r)
		return;
	relay_close_all(r, END_STOPPED);
	free_gone(r);
	carrier_pool_fini(&r->pool);
	free(r);
}

/* --- not yet: pairs that outlive their process ------------------------------ */

int
relay_pair_adopt(struct relay *r, const struct relay_bundle *b)
{
	(void)r;
	for (int i = A; i <= B; i++) {
		int fd = b->fd[i], pipe_fd = b->pipe[i].fd;

		fd_close(&fd);
		fd_close(&pipe_fd);
	}
	return -ENOSYS;
}

int
relay_pair_release(struct relay *r, uint64_t id, struct relay_bundle *ret)
{
	(void)r;
	(void)id;
	(void)ret;
	return -ENOSYS;
}

int
relay_pipe_open(size_t size)
{
	(void)size;
	return -ENOSYS;
}

int
relay_pipe_give(struct relay *r, uint32_t no, int fd)
{
	(void)r;
	(void)no;
	fd_close(&fd);
	return -ENOSYS;
}

void
relay_pipe_none(struct relay *r)
{
	(void)r;
}

void
relay_orphan(struct relay *r)
{
	r->conf.makes_pipes = true;
}

struct relay_counts
relay_counts(const struct relay *r)
{
	return (struct relay_counts){
		.pairs = r->n_pairs,
		.pipes_used = r->pool.n_used,
		.pipes_idle = r->pool.n_idle,
		.bytes = r->bytes,
	};
}
