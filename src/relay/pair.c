/* pair.c - how a pair begins, is taken up from a dead engine, is handed on, and ends
 *
 * Always true:
 *  1. A pair that is GONE is in neither epoll nor a queue but Q_GONE; its memory
 *     waits for the next relay_run(), because events of the same batch may
 *     still name it.
 *  2. Each pair ends with exactly one call of on_end, or is released without one.
 *  3. The seat says OVER before its sockets are shut or reset, so that whoever
 *     finds it half way can finish.
 *  4. Nothing that was broken looks like a clean end to who takes it up: a socket
 *     in TCP_CLOSE was reset, unless an end was passed on to it and its own has come.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "hyper/base/bug.h"
#include "hyper/base/clock.h"
#include "hyper/base/fd.h"
#include "hyper/base/log.h"
#include "relay/engine.h"

#define EVENTS      (EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLPRI | EPOLLET)
#define DEAF_EVENTS (EPOLLOUT | EPOLLRDHUP | EPOLLET) /* with EPOLLPRI each segment would still wake us */

static const struct {
	const char *name;
	unsigned to;
} pair_tab[] = {
#define X(n, to) { #n, to },
	PAIR_STATES(X)
#undef X
};

void
pair_enter(struct relay_pair *p, enum pair_state to, const char *why)
{
	BUG_ON(!(pair_tab[p->state].to & BIT(to)));
	log_debug("relay", "pair=%llu %s>%s why=%s", (unsigned long long)p->id, pair_tab[p->state].name,
	    pair_tab[to].name, why);
	p->state = (uint8_t)to;
}

/* --- finding a pair by its id ----------------------------------------------- */

static struct relay_pair **
bucket_of(const struct relay *r, uint64_t id)
{
	return &r->buckets[(id * 0x9e3779b97f4a7c15u >> 32) & (r->n_buckets - 1)];
}

struct relay_pair *
pair_find(const struct relay *r, uint64_t id)
{
	struct relay_pair *p = *bucket_of(r, id);

	while (p && p->id != id)
		p = p->next;
	return p;
}

static void
index_add(struct relay *r, struct relay_pair *p)
{
	struct relay_pair **b = bucket_of(r, p->id);

	p->next = *b;
	*b = p;
}

static void
index_remove(struct relay *r, struct relay_pair *p)
{
	struct relay_pair **at = bucket_of(r, p->id);

	while (*at != p)
		at = &(*at)->next;
	*at = p->next;
}

/* Twice as many buckets; without memory for them, longer chains. */
static void
index_grow(struct relay *r)
{
	struct relay_pair **more = calloc(r->n_buckets * 2, sizeof(struct relay_pair *)), *p;

	if (!more)
		return;
	free(r->buckets);
	r->buckets = more;
	r->n_buckets *= 2;
	for (int i = 0; i < 2; i++)
		TAILQ_FOREACH (p, &r->alive[i], all)
			index_add(r, p);
}

/* --- the beginning ---------------------------------------------------------- */

static int
side_arm(struct relay *r, struct side *s)
{
	struct epoll_event ev = { .events = EVENTS, .data.ptr = s };

	return epoll_ctl(r->conf.epoll_fd, EPOLL_CTL_ADD, s->fd, &ev) < 0 ? -errno : 0;
}

int
side_listen(struct relay *r, struct side *s, bool on)
{
	struct epoll_event ev = { .events = on ? EVENTS : DEAF_EVENTS, .data.ptr = s };

	s->old_news = 0;
	if (epoll_ctl(r->conf.epoll_fd, EPOLL_CTL_MOD, s->fd, &ev) < 0)
		return -errno;
	s->deaf = !on;
	return 0;
}

static int
pair_arm(struct relay *r, struct relay_pair *p)
{
	int err = side_arm(r, &p->side[A]);

	if (err < 0)
		return err;
	err = side_arm(r, &p->side[B]);
	if (err < 0)
		epoll_ctl(r->conf.epoll_fd, EPOLL_CTL_DEL, p->side[A].fd, NULL);
	return err;
}

/* A pair in a seat, known to nobody yet. */
static int
pair_make(struct relay *r, const struct relay_bundle *b, struct relay_pair **ret)
{
	struct relay_pair *p;

	if (b->id == 0 || b->id >> 63 || pair_find(r, b->id))
		return -EINVAL;
	p = calloc(1, sizeof(*p));
	if (!p)
		return -ENOMEM;
	r->now_ms = clock_now_ms();
	p->seat = seat_take(r, b->id, b->bytes_ab, b->bytes_ba, b->flags);
	if (!p->seat) {
		free(p);
		return -ENOSPC;
	}
	p->id = b->id;
	p->start_ms = p->active_ms = r->now_ms;
	for (int i = A; i <= B; i++)
		p->side[i] = (struct side){ .item.tag = RELAY_TAG, .fd = b->fd[i], .index = (uint8_t)i };
	*ret = p;
	return 0;
}

static void
pair_publish(struct relay *r, struct relay_pair *p)
{
	p->is_half = p->state != PAIR_BOTH;
	TAILQ_INSERT_TAIL(&r->alive[p->is_half], p, all);
	vanished_note(r, p);
	index_add(r, p);
	if (++r->n_pairs > r->n_buckets)
		index_grow(r);
}

int
relay_pair_new(struct relay *r, uint64_t id, int a_fd, int b_fd)
{
	struct relay_bundle b = { .id = id, .fd = { a_fd, b_fd } };
	struct relay_pair *p = NULL;
	int err = pair_make(r, &b, &p);

	if (err == 0) {
		for (int i = A; i <= B; i++)
			if (!sock_tune(b.fd[i], &r->conf.keep))
				seat_flags(p->seat, RELAY_UNSURE, 0);
		err = pair_arm(r, p);
	}
	if (err < 0) {
		if (p)
			seat_leave(r, seat_number(r, p->seat));
		free(p);
		fd_reset(&b.fd[A]);
		fd_reset(&b.fd[B]);
		return err;
	}
	pair_publish(r, p);
	return 0;
}

/* --- taking up and handing on ------------------------------------------------ */

static uint32_t
eof_of(int dir)
{
	return dir == A ? RELAY_EOF_AB : RELAY_EOF_BA;
}

/* In which state it was left, with what its dead engine may have had no time for. */
static void
pair_restore(struct relay_pair *p, const struct relay_bundle *b)
{
	for (int i = A; i <= B; i++) {
		struct side *s = &p->side[i];
		bool is_broken = b->flags & (i == A ? RELAY_BROKEN_A : RELAY_BROKEN_B);

		s->readable = s->writable = s->hup = true;
		/* The end is noted before it is passed on; twice does no harm. */
		if (b->flags & eof_of(!i))
			(void)!shutdown(s->fd, SHUT_WR);
		if (!is_broken)
			is_broken = sock_was_reset(s->fd, b->flags & eof_of(!i));
		if (is_broken) {
			side_break(s);
			seat_flags(p->seat, i == A ? RELAY_BROKEN_A : RELAY_BROKEN_B, 0);
		}
	}
	if (b->flags & RELAY_EOF_AB)
		pair_enter(p, PAIR_ONLY_BA, "adopted");
	if (b->flags & RELAY_EOF_BA)
		pair_enter(p, p->state == PAIR_BOTH ? PAIR_ONLY_AB : PAIR_NONE, "adopted");
}

static bool
bundle_is_fine(const struct relay_bundle *b)
{
	if (b->flags & (RELAY_OVER | RELAY_BUFFERED_AB | RELAY_BUFFERED_BA))
		return false;
	for (int dir = A; dir <= B; dir++)
		if (b->pipe[dir].fd >= 0 && (b->flags & eof_of(dir)))
			return false; /* an end is passed on behind the last byte */
	return true;
}

/* Each of its pipes is ours or closed. 0, or the first failure. */
static int
adopt_pipes(struct relay *r, const struct relay_bundle *b, struct carrier *ret[2])
{
	int err = 0;

	for (int dir = A; dir <= B; dir++) {
		int fd = b->pipe[dir].fd, e;

		if (fd < 0)
			continue;
		e = carrier_adopt(&r->pool, b->pipe[dir].no, fd, b->id << 1 | (uint64_t)dir, &ret[dir]);
		err = err < 0 ? err : e;
	}
	return err;
}

int
relay_pair_adopt(struct relay *r, const struct relay_bundle *b)
{
	struct carrier *carrier[2] = { NULL, NULL };
	struct relay_bundle copy = *b;
	struct relay_pair *p = NULL;
	int err;

	turn_note(r, b->id);
	err = adopt_pipes(r, b, carrier);
	if (err == 0)
		err = bundle_is_fine(b) ? pair_make(r, b, &p) : -EINVAL;
	if (err == 0) {
		for (int i = A; i <= B; i++)
			(void)sock_tune(b->fd[i], &r->conf.keep);
		pair_restore(p, b);
		err = pair_arm(r, p);
	}
	turn_note(r, 0);
	if (err < 0) {
		if (p)
			seat_leave(r, seat_number(r, p->seat));
		free(p);
		for (int i = A; i <= B; i++) {
			if (carrier[i])
				carrier_release(&r->pool, carrier[i]); /* somebody else will want its bytes */
			fd_close(&copy.fd[i]);
		}
		return err;
	}
	p->carrier[A] = carrier[A];
	p->carrier[B] = carrier[B];
	pair_publish(r, p);
	queue_enter(r, p, Q_RUN);
	return 0;
}

static bool
pair_is_portable(const struct relay_pair *p)
{
	for (int dir = A; dir <= B; dir++)
		if (p->carrier[dir] && carrier_is_private(p->carrier[dir]))
			return false;
	return true;
}

/* From every list but Q_GONE, and from its seat. */
static void
pair_retire(struct relay *r, struct relay_pair *p)
{
	for (int i = A; i <= B; i++) {
		epoll_ctl(r->conf.epoll_fd, EPOLL_CTL_DEL, p->side[i].fd, NULL);
		want_set(r, p, i, false);
	}
	vanished_leaves(r, p);
	vanished_forget(r, p);
	TAILQ_REMOVE(&r->alive[p->is_half], p, all);
	index_remove(r, p);
	queue_enter(r, p, Q_GONE);
	group_leave(r, p);
	r->n_pairs--;
}

int
relay_pair_release(struct relay *r, uint64_t id, struct relay_bundle *ret)
{
	struct relay_pair *p = pair_find(r, id);
	struct relay_bundle b = { .id = id, .fd = { -1, -1 } };

	if (!p)
		return -ENOENT;
	if (!pair_is_portable(p))
		return -EBUSY;
	b.bytes_ab = p->seat->bytes_ab;
	b.bytes_ba = p->seat->bytes_ba;
	b.flags = p->seat->flags;
	pair_enter(p, PAIR_GONE, "released");
	pair_retire(r, p);
	for (int i = A; i <= B; i++) {
		fd_close(&p->side[i].fd);
		b.pipe[i].fd = p->carrier[i] ? 0 : -1;
		if (p->carrier[i])
			b.pipe[i].no = carrier_release(&r->pool, p->carrier[i]);
		p->carrier[i] = NULL;
	}
	b.seat = seat_number(r, p->seat);
	if (!r->conf.holds_seats)
		seat_leave(r, b.seat);
	*ret = b;
	return 0;
}

/* --- the end ---------------------------------------------------------------- */

void
pair_end(struct relay *r, struct relay_pair *p, enum end_reason reason, const char *why)
{
	struct relay_end end = {
		.id = p->id, .reason = reason, .bytes_ab = p->seat->bytes_ab, .bytes_ba = p->seat->bytes_ba
	};

	seat_flags(p->seat, RELAY_OVER | (uint32_t)reason << 16, 0);
	pair_enter(p, PAIR_GONE, why);
	pair_retire(r, p);
	for (int i = A; i <= B; i++) {
		if (reason == END_CLOSED)
			sock_finish(&p->side[i].fd);
		else
			fd_reset(&p->side[i].fd);
		carrier_put(&r->pool, p->carrier[i]);
		p->carrier[i] = NULL;
	}
	end.ms = clock_now_ms() - p->start_ms;
	end.seat = seat_number(r, p->seat);
	r->on_end(&end, r->arg);
	if (!r->conf.holds_seats)
		seat_leave(r, end.seat);
}
