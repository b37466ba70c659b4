/* view.c - see the header
 *
 * Always true:
 *  1. What is read from a worker's pages is a sibling's; a number that names no
 *     pair of that worker is passed over.
 *  2. Every pair is seen once at least. One that no seat names (its worker has not
 *     taken it up yet, or has given the seat back and said so, and that is not
 *     read yet) counts with the bytes known last: the total does not shrink.
 */
#include "proxy/master/view.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>

#include "hyper/base/attr.h"
#include "hyper/base/clock.h"
#include "hyper/proxy/worker_abi.h"
#include "proxy/master/ledger.h"
#include "proxy/master/tally.h"

#define GET(stats, field) __atomic_load_n(&(stats)->field, __ATOMIC_RELAXED)

static bool
is_of_slot(const struct pair *p, unsigned no)
{
	return p && p->slot && slot_no(p->slot) == no;
}

/* Those of a worker that no seat named. */
static void
unseated(struct load *l, void (*each)(const struct view_pair *, void *arg), void *arg)
{
	static const enum pair_state states[] = { PAIR_HANDING, PAIR_LIVE, PAIR_MOVING };
	struct pair *p;

	for (size_t i = 0; i < ARRAY_LEN(states); i++)
		TAILQ_FOREACH (p, &l->of_state[states[i]], link) {
			struct view_pair vp = {
				.pair = p, .bytes = { p->bytes[0], p->bytes[1] }, .worker = (int)slot_no(p->slot)
			};

			if (!p->is_seated)
				each(&vp, arg);
			p->is_seated = false;
		}
}

void
view_pairs(const struct view *v, void (*each)(const struct view_pair *, void *arg), void *arg)
{
	int64_t now_s = clock_now_ms() / 1000;
	struct relay_seat seat;
	struct slot_view s;
	struct pair *p;

	for (unsigned i = 0; i < slots_count(v->slots); i++) {
		slots_view(v->slots, i, &s);
		for (uint32_t k = 0; s.ledger && k < ledger_seats(s.ledger); k++) {
			struct view_pair vp = { .worker = (int)i };

			if (!ledger_seat(s.ledger, k, &seat))
				continue;
			p = pairing_find(v->pairs, seat.pair);
			if (!is_of_slot(p, i))
				continue;
			vp.pair = p;
			p->is_seated = true;
			vp.bytes[0] = p->bytes[0] = seat.bytes_ab;
			vp.bytes[1] = p->bytes[1] = seat.bytes_ba;
			vp.idle_ms = (now_s - (int64_t)seat.active_s) * 1000;
			each(&vp, arg);
		}
	}
	for (unsigned i = 0; i < v->pairs->n_loads; i++)
		unseated(&v->pairs->loads[i], each, arg);
	TAILQ_FOREACH (p, &v->pairs->waiting, link) {
		struct view_pair vp = { .pair = p, .bytes = { p->bytes[0], p->bytes[1] }, .worker = -1 };

		each(&vp, arg);
	}
}

static void
add_bytes(const struct view_pair *p, void *arg)
{
	struct view_totals *t = arg;

	t->bytes[0] += p->bytes[0];
	t->bytes[1] += p->bytes[1];
}

void
view_counts(const struct view *v, struct view_totals *ret)
{
	const struct slots_past *past = slots_past(v->slots);
	const struct tally *tally = tally_get();
	struct slot_view s;

	*ret = (struct view_totals){ .pairs = v->pairs->by_id.n,
		.bytes = { tally->bytes[0], tally->bytes[1] },
		.accepted = past->accepted,
		.accept_errors = past->accept_errors,
		.restarts = past->restarts };
	memcpy(ret->refused, past->refused, sizeof(ret->refused));
	for (const struct pair *p = TAILQ_FIRST(&v->pairs->waiting); p; p = TAILQ_NEXT(p, link))
		ret->waiting++;
	for (unsigned i = 0; i < slots_count(v->slots); i++) {
		slots_view(v->slots, i, &s);
		ret->serving += strcmp(s.state, "SERVING") == 0;
		ret->crashing += s.crashes > 1;
		if (!s.stats)
			continue;
		ret->accepted += GET(s.stats, accepted);
		ret->accept_errors += GET(s.stats, accept_errors);
		ret->unauthenticated += GET(s.stats, unauthenticated);
		ret->pipes += GET(s.stats, pipes);
		for (size_t k = 0; k < END_REASON_MAX; k++)
			ret->refused[k] += GET(s.stats, refused[k]);
	}
}

void
view_totals(const struct view *v, struct view_totals *ret)
{
	view_counts(v, ret);
	view_pairs(v, add_bytes, ret);
}

int64_t
view_rtt_us(const struct pair *p, int side)
{
	struct tcp_info info;
	socklen_t len = sizeof(info);

	if (p->fd[side] < 0 || getsockopt(p->fd[side], IPPROTO_TCP, TCP_INFO, &info, &len) < 0)
		return -1;
	return info.tcpi_rtt;
}
