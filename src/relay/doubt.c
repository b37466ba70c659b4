/* doubt.c - did a read that brought little empty its socket? Most reads say so by themselves, the rest is looked at later
 *
 * Always true:
 *  1. A socket that is not known to be empty is `readable`, or it is `doubted` and in
 *     r->doubts: within DOUBT_MS, or twice that, it is looked at, or its next event comes first.
 *  2. Nobody is looked at twice for one read: an idle pair costs no wake-up.
 *
 * A read that got less than it asked for leaves nothing behind, but for two cases.
 * Urgent data stops it: that comes with an event of its own. And a pipe has slots,
 * one for a segment at least, so a full one stops it as well: but it then holds no
 * fewer bytes than it has slots. (Linux 6.18: tcp_splice_read() goes on until the
 * queue is empty, the pipe full or the length reached.) So 64 bytes and more may be
 * that many segments of one byte each. It is true of hardly any message, and
 * FIONREAD is a twentieth of what a small one costs; so while the loop turns fast,
 * that look waits until the pair is quiet. A direction that was caught is looked at on
 * the spot for its next reads, so a stream of such segments does not stutter.
 */
#include <sys/ioctl.h>

#include "relay/engine.h"

#define DOUBT_MS   20   /* later than a kernel's next tick: a nearer deadline would set a timer at each wait */
#define TINY_READS 64   /* after bytes were left behind */
#define SLOTS_MANY 16   /* of a pipe with fewer nothing is expected */
#define FEW_BYTES  4096 /* after a read of fewer there is likely nothing more */

/* -1 when it cannot be told. */
static int
waiting_bytes(const struct side *s)
{
	int n;

	return ioctl(s->fd, FIONREAD, &n) == 0 ? n : -1;
}

static bool
look_later(struct relay *r, struct relay_pair *p, int dir)
{
	struct side *s = &p->side[dir];

	if (!s->listed && r->n_doubts == DOUBTS_MAX)
		return false;
	if (!s->listed) {
		if (r->n_doubts == 0)
			r->doubts_ms = r->now_ms + DOUBT_MS;
		r->doubts[r->n_doubts++] = dir_owner(p, dir);
		s->listed = true;
	}
	s->doubted = true;
	return true;
}

bool
side_has_more(struct relay *r, struct relay_pair *p, int dir, size_t want, size_t n)
{
	size_t slots = carrier_slots(p->carrier[dir]);
	struct side *s = &p->side[dir];

	if (s->hup || s->urgent || s->broken)
		return true;
	if (n < want && n < slots)
		return false;
	if (n >= FEW_BYTES)
		return true;
	if (r->is_hot && p->tiny[dir] == 0 && slots >= SLOTS_MANY && look_later(r, p, dir))
		return false;
	if (waiting_bytes(s) == 0) {
		p->tiny[dir] -= p->tiny[dir] > 0;
		return false;
	}
	p->tiny[dir] = TINY_READS;
	return true;
}

/* NULL: it is gone, or its next event came first. */
static struct side *
doubted_side(const struct relay *r, uint64_t owner, struct relay_pair **ret_pair)
{
	struct relay_pair *p = pair_find(r, owner >> 1);
	struct side *s = p ? &p->side[owner & 1] : NULL;

	if (s && !s->doubted)
		s->listed = false;
	if (!s || !s->doubted)
		return NULL;
	*ret_pair = p;
	return s;
}

static void
look_at(struct relay *r, struct relay_pair *p, struct side *s)
{
	s->doubted = s->stale = s->listed = false;
	if (waiting_bytes(s) == 0)
		return;
	p->tiny[s->index] = TINY_READS;
	s->readable = true;
	if (p->queue == Q_NONE)
		queue_enter(r, p, Q_RUN);
}

/* Twice, with the events in between: what still waits then was left behind, and did not just come. */
void
doubts_run(struct relay *r)
{
	size_t kept = 0;

	if (r->n_doubts == 0 || r->now_ms < r->doubts_ms)
		return;
	for (size_t i = 0; i < r->n_doubts; i++) {
		struct relay_pair *p = NULL;
		struct side *s = doubted_side(r, r->doubts[i], &p);

		if (!s)
			continue;
		if (s->stale) {
			look_at(r, p, s);
			continue;
		}
		s->stale = !r->doubts_marked;
		r->doubts[kept++] = r->doubts[i];
	}
	r->n_doubts = kept;
	r->doubts_marked = !r->doubts_marked && kept > 0;
	if (!r->doubts_marked)
		r->doubts_ms = r->now_ms + DOUBT_MS;
}

int64_t
doubts_next_ms(const struct relay *r)
{
	return r->n_doubts > 0 ? r->doubts_ms : INT64_MAX;
}
