/* test_sources.c - per remote address: connections without a token, the score of bad ones, the bound of the table */
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
#include "proxy/worker/sources.h"

static const struct sockaddr *
addr(const char *text)
{
	static struct sockaddr_in6 v6;
	static struct sockaddr_in v4;

	v6 = (struct sockaddr_in6){ .sin6_family = AF_INET6 };
	v4 = (struct sockaddr_in){ .sin_family = AF_INET };
	if (inet_pton(AF_INET, text, &v4.sin_addr) == 1)
		return (const struct sockaddr *)&v4;
	assert_int_equal(inet_pton(AF_INET6, text, &v6.sin6_addr), 1);
	return (const struct sockaddr *)&v6;
}

/* The oldest of that address, whatever others do; who left counts no more. */
static void
oldest_of_its_address(void **state)
{
	static struct sources s;
	struct source_mark a[4] = { 0 }, b[2] = { 0 }, six[3] = { 0 };

	(void)state;
	sources_init(&s);
	sources_set(&s, &(struct sources_conf){ .max_waiting = 2 });
	assert_null(sources_join(&s, addr("192.0.2.1"), &a[0]));
	assert_null(sources_join(&s, addr("192.0.2.2"), &b[0]));
	assert_null(sources_join(&s, addr("::ffff:192.0.2.1"), &a[1]));
	assert_null(sources_join(&s, addr("192.0.2.2"), &b[1]));
	assert_ptr_equal(sources_join(&s, addr("192.0.2.1"), &a[2]), &a[0]);
	sources_leave(&s, &a[0]);
	sources_leave(&s, &a[0]); /* twice is nothing */
	sources_leave(&s, &a[1]);
	assert_null(sources_join(&s, addr("192.0.2.1"), &a[3]));
	assert_null(sources_join(&s, addr("2001:db8::1"), &six[0]));
	assert_null(sources_join(&s, addr("2001:db8::2"), &six[1]));
	assert_ptr_equal(sources_join(&s, addr("2001:db8::ffff:3"), &six[2]), &six[0]);
	for (int i = 0; i < 4; i++)
		sources_leave(&s, &a[i]);
	for (int i = 0; i < 3; i++)
		sources_leave(&s, &six[i]);
	sources_leave(&s, &b[0]);
	sources_leave(&s, &b[1]);
	assert_null(s.table); /* without a score nothing is remembered */
	sources_fini(&s);
}

static void
no_limit(void **state)
{
	static struct sources s;
	struct source_mark m[8] = { 0 };

	(void)state;
	sources_init(&s);
	for (size_t i = 0; i < ARRAY_LEN(m); i++)
		assert_null(sources_join(&s, addr("192.0.2.1"), &m[i]));
	for (int i = 0; i < 100; i++)
		assert_false(sources_blame(&s, addr("192.0.2.1"), 0));
	assert_false(sources_is_barred(&s, addr("192.0.2.1"), 0));
	for (size_t i = 0; i < ARRAY_LEN(m); i++)
		sources_leave(&s, &m[i]);
	assert_null(s.table);
	sources_fini(&s);
}

struct step {
	const char *address;
	int64_t ms;
	int bad;        /* so many bad ones */
	bool is_barred; /* afterwards */
};

/* Six bad ones a minute, barred for 1 s. */
static const struct {
	const char *what;
	struct step steps[8];
} cases[] = {
	{ "six are nothing, the seventh is", { { "192.0.2.1", 0, 6, false }, { "192.0.2.1", 1, 1, true } } },
	{ "for a second",
	    { { "192.0.2.1", 0, 7, true }, { "192.0.2.1", 999, 0, true }, { "192.0.2.1", 1000, 0, false } } },
	{ "after it the score is still full",
	    { { "192.0.2.1", 0, 7, true }, { "192.0.2.1", 1000, 0, false }, { "192.0.2.1", 1001, 1, true } } },
	{ "which drains by one in ten seconds",
	    { { "192.0.2.1", 0, 7, true }, { "192.0.2.1", 10000, 1, false }, { "192.0.2.1", 10001, 1, true },
		{ "192.0.2.1", 35000, 2, false } } },
	{ "one every ten seconds is never too many, ten at once are",
	    { { "192.0.2.1", 0, 5, false }, { "192.0.2.1", 10000, 1, false }, { "192.0.2.1", 20000, 1, false },
		{ "192.0.2.1", 30000, 1, false }, { "192.0.2.1", 40000, 1, false },
		{ "192.0.2.1", 90000, 10, true } } },
	{ "nobody else is concerned",
	    { { "192.0.2.1", 0, 7, true }, { "192.0.2.2", 0, 0, false }, { "192.0.2.2", 0, 6, false } } },
	{ "but all of a /64",
	    { { "2001:db8::1", 0, 7, true }, { "2001:db8::2", 0, 0, true }, { "2001:db8:0:1::", 0, 0, false } } },
	{ "a year later", { { "192.0.2.1", 0, 7, true }, { "192.0.2.1", INT64_C(31536000000), 6, false } } },
};

static void
scores(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		static struct sources s;

		sources_init(&s);
		sources_set(&s, &(struct sources_conf){ .max_bad = 6, .barred_ms = 1000 });
		for (size_t k = 0; cases[i].steps[k].address; k++) {
			const struct step *t = &cases[i].steps[k];

			for (int n = 0; n < t->bad; n++)
				sources_blame(&s, addr(t->address), t->ms);
			if (sources_is_barred(&s, addr(t->address), t->ms) != t->is_barred)
				fail_msg("%s: step %zu", cases[i].what, k);
		}
		sources_fini(&s);
	}
}

/* Said once, not with each of those that were open when it happened. */
static void
told_once(void **state)
{
	static struct sources s;
	int told = 0;

	(void)state;
	sources_init(&s);
	sources_set(&s, &(struct sources_conf){ .max_bad = 3, .barred_ms = 1000 });
	for (int i = 0; i < 20; i++)
		told += sources_blame(&s, addr("192.0.2.1"), i);
	assert_int_equal(told, 1);
	sources_fini(&s);
}

/* Bad ones from ever new addresses push out who was blamed longest ago, never one that has something open. */
static void
table_is_bounded(void **state)
{
	static struct sources s;
	struct source_mark m = { 0 };
	char text[32];

	(void)state;
	sources_init(&s);
	sources_set(&s, &(struct sources_conf){ .max_bad = 1, .barred_ms = 1000000 });
	for (int i = 0; i < 2; i++)
		sources_blame(&s, addr("192.0.2.1"), 0);
	for (int i = 0; i < 2; i++)
		sources_blame(&s, addr("192.0.2.2"), 0);
	assert_null(sources_join(&s, addr("192.0.2.2"), &m));
	for (int i = 0; i < 2 * SOURCES_IDLE; i++) {
		snprintf(text, sizeof(text), "10.0.%d.%d", i / 256, i % 256);
		sources_blame(&s, addr(text), 0);
		assert_in_range(s.n_idle, 1, SOURCES_IDLE);
	}
	assert_false(sources_is_barred(&s, addr("192.0.2.1"), 1));
	assert_true(sources_is_barred(&s, addr("192.0.2.2"), 1));
	sources_leave(&s, &m);
	assert_int_equal(s.n_idle, SOURCES_IDLE);
	assert_true(sources_is_barred(&s, addr("192.0.2.2"), 1));
	sources_fini(&s);
	assert_null(s.table);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(oldest_of_its_address),
		cmocka_unit_test(no_limit),
		cmocka_unit_test(scores),
		cmocka_unit_test(told_once),
		cmocka_unit_test(table_is_bounded),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
