/* test_clock.c - the monotonic clock and RFC 3339 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "hyper/base/attr.h"
#include "hyper/base/clock.h"

#define S INT64_C(1000000000)

static void
test_format(void **state)
{
	static const struct {
		int64_t ns;
		const char *text;
	} tab[] = {
		{ 0, "1970-01-01T00:00:00Z" },
		{ 1, "1970-01-01T00:00:00.000000001Z" },
		{ 500000000, "1970-01-01T00:00:00.5Z" },
		{ -1, "1969-12-31T23:59:59.999999999Z" },
		{ -S, "1969-12-31T23:59:59Z" },
		{ -86400 * S, "1969-12-31T00:00:00Z" },
		{ INT64_C(951782400) * S, "2000-02-29T00:00:00Z" },
		{ INT64_C(951868800) * S, "2000-03-01T00:00:00Z" },
		{ INT64_C(1795354440) * S + 97926479, "2026-11-22T13:34:00.097926479Z" },
		{ INT64_MAX, "2262-04-11T23:47:16.854775807Z" },
		{ INT64_MIN, "1677-09-21T00:12:43.145224192Z" },
	};
	char text[CLOCK_RFC3339_MAX];
	int64_t back;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(tab); i++) {
		clock_rfc3339(tab[i].ns, text);
		assert_string_equal(text, tab[i].text);
		if (tab[i].ns == INT64_MIN) /* its seconds alone are out of range */
			continue;
		assert_int_equal(clock_parse_rfc3339(text, &back), 0);
		assert_true(back == tab[i].ns);
	}
}

static void
test_parse(void **state)
{
	static const struct {
		const char *text;
		int rc;
		int64_t ns;
	} tab[] = {
		{ "1970-01-01T02:00:00+02:00", 0, 0 },
		{ "1969-12-31T18:30:00-05:30", 0, 0 },
		{ "1970-01-01t00:00:01z", 0, S },
		{ "1970-01-01T00:00:00-00:00", 0, 0 },
		{ "1970-01-01T00:00:00.1234567899999Z", 0, 123456789 },
		{ "2024-02-29T00:00:00Z", 0, INT64_C(1709164800) * S },
		{ "2023-02-29T00:00:00Z", -EINVAL, 0 },
		{ "1900-02-29T00:00:00Z", -EINVAL, 0 },
		{ "2026-04-31T00:00:00Z", -EINVAL, 0 },
		{ "2026-00-01T00:00:00Z", -EINVAL, 0 },
		{ "2026-13-01T00:00:00Z", -EINVAL, 0 },
		{ "2026-01-01T24:00:00Z", -EINVAL, 0 },
		{ "2026-01-01T00:60:00Z", -EINVAL, 0 },
		{ "2016-12-31T23:59:60Z", -EINVAL, 0 },
		{ "2026-01-01 00:00:00Z", -EINVAL, 0 },
		{ "2026-01-01T00:00:00", -EINVAL, 0 },
		{ "2026-01-01T00:00:00.Z", -EINVAL, 0 },
		{ "2026-01-01T00:00:00Zx", -EINVAL, 0 },
		{ "2026-01-01T00:00:00+0200", -EINVAL, 0 },
		{ "2026-01-01T00:00:00+24:00", -EINVAL, 0 },
		{ "2026-01-01T00:00:00+2:00", -EINVAL, 0 },
		{ "2026-1-01T00:00:00Z", -EINVAL, 0 },
		{ "26-01-01T00:00:00Z", -EINVAL, 0 },
		{ "+026-01-01T00:00:00Z", -EINVAL, 0 },
		{ "0000-01-01T00:00:00Z", -EINVAL, 0 },
		{ "2263-01-01T00:00:00Z", -EINVAL, 0 },
		{ "9999-12-31T23:59:59Z", -EINVAL, 0 },
		{ "", -EINVAL, 0 },
	};
	int64_t ns;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(tab); i++) {
		ns = 42;
		if (clock_parse_rfc3339(tab[i].text, &ns) != tab[i].rc || ns != (tab[i].rc ? 42 : tab[i].ns))
			fail_msg("%s gives %lld", tab[i].text, (long long)ns);
	}
}

static void
test_now(void **state)
{
	int64_t a = clock_now_ns(), ms = clock_now_ms(), b = clock_now_ns();

	(void)state;
	assert_true(a <= b && a / 1000000 <= ms && ms <= b / 1000000);
	assert_true(clock_wall_utc_ns() > INT64_C(1700000000) * S);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_format),
		cmocka_unit_test(test_parse),
		cmocka_unit_test(test_now),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
