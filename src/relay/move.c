/* move.c - one turn of one pair: what is read where, written where, and when it stops
 *
 *        peer a  --fill-->  [carrier ab]  --drain-->  peer b
 *        peer a  <--drain-- [carrier ba]  <--fill--   peer b
 *
 * Always true between two events:
 *  1. A direction has a carrier only while bytes are in it: an idle pair costs
 *     two sockets and its struct, no pipe and no buffer.
 *  2. A direction is read only while its carrier is empty. A stalled reader so
 *     stops its own writer, by TCP's window, after one carrier of bytes.
 *  3. The end of a stream is passed on with shutdown(SHUT_WR) only after its
 *     carrier is empty, and the other direction goes on, for hours if need be.
 *  4. A reset is passed on as a reset, after what came before it was passed on
 *     as far as the other side takes it at once.
 *  5. What a turn does is in the ledger before it shows: its pair in `turn`, the
 *     owner of a pipe, that payload is in user memory. What it found out (an end,
 *     an error, bytes) is there before the next step.
 *  6. A small message is in the ledger's copy place while it is in user memory
 *     (relay.h), and its pair's turn is in progress: who finds both can tell from the
 *     sockets' own counters what is left of it (rest.c).
 *  7. A pair of a group reads no more in a turn than group_left() says, and gets
 *     no carrier where that is nothing.
 *
 * Sockets are armed once, edge-triggered. A fact (readable, writable) is taken
 * back by EAGAIN, or where few bytes came (doubt.c): a socket found empty tells
 * when more comes, and its end comes with an event of its own.
 */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "hyper/base/bug.h"
#include "hyper/base/log.h"
#include "relay/engine.h"

#define TURN_FILLS 8              /* of one direction in one turn; then it is the others' turn */
#define SMALL_MAX  RELAY_COPY_MAX /* a direction that brings as many at once is spliced */

static bool
dir_is_open(const struct relay_pair *p, int dir)
{
	return p->state == PAIR_BOTH || p->state == (dir == A ? PAIR_ONLY_AB : PAIR_ONLY_BA);
}

void
side_break(struct side *s)
{
	s->broken = true;
	s->readable = true;
}

void
side_failed(struct relay_pair *p, struct side *s)
{
	side_break(s);
	seat_flags(p->seat, s->index == A ? RELAY_BROKEN_A : RELAY_BROKEN_B, 0);
}

static uint32_t
buffered_of(int dir)
{
	return dir == A ? RELAY_BUFFERED_AB : RELAY_BUFFERED_BA;
}

/* Given; NULL is fine. */
static void
dir_put_carrier(struct relay *r, struct relay_pair *p, int dir, struct carrier *c)
{
	bool is_buffer = c && carrier_is_buffer(c);

	p->carrier[dir] = NULL;
	carrier_put(&r->pool, c);
	if (is_buffer)
		seat_flags(p->seat, 0, buffered_of(dir));
}

static bool
is_our_failure(int err)
{
	return err == -ENOMEM || err == -ENOBUFS || err == -EINVAL || err == -EBADF || err == -EIO;
}

static void
note_delivered(struct relay *r, struct relay_pair *p, int dir, size_t n)
{
	uint64_t *bytes = dir == A ? &p->seat->bytes_ab : &p->seat->bytes_ba;

	__atomic_store_n(bytes, *bytes + n, __ATOMIC_RELAXED);
	r->bytes += n;
	if (r->now_ms - p->active_ms >= r->grain_ms)
		pair_touch(r, p);
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
		side_failed(p, to);
		return 0;
	}
	note_delivered(r, p, dir, (size_t)n);
	/* Not kept for the next fill: the pool's last pipe is the warmest, and 1. holds without a timer. */
	if (carrier_bytes(p->carrier[dir]) == 0)
		dir_put_carrier(r, p, dir, p->carrier[dir]);
	return 1;
}

/* The carrier is empty and the stream ended. */
static void
dir_eof(struct relay *r, struct relay_pair *p, int dir)
{
	struct side *from = &p->side[dir], *to = &p->side[!dir];

	from->readable = false;
	if (from->broken)
		return; /* the error was taken by a write: what looks like an end is a reset */
	/* Noted first: who goes on after us passes it on once more. */
	seat_flags(p->seat, dir == A ? RELAY_EOF_AB : RELAY_EOF_BA, 0);
	if (shutdown(to->fd, SHUT_WR) < 0) {
		side_failed(p, to);
		return;
	}
	if (p->state == PAIR_BOTH)
		pair_enter(p, dir == A ? PAIR_ONLY_BA : PAIR_ONLY_AB, "eof");
	else
		pair_enter(p, PAIR_NONE, "eof");
	pair_touch(r, p);
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

/* A carrier for a fill, or NULL with 0: it waits for a pipe, or -errno. */
static int
dir_get_carrier(struct relay *r, struct relay_pair *p, int dir, struct carrier **ret)
{
	bool must_copy = p->side[dir].urgent;
	int err;

	for (;;) {
		if (must_copy || r->conf.copy_mode)
			seat_flags(p->seat, buffered_of(dir), 0);
		err = carrier_get(&r->pool, dir_owner(p, dir), must_copy, ret);
		if (err != -EAGAIN)
			return err;
		if (!r->conf.makes_pipes && r->conf.on_want && r->now_ms >= r->none_ms) {
			want_set(r, p, dir, true);
			return 0;
		}
		r->buffered++;
		must_copy = true;
	}
}

/* What a send did not take goes into a pipe, all at once: it is one page (PIPE_BUF). Should the kernel have none for it,
 * it stays in user memory. */
static int
dir_keep_rest(struct relay *r, struct relay_pair *p, int dir, const uint8_t *rest, size_t len)
{
	struct carrier *c = NULL;
	int err = carrier_get(&r->pool, dir_owner(p, dir), false, &c);

	if (err == 0 && carrier_load(c, rest, len) < 0) {
		carrier_put(&r->pool, c);
		err = -EAGAIN;
	}
	if (err == -EAGAIN) {
		r->buffered++;
		seat_flags(p->seat, buffered_of(dir), 0);
		err = carrier_get(&r->pool, dir_owner(p, dir), true, &c);
		if (err == 0)
			err = carrier_load(c, rest, len);
	}
	if (err < 0)
		return err;
	p->carrier[dir] = c;
	return 1;
}

/* n bytes that were just read are written at once, as far as possible. Results as dir_drain(). */
static int
dir_send_small(struct relay *r, struct relay_pair *p, int dir, const uint8_t *buf, size_t n)
{
	struct side *to = &p->side[!dir];
	ssize_t sent = send(to->fd, buf, n, MSG_DONTWAIT | MSG_NOSIGNAL);

	if (sent < 0 && errno != EAGAIN && errno != EINTR) {
		side_failed(p, to);
		return 0;
	}
	if (sent < 0 && errno == EAGAIN)
		to->writable = false;
	if (sent < 0)
		sent = 0;
	if (sent > 0)
		note_delivered(r, p, dir, (size_t)sent);
	return (size_t)sent < n ? dir_keep_rest(r, p, dir, buf + sent, n - (size_t)sent) : 1;
}

/* One that cannot be written at once, or has no pipe for its rest, is spliced: into a pipe it goes anyway. Urgent data
 * is read as a splice would need it. Nobody goes on after an engine with private memory. */
static bool
dir_may_copy(const struct relay *r, const struct relay_pair *p, int dir)
{
	return r->conf.copy_small && !(p->bulk & BIT(dir)) && p->side[!dir].writable && !p->side[dir].urgent &&
	       carrier_pool_has(&r->pool) && (r->private_ledger || !(p->seat->flags & RELAY_UNSURE));
}

/* A read of less than the buffer has emptied the socket. */
static int
dir_copy_small(struct relay *r, struct relay_pair *p, int dir)
{
	struct side *from = &p->side[dir];
	size_t max = group_left(p) < SMALL_MAX ? group_left(p) : SMALL_MAX;
	struct relay_copy *c = copy_begin(r, dir_owner(p, dir));
	ssize_t n = recv(from->fd, c->data, max, MSG_DONTWAIT);
	int res;

	if (n > 0) {
		copy_filled(c, (size_t)n);
		group_spend(p, dir, (size_t)n);
		if (n == SMALL_MAX)
			p->bulk |= BIT(dir);
		else if ((size_t)n < max)
			from->readable = from->hup || from->urgent || from->broken;
		res = dir_send_small(r, p, dir, c->data, (size_t)n);
		if (res < 0)
			seat_flags(p->seat, buffered_of(dir), 0); /* lost, and never taken for delivered */
		copy_end(c);
		return res;
	}
	copy_end(c);
	if (n < 0 && errno == EINTR)
		return 1;
	if (n == 0)
		dir_eof(r, p, dir);
	else if (errno != EAGAIN)
		side_failed(p, from);
	from->readable = false;
	return 0;
}

/* Reads once into an empty carrier. Results as dir_drain(). */
static int
dir_fill(struct relay *r, struct relay_pair *p, int dir)
{
	struct side *from = &p->side[dir];
	size_t want = group_left(p);
	struct carrier *c = NULL;
	ssize_t n;
	int err;

	if (!from->readable)
		return 0;
	from->doubted = from->stale = false;
	want_set(r, p, dir, false);
	if (want == 0) {
		p->held |= BIT(dir);
		return 0;
	}
	if (dir_may_copy(r, p, dir))
		return dir_copy_small(r, p, dir);
	err = dir_get_carrier(r, p, dir, &c);
	if (!c)
		return err;
	n = carrier_fill(c, from->fd, want);
	if (n > 0) {
		p->carrier[dir] = c;
		group_spend(p, dir, (size_t)n);
		if (n < SMALL_MAX)
			p->bulk &= (uint8_t)~BIT(dir);
		from->readable = side_has_more(r, p, dir, want, (size_t)n);
		return 1;
	}
	dir_put_carrier(r, p, dir, c);
	if (n == 0 && is_no_end(from))
		return 1;
	if (n == 0) {
		dir_eof(r, p, dir);
		return 0;
	}
	if (n != -EAGAIN && is_our_failure((int)n))
		return (int)n;
	if (n != -EAGAIN)
		side_failed(p, from);
	from->readable = false;
	return 0;
}

/* Moves one direction as far as it goes now or the budget permits. 1: budget
 * used up; 0: it waits for an event, or is over; -errno: our failure. */
static int
dir_turn(struct relay *r, struct relay_pair *p, int dir)
{
	int fills = 0, res = 1;

	p->held &= (uint8_t)~BIT(dir);
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

/* Where a pair goes after its turn. */
static void
pair_settle(struct relay *r, struct relay_pair *p, int ab, int ba, bool was_broken)
{
	if (ab < 0 || ba < 0) {
		log_warn(
		    "pair_failed", "pair=%llu err=\"%s\"", (unsigned long long)p->id, strerror(ab < 0 ? -ab : -ba));
		pair_end(r, p, END_INTERNAL, "failure");
	} else if (pair_is_broken(p)) {
		/* One turn more after the news, so that what came before it is passed on. */
		if (was_broken && ab == 0 && ba == 0)
			pair_end(r, p, p->side[A].vanished || p->side[B].vanished ? END_VANISHED : END_RESET, "broken");
		else
			queue_enter(r, p, Q_RUN);
	} else if (p->state == PAIR_NONE) {
		pair_end(r, p, END_CLOSED, "eof");
	} else if (ab > 0 || ba > 0) {
		queue_enter(r, p, Q_RUN);
	} else if (p->wants) {
		queue_enter(r, p, Q_WAIT);
	} else if (p->held) {
		queue_enter(r, p, Q_HELD);
	} else {
		queue_enter(r, p, Q_NONE);
	}
}

void
pair_turn(struct relay *r, struct relay_pair *p)
{
	bool was_broken = pair_is_broken(p);
	int first = A, res[2];

	if (p->group) {
		group_turn_begin(r, p);
		first = p->lead;
	}
	if (p->promised) {
		p->promised = false;
		r->pool.n_kept--;
	}
	res[first] = dir_turn(r, p, first);
	res[!first] = dir_turn(r, p, !first);
	for (int i = A; i <= B; i++)
		if (p->side[i].deaf && !p->side[i].readable && side_listen(r, &p->side[i], true) < 0)
			side_failed(p, &p->side[i]);
	pair_settle(r, p, res[A], res[B], was_broken);
}
