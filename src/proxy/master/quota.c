/* quota.c - counts of what each operator holds, and their limits
 *
 * Always true:
 *  1. held[k] is the sum of n[k] of all operators. Nothing is given back that was
 *     not taken: that would be our own mistake, and stops us (BUG_ON).
 *  2. An operator is in the table while it holds something, or while its rate is
 *     not whole again (a second at most, and those are in `idle`, oldest first).
 *     Any other would be equal to a new one, so it is forgotten.
 *  3. At max[NAMES] the idle one that waited longest makes room; without any, no.
 *  4. A refusal changes nothing but its counter.
 *  5. Each operation costs the same however many operators there are.
 *
 * A rate is one number: the time at which the operator will have its whole burst
 * again. A request moves it by 1/rate; it may be at most a second ahead (so burst = rate).
 *
 * Not here: what is refused with it (session.c, meet.c), the answer (brokering.c).
 */
#include "proxy/master/quota.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#define HASH_NONFATAL_OOM 1
#include <uthash.h>

#include "hyper/base/bug.h"
#include "hyper/base/log.h"

#define NS_PER_MS  1000000
#define NS_PER_SEC 1000000000

static const struct {
	const char *setting, *what;
} limit_tab[] = {
#define X(n, setting, what) { #setting, what },
	QUOTA_LIMITS(X)
#undef X
};

/* By kind: the operator's limit, and that of all together. */
static const struct {
	const char *name;
	enum quota_limit one, all; /* QUOTA_LIMIT_MAX: none */
} kind_tab[] = {
	[QUOTA_TOKENS] = { "tokens", QUOTA_LIMIT_TOKENS, QUOTA_LIMIT_MAX }, /* of all: the table's size */
	[QUOTA_OUTSTANDING] = { "outstanding", QUOTA_LIMIT_OUTSTANDING, QUOTA_LIMIT_MAX },
	[QUOTA_INCOMING] = { "incoming", QUOTA_LIMIT_INCOMING, QUOTA_LIMIT_MAX },
	[QUOTA_PARKED] = { "parked", QUOTA_LIMIT_PARKED, QUOTA_LIMIT_PARKED_ALL },
	[QUOTA_PAIRS] = { "pairs", QUOTA_LIMIT_PAIRS, QUOTA_LIMIT_PAIRS_ALL },
};
_Static_assert(ARRAY_LEN(kind_tab) == QUOTA_KIND_MAX, "a row for each kind");

struct quota_op {
	size_t n[QUOTA_KIND_MAX];
	size_t holds; /* sum of n */
	uint64_t number;
	int64_t whole_ns[2];        /* when the rate as asker, as target is whole again */
	TAILQ_ENTRY(quota_op) idle; /* while is_idle */
	bool is_idle, is_self;
	UT_hash_handle hh; /* by name */
	char name[];
};

struct quota {
	struct quota_conf conf;
	struct quota_op *ops;
	TAILQ_HEAD(, quota_op) idle;
	int64_t now_ns; /* the latest that we were told */
	uint64_t last_number;
	size_t held[QUOTA_KIND_MAX];
	uint64_t refused[QUOTA_LIMIT_MAX];
	struct log_limit log[QUOTA_LIMIT_MAX];
};

void
quota_apply(struct quota *q, const struct quota_conf *conf)
{
	BUG_ON(conf->max[QUOTA_LIMIT_RATE_FROM] > QUOTA_RATE_MAX || conf->max[QUOTA_LIMIT_RATE_TO] > QUOTA_RATE_MAX);
	q->conf = *conf;
}

struct quota *
quota_new(const struct quota_conf *conf)
{
	struct quota *q = calloc(1, sizeof(*q));

	if (!q)
		return NULL;
	quota_apply(q, conf);
	TAILQ_INIT(&q->idle);
	return q;
}

/* --- the table of operators --- */

static void
op_unidle(struct quota *q, struct quota_op *op)
{
	if (op->is_idle)
		TAILQ_REMOVE(&q->idle, op, idle);
	op->is_idle = false;
}

static void
op_forget(struct quota *q, struct quota_op *op)
{
	op_unidle(q, op);
	HASH_DEL(q->ops, op);
	free(op);
}

static bool
is_whole(const struct quota *q, const struct quota_op *op)
{
	return op->whole_ns[0] <= q->now_ns && op->whole_ns[1] <= q->now_ns;
}

/* It may hold nothing any more. */
static void
op_leave(struct quota *q, struct quota_op *op)
{
	if (op->holds || op->is_idle)
		return;
	if (is_whole(q, op)) {
		op_forget(q, op);
		return;
	}
	TAILQ_INSERT_TAIL(&q->idle, op, idle);
	op->is_idle = true;
}

/* Counts and logs. -EDQUOT or, where all share the limit, -EBUSY. */
static int
refuse(struct quota *q, enum quota_limit limit, const char *name, int64_t retry_ms, struct quota_no *ret_no)
{
	bool is_shared =
	    limit == QUOTA_LIMIT_PARKED_ALL || limit == QUOTA_LIMIT_PAIRS_ALL || limit == QUOTA_LIMIT_NAMES;

	q->refused[limit]++;
	log_limited(&q->log[limit], LOG_LVL_WARN, "quota", "operator=%s limit=public.%s max=%zu counts=\"%s\"", name,
	    limit_tab[limit].setting, q->conf.max[limit], limit_tab[limit].what);
	*ret_no = (struct quota_no){ .limit = limit, .max = q->conf.max[limit], .retry_ms = retry_ms };
	return is_shared ? -EBUSY : -EDQUOT;
}

/* The operator, not idle: op_leave() is owed. 0, -EBUSY, -ENOMEM. */
static int
op_get(struct quota *q, const char *name, struct quota_op **ret, struct quota_no *ret_no)
{
	size_t len = strlen(name), max = q->conf.max[QUOTA_LIMIT_NAMES];
	struct quota_op *op;

	HASH_FIND(hh, q->ops, name, len, op);
	if (op) {
		op_unidle(q, op);
		*ret = op;
		return 0;
	}
	if (max && HASH_COUNT(q->ops) >= max) {
		if (TAILQ_EMPTY(&q->idle))
			return refuse(q, QUOTA_LIMIT_NAMES, name, 0, ret_no);
		op_forget(q, TAILQ_FIRST(&q->idle));
	}
	op = calloc(1, sizeof(*op) + len + 1);
	if (!op)
		return -ENOMEM;
	memcpy(op->name, name, len);
	op->number = ++q->last_number;
	op->is_self = strcmp(name, QUOTA_SELF) == 0;
	HASH_ADD_KEYPTR(hh, q->ops, op->name, len, op);
	if (!op->hh.tbl) { /* HASH_NONFATAL_OOM */
		free(op);
		return -ENOMEM;
	}
	*ret = op;
	return 0;
}

void
quota_free(struct quota *q)
{
	struct quota_op *op, *next;

	if (!q)
		return;
	HASH_ITER (hh, q->ops, op, next)
		op_forget(q, op);
	free(q);
}

void
quota_tick(struct quota *q, int64_t now_ns)
{
	struct quota_op *op;

	q->now_ns = now_ns;
	while ((op = TAILQ_FIRST(&q->idle)) && is_whole(q, op))
		op_forget(q, op);
}

/* --- counts --- */

static int
check_count(struct quota *q, const struct quota_op *op, enum quota_kind kind, struct quota_no *ret_no)
{
	enum quota_limit one = kind_tab[kind].one, all = kind_tab[kind].all;

	if (op->is_self && op->n[kind] >= QUOTA_SELF_MAX) {
		*ret_no = (struct quota_no){ .limit = one, .max = QUOTA_SELF_MAX };
		return -EDQUOT;
	}
	if (!op->is_self && q->conf.max[one] && op->n[kind] >= q->conf.max[one])
		return refuse(q, one, op->name, 0, ret_no);
	if (all != QUOTA_LIMIT_MAX && q->conf.max[all] && q->held[kind] >= q->conf.max[all])
		return refuse(q, all, op->name, 0, ret_no);
	return 0;
}

static void
hold(struct quota *q, struct quota_op *op, enum quota_kind kind)
{
	op_unidle(q, op);
	op->n[kind]++;
	op->holds++;
	q->held[kind]++;
}

int
quota_take(struct quota *q, struct quota_op *op, enum quota_kind kind)
{
	struct quota_no no;
	int rc = check_count(q, op, kind, &no);

	BUG_ON(op->holds == 0);
	if (rc == 0)
		hold(q, op, kind);
	return rc;
}

void
quota_give(struct quota *q, struct quota_op *op, enum quota_kind kind)
{
	BUG_ON(op->n[kind] == 0 || op->holds == 0 || q->held[kind] == 0);
	op->n[kind]--;
	op->holds--;
	q->held[kind]--;
	op_leave(q, op);
}

struct quota_op *
quota_restore(struct quota *q, const char *name, enum quota_kind kind)
{
	struct quota_op *op;
	struct quota_no no;

	if (op_get(q, name, &op, &no) < 0)
		return NULL;
	hold(q, op, kind);
	return op;
}

const char *
quota_name(const struct quota_op *op)
{
	return op->name;
}

/* --- requests --- */

static int64_t
interval_ns(const struct quota *q, int side)
{
	size_t rate = q->conf.max[side ? QUOTA_LIMIT_RATE_TO : QUOTA_LIMIT_RATE_FROM];

	return rate ? NS_PER_SEC / (int64_t)rate : 0;
}

/* When the rate would be whole again after one more request. */
static int64_t
whole_after(const struct quota *q, const struct quota_op *op, int side)
{
	int64_t from = op->whole_ns[side] > q->now_ns ? op->whole_ns[side] : q->now_ns;

	return from + interval_ns(q, side);
}

static int
check_rate(struct quota *q, const struct quota_op *op, int side, struct quota_no *ret_no)
{
	int64_t over = whole_after(q, op, side) - q->now_ns - NS_PER_SEC;

	if (over <= 0 || op->is_self)
		return 0;
	return refuse(q, side ? QUOTA_LIMIT_RATE_TO : QUOTA_LIMIT_RATE_FROM, op->name,
	    (over + NS_PER_MS - 1) / NS_PER_MS, ret_no);
}

/* The asker's own limits come first: what it is told is then what it can change. */
static int
check_ask(struct quota *q, const struct quota_op *from, const struct quota_op *to, struct quota_no *ret_no)
{
	int rc = check_rate(q, from, 0, ret_no);

	if (rc == 0)
		rc = check_count(q, from, QUOTA_TOKENS, ret_no);
	if (rc == 0)
		rc = check_count(q, from, QUOTA_OUTSTANDING, ret_no);
	if (rc == 0)
		rc = check_rate(q, to, 1, ret_no);
	if (rc == 0)
		rc = check_count(q, to, QUOTA_INCOMING, ret_no);
	return rc;
}

int
quota_ask(struct quota *q, const char *from, const char *to, int64_t now_ns, struct quota_op **ret_from,
    struct quota_op **ret_to, struct quota_no *ret_no)
{
	struct quota_op *a, *b;
	int rc;

	q->now_ns = now_ns;
	rc = op_get(q, from, &a, ret_no);
	if (rc < 0)
		return rc;
	rc = op_get(q, to, &b, ret_no);
	if (rc < 0) {
		op_leave(q, a);
		return rc;
	}
	rc = check_ask(q, a, b, ret_no);
	if (rc < 0) {
		if (b != a)
			op_leave(q, b);
		op_leave(q, a);
		return rc;
	}
	/* Without a rate the time stays in the past: such an operator is whole at once. */
	if (interval_ns(q, 0) && !a->is_self)
		a->whole_ns[0] = whole_after(q, a, 0);
	if (interval_ns(q, 1) && !b->is_self)
		b->whole_ns[1] = whole_after(q, b, 1);
	hold(q, a, QUOTA_TOKENS);
	hold(q, a, QUOTA_OUTSTANDING);
	hold(q, b, QUOTA_INCOMING);
	*ret_from = a;
	*ret_to = b;
	return 0;
}

void
quota_answered(struct quota *q, struct quota_op *from, struct quota_op *to)
{
	quota_give(q, from, QUOTA_OUTSTANDING);
	quota_give(q, to, QUOTA_INCOMING);
}

/* --- for people --- */

bool
quota_is_self(const struct quota_op *op)
{
	return op->is_self;
}

uint64_t
quota_number(const struct quota_op *op)
{
	return op->number;
}

size_t
quota_held(const struct quota *q, enum quota_kind kind)
{
	return q->held[kind];
}

size_t
quota_over(const struct quota *q, enum quota_limit limit, size_t max)
{
	const struct quota_op *op, *next;
	size_t over = 0;
	int kind;

	for (kind = 0; max && kind < QUOTA_KIND_MAX; kind++) {
		if (kind_tab[kind].all == limit && q->held[kind] > max)
			over += q->held[kind] - max;
		if (kind_tab[kind].one != limit)
			continue;
		HASH_ITER (hh, q->ops, op, next)
			over += !op->is_self && op->n[kind] > max ? op->n[kind] - max : 0;
	}
	return over;
}

size_t
quota_names(const struct quota *q)
{
	return HASH_COUNT(q->ops);
}

void
quota_counts_each(struct quota *q, void (*each)(const char *name, uint64_t *value, void *arg), void *arg)
{
	char name[96];

	for (int i = 0; i < QUOTA_LIMIT_MAX; i++) {
		snprintf(name, sizeof(name), "quota_refused_%s", quota_setting((enum quota_limit)i));
		each(name, &q->refused[i], arg);
	}
}

uint64_t
quota_refused(const struct quota *q, enum quota_limit limit)
{
	return q->refused[limit];
}

const char *
quota_setting(enum quota_limit limit)
{
	return limit_tab[limit].setting;
}

const char *
quota_what(enum quota_limit limit)
{
	return limit_tab[limit].what;
}

void
quota_log_totals(const struct quota *q)
{
	char text[64 * (QUOTA_LIMIT_MAX + QUOTA_KIND_MAX)];
	size_t i, used = 0;

	for (i = 0; i < QUOTA_KIND_MAX && used < sizeof(text); i++)
		used += (size_t)snprintf(text + used, sizeof(text) - used, " %s=%zu", kind_tab[i].name, q->held[i]);
	for (i = 0; i < QUOTA_LIMIT_MAX && used < sizeof(text); i++)
		used += (size_t)snprintf(text + used, sizeof(text) - used, " refused_%s=%llu", limit_tab[i].setting,
		    (unsigned long long)q->refused[i]);
	log_info("totals", "operators=%zu%s", quota_names(q), text);
}
