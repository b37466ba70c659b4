/* group.c - a limit in bytes a second that several pairs share, and their turns
 *
 *      time --rate--> [tokens, at most burst] --group_spend()--> what its pairs read
 *
 * Always true:
 *  1. Who finds no tokens is in the group's line (Q_HELD) and does nothing until its
 *     turn: no event, no pipe and no buffer. While somebody is in the line, nobody of
 *     the group reads but who is served from its head, one quantum at a time, and
 *     who was kept waiting for a pipe.
 *  2. A group is in r->held while somebody is in its line. Others cost nothing: their
 *     tokens are reckoned when they are asked for.
 *  3. Tokens go below 0 only by what came before a reset: that is passed on while it
 *     can be, and paid for later.
 *  4. A group exists while a pair is in it. It begins with one quantum, not with the
 *     burst: else who comes again and again would never meet its limit.
 *
 * Not here: who is in which group, and how a rate is divided over processes.
 */
#include <errno.h>
#include <stdlib.h>

#define HASH_NONFATAL_OOM 1
#include <uthash.h>

#include "hyper/base/bug.h"
#include "relay/engine.h"

#define SERVE_PAIRS 32           /* turns in one groups_run(); then it is the turn of the caller's other work */
#define QUANTUM_MIN 1024         /* bytes of one turn */
#define QUANTUM_MAX 65536        /* a pipe of the usual size is filled */
#define RATE_MAX    (1ull << 40) /* so that no product overflows */

struct relay_group {
	TAILQ_ENTRY(relay_group) link; /* of r->held */
	struct pair_list line;
	bool is_held;    /* in r->held */
	uint64_t number; /* key */
	size_t n_pairs;
	int64_t rate;      /* bytes a second; 0 no limit */
	int64_t tokens_k;  /* thousandths of bytes: what a millisecond brings is a whole number of them */
	int64_t quantum;   /* bytes of one turn */
	int64_t refill_ms; /* until when the tokens are reckoned */
	int64_t left;      /* bytes that the pair whose turn it is may still read */
	const struct relay_pair *served;
	UT_hash_handle hh;
};

/* --- tokens ---------------------------------------------------------------- */

static int64_t
burst_k(const struct relay_group *g)
{
	int64_t burst = g->rate / 4;

	return (burst < RELAY_BURST_MIN ? RELAY_BURST_MIN : burst) * 1000;
}

static void
refill(struct relay_group *g, int64_t now_ms)
{
	int64_t ms = now_ms - g->refill_ms, room = burst_k(g) - g->tokens_k;

	if (ms <= 0 || g->rate == 0)
		return;
	g->refill_ms = now_ms;
	/* Divided first: after a long rest the product would overflow. */
	g->tokens_k += room / g->rate < ms ? room : g->rate * ms;
}

static void
rate_set(struct relay_group *g, uint64_t rate, int64_t now_ms)
{
	refill(g, now_ms);
	g->refill_ms = now_ms;
	g->rate = (int64_t)(rate < RATE_MAX ? rate : RATE_MAX);
	g->quantum = g->rate / 50;
	if (g->quantum < QUANTUM_MIN)
		g->quantum = QUANTUM_MIN;
	if (g->quantum > QUANTUM_MAX)
		g->quantum = QUANTUM_MAX;
	if (g->tokens_k > burst_k(g))
		g->tokens_k = burst_k(g);
}

/* With so many the line moves on: at high rates not for each quantum, but every 10 ms. */
static int64_t
level_k(const struct relay_group *g)
{
	int64_t level = g->rate / 100;

	return (level < g->quantum ? g->quantum : level) * 1000;
}

static bool
may_serve(const struct relay_group *g, int64_t least_k)
{
	return !TAILQ_EMPTY(&g->line) && (g->rate == 0 || g->tokens_k >= least_k);
}

/* --- one turn of a pair ------------------------------------------------------ */

void
group_turn_begin(struct relay *r, struct relay_pair *p)
{
	struct relay_group *g = p->group;
	bool is_next = g->served == p || p->promised;

	refill(g, r->now_ms);
	if (g->rate == 0 || pair_is_broken(p))
		g->left = INT64_MAX;
	else if (TAILQ_EMPTY(&g->line))
		g->left = g->tokens_k / 1000;
	else
		g->left = !is_next ? 0 : g->tokens_k / 1000 < g->quantum ? g->tokens_k / 1000 : g->quantum;
	if (g->left < 0)
		g->left = 0;
}

size_t
group_left(const struct relay_pair *p)
{
	return p->group ? (size_t)p->group->left : SIZE_MAX;
}

void
group_spend(struct relay_pair *p, int dir, size_t n)
{
	struct relay_group *g = p->group;

	if (!g)
		return;
	BUG_ON((int64_t)n > g->left);
	g->left -= (int64_t)n;
	p->lead = !dir;
	if (g->rate > 0)
		g->tokens_k -= (int64_t)n * 1000;
}

/* --- the line ---------------------------------------------------------------- */

struct pair_list *
group_line(struct relay_group *g)
{
	return &g->line;
}

void
group_line_changed(struct relay *r, struct relay_group *g)
{
	bool is_held = !TAILQ_EMPTY(&g->line);

	if (g->is_held == is_held)
		return;
	g->is_held = is_held;
	if (is_held)
		TAILQ_INSERT_TAIL(&r->held, g, link);
	else
		TAILQ_REMOVE(&r->held, g, link);
}

/* To the end of the line before its turn: pair_turn() leaves it there, or takes it out. The group may be gone then. */
static void
serve_first(struct relay *r, struct relay_group *g)
{
	struct relay_pair *p = TAILQ_FIRST(&g->line);

	TAILQ_REMOVE(&g->line, p, line);
	TAILQ_INSERT_TAIL(&g->line, p, line);
	g->served = p;
	g->n_pairs++; /* it outlives this turn */
	turn_note(r, p->id);
	pair_turn(r, p);
	turn_note(r, 0);
	g->n_pairs--;
	g->served = NULL;
}

static void
group_drop_empty(struct relay *r, struct relay_group *g)
{
	if (g->n_pairs > 0)
		return;
	HASH_DEL(r->groups, g);
	free(g);
}

bool
groups_run(struct relay *r)
{
	struct relay_group *g, *next, *last = TAILQ_LAST(&r->held, group_list);
	int turns = SERVE_PAIRS;
	bool is_last = !last, more = false;

	for (g = TAILQ_FIRST(&r->held); !is_last; g = next) {
		int64_t least_k = level_k(g);

		is_last = g == last;
		next = TAILQ_NEXT(g, link);
		refill(g, r->now_ms);
		for (; turns > 0 && may_serve(g, least_k); turns--) {
			serve_first(r, g);
			least_k = g->quantum * 1000;
		}
		if (may_serve(g, least_k)) {
			more = is_last = true;
			TAILQ_REMOVE(&r->held, g, link);
			TAILQ_INSERT_TAIL(&r->held, g, link);
		}
		group_drop_empty(r, g);
	}
	return more;
}

static int64_t
group_next_ms(const struct relay_group *g)
{
	int64_t lack_k = level_k(g) - g->tokens_k;

	if (g->rate == 0 || lack_k <= 0)
		return g->refill_ms;
	return g->refill_ms + (lack_k + g->rate - 1) / g->rate;
}

int64_t
groups_next_ms(const struct relay *r)
{
	int64_t next = INT64_MAX;
	const struct relay_group *g;

	TAILQ_FOREACH (g, &r->held, link)
		if (group_next_ms(g) < next)
			next = group_next_ms(g);
	return next;
}

/* --- who is in which -------------------------------------------------------- */

static struct relay_group *
group_find(const struct relay *r, uint64_t number)
{
	struct relay_group *g;

	HASH_FIND(hh, r->groups, &number, sizeof(number), g);
	return g;
}

static struct relay_group *
group_new(struct relay *r, uint64_t number, uint64_t rate)
{
	struct relay_group *g = calloc(1, sizeof(*g));
	size_t before = HASH_COUNT(r->groups);

	if (!g)
		return NULL;
	TAILQ_INIT(&g->line);
	g->number = number;
	rate_set(g, rate, r->now_ms);
	g->tokens_k = g->quantum * 1000;
	HASH_ADD(hh, r->groups, number, sizeof(g->number), g);
	if (HASH_COUNT(r->groups) > before)
		return g;
	free(g); /* uthash leaves it out when there is no memory */
	return NULL;
}

size_t
group_count(const struct relay *r)
{
	return HASH_COUNT(r->groups);
}

void
group_leave(struct relay *r, struct relay_pair *p)
{
	struct relay_group *g = p->group;

	if (!g)
		return;
	BUG_ON(p->queue == Q_HELD);
	p->group = NULL;
	g->n_pairs--;
	group_drop_empty(r, g);
}

int
relay_pair_join(struct relay *r, uint64_t id, uint64_t number, uint64_t rate)
{
	struct relay_pair *p = pair_find(r, id);
	struct relay_group *g = NULL;

	if (!p)
		return -ENOENT;
	if (number != 0) {
		g = group_find(r, number);
		if (!g)
			g = group_new(r, number, rate);
		if (!g)
			return -ENOMEM;
		g->n_pairs++;
	}
	if (p->queue == Q_HELD)
		queue_enter(r, p, Q_RUN);
	group_leave(r, p);
	p->group = g;
	return 0;
}

void
relay_group_rate(struct relay *r, uint64_t number, uint64_t rate)
{
	struct relay_group *g = group_find(r, number);

	if (g)
		rate_set(g, rate, r->now_ms);
}
