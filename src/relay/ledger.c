/* ledger.c - seats in memory that outlives the process, if somebody else maps it
 *
 * Always true:
 *  1. A seat's `pair` is stored after everything else when it is taken, and
 *     cleared before anything else when it is left: a reader who finds an id finds
 *     what belongs to it.
 *  2. This process is the only writer; readers take each field for itself.
 *
 * Not here: the journal of the pipes (carrier.c).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "hyper/base/bug.h"
#include "relay/engine.h"

/* Without a caller's ledger: pages that nobody touches cost nothing. */
#define PRIVATE_SEATS (1u << 18)
#define PRIVATE_PIPES (1u << 15)

static int
private_init(struct relay *r)
{
	size_t size = PRIVATE_SEATS * sizeof(struct relay_seat) + (PRIVATE_PIPES + 2) * sizeof(uint64_t) +
		      sizeof(struct relay_copy);
	char *m = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (m == MAP_FAILED)
		return -ENOMEM;
	r->private_ledger = m;
	r->private_size = size;
	r->ledger = (struct relay_ledger){
		.seats = (struct relay_seat *)m,
		.pipes = (uint64_t *)(m + PRIVATE_SEATS * sizeof(struct relay_seat)),
		.n_seats = PRIVATE_SEATS,
		.n_pipes = PRIVATE_PIPES,
	};
	r->ledger.turn = r->ledger.pipes + PRIVATE_PIPES;
	r->ledger.used_seats = r->ledger.turn + 1;
	r->ledger.copy = (struct relay_copy *)(r->ledger.used_seats + 1);
	return 0;
}

int
ledger_init(struct relay *r, const struct relay_ledger *given)
{
	BUG_ON(given->turn && !given->copy);
	r->ledger = *given;
	if (!given->turn && private_init(r) < 0)
		return -ENOMEM;
	memset(r->ledger.copy, 0, sizeof(*r->ledger.copy)); /* its pages are there before a message needs them */
	r->left_seats = calloc(r->ledger.n_seats + 1, sizeof(*r->left_seats));
	r->pool.here = calloc(r->ledger.n_pipes + 1, sizeof(*r->pool.here));
	r->pool.journal = r->ledger.pipes;
	r->pool.n_pipes = r->ledger.n_pipes;
	return r->left_seats && r->pool.here ? 0 : -ENOMEM;
}

void
ledger_fini(struct relay *r)
{
	free(r->left_seats);
	free(r->pool.here);
	if (r->private_ledger)
		munmap(r->private_ledger, r->private_size);
}

struct relay_seat *
seat_take(struct relay *r, uint64_t id, uint64_t bytes_ab, uint64_t bytes_ba, uint32_t flags)
{
	struct relay_seat *seat;

	if (r->n_left > 0)
		seat = &r->ledger.seats[r->left_seats[--r->n_left]];
	else if (r->next_seat < r->ledger.n_seats)
		seat = &r->ledger.seats[r->next_seat++];
	else
		return NULL;
	__atomic_store_n(r->ledger.used_seats, r->next_seat, __ATOMIC_RELAXED); /* before `pair` below */
	__atomic_store_n(&seat->bytes_ab, bytes_ab, __ATOMIC_RELAXED);
	__atomic_store_n(&seat->bytes_ba, bytes_ba, __ATOMIC_RELAXED);
	__atomic_store_n(&seat->flags, flags, __ATOMIC_RELAXED);
	__atomic_store_n(&seat->active_s, (uint32_t)(r->now_ms / 1000), __ATOMIC_RELAXED);
	__atomic_store_n(&seat->pair, id, __ATOMIC_RELEASE);
	return seat;
}

void
seat_leave(struct relay *r, uint32_t seat)
{
	__atomic_store_n(&r->ledger.seats[seat].pair, 0, __ATOMIC_SEQ_CST); /* before the next taker's stores */
	r->left_seats[r->n_left++] = seat;
}

void
relay_seat_done(struct relay *r, uint32_t seat)
{
	BUG_ON(!r->conf.holds_seats || r->ledger.seats[seat].pair == 0);
	seat_leave(r, seat);
}
