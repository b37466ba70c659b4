/* test_share.c - how an operator's bytes a second are divided over workers */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "hyper/base/attr.h"
#include "proxy/master/share.h"

#define RATE   UINT64_C(1200000)
#define LEAST  (RATE / 12) /* of three */
#define COUNT  3
#define SLACK  10 /* bytes lost to rounding */
#define ROUNDS 20

static uint64_t
sum(const struct share_part *p)
{
	return p[0].rate + p[1].rate + p[2].rate;
}

/* What each worker gets at last, where each uses what it may, up to its demand. */
static void
settles(void **state)
{
	static const struct {
		const char *name;
		size_t pairs[COUNT], busy[COUNT];
		uint64_t demand[COUNT]; /* bytes a second */
		uint64_t least[COUNT], most[COUNT];
	} cases[] = {
		{ "one worker gets all", { 0, 2, 0 }, { 0, 2, 0 }, { 0, RATE * 9, 0 }, { 0, RATE, 0 }, { 0, RATE, 0 } },
		{ "equal ones", { 2, 2, 2 }, { 2, 2, 2 }, { RATE, RATE, RATE }, { 390000, 390000, 390000 },
		    { 410000, 410000, 410000 } },
		{ "by busy pairs", { 9, 3, 1 }, { 1, 3, 0 }, { RATE, RATE, 0 }, { 250000, 600000, LEAST },
		    { 450000, 850000, LEAST } },
		{ "who uses little keeps a little more", { 1, 1, 0 }, { 1, 1, 0 }, { RATE, 200000, 0 },
		    { 900000, 250000, 0 }, { 950000, 300000, 0 } },
		{ "nobody uses much", { 1, 2, 0 }, { 1, 1, 0 }, { 1000, 1000, 0 }, { 400000, 600000, 0 },
		    { 600000, 800000, 0 } },
		{ "nobody uses anything", { 1, 1, 1 }, { 0, 0, 0 }, { 0, 0, 0 }, { 390000, 390000, 390000 },
		    { 410000, 410000, 410000 } },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct share_part p[COUNT] = { 0 };

		for (int round = 0; round < ROUNDS; round++) {
			for (int k = 0; k < COUNT; k++) {
				p[k].pairs = cases[i].pairs[k];
				p[k].busy = cases[i].busy[k];
				p[k].used = cases[i].demand[k] < p[k].rate ? cases[i].demand[k] : p[k].rate;
			}
			share_divide(RATE, p, COUNT);
			if (sum(p) > RATE || sum(p) + SLACK < RATE)
				fail_msg("%s: the sum is %llu", cases[i].name, (unsigned long long)sum(p));
		}
		for (int k = 0; k < COUNT; k++)
			if (p[k].rate < cases[i].least[k] || p[k].rate > cases[i].most[k])
				fail_msg("%s: worker %d gets %llu", cases[i].name, k, (unsigned long long)p[k].rate);
	}
}

/* Whatever the ledgers say: the sum holds, and who has pairs is not starved. */
static void
holds_for_any_numbers(void **state)
{
	uint64_t seed = 88172645463325252u;

	(void)state;
	for (int round = 0; round < 20000; round++) {
		struct share_part p[COUNT] = { 0 };
		size_t used = 0;

		for (int k = 0; k < COUNT; k++) {
			seed ^= seed << 13;
			seed ^= seed >> 7;
			seed ^= seed << 17;
			p[k].pairs = seed % 3;
			p[k].busy = seed >> 8 & 3;
			p[k].rate = seed >> 16 & 0x1fffff;
			p[k].used = seed >> 24 & 0x3fffff;
			used += p[k].pairs > 0;
		}
		share_divide(RATE, p, COUNT);
		assert_true(sum(p) <= RATE);
		assert_true(used == 0 || sum(p) + SLACK >= RATE);
		for (int k = 0; k < COUNT; k++)
			assert_true(p[k].pairs ? p[k].rate >= RATE / 160 : p[k].rate == 0);
	}
}

/* A rate of next to nothing never becomes 0, which would be no limit. */
static void
never_zero(void **state)
{
	struct share_part p[2] = { { .pairs = 1 }, { .pairs = 5 } };

	(void)state;
	share_divide(1, p, 2);
	assert_int_equal(p[0].rate, 1);
	assert_int_equal(p[1].rate, 1);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(settles),
		cmocka_unit_test(holds_for_any_numbers),
		cmocka_unit_test(never_zero),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
