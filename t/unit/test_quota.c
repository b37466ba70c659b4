/* test_quota.c - each limit stops at its number, for its operator alone, and counts go back to nothing
 *
 * The model at the end is the same rules in the plainest form: arrays and a bucket of nanoseconds.
 */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "hyper/base/attr.h"
#include "proxy/master/quota.h"

#define SEC   1000000000ll
#define START (1000 * SEC)

struct held {
	struct quota_op *a, *b;
};

static struct quota *
quota_of(enum quota_limit limit, size_t max)
{
	struct quota_conf conf = { 0 };
	struct quota *q;

	conf.max[limit] = max;
	q = quota_new(&conf);
	assert_non_null(q);
	return q;
}

static int
ask(struct quota *q, const char *from, const char *to, int64_t now_ns, struct held *ret)
{
	struct quota_no no = { .limit = QUOTA_LIMIT_MAX };
	int rc = quota_ask(q, from, to, now_ns, &ret->a, &ret->b, &no);

	assert_int_equal(rc == 0, no.limit == QUOTA_LIMIT_MAX);
	return rc;
}

static void
answered(struct quota *q, struct held *h)
{
	quota_answered(q, h->a, h->b);
	quota_give(q, h->a, QUOTA_TOKENS);
}

static void
assert_empty(struct quota *q)
{
	int k;

	for (k = 0; k < QUOTA_KIND_MAX; k++)
		assert_int_equal(quota_held(q, (enum quota_kind)k), 0);
	assert_int_equal(quota_names(q), 0);
}

/* Three times: up to the limit, over it, others, down again. */
static void
test_requests(void **state)
{
	static const struct {
		enum quota_limit limit;
		const char *from, *to;   /* who fills it */
		const char *from2, *to2; /* refused as well */
		const char *from3, *to3; /* not concerned */
	} cases[] = {
		{ QUOTA_LIMIT_TOKENS, "a", "b", "a", "c", "b", "a" },
		{ QUOTA_LIMIT_OUTSTANDING, "a", "b", "a", "c", "c", "b" },
		{ QUOTA_LIMIT_INCOMING, "a", "b", "c", "b", "b", "a" },
		{ QUOTA_LIMIT_TOKENS, "a", "a", "a", "c", "b", "a" },
		{ QUOTA_LIMIT_INCOMING, "a", "a", "c", "a", "a", "b" },
		{ QUOTA_LIMIT_OUTSTANDING, "a", "b", "a", "a", "ab", "b" },
	};
	struct held h[5], more;
	struct quota_no no;
	size_t i, k;
	int round;

	(void)state;
	for (i = 0; i < ARRAY_LEN(cases); i++) {
		struct quota *q = quota_of(cases[i].limit, 5);

		for (round = 0; round < 3; round++) {
			for (k = 0; k < 5; k++)
				assert_int_equal(ask(q, cases[i].from, cases[i].to, START, &h[k]), 0);
			assert_int_equal(ask(q, cases[i].from2, cases[i].to2, START, &more), -EDQUOT);
			assert_int_equal(
			    quota_ask(q, cases[i].from, cases[i].to, START, &more.a, &more.b, &no), -EDQUOT);
			assert_int_equal(no.limit, cases[i].limit);
			assert_int_equal(no.max, 5);
			assert_int_equal(ask(q, cases[i].from3, cases[i].to3, START, &more), 0);
			answered(q, &more);
			assert_int_equal(quota_refused(q, cases[i].limit), 2 * (round + 1));
			answered(q, &h[2]);
			assert_int_equal(ask(q, cases[i].from, cases[i].to, START, &h[2]), 0);
			for (k = 0; k < 5; k++)
				answered(q, &h[k]);
			assert_empty(q);
		}
		quota_free(q);
	}
}

/* An answer frees a request, not the token; the use of the token frees that. */
static void
test_answer_and_token(void **state)
{
	struct quota_conf conf = { 0 };
	struct held h[2], more;
	struct quota *q;

	(void)state;
	conf.max[QUOTA_LIMIT_TOKENS] = 2;
	conf.max[QUOTA_LIMIT_OUTSTANDING] = 1;
	q = quota_new(&conf);
	assert_int_equal(ask(q, "a", "b", START, &h[0]), 0);
	assert_int_equal(ask(q, "a", "b", START, &more), -EDQUOT);
	quota_answered(q, h[0].a, h[0].b);
	assert_int_equal(ask(q, "a", "b", START, &h[1]), 0);
	quota_answered(q, h[1].a, h[1].b);
	assert_int_equal(ask(q, "a", "b", START, &more), -EDQUOT);
	assert_int_equal(quota_refused(q, QUOTA_LIMIT_OUTSTANDING), 1);
	assert_int_equal(quota_refused(q, QUOTA_LIMIT_TOKENS), 1);
	quota_give(q, h[0].a, QUOTA_TOKENS);
	assert_int_equal(quota_names(q), 1); /* b holds nothing any more */
	quota_give(q, h[1].a, QUOTA_TOKENS);
	assert_empty(q);
	quota_free(q);
}

static void
test_parked_and_pairs(void **state)
{
	static const struct {
		enum quota_limit limit;
		enum quota_kind kind;
		int rc, other_rc; /* of the operator that fills it, of another one */
	} cases[] = {
		{ QUOTA_LIMIT_PARKED, QUOTA_PARKED, -EDQUOT, 0 },
		{ QUOTA_LIMIT_PARKED_ALL, QUOTA_PARKED, -EBUSY, -EBUSY },
		{ QUOTA_LIMIT_PAIRS, QUOTA_PAIRS, -EDQUOT, 0 },
		{ QUOTA_LIMIT_PAIRS_ALL, QUOTA_PAIRS, -EBUSY, -EBUSY },
	};
	struct held h, other;
	size_t i, k;

	(void)state;
	for (i = 0; i < ARRAY_LEN(cases); i++) {
		struct quota *q = quota_of(cases[i].limit, 3);

		assert_int_equal(ask(q, "a", "b", START, &h), 0);
		assert_int_equal(ask(q, "b", "a", START, &other), 0);
		for (k = 0; k < 3; k++)
			assert_int_equal(quota_take(q, h.a, cases[i].kind), 0);
		assert_int_equal(quota_take(q, h.a, cases[i].kind), cases[i].rc);
		assert_int_equal(quota_take(q, other.a, cases[i].kind), cases[i].other_rc);
		assert_int_equal(quota_refused(q, cases[i].limit), cases[i].other_rc ? 2 : 1);
		if (cases[i].other_rc == 0)
			quota_give(q, other.a, cases[i].kind);
		answered(q, &other);
		quota_give(q, h.a, cases[i].kind);
		assert_int_equal(quota_take(q, h.a, cases[i].kind), 0);
		answered(q, &h); /* a pair outlives its token */
		assert_int_equal(quota_names(q), 1);
		for (k = 0; k < 3; k++)
			quota_give(q, h.a, cases[i].kind);
		assert_empty(q);
		quota_free(q);
	}
}

static void
test_rates(void **state)
{
	static const size_t rates[] = { 1, 2, 3, 7, 100, 1000, 999999, QUOTA_RATE_MAX };
	static const enum quota_limit limits[] = { QUOTA_LIMIT_RATE_FROM, QUOTA_LIMIT_RATE_TO };
	struct quota_no no;
	struct held h;
	size_t i, k;
	int64_t now, n;

	(void)state;
	for (i = 0; i < ARRAY_LEN(rates) * 2; i++) {
		size_t rate = rates[i / 2];
		struct quota *q = quota_of(limits[i % 2], rate);

		/* the burst at once, no more */
		for (k = 0; k < rate; k++) {
			assert_int_equal(ask(q, "a", "b", START, &h), 0);
			answered(q, &h);
		}
		for (n = 0; quota_ask(q, "a", "b", START, &h.a, &h.b, &no) == 0; n++)
			answered(q, &h);
		assert_true(n <= (int64_t)rate / 1000); /* a nanosecond of rounding a request */
		assert_int_equal(no.limit, limits[i % 2]);
		assert_in_range(no.retry_ms, 1, 1000 / rate + 1);
		/* others are not concerned, and what holds nothing but its rate is still known */
		assert_int_equal(ask(q, "b", "a", START, &h), 0);
		answered(q, &h);
		assert_int_equal(quota_names(q), 2);
		/* when told to come back it gets one, however often it asked in vain */
		assert_int_equal(ask(q, "a", "b", START, &h), -EDQUOT);
		now = START + no.retry_ms * 1000000;
		assert_int_equal(ask(q, "a", "b", now, &h), 0);
		answered(q, &h);
		/* half a second gives half of it */
		now += SEC;
		for (k = 0; k < rate; k++) {
			assert_int_equal(ask(q, "a", "b", now, &h), 0);
			answered(q, &h);
		}
		for (n = 0; ask(q, "a", "b", now + SEC / 2, &h) == 0; n++)
			answered(q, &h);
		assert_in_range(n, rate / 2, rate / 2 + rate / 500 + 1);
		/* and whole again it is forgotten */
		quota_tick(q, now + 3 * SEC / 2 + 1);
		assert_empty(q);
		quota_free(q);
	}
}

static void
test_full_table(void **state)
{
	struct quota_conf conf = { 0 };
	struct held h[2], more;
	struct quota_no no;
	struct quota *q;

	(void)state;
	conf.max[QUOTA_LIMIT_NAMES] = 4;
	conf.max[QUOTA_LIMIT_RATE_FROM] = 1;
	q = quota_new(&conf);
	assert_int_equal(ask(q, "a", "b", START, &h[0]), 0);
	assert_int_equal(ask(q, "c", "d", START, &h[1]), 0);
	assert_int_equal(quota_ask(q, "e", "f", START, &more.a, &more.b, &no), -EBUSY);
	assert_int_equal(no.limit, QUOTA_LIMIT_NAMES);
	assert_int_equal(ask(q, "d", "e", START, &more), -EBUSY);
	assert_int_equal(quota_names(q), 4);
	assert_int_equal(ask(q, "d", "b", START, &more), 0); /* those that are there go on */
	answered(q, &more);
	/* an idle one makes room, also while it waits for its rate; never the asker itself for its own target */
	answered(q, &h[0]);
	assert_int_equal(quota_names(q), 3); /* a for its rate, c, d */
	assert_int_equal(ask(q, "e", "f", START, &h[0]), 0);
	assert_int_equal(quota_names(q), 4); /* a is gone */
	assert_int_equal(ask(q, "d", "g", START, &more), -EBUSY);
	answered(q, &h[0]);
	answered(q, &h[1]);
	quota_tick(q, START + 2 * SEC);
	assert_empty(q);
	/* one name that idles and a target that is new, at the limit */
	conf.max[QUOTA_LIMIT_NAMES] = 1;
	quota_free(q);
	q = quota_new(&conf);
	assert_int_equal(ask(q, "a", "a", START, &more), 0);
	answered(q, &more);
	assert_int_equal(ask(q, "a", "b", START + 2 * SEC, &more), -EBUSY);
	assert_int_equal(ask(q, "b", "b", START + 2 * SEC, &more), 0);
	answered(q, &more);
	quota_free(q);
}

/* Given back what was not taken: our own mistake, so the end. */
static void
test_underflow(void **state)
{
	static const enum quota_kind kinds[] = { QUOTA_TOKENS, QUOTA_PARKED, QUOTA_PAIRS };
	size_t i;

	(void)state;
	for (i = 0; i < ARRAY_LEN(kinds); i++) {
		pid_t pid = fork();
		int status = 0;

		assert_true(pid >= 0);
		if (pid == 0) {
			const struct rlimit none = { 0, 0 };
			struct quota *q = quota_of(QUOTA_LIMIT_TOKENS, 0);
			struct held h;

			setrlimit(RLIMIT_CORE, &none);
			if (ask(q, "a", "b", START, &h) != 0 ||
			    (kinds[i] != QUOTA_TOKENS && quota_take(q, h.a, kinds[i]) != 0))
				_exit(1);
			quota_give(q, h.a, kinds[i]);
			quota_give(q, h.a, kinds[i]);
			_exit(0);
		}
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
	}
}

/* --- the model --- */

#define NAMES 12
#define LIVE  64
#define STEPS 300000

struct life { /* of one request */
	bool is_used, is_answered, is_parked, is_token, is_pair;
	int from, to;
	struct held h;
};

static struct model {
	struct quota_conf conf;
	size_t n[NAMES][QUOTA_KIND_MAX];
	int64_t bucket[2][NAMES]; /* nanoseconds */
	uint64_t refused[QUOTA_LIMIT_MAX];
	int64_t now_ns;
	struct life life[LIVE];
} mo;

static uint64_t seed;

static unsigned
pick(unsigned n)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (unsigned)((seed >> 16) % n);
}

static const char *
name_of(int i)
{
	static const char *const names[NAMES] = { "a", "b", "ab", "ba", "hd-1", "hd-2", "hd-1.example", "x", "y", "z",
		"a-name-that-is-longer-than-the-others-and-than-any-buffer.example.org", "zz" };

	return names[i];
}

static size_t
model_all(enum quota_kind kind)
{
	size_t sum = 0;
	int i;

	for (i = 0; i < NAMES; i++)
		sum += mo.n[i][kind];
	return sum;
}

static bool
model_over(enum quota_limit limit, size_t have)
{
	return mo.conf.max[limit] && have >= mo.conf.max[limit];
}

static size_t
model_active(int from, int to)
{
	size_t n = 0;
	int i, k;

	for (i = 0; i < NAMES; i++) {
		bool is_in = i == from || i == to;

		for (k = 0; k < QUOTA_KIND_MAX; k++)
			is_in = is_in || mo.n[i][k];
		n += is_in;
	}
	return n;
}

static int64_t
model_cost(int side)
{
	size_t rate = mo.conf.max[side ? QUOTA_LIMIT_RATE_TO : QUOTA_LIMIT_RATE_FROM];

	return rate ? SEC / (int64_t)rate : 0;
}

static enum quota_limit
model_ask(int from, int to)
{
	size_t max = mo.conf.max[QUOTA_LIMIT_NAMES];

	if (max && model_active(from, to) > max)
		return QUOTA_LIMIT_NAMES;
	if (mo.bucket[0][from] < model_cost(0))
		return QUOTA_LIMIT_RATE_FROM;
	if (model_over(QUOTA_LIMIT_TOKENS, mo.n[from][QUOTA_TOKENS]))
		return QUOTA_LIMIT_TOKENS;
	if (model_over(QUOTA_LIMIT_OUTSTANDING, mo.n[from][QUOTA_OUTSTANDING]))
		return QUOTA_LIMIT_OUTSTANDING;
	if (mo.bucket[1][to] < model_cost(1))
		return QUOTA_LIMIT_RATE_TO;
	if (model_over(QUOTA_LIMIT_INCOMING, mo.n[to][QUOTA_INCOMING]))
		return QUOTA_LIMIT_INCOMING;
	return QUOTA_LIMIT_MAX;
}

static void
step_ask(struct quota *q, struct life *l)
{
	struct quota_no no = { .limit = QUOTA_LIMIT_MAX };
	enum quota_limit want;
	int rc;

	l->from = (int)pick(NAMES);
	l->to = (int)pick(NAMES);
	want = model_ask(l->from, l->to);
	rc = quota_ask(q, name_of(l->from), name_of(l->to), mo.now_ns, &l->h.a, &l->h.b, &no);
	assert_int_equal(no.limit, want);
	if (rc < 0) {
		assert_int_equal(rc, want == QUOTA_LIMIT_NAMES ? -EBUSY : -EDQUOT);
		mo.refused[want]++;
		return;
	}
	l->is_used = l->is_token = true;
	l->is_answered = l->is_parked = l->is_pair = false;
	mo.n[l->from][QUOTA_TOKENS]++;
	mo.n[l->from][QUOTA_OUTSTANDING]++;
	mo.n[l->to][QUOTA_INCOMING]++;
	mo.bucket[0][l->from] -= model_cost(0);
	mo.bucket[1][l->to] -= model_cost(1);
}

static void
give(struct quota *q, struct life *l, enum quota_kind kind, bool *flag)
{
	if (!*flag)
		return;
	*flag = false;
	mo.n[l->from][kind]--;
	quota_give(q, l->h.a, kind);
}

static bool
take(struct quota *q, struct life *l, enum quota_kind kind, enum quota_limit one, enum quota_limit all)
{
	int rc = quota_take(q, l->h.a, kind), want = 0;

	if (model_over(one, mo.n[l->from][kind]))
		want = -EDQUOT;
	else if (model_over(all, model_all(kind)))
		want = -EBUSY;
	assert_int_equal(rc, want);
	if (rc == 0)
		mo.n[l->from][kind]++;
	else
		mo.refused[rc == -EDQUOT ? one : all]++;
	return rc == 0;
}

static void
step_answer(struct quota *q, struct life *l)
{
	if (l->is_answered)
		return;
	l->is_answered = true;
	mo.n[l->from][QUOTA_OUTSTANDING]--;
	mo.n[l->to][QUOTA_INCOMING]--;
	quota_answered(q, l->h.a, l->h.b);
}

static void
step_life(struct quota *q, struct life *l)
{
	switch (pick(4)) {
	case 0: step_answer(q, l); break;
	case 1: /* one comes */
		if (l->is_token && !l->is_parked)
			l->is_parked = take(q, l, QUOTA_PARKED, QUOTA_LIMIT_PARKED, QUOTA_LIMIT_PARKED_ALL);
		break;
	case 2: /* the other one comes */
		if (l->is_token && l->is_parked && take(q, l, QUOTA_PAIRS, QUOTA_LIMIT_PAIRS, QUOTA_LIMIT_PAIRS_ALL)) {
			l->is_pair = true;
			give(q, l, QUOTA_PARKED, &l->is_parked);
			give(q, l, QUOTA_TOKENS, &l->is_token);
		}
		break;
	case 3: /* an end */
		give(q, l, QUOTA_PARKED, &l->is_parked);
		give(q, l, QUOTA_TOKENS, &l->is_token);
		give(q, l, QUOTA_PAIRS, &l->is_pair);
		break;
	}
	l->is_used = !l->is_answered || l->is_token || l->is_pair;
}

static void
step_time(struct quota *q)
{
	int64_t d = (int64_t)pick(40) * 1000 * 1000;
	int i, side;

	mo.now_ns += d;
	for (i = 0; i < NAMES; i++)
		for (side = 0; side < 2; side++)
			mo.bucket[side][i] = mo.bucket[side][i] + d > SEC ? SEC : mo.bucket[side][i] + d;
	if (pick(8) == 0)
		quota_tick(q, mo.now_ns);
}

static void
compare(struct quota *q)
{
	size_t names = quota_names(q), max = mo.conf.max[QUOTA_LIMIT_NAMES];
	int k;

	for (k = 0; k < QUOTA_KIND_MAX; k++)
		assert_int_equal(quota_held(q, (enum quota_kind)k), model_all((enum quota_kind)k));
	for (k = 0; k < QUOTA_LIMIT_MAX; k++)
		assert_int_equal(quota_refused(q, (enum quota_limit)k), mo.refused[k]);
	assert_true(names >= model_active(-1, -1) && names <= (max ? max : NAMES));
}

static void
run_model(uint64_t start, const struct quota_conf *conf)
{
	struct quota *q = quota_new(conf);
	int i, k;

	assert_non_null(q);
	seed = start;
	memset(&mo, 0, sizeof(mo));
	mo.conf = *conf;
	mo.now_ns = START;
	for (i = 0; i < NAMES; i++)
		mo.bucket[0][i] = mo.bucket[1][i] = SEC;
	for (i = 0; i < STEPS; i++) {
		struct life *l = &mo.life[pick(LIVE)];

		if (pick(10) == 0)
			step_time(q);
		if (l->is_used)
			step_life(q, l);
		else
			step_ask(q, l);
		compare(q);
	}
	for (k = 0; k < QUOTA_LIMIT_MAX; k++)
		assert_int_equal(mo.refused[k] > 0, conf->max[k] > 0); /* each was met, or none was there to meet */
	for (i = 0; i < LIVE; i++) {
		struct life *l = &mo.life[i];

		if (!l->is_used)
			continue;
		give(q, l, QUOTA_PARKED, &l->is_parked);
		give(q, l, QUOTA_TOKENS, &l->is_token);
		give(q, l, QUOTA_PAIRS, &l->is_pair);
		step_answer(q, l);
	}
	quota_tick(q, mo.now_ns + SEC);
	assert_empty(q);
	quota_free(q);
}

static void
test_model(void **state)
{
	static const struct quota_conf rates = { { [QUOTA_LIMIT_TOKENS] = 4,
	    [QUOTA_LIMIT_OUTSTANDING] = 3,
	    [QUOTA_LIMIT_INCOMING] = 4,
	    [QUOTA_LIMIT_RATE_FROM] = 7,
	    [QUOTA_LIMIT_RATE_TO] = 6,
	    [QUOTA_LIMIT_PARKED] = 2,
	    [QUOTA_LIMIT_PARKED_ALL] = 6,
	    [QUOTA_LIMIT_PAIRS] = 2,
	    [QUOTA_LIMIT_PAIRS_ALL] = 6 } };
	/* Without rates: an idle one that makes room would have to be known to the model. */
	static const struct quota_conf names = { { [QUOTA_LIMIT_TOKENS] = 9,
	    [QUOTA_LIMIT_INCOMING] = 3,
	    [QUOTA_LIMIT_PAIRS_ALL] = 5,
	    [QUOTA_LIMIT_NAMES] = 9 } };
	static const struct quota_conf none = { { 0 } };
	uint64_t s;

	(void)state;
	for (s = 1; s <= 2; s++) {
		run_model(s * 0x9e3779b97f4a7c15u, &rates);
		run_model(s * 0x9e3779b97f4a7c15u, &names);
	}
	run_model(7, &none);
}

/* As whom the proxy tests itself: limits of one are not asked, those of all are. */
static void
test_self(void **state)
{
	static const struct quota_conf conf = { { [QUOTA_LIMIT_TOKENS] = 1,
	    [QUOTA_LIMIT_OUTSTANDING] = 1,
	    [QUOTA_LIMIT_INCOMING] = 1,
	    [QUOTA_LIMIT_RATE_FROM] = 1,
	    [QUOTA_LIMIT_RATE_TO] = 1,
	    [QUOTA_LIMIT_PARKED] = 1,
	    [QUOTA_LIMIT_PARKED_ALL] = 3,
	    [QUOTA_LIMIT_PAIRS] = 1 } };
	struct quota *q = quota_new(&conf);
	struct quota_op *a, *b, *other;
	struct quota_no no;
	int i;

	(void)state;
	assert_non_null(q);
	assert_int_equal(quota_ask(q, "hd-1", "hd-2", START, &other, &b, &no), 0);
	assert_false(quota_is_self(other));
	for (i = 0; i < QUOTA_SELF_MAX; i++) {
		assert_int_equal(quota_ask(q, QUOTA_SELF, QUOTA_SELF, START, &a, &b, &no), 0);
		assert_ptr_equal(a, b);
		quota_answered(q, a, b);
	}
	assert_true(quota_is_self(a));
	assert_int_equal(quota_ask(q, QUOTA_SELF, QUOTA_SELF, START, &a, &b, &no), -EDQUOT);
	assert_int_equal(no.max, QUOTA_SELF_MAX);
	assert_int_equal(quota_refused(q, QUOTA_LIMIT_TOKENS), 0);
	assert_int_equal(quota_over(q, QUOTA_LIMIT_TOKENS, 1), 0);
	assert_int_equal(quota_take(q, other, QUOTA_PARKED), 0);
	assert_int_equal(quota_take(q, a, QUOTA_PARKED), 0);
	assert_int_equal(quota_take(q, a, QUOTA_PARKED), 0);
	assert_int_equal(quota_take(q, a, QUOTA_PARKED), -EBUSY);
	quota_give(q, a, QUOTA_PARKED);
	quota_give(q, a, QUOTA_PARKED);
	for (i = 0; i < QUOTA_SELF_MAX; i++)
		quota_give(q, a, QUOTA_TOKENS);
	assert_int_equal(quota_names(q), 2); /* it has no rate to wait for */
	quota_free(q);
}

static void
test_words(void **state)
{
	int i;

	(void)state;
	for (i = 0; i < QUOTA_LIMIT_MAX; i++) {
		assert_true(strlen(quota_setting((enum quota_limit)i)) > 3);
		assert_true(strlen(quota_what((enum quota_limit)i)) > 3);
	}
	assert_string_equal(quota_setting(QUOTA_LIMIT_TOKENS), "max_tokens_per_operator");
	quota_free(NULL);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_requests),
		cmocka_unit_test(test_answer_and_token),
		cmocka_unit_test(test_parked_and_pairs),
		cmocka_unit_test(test_rates),
		cmocka_unit_test(test_full_table),
		cmocka_unit_test(test_underflow),
		cmocka_unit_test(test_model),
		cmocka_unit_test(test_self),
		cmocka_unit_test(test_words),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
