/* test_json.c - JSON in: limits and refusals with their place; JSON out: protocol.md "Numbers" */
#include "hyper/wire/json.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "hyper/base/attr.h"
#include "hyper/base/bytes.h"

#define T(text) text, sizeof text - 1

/* Parses a copy on the heap without a NUL, so that ASan sees a read too far. */
static int
parse(const char *text, size_t len, json_t **ret, char err[JSON_ERR_MAX])
{
	char *copy = malloc(len > 0 ? len : 1);
	int r;

	assert_non_null(copy);
	memcpy(copy, text, len);
	r = json_parse(copy, len, ret, err);
	free(copy);
	return r;
}

static const struct {
	const char *text;
	size_t len;
	const char *out;
} good[] = {
	{ T("{}"), "{}" },
	{ T(" \t\r\n[ ] \n"), "[]" },
	{ T("\"x\""), "\"x\"" },
	{ T("null"), "null" },
	{ T("{\"b\":1,\"a\":[true,false,null]}"), "{\"b\":1,\"a\":[true,false,null]}" },
	{ T("\"\\u00fc\\n\\r\\t\\\"\\\\\\/\\b\\u001f<>&\\u007f\""),
	    "\"\xc3\xbc\\n\\r\\t\\\"\\\\/\\u0008\\u001f<>&\x7f\"" },
	{ T("\"\\ud83d\\ude00\""), "\"\xf0\x9f\x98\x80\"" },
	{ T("[\"[[[{{{,,,1234567890123456789012345\"]"), "[\"[[[{{{,,,1234567890123456789012345\"]" },
	{ T("[\"\\\"\",\"\\\\\"]"), "[\"\\\"\",\"\\\\\"]" },
	/* numbers */
	{ T("[0,-0,-0.0,1.0,5e0,1E3,-2.0]"), "[0,0,0,1,5,1000,-2]" },
	{ T("[0.1,2.5,1e-7,-1.5e300]"), "[0.1,2.5,1e-07,-1.5e+300]" },
	{ T("[0.001,0.0009,-0.001,1.05,12.340,-7.999,123456.789,99999999999.999,100000000000.001]"),
	    "[0.001,0.0009,-0.001,1.05,12.34,-7.999,123456.789,99999999999.999,100000000000.001]" },
	{ T("[0.0010000000000000002,1.0500000000000003,0.1234]"), "[0.0010000000000000002,1.0500000000000003,0.1234]" },
	{ T("[9223372036854775807,-9223372036854775808]"), "[9223372036854775807,-9223372036854775808]" },
	{ T("[9223372036854775808,-9223372036854775809]"), "[9.223372036854776e+18,-9.223372036854776e+18]" },
	{ T("123456789012345678901234567890"), "1.2345678901234568e+29" },
	{ T("{\"99999999999999999999\":99999999999999999999}"), "{\"99999999999999999999\":1e+20}" },
	{ T("12345678901234567890.5"), "1.2345678901234567e+19" },
	{ T("9007199254740993.0"), "9007199254740992" },
	{ T("2251799813685249.5"), "2251799813685249.5" },
	{ T("5e-324"), "4.94065645841247e-324" },
};

static void
test_good(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(good); i++) {
		char err[JSON_ERR_MAX] = "", *text;
		json_t *value = NULL, *again = NULL;

		if (parse(good[i].text, good[i].len, &value, err) != 0)
			print_message("# %s: %s\n", good[i].text, err);
		assert_non_null(value);
		text = json_text(value);
		assert_non_null(text);
		assert_string_equal(text, good[i].out);
		assert_int_equal(parse(text, strlen(text), &again, err), 0);
		free(text);
		json_decref(again);
		json_decref(value);
	}
}

static const struct {
	const char *text;
	size_t len;
	const char *says;
} bad[] = {
	{ T(""), "line 1 column 1: the text ends too early" },
	{ T("  "), "too early" },
	{ T("{"), "too early" },
	{ T("[1,"), "too early" },
	{ T("\"abc"), "too early" },
	{ T("\"abc\\"), "line 1" },
	{ T("]"), "not valid JSON" },
	{ T("[}"), "not valid JSON" },
	{ T("{a:1}"), "not valid JSON" },
	{ T("[1,]"), "not valid JSON" },
	{ T("[1 2]"), "not valid JSON" },
	{ T("'x'"), "not valid JSON" },
	{ T("[01]"), "not valid JSON" },
	{ T("[00000000000000000000001]"), "not valid JSON" },
	{ T("-"), "line 1" },
	{ T("+1"), "not valid JSON" },
	{ T(".5"), "not valid JSON" },
	{ T("1."), "not valid JSON" },
	{ T("1e"), "not valid JSON" },
	{ T("12345678901234567890e"), "not valid JSON" },
	{ T("12345678901234567890-1"), "line 1" },
	{ T("NaN"), "not valid JSON" },
	{ T("Infinity"), "not valid JSON" },
	{ T("tru"), "not valid JSON" },
	{ T("{} {}"), "something follows" },
	{ T("{}x"), "something follows" },
	{ T("{}\0"), "line 1" },
	{ T("{\"jsonrpc\":\"2.0\"},"), "something follows" },
	{ T("{\n \"a\": 1,\n \"a\": 2}"), "line 3 column 4: the same key twice" },
	{ T("{\"a\":{\"b\":1,\"\\u0062\":2}}"), "the same key twice" },
	{ T("\"\\u0000\""), "NUL" },
	{ T("{\"a\\u0000b\":1}"), "NUL" },
	{ T("\"a\0b\""), "line 1" },
	{ T("\"a\nb\""), "line 1" },
	{ T("\"\xff\""), "invalid UTF-8" },
	{ T("\"\xc3\""), "UTF-8" },
	{ T("\"\xc0\x80\""), "invalid UTF-8" },
	{ T("\"\xed\xa0\x80\""), "invalid UTF-8" },
	{ T("\"\\ud800\""), "line 1" },
	{ T("\"\\udc00\""), "line 1" },
	{ T("\"\\x41\""), "line 1" },
	{ T("\xef\xbb\xbf{}"), "line 1" },
	{ T("1e400"), "too large for a double" },
	{ T("[\n1,\n!"), "line 3 column 1" },
};

static void
test_bad(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		char err[JSON_ERR_MAX] = "";
		json_t *value = NULL;
		int r = parse(bad[i].text, bad[i].len, &value, err);

		if (r != -EINVAL || strstr(err, bad[i].says) == NULL)
			print_message("# %s: %d, %s\n", bad[i].text, r, err);
		assert_int_equal(r, -EINVAL);
		assert_null(value);
		assert_non_null(strstr(err, bad[i].says));
	}
}

/* `n` times `open`, then `inner`, then `n` times `close`. */
static char *
nested(int n, const char *open, const char *inner, const char *close)
{
	char *text = calloc((size_t)n * (strlen(open) + strlen(close)) + strlen(inner) + 1, 1), *p = text;

	assert_non_null(text);
	for (int i = 0; i < n; i++)
		p = stpcpy(p, open);
	p = stpcpy(p, inner);
	for (int i = 0; i < n; i++)
		p = stpcpy(p, close);
	return text;
}

static void
test_depth(void **state)
{
	static const struct {
		int n;
		const char *open, *inner, *close;
		int expected;
	} cases[] = {
		{ 64, "[", "", "]", 0 },
		{ 65, "[", "", "]", -EINVAL },
		{ 63, "{\"a\":", "{}", "}", 0 },
		{ 64, "{\"a\":", "{}", "}", -EINVAL },
		{ 10000, "[", "", "]", -EINVAL },
		{ 10000, "[", "", "", -EINVAL },
		{ 10000, "{\"a\":", "1", "}", -EINVAL },
		{ 1000, "", "]]]]][[[[[", "", -EINVAL },
	};
	char err[JSON_ERR_MAX];

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		char *text = nested(cases[i].n, cases[i].open, cases[i].inner, cases[i].close);
		json_t *value = NULL;

		assert_int_equal(json_parse(text, strlen(text), &value, err), cases[i].expected);
		if (cases[i].n == 65)
			assert_string_equal(err, "line 1 column 65: nested deeper than 64");
		json_decref(value);
		free(text);
	}
}

/* The cap on values binds before memory is spent: exactly the limit passes. */
static void
test_values(void **state)
{
	size_t n = JSON_MAX_VALUES - 1; /* elements beside the list itself */
	char *text = malloc(2 * n + 4), err[JSON_ERR_MAX];
	json_t *value = NULL;

	(void)state;
	assert_non_null(text);
	text[0] = '[';
	for (size_t i = 0; i < n; i++) {
		text[1 + 2 * i] = '1';
		text[2 + 2 * i] = ',';
	}
	text[2 * n] = ']';
	assert_int_equal(json_parse(text, 2 * n + 1, &value, err), 0);
	assert_int_equal(json_array_size(value), n);
	json_decref(value);
	value = NULL;
	memcpy(text + 2 * n, ",1]", 3);
	assert_int_equal(json_parse(text, 2 * n + 3, &value, err), -EMSGSIZE);
	assert_non_null(strstr(err, "262144 values"));
	assert_null(value);
	free(text);
}

static void
test_size(void **state)
{
	char *text = malloc(JSON_MAX_BYTES + 1), err[JSON_ERR_MAX];
	json_t *value = NULL;

	(void)state;
	assert_non_null(text);
	memset(text, ' ', JSON_MAX_BYTES + 1);
	memcpy(text, "{}", 2);
	assert_int_equal(json_parse(text, JSON_MAX_BYTES, &value, err), 0);
	json_decref(value);
	value = NULL;
	assert_int_equal(json_parse(text, JSON_MAX_BYTES + 1, &value, err), -EMSGSIZE);
	assert_non_null(strstr(err, "4194305 bytes"));
	/* 4 MB of `{},` cost jansson 302 MB */
	for (size_t i = 0; i + 3 <= JSON_MAX_BYTES; i += 3)
		memcpy(text + i, "{},", 3);
	text[0] = '[';
	assert_int_equal(json_parse(text, JSON_MAX_BYTES, &value, err), -EMSGSIZE);
	assert_null(value);
	free(text);
}

static uint32_t
next_random(uint32_t *state)
{
	*state = *state * UINT32_C(1664525) + UINT32_C(1013904223);
	return *state >> 8;
}

/* Cut at each byte and changed in 2,000 ways: what is accepted can be written and read again. */
static void
test_mutations(void **state)
{
	static const char text[] = "{\"jsonrpc\":\"2.0\",\"method\":\"hd-2._ping\",\"params\":{\"a\":[1,2.5,"
				   "99999999999999999999,-1e5,null],\"\\u00fc\":\"\\\"\\\\\xc3\xbc\"},\"id\":\"1\"}";
	char copy[sizeof text], err[JSON_ERR_MAX];
	size_t len = sizeof text - 1;
	uint32_t seed = 11;
	int passed = 0;

	(void)state;
	for (size_t cut = 0; cut <= len; cut++) {
		json_t *value = NULL;

		assert_int_equal(parse(text, cut, &value, err), cut == len ? 0 : -EINVAL);
		json_decref(value);
	}
	for (int i = 0; i < 2000; i++) {
		json_t *value = NULL, *again = NULL;
		char *written;

		memcpy(copy, text, sizeof text);
		for (uint32_t k = 0, n = 1 + next_random(&seed) % 2; k < n; k++)
			copy[next_random(&seed) % len] ^= (char)(1u << next_random(&seed) % 8);
		if (parse(copy, len, &value, err) != 0) {
			assert_true(utf8_is_clean(err, strlen(err)));
			continue;
		}
		passed++;
		written = json_text(value);
		assert_non_null(written);
		assert_int_equal(parse(written, strlen(written), &again, err), 0);
		free(written);
		json_decref(again);
		json_decref(value);
	}
	assert_in_range(passed, 1, 1999);
}

/* With a memo everything is as without: value, error, words; twice, since the second one finds what the first left. */
static uint64_t
same_with_memo(struct json_memo *memo, const char *text, size_t len)
{
	char err[2][JSON_ERR_MAX] = { "", "" };
	char *copy = malloc(len > 0 ? len : 1), *got[2] = { NULL, NULL };
	uint64_t known[2];
	json_t *v[2];
	int r[2];

	assert_non_null(copy);
	memcpy(copy, text, len);
	r[0] = json_parse(copy, len, &v[0], err[0]);
	for (int round = 0; round < 2; round++) {
		r[1] = json_parse_known(memo, copy, len, &v[1], &known[round], err[1]);
		assert_int_equal(r[1], r[0]);
		if (r[0] != 0) {
			assert_string_equal(err[1], err[0]);
			known[round] = 0;
			continue;
		}
		assert_true(json_equal(v[0], v[1]));
		got[0] = json_text(v[0]); /* the order of the keys too */
		got[1] = json_text(v[1]);
		assert_string_equal(got[1], got[0]);
		free(got[0]);
		free(got[1]);
		json_decref(v[1]);
	}
	assert_true(known[0] == known[1]);
	if (r[0] == 0)
		json_decref(v[0]);
	free(copy);
	return known[0];
}

static void
test_memo(void **state)
{
	struct json_memo *memo = json_memo_new("params", "_client");
	char pad[300], big[20000], text[60000];
	const struct {
		const char *form, *fill; /* `fill` for the %s of `form` */
		bool is_known;
	} cases[] = {
		{ "{\"params\":{\"to\":1,\"_client\":{\"p\":\"%s\"},\"z\":[]},\"id\":2}", pad, true },
		{ "{\"params\":{\"to\":2,\"_client\":{\"p\":\"%s\"},\"z\":[]},\"id\":3}", pad, true },
		{ "{\"params\":{\"_client\": {\"p\":\"%s\"} } }", pad, true },
		{ "{\"params\":{\"\\u005fclient\":{\"p\":\"%s\"}}}", pad, true },
		{ "{\"params\":{\"_client\":{\"p\":[{},{\"}\":\"%s\"}]}}}", pad, true },
		/* somewhere else */
		{ "{\"other\":{\"_client\":{\"p\":\"%s\"}},\"params\":{\"_client\":{}}}", pad, false },
		{ "{\"params\":{\"client\":{\"p\":\"%s\"},\"_client\":{}}}", pad, false },
		{ "[[{\"p\":\"%s\"}]]", pad, false },
		{ "{\"params\":[{\"_client\":\"%s\"}]}", pad, false },
		{ "{\"params\":{\"_client\":[{\"p\":\"%s\"}]}}", pad, false },
		/* too short, too long */
		{ "{\"params\":{\"_client\":{\"p\":\"%s\"}}}", "short", false },
		{ "{\"params\":{\"_client\":{\"p\":\"%s\"}}}", big, false },
		/* wrong, inside of it and around it */
		{ "{\"params\":{\"_client\":{\"p\":\"%s\",\"p\":1}}}", pad, false },
		{ "{\"params\":{\"_client\":{\"p\":\"%s\"},\"_client\":1}}", pad, false },
		{ "{\"params\":{\"_client\":1,\"_client\":{\"p\":\"%s\"}}}", pad, false },
		{ "{\"params\":{\"a\":1,{\"p\":\"%s\"}:2}}", pad, false },
		{ "{\"params\":{\"_client\":{\"p\":\"%s\"}}} x", pad, false },
		{ "{\"params\":{\"_client\":{\"p\":\"%s\"}}", pad, false },
		{ "{\"params\":{\"_client\":{\"p\" \"%s\"}}}", pad, false },
		{ "{\"params\":{\"_client\":{\"p\":\"%s\"]}}", pad, false },
		{ "{\"params\":{\"n\":12345678901234567890123,\"_client\":{\"p\":\"%s\"}}}", pad, false },
	};
	uint64_t first = 0;

	(void)state;
	memset(pad, 'x', sizeof(pad));
	memset(big, 'x', sizeof(big));
	pad[sizeof(pad) - 1] = big[sizeof(big) - 1] = '\0';
	for (int round = 0; round < 2; round++) {
		for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
			int before = (int)(strstr(cases[i].form, "%s") - cases[i].form);
			int n = snprintf(text, sizeof(text), "%.*s%s%s", before, cases[i].form, cases[i].fill,
			    cases[i].form + before + 2);
			uint64_t known = same_with_memo(memo, text, (size_t)n);

			assert_int_equal(known != 0, cases[i].is_known);
			first = i == 0 ? known : first;
			if (i == 1) /* the same member in another request */
				assert_true(known == first);
			if (i == 4)
				assert_true(known != first);
		}
	}
	/* far more than it keeps */
	for (int i = 0; i < 2000; i++) {
		int n = snprintf(text, sizeof(text), "{\"params\":{\"_client\":{\"p\":\"%s%d\"}}}", pad, i);

		assert_true(same_with_memo(memo, text, (size_t)n) > first);
	}
	json_memo_free(memo);
	json_memo_free(NULL);
}

/* Single bytes changed: with and without a memo alike. */
static void
test_memo_mutations(void **state)
{
	struct json_memo *memo = json_memo_new("params", "_client");
	static const char bytes[] = "{}[]\",:\\x0 \n\xff";
	char text[600];
	int n;

	(void)state;
	n = snprintf(text, sizeof(text),
	    "{\"id\":\"a\",\"params\":{\"_client\":{\"a\":[{\"b\":\"%0300d\"},1,{}],\"c\":{\"d\":null}},\"to\":\"x\"}}",
	    0);
	for (int i = 0; i < n; i++) {
		char was = text[i];

		for (size_t k = 0; k < sizeof(bytes) - 1; k++) {
			text[i] = bytes[k];
			same_with_memo(memo, text, (size_t)n);
		}
		text[i] = was;
	}
	json_memo_free(memo);
}

static void
test_str(void **state)
{
	json_t *object = json_pack("{s:s, s:i, s:n}", "a", "text", "b", 1, "c");

	(void)state;
	assert_string_equal(json_str(object, "a"), "text");
	assert_null(json_str(object, "b"));
	assert_null(json_str(object, "c"));
	assert_null(json_str(object, "d"));
	assert_null(json_str(NULL, "a"));
	assert_null(json_text(NULL));
	json_decref(object);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_good),
		cmocka_unit_test(test_bad),
		cmocka_unit_test(test_depth),
		cmocka_unit_test(test_values),
		cmocka_unit_test(test_size),
		cmocka_unit_test(test_mutations),
		cmocka_unit_test(test_memo),
		cmocka_unit_test(test_memo_mutations),
		cmocka_unit_test(test_str),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
