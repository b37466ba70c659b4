/* test_address.c - addresses are cut where protocol.md's expression cuts them */
#include "hyper/wire/address.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "hyper/base/attr.h"

static const struct {
	const char *text;
	const char *operator, * method, *id; /* NULL: refused */
} cases[] = {
	{ "hd-2._ping(1)", "hd-2", "_ping", "1" },
	{ "public-proxy-1.ga.requestConnection(2bcd225bf40179d8)", "public-proxy-1.ga", "requestConnection",
	    "2bcd225bf40179d8" },
	{ "a.b(c.d)", "a", "b", "c.d" },
	{ "a.b(c(d)", "a", "b", "c(d" },
	{ "a.b(n:7)", "a", "b", "n:7" },
	{ "a..b(1)", "a.", "b", "1" },
	{ "a.b( )", "a", "b", " " },
	{ "a. b(1)", "a", " b", "1" },
	/* the first group is greedy: the last cut that fits */
	{ "a.b(c.d(e)", "a.b(c", "d", "e" },
	{ "a.b(x).c(1)", "a.b(x)", "c", "1" },
	{ "a.b(1\n2)", "a", "b", "1\n2" },
	{ "a.b\n(1)", "a", "b\n", "1" },
	{ "", NULL, NULL, NULL },
	{ ")", NULL, NULL, NULL },
	{ "(1)", NULL, NULL, NULL },
	{ "hd-2", NULL, NULL, NULL },
	{ "hd-2._ping", NULL, NULL, NULL },
	{ "_ping(1)", NULL, NULL, NULL },
	{ "hd-2.(1)", NULL, NULL, NULL },
	{ "hd-2._ping()", NULL, NULL, NULL },
	{ "hd-2._ping(1) ", NULL, NULL, NULL },
	{ "hd-2._ping(1", NULL, NULL, NULL },
	{ "hd-2._ping1)", NULL, NULL, NULL },
	{ "hd-2._ping(a)b)", NULL, NULL, NULL },
	{ "hd-2._ping(1))", NULL, NULL, NULL },
	{ ".x(1)", NULL, NULL, NULL },
	{ "a\nb.c(1)", NULL, NULL, NULL },
};

static void
test_parse(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct address a = { 0 };
		int r = address_parse(cases[i].text, &a);
		char *text;

		if (r != (cases[i].operator? 0 : - EINVAL))
			print_message("# %s: %d\n", cases[i].text, r);
		assert_int_equal(r, cases[i].operator? 0 : - EINVAL);
		if (r < 0) {
			assert_null(a.operator);
			continue;
		}
		assert_string_equal(a.operator, cases[i].operator);
		assert_string_equal(a.method, cases[i].method);
		assert_string_equal(a.id, cases[i].id);
		text = address_text(a.operator, a.method, a.id);
		assert_string_equal(text, cases[i].text);
		free(text);
		address_fini(&a);
		address_fini(&a);
	}
}

static void
test_fits(void **state)
{
	static const struct {
		const char *text, *method;
		bool fits;
	} pairs[] = {
		{ "hd-2._ping(1)", "hd-2._ping", true },
		{ "a.b.c(1)", "a.b.c", true },
		{ "hd-2._ping(1)", "hd-2._pin", false },
		{ "hd-2._ping(1)", "hd-2._pingx", false },
		{ "hd-2._ping(1)", "hd-3._ping", false },
		{ "hd-2._ping(1)", "_ping", false },
		{ "hd-2._ping(1)", "hd-2", false },
		{ "hd-2._ping(1)", "", false },
		{ "hd-2._ping(x.y(z)", "hd-2._ping", false },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(pairs); i++) {
		struct address a;

		assert_int_equal(address_parse(pairs[i].text, &a), 0);
		assert_int_equal(address_fits(&a, pairs[i].method), pairs[i].fits);
		address_fini(&a);
	}
}

/* Long input ends quickly, whatever it is made of. */
static void
test_long(void **state)
{
	size_t len = 1 << 20;
	char *text = malloc(len + 1);
	struct address a = { 0 };

	(void)state;
	assert_non_null(text);
	for (const char *c = ".(a)"; *c != '\0'; c++) {
		memset(text, *c, len);
		text[len - 1] = ')';
		text[len] = '\0';
		assert_int_equal(address_parse(text, &a), -EINVAL);
		text[4095] = ')';
		text[4096] = '\0';
		assert_int_equal(address_parse(text, &a), -EINVAL);
	}
	memcpy(text, "hd-2._ping(", 11);
	memset(text + 11, 'x', 4084);
	assert_int_equal(address_parse(text, &a), 0);
	address_fini(&a);
	free(text);
}

static void
test_operator_name(void **state)
{
	char longest[255];

	(void)state;
	memset(longest, 'a', 254);
	longest[254] = '\0';
	assert_false(operator_name_is_valid(longest));
	longest[253] = '\0';
	assert_true(operator_name_is_valid(longest));
	assert_true(operator_name_is_valid("public-proxy-1.ga"));
	assert_true(operator_name_is_valid("A_z.0"));
	assert_false(operator_name_is_valid(""));
	assert_false(operator_name_is_valid("a b"));
	assert_false(operator_name_is_valid("a/b"));
	assert_false(operator_name_is_valid("a(b"));
	assert_false(operator_name_is_valid("*"));
	assert_false(operator_name_is_valid("\xc3\xbc"));
	assert_false(operator_name_is_valid("a\n"));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_parse),
		cmocka_unit_test(test_fits),
		cmocka_unit_test(test_long),
		cmocka_unit_test(test_operator_name),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
