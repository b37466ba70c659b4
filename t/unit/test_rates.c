/* test_rates.c - connections per remote address: windows, addresses, the bound of the table */
#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include <cmocka.h>

#include "hyper/base/attr.h"
#include "proxy/worker/rates.h"

#define S        1000
#define MIN      (60 * S)
#define NEW_YEAR (INT64_C(1767225600) * S) /* 2026-01-01: the beginning of a second, a minute and an hour */

static bool
permit(struct rates *r, const char *address, int64_t ms)
{
	struct sockaddr_in6 v6 = { .sin6_family = AF_INET6 };
	struct sockaddr_in v4 = { .sin_family = AF_INET };

	if (inet_pton(AF_INET, address, &v4.sin_addr) == 1)
		return rates_permit(r, (struct sockaddr *)&v4, NEW_YEAR + ms);
	assert_int_equal(inet_pton(AF_INET6, address, &v6.sin6_addr), 1);
	return rates_permit(r, (struct sockaddr *)&v6, NEW_YEAR + ms);
}

struct step {
	const char *address;
	int64_t ms;
	bool want;
};

static const struct {
	const char *what;
	uint64_t limit[RATES_WINDOWS];
	struct step steps[10];
} cases[] = {
	{ "no limit", { 0 }, { { "192.0.2.1", 0, true }, { "192.0.2.1", 0, true }, { "192.0.2.1", 0, true } } },
	{ "a second begins with the clock's", { 2, 0, 0 },
	    { { "192.0.2.1", 900, true }, { "192.0.2.1", 990, true }, { "192.0.2.1", 999, false },
		{ "192.0.2.1", 1000, true }, { "192.0.2.1", 1001, true }, { "192.0.2.1", 1999, false } } },
	{ "so does a minute", { 0, 1, 0 },
	    { { "192.0.2.1", 59 * S, true }, { "192.0.2.1", MIN - 1, false }, { "192.0.2.1", MIN, true } } },
	{ "and an hour", { 0, 0, 1 },
	    { { "192.0.2.1", 0, true }, { "192.0.2.1", 60 * MIN - 1, false }, { "192.0.2.1", 60 * MIN, true } } },
	{ "the strictest counts", { 1, 2, 0 },
	    { { "192.0.2.1", 0, true }, { "192.0.2.1", 1, false }, { "192.0.2.1", 1 * S, false },
		{ "192.0.2.1", MIN, true } } },
	{ "each address for itself", { 1, 0, 0 },
	    { { "192.0.2.1", 0, true }, { "192.0.2.2", 0, true }, { "192.0.2.1", 0, false },
		{ "192.0.2.2", 0, false } } },
	{ "IPv6 by /64", { 1, 0, 0 },
	    { { "2001:db8::1", 0, true }, { "2001:db8::ffff:0:2", 0, false }, { "2001:db8:0:1::1", 0, true } } },
	{ "a mapped address is its IPv4 one", { 1, 0, 0 },
	    { { "192.0.2.1", 0, true }, { "::ffff:192.0.2.1", 0, false }, { "::ffff:192.0.2.2", 0, true } } },
	{ "a clock that jumps back begins anew", { 0, 1, 0 },
	    { { "192.0.2.1", MIN, true }, { "192.0.2.1", 0, true }, { "192.0.2.1", 1, false } } },
};

static void
windows_and_addresses(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct rates r = { 0 };

		rates_set(&r, cases[i].limit);
		for (size_t k = 0; cases[i].steps[k].address; k++) {
			const struct step *s = &cases[i].steps[k];

			if (permit(&r, s->address, s->ms) != s->want)
				fail_msg("%s: step %zu", cases[i].what, k);
		}
		rates_fini(&r);
	}
}

static void
new_limits_keep_the_count(void **state)
{
	const uint64_t three[RATES_WINDOWS] = { 0, 3, 0 }, two[RATES_WINDOWS] = { 0, 2, 0 },
		       none[RATES_WINDOWS] = { 0 };
	struct rates r = { 0 };

	(void)state;
	rates_set(&r, three);
	assert_true(permit(&r, "192.0.2.1", 0));
	assert_true(permit(&r, "192.0.2.1", 0));
	rates_set(&r, two);
	assert_false(permit(&r, "192.0.2.1", 0));
	rates_set(&r, three);
	assert_true(permit(&r, "192.0.2.1", 0));
	assert_false(permit(&r, "192.0.2.1", 0));
	rates_set(&r, none);
	assert_true(permit(&r, "192.0.2.1", 0));
	rates_fini(&r);
}

/* Who floods from ever new addresses pushes out who was silent longest, and no memory grows. */
static void
table_is_bounded(void **state)
{
	const uint64_t one[RATES_WINDOWS] = { 0, 0, 1 };
	struct rates r = { 0 };
	char address[32];

	(void)state;
	rates_set(&r, one);
	for (int i = 0; i < RATES_ADDRESSES; i++) {
		snprintf(address, sizeof(address), "10.0.%d.%d", i / 256, i % 256);
		assert_true(permit(&r, address, 0));
	}
	assert_false(permit(&r, "10.0.0.0", 0)); /* the oldest: known, and now the youngest */
	assert_true(permit(&r, "192.0.2.1", 0)); /* in the place of the second */
	assert_false(permit(&r, "10.0.0.0", 0));
	assert_false(permit(&r, "10.0.0.2", 0));
	assert_true(permit(&r, "10.0.0.1", 0)); /* forgotten */
	rates_fini(&r);
	assert_null(r.table);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(windows_and_addresses),
		cmocka_unit_test(new_limits_keep_the_count),
		cmocka_unit_test(table_is_bounded),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
