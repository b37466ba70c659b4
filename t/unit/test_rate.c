/* test_rate.c - the growth of a counter in a second, also of one that shrinks */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "hyper/base/attr.h"
#include "net/rate.h"

static const struct {
	const char *what;
	struct {
		int64_t ms;
		uint64_t total;
		double want;
	} looks[4];
} cases[] = {
	{ "what it holds at first is growth", { { 1000, 500, 500 }, { 2000, 500, 0 } } },
	{ "a second, whatever the time between", { { 5000, 500, 100 }, { 7000, 900, 200 } } },
	{ "asked again within the second", { { 1000, 500, 500 }, { 1999, 9000, 500 }, { 2000, 600, 100 } } },
	{ "one that shrinks does not grow", { { 1000, 5000, 5000 }, { 2000, 4000, 0 }, { 3000, 0, 0 } } },
	{ "nor when it comes back, only beyond", { { 1000, 5000, 5000 }, { 2000, 4000, 0 }, { 3000, 5100, 100 } } },
	{ "2^64 - 1", { { 1000, UINT64_MAX - 1000, 18446744073709550615.0 }, { 2000, UINT64_MAX, 1000 } } },
};

static void
test_rate(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct rate r = { .last_ms = 0 };

		for (size_t k = 0; k < ARRAY_LEN(cases[i].looks) && cases[i].looks[k].ms > 0; k++) {
			double got = rate_of(&r, cases[i].looks[k].total, cases[i].looks[k].ms);

			if (fabs(got - cases[i].looks[k].want) > 0.001)
				fail_msg("%s: look %zu says %g, not %g", cases[i].what, k, got, cases[i].looks[k].want);
		}
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_rate) };

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
