/* share.c - an operator's bytes a second, divided over the workers that move its pairs
 *
 *      PAIR, RESUME {asker, rate}   the worker's first pair of this operator: an equal part until the next tick
 *      each tick                       bytes by pair from the ledgers' seats -> share_divide() -> RATE {asker, rate}
 *
 * Always true:
 *  1. The parts that share_divide() gives have the operator's rate as their sum, and
 *     each is at least a sixteenth of an equal part (less where the last tick saw
 *     far more bytes than the rate permits): who starts is not starved.
 *  2. Between two ticks the parts may exceed the rate by those of workers that were
 *     new to the operator, an equal part each; a worker's group begins without a burst.
 *     Without a rate nothing is counted, but each pair names its operator: should a
 *     reload set one, the worker finds whom it holds for.
 *  3. A message that does not fit the channel is tried again at the next tick.
 *  4. The ledgers are siblings': what they say of a pair that is not that worker's
 *     is passed over, and lies cost only the liar's operators their fair division.
 *
 * Not here: keeping a rate (src/relay/group.c).
 */
#include "proxy/master/share.h"

#include <stdlib.h>

#define HASH_NONFATAL_OOM 1
#include <uthash.h>

#include "hyper/base/bug.h"
#include "hyper/base/log.h"
#include "proxy/master/ledger.h"

struct share_op {
	uint64_t number; /* of the operator, quota_number() */
	size_t pairs;
	UT_hash_handle hh;
	struct share_part parts[];
};

struct share {
	uint64_t rate;
	unsigned workers;
	int64_t tick_ms; /* the last one */
	struct share_op *ops;
};

struct share *
share_new(uint64_t rate, unsigned workers)
{
	struct share *sh = calloc(1, sizeof(*sh));

	if (!sh)
		return NULL;
	sh->rate = rate;
	sh->workers = workers;
	return sh;
}

void
share_apply(struct share *sh, uint64_t rate, unsigned workers)
{
	sh->rate = rate;
	if (sh->workers < workers)
		sh->workers = workers;
}

void
share_free(struct share *sh)
{
	struct share_op *op, *next;

	if (!sh)
		return;
	HASH_ITER (hh, sh->ops, op, next) {
		HASH_DEL(sh->ops, op);
		free(op);
	}
	free(sh);
}

/* --- dividing --------------------------------------------------------------- */

/* Does it use what it has, as far as that can be told? */
static bool
is_hungry(const struct share_part *p)
{
	return p->pairs > 0 && p->used >= p->rate - p->rate / 8;
}

/* What a part has before the rest is divided: of one that does not use all it has, a quarter more than it used. */
static uint64_t
kept_by(const struct share_part *p, uint64_t rate, uint64_t least)
{
	uint64_t need = p->used < rate - rate / 5 ? p->used + p->used / 4 : rate;

	if (p->pairs == 0)
		return 0;
	if (is_hungry(p))
		return least / 4;
	return need > least ? need : least;
}

/* The rest goes to those who would use more, by their busy pairs; where nobody would, to all by their pairs. */
static uint64_t
weight(const struct share_part *p, size_t n_hungry)
{
	if (p->pairs == 0)
		return 0;
	if (n_hungry == 0)
		return p->pairs;
	return is_hungry(p) ? p->busy > 0 ? p->busy : 1 : 0;
}

void
share_divide(uint64_t rate, struct share_part *parts, size_t n)
{
	size_t n_used = 0, n_hungry = 0;
	uint64_t least, kept = 0, weights = 0;

	for (size_t i = 0; i < n; i++) {
		n_used += parts[i].pairs > 0;
		n_hungry += is_hungry(&parts[i]);
	}
	least = n_used > 0 ? rate / (4 * n_used) : 0;
	for (size_t i = 0; i < n; i++) {
		weights += weight(&parts[i], n_hungry);
		kept += kept_by(&parts[i], rate, least);
	}
	for (size_t i = 0; i < n; i++) {
		struct share_part *p = &parts[i];
		uint64_t w = weight(p, n_hungry), mine;

		if (p->pairs == 0) {
			p->rate = p->told = 0;
			continue;
		}
		mine = kept_by(p, rate, least);
		if (kept > rate) /* of modest ones alone: what they used was above the rate */
			mine = (uint64_t)((double)mine / (double)kept * (double)rate);
		else
			mine += (rate - kept) / weights * w;
		p->rate = mine > 0 ? mine : 1; /* 0 would be no limit */
	}
}

/* --- operators --------------------------------------------------------------- */

static struct share_op *
op_of(struct share *sh, uint64_t number)
{
	struct share_op *op;

	HASH_FIND(hh, sh->ops, &number, sizeof(number), op);
	if (op)
		return op;
	op = calloc(1, sizeof(*op) + SLOTS_MAX * sizeof(op->parts[0]));
	if (!op)
		return NULL;
	op->number = number;
	HASH_ADD(hh, sh->ops, number, sizeof(op->number), op);
	if (op->hh.tbl) /* HASH_NONFATAL_OOM */
		return op;
	free(op);
	return NULL;
}

void
share_fill(struct share *sh, const struct pair *p, const struct slot *s, struct chan_msg *m)
{
	struct share_op *op;
	struct share_part *part;
	uint64_t n = 1;

	if (!sh || quota_is_self(p->op))
		return;
	m->asker = quota_number(p->op);
	if (sh->rate == 0)
		return;
	m->rate = sh->rate / sh->workers + 1; /* without memory: never too much */
	op = op_of(sh, m->asker);
	if (!op)
		return;
	part = &op->parts[slot_no(s)];
	for (unsigned i = 0; i < sh->workers; i++)
		n += op->parts[i].rate > 0 && &op->parts[i] != part;
	if (part->rate == 0)
		part->rate = n == 1 ? sh->rate : sh->rate / n + 1;
	m->rate = part->told = part->rate;
}

/* --- by the clock ------------------------------------------------------------- */

static void
count_pairs(struct share *sh, struct pairs *all)
{
	struct share_op *op, *next_op;
	const struct pair *p;

	HASH_ITER (hh, sh->ops, op, next_op) {
		op->pairs = 0;
		for (unsigned i = 0; i < sh->workers; i++)
			op->parts[i].pairs = op->parts[i].busy = op->parts[i].used = 0;
	}
	for (p = idmap_next(&all->by_id, NULL); p; p = idmap_next(&all->by_id, p)) {
		op = quota_is_self(p->op) ? NULL : op_of(sh, quota_number(p->op));
		if (!op)
			continue;
		op->pairs++;
		if (p->slot)
			op->parts[slot_no(p->slot)].pairs++;
	}
}

/* Bytes of this worker's pairs since the last tick. */
static void
count_bytes(struct share *sh, struct pairs *all, const struct slot *s, int64_t ms)
{
	const struct ledger *l = slot_ledger(s);
	struct relay_seat seat;

	for (uint32_t i = 0; i < ledger_seats(l); i++) {
		struct pair *p = ledger_seat(l, i, &seat) ? pairing_find(all, seat.pair) : NULL;
		struct share_part *part;
		struct share_op *op;
		uint64_t bytes;

		if (!p || p->slot != s || quota_is_self(p->op) || !(op = op_of(sh, quota_number(p->op))))
			continue;
		part = &op->parts[slot_no(s)];
		bytes = seat.bytes_ab + seat.bytes_ba;
		part->busy += bytes != p->shared_bytes;
		if (bytes > p->shared_bytes)
			part->used += (uint64_t)((double)(bytes - p->shared_bytes) * 1000.0 / (double)ms);
		p->shared_bytes = bytes;
	}
}

/* Small changes are not worth a message. */
static bool
is_news(uint64_t was, uint64_t now)
{
	uint64_t gap = was > now ? was - now : now - was;

	return gap > was / 16;
}

static void
tell(struct share *sh, struct pairs *all, struct share_op *op)
{
	for (unsigned i = 0; i < sh->workers; i++) {
		struct share_part *part = &op->parts[i];
		struct slot *s = all->loads[i].slot;
		struct chan_msg m = { .type = CHAN_RATE, .asker = op->number };

		if (part->pairs == 0 || !is_news(part->told, part->rate) || !s || slot_room(s) == 0)
			continue;
		m.rate = part->told = part->rate;
		slot_post(s, &m, -1);
		log_debug("rate", "asker=%llu worker=%u rate=%llu used=%llu busy=%zu", (unsigned long long)op->number,
		    i, (unsigned long long)part->rate, (unsigned long long)part->used, part->busy);
	}
}

/* There is no limit any more: who still has one is told. */
static bool
has_told_none(struct share *sh, struct pairs *all, struct share_op *op)
{
	bool none = true;

	for (unsigned i = 0; i < sh->workers; i++) {
		struct share_part *part = &op->parts[i];
		struct slot *s = all->loads[i].slot;
		struct chan_msg m = { .type = CHAN_RATE, .asker = op->number };

		if (part->told == 0 || !s)
			continue;
		if (slot_room(s) == 0) {
			none = false;
			continue;
		}
		slot_post(s, &m, -1);
		part->rate = part->told = 0;
	}
	return none;
}

void
share_tick(struct share *sh, struct pairs *all, int64_t now_ms)
{
	int64_t ms = sh ? now_ms - sh->tick_ms : 0;
	struct share_op *op, *next;

	if (ms <= 0)
		return;
	sh->tick_ms = now_ms;
	if (sh->rate == 0) {
		HASH_ITER (hh, sh->ops, op, next)
			if (has_told_none(sh, all, op)) {
				HASH_DEL(sh->ops, op);
				free(op);
			}
		return;
	}
	count_pairs(sh, all);
	for (unsigned i = 0; i < sh->workers; i++)
		if (all->loads[i].slot)
			count_bytes(sh, all, all->loads[i].slot, ms);
	HASH_ITER (hh, sh->ops, op, next) {
		if (op->pairs == 0) {
			HASH_DEL(sh->ops, op);
			free(op);
			continue;
		}
		share_divide(sh->rate, op->parts, sh->workers);
		tell(sh, all, op);
	}
}
