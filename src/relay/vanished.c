/* vanished.c - tells a peer that vanished from one that lives and takes nothing
 *
 *   delivered --> OPEN: looked at once an interval --all acknowledged, nothing new--> settled
 *                   `-- for user_timeout nothing was heard, 3 tries unanswered --> the pair ends (VANISHED)
 *
 * TCP_USER_TIMEOUT would end a reader too whose window stays shut, though it
 * answers each probe (Linux 6.18). So it is left at 0 in the kernel, and asked
 * here is whether an acknowledgement came, whatever it said.
 *
 * Always true:
 *  1. A pair that may have bytes on their way is open; one that is settled has
 *     delivered nothing since all of it was acknowledged.
 *  2. An open pair costs two getsockopt() an interval, a settled one nothing; there
 *     are at most LOOK_PAIRS of these in LOOK_SLICE_MS.
 *  3. A side counts from when it was first seen to wait for an acknowledgement,
 *     anew after each that came. So it ends at the earliest after user_timeout,
 *     two intervals later at the latest, or after its third try: with a window that
 *     has been shut for long the kernel tries every two minutes only.
 *
 * Not here: keepalive of those to whom nothing is on its way (sock.c, the kernel).
 */
#include <netinet/in.h>
#include <sys/socket.h>

#include <linux/tcp.h>

#include "relay/engine.h"

#define LOOK_PAIRS    64   /* that are asked for in one slice */
#define LOOK_STEPS    4096 /* that are passed in one slice */
#define LOOK_SLICE_MS 25
#define LOOK_MIN_MS   50
#define LOOK_MAX_MS   4000
#define UNITS         256 /* of side.stuck in user_timeout */
#define UNITS_MAX     UINT16_MAX
#define TRIES         3

enum look { LOOK_SETTLED, LOOK_WAITS, LOOK_VANISHED };

static int64_t
interval_ms(const struct relay *r)
{
	int64_t ms = r->conf.keep.user_timeout_ms / 8;

	return ms < LOOK_MIN_MS ? LOOK_MIN_MS : ms > LOOK_MAX_MS ? LOOK_MAX_MS : ms;
}

static int64_t
unit_ms(const struct relay *r)
{
	return (r->conf.keep.user_timeout_ms + UNITS - 1) / UNITS;
}

/* Never 0, which says that nothing is waited for. */
static uint16_t
now_units(const struct relay *r)
{
	return (uint16_t)(r->now_ms / unit_ms(r) % UNITS_MAX + 1);
}

static int64_t
since_ms(const struct relay *r, uint16_t units)
{
	return (now_units(r) - units + UNITS_MAX) % UNITS_MAX * unit_ms(r);
}

static enum look
side_look(const struct relay *r, struct side *s)
{
	struct tcp_info info = { 0 };
	socklen_t len = sizeof(info);

	if (getsockopt(s->fd, IPPROTO_TCP, TCP_INFO, &info, &len) < 0 ||
	    (info.tcpi_unacked == 0 && info.tcpi_notsent_bytes == 0)) {
		s->stuck = 0;
		return LOOK_SETTLED;
	}
	if (s->stuck == 0 || info.tcpi_last_ack_recv < since_ms(r, s->stuck)) {
		s->stuck = now_units(r);
		return LOOK_WAITS;
	}
	return since_ms(r, s->stuck) >= r->conf.keep.user_timeout_ms &&
		       (info.tcpi_retransmits >= TRIES || info.tcpi_probes >= TRIES)
		   ? LOOK_VANISHED
		   : LOOK_WAITS;
}

static void
settle(struct relay *r, struct relay_pair *p)
{
	p->is_open = false;
	r->n_open--;
}

static void
pair_look(struct relay *r, struct relay_pair *p)
{
	enum look a = side_look(r, &p->side[A]), b = side_look(r, &p->side[B]);

	if (a == LOOK_VANISHED || b == LOOK_VANISHED)
		pair_end(r, p, END_VANISHED, "vanished");
	else if (a == LOOK_SETTLED && b == LOOK_SETTLED && r->now_ms - p->active_ms >= r->grain_ms)
		settle(r, p); /* what is delivered from now on is noted: pair_touch() */
}

void
vanished_note(struct relay *r, struct relay_pair *p)
{
	if (p->is_open || r->conf.keep.user_timeout_ms <= 0)
		return;
	p->is_open = true;
	if (r->n_open++ == 0 && r->look_list < 0)
		r->look_ms = r->now_ms + interval_ms(r);
}

void
vanished_leaves(struct relay *r, struct relay_pair *p)
{
	if (r->look == p)
		r->look = TAILQ_NEXT(p, all);
}

void
vanished_forget(struct relay *r, struct relay_pair *p)
{
	if (p->is_open)
		settle(r, p);
}

void
vanished_init(struct relay *r)
{
	r->look_list = -1;
}

void
vanished_changed(struct relay *r)
{
	struct relay_pair *p;

	for (int half = 0; half < 2; half++)
		TAILQ_FOREACH (p, &r->alive[half], all) {
			/* in units of the old one */
			p->side[A].stuck = p->side[B].stuck = 0;
			if (r->conf.keep.user_timeout_ms > 0)
				vanished_note(r, p);
			else
				vanished_forget(r, p);
		}
}

/* The next one in the round, NULL: it is over. */
static struct relay_pair *
next_look(struct relay *r)
{
	struct relay_pair *p;

	while (!r->look && r->look_list < 1)
		r->look = TAILQ_FIRST(&r->alive[++r->look_list]);
	p = r->look;
	if (p)
		r->look = TAILQ_NEXT(p, all);
	return p;
}

void
vanished_run(struct relay *r)
{
	struct relay_pair *p;
	int asked = 0;

	if (r->n_open == 0 || r->now_ms < r->look_ms)
		return;
	if (r->look_list < 0)
		r->look_began_ms = r->now_ms;
	for (int steps = 0; asked < LOOK_PAIRS && steps < LOOK_STEPS; steps++) {
		p = next_look(r);
		if (!p) {
			r->look_list = -1;
			break;
		}
		if (p->is_open) {
			pair_look(r, p);
			asked++;
		}
	}
	r->look_ms = r->now_ms + LOOK_SLICE_MS;
	if (r->look_list < 0 && r->look_began_ms + interval_ms(r) > r->look_ms)
		r->look_ms = r->look_began_ms + interval_ms(r);
}

int64_t
vanished_next_ms(const struct relay *r)
{
	return r->n_open > 0 ? r->look_ms : INT64_MAX;
}
