/* test_rechash.c - the record hash gives the reference's bytes, and ambiguous values are named */
#include "hyper/wire/rechash.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "hyper/base/attr.h"
#include "hyper/base/bytes.h"
#include "hyper/wire/json.h"

static json_t *
load(const char *name)
{
	const char *source = getenv("HYPER_SOURCE");
	char path[4096];
	json_error_t e;
	json_t *value;

	snprintf(path, sizeof path, "%s/t/vectors/%s", source != NULL ? source : ".", name);
	value = json_load_file(path, JSON_REJECT_DUPLICATES, &e);
	if (value == NULL)
		print_message("# %s: %s\n", path, e.text);
	assert_non_null(value);
	return value;
}

static json_t *
parse(const char *text)
{
	char err[JSON_ERR_MAX];
	json_t *value = NULL;

	assert_int_equal(json_parse(text, strlen(text), &value, err), 0);
	return value;
}

static void
hash_hex(const json_t *value, char ret[SHA256_HEX_LEN + 1])
{
	uint8_t hash[32];

	assert_int_equal(rechash(value, hash), 0);
	hex_encode(hash, sizeof hash, ret);
}

/* Every record of a signed chain has the hash that the reference gave it. */
static void
check_chain(const json_t *list, size_t expected_length)
{
	size_t n = json_array_size(list);
	const char *parent = "";

	assert_int_equal(n, expected_length);
	for (size_t i = 0; i < n; i++) {
		const json_t *signed_record = json_array_get(list, i);
		char hex[SHA256_HEX_LEN + 1];

		hash_hex(json_object_get(signed_record, "record"), hex);
		assert_string_equal(hex, json_str(signed_record, "hash"));
		assert_string_equal(parent, json_str(signed_record, "parent_hash"));
		assert_null(rechash_ambiguity(json_object_get(signed_record, "record")));
		parent = json_str(signed_record, "hash");
	}
}

static void
test_chain(void **state)
{
	json_t *list = load("records.json");

	(void)state;
	check_chain(list, 28);
	json_decref(list);
}

/* What is signed: the hash of {hash, parent_hash, record}; an empty parent writes nothing. */
static void
test_signed_digest(void **state)
{
	static const char *const digests[] = {
		"3e0fe577d1bb7b6a2dd9167a1e6338f88154e77c8a8735d5a3f061754ac94bfb",
		"125b2e6942462a5c1f07abae2268f913f953f014cf53faf4aced6e44f4ca783e",
	};
	json_t *list = load("one_records.json");

	(void)state;
	check_chain(list, 2);
	for (size_t i = 0; i < ARRAY_LEN(digests); i++) {
		char hex[SHA256_HEX_LEN + 1];
		json_t *unsigned_record = json_copy(json_array_get(list, i));

		assert_int_equal(json_object_del(unsigned_record, "signature"), 0);
		hash_hex(unsigned_record, hex);
		assert_string_equal(hex, digests[i]);
		json_decref(unsigned_record);
	}
	json_decref(list);
}

static void
test_all_types(void **state)
{
	json_t *in = load("sign_in.json"), *out = load("sign_out.json");
	char hex[SHA256_HEX_LEN + 1];

	(void)state;
	hash_hex(in, hex);
	assert_string_equal(hex, "a50805c8aed6452dd922f1b57419ce1bfdf61e0e28d71daad82f018672ab0803");
	hash_hex(json_object_get(out, "data"), hex);
	assert_string_equal(hex, "a50805c8aed6452dd922f1b57419ce1bfdf61e0e28d71daad82f018672ab0803");
	json_decref(in);
	json_decref(out);
}

#define TRUE_BYTES  "\x02\0\0\0\0\0\0\0\0\0"
#define FLOAT_TWO_5 "\0\0\0\0\0\0\x04\x40\0\0"
#define FLOAT_ONE   "\0\0\0\0\0\0\xf0\x3f\0\0"

static const struct {
	const char *json, *stream;
	size_t len;
} streams[] = {
#define S(json, stream)                         \
	{                                       \
		json, stream, sizeof stream - 1 \
	}
	S("null", ""),
	S("false", ""),
	S("0", ""),
	S("-0.0", ""),
	S("\"\"", ""),
	S("[]", ""),
	S("{}", "stringmap"),
	S("\"abc\"", "stringabc"),
	S("true", "stringbool" TRUE_BYTES),
	S("2.5", "stringfloat" FLOAT_TWO_5),
	S("1", "stringfloat" FLOAT_ONE),
	S("[1,null,\"x\"]", "stringliststring0stringfloat" FLOAT_ONE "string1string2stringx"),
	S("[[],{}]", "stringliststring0string1stringmap"),
	S("{\"b\":\"x\",\"a\":\"y\",\"Z\":0}", "stringmapstringystringastringxstringb"),
	S("{\"\xc3\xbc\":true,\"z\":true}",
	    "stringmapstringbool" TRUE_BYTES "stringzstringbool" TRUE_BYTES "string\xc3\xbc"),
	S("{\"created_at\":\"2026-11-22T13:34:00.097926479Z\",\"data\":[\"a\",\"b\"],\"section\":\"groups\",\"name\":"
	  "\"hd-2\"}",
	    "stringmapstring2026-11-22T13:34:00.097926479Zstringcreated_atstringliststring0stringastring1stringb"
	    "stringdatastringhd-2stringnamestringgroupsstringsection"),
#undef S
};

static void
test_streams(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(streams); i++) {
		json_t *value = parse(streams[i].json);
		uint8_t *stream = NULL;
		size_t len = 0;

		assert_int_equal(rechash_stream(value, &stream, &len), 0);
		if (len != streams[i].len)
			print_message("# %s: %zu bytes\n", streams[i].json, len);
		assert_int_equal(len, streams[i].len);
		assert_memory_equal(stream, streams[i].stream, len);
		free(stream);
		json_decref(value);
	}
}

static const struct {
	const char *json;
	bool ambiguous;
} ambiguities[] = {
	{ "{\"name\":\"hd-2\",\"data\":[{\"a\":1},{\"b\":\"8080\"}],\"x\":{}}", false },
	{ "[\"a\",1,true]", false },
	{ "[]", false },
	{ "9007199254740992", false },
	{ "0", false },
	{ "\"\"", false },
	{ "{\"a\":\"\",\"b\":[],\"c\":null}", false },
	{ "\"lists\"", false },
	{ "{\"a1\":\"int8\"}", false },
	{ "\"a string b\"", true },
	{ "{\"substrings\":1}", true },
	{ "{\"a\":[{\"b\":\"string\"}]}", true },
	{ "{\"a\":\"map\"}", true },
	{ "{\"a\":\"list\"}", true },
	{ "{\"a\":\"float\"}", true },
	{ "{\"a\":\"bool\"}", true },
	{ "{\"a\":\"bytes\"}", true },
	{ "{\"a\":\"int\"}", true },
	{ "{\"map\":1}", true },
	{ "{\"0\":1}", true },
	{ "{\"a\":{\"17\":\"x\"}}", true },
	{ "{\"\":1}", true },
	{ "[[1]]", true },
	{ "[[]]", true },
	{ "[\"\",\"\"]", true },
	{ "[null]", true },
	{ "[false]", true },
	{ "[0]", true },
	{ "[{\"x\":\"v\"},\"z\"]", true },
	{ "9007199254740993", true },
	{ "-9007199254740993", true },
};

static void
test_ambiguity(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(ambiguities); i++) {
		json_t *value = parse(ambiguities[i].json);
		const char *what = rechash_ambiguity(value);

		if ((what != NULL) != ambiguities[i].ambiguous)
			print_message("# %s: %s\n", ambiguities[i].json, what != NULL ? what : "accepted");
		assert_int_equal(what != NULL, ambiguities[i].ambiguous);
		json_decref(value);
	}
}

/* Pairs that share a stream: at least one of each pair must be refused, or the
 * hash would sign both. */
static void
test_collisions(void **state)
{
	static const char *const pairs[][2] = {
		{ "{\"a\":\"map\"}", "{\"a\":{}}" },
		{ "[\"1\"]", "[\"\",\"\"]" },
		{ "[[\"a\"],\"b\"]", "[[\"a\",\"b\"]]" },
		{ "[{\"x\":\"v\"},\"z\"]", "[{\"x\":\"v\",\"z\":\"1\"}]" },
		{ "{\"a\":\"1stringb\"}", "{\"a\":[\"\"],\"b\":\"1\"}" },
		{ "9007199254740993", "9007199254740992" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(pairs); i++) {
		json_t *a = parse(pairs[i][0]), *b = parse(pairs[i][1]);

		assert_true(rechash_ambiguity(a) != NULL || rechash_ambiguity(b) != NULL);
		json_decref(a);
		json_decref(b);
	}
}

/* A value nested without end is an error, not a stack overflow. */
static void
test_endless(void **state)
{
	json_t *value = json_array();
	uint8_t hash[32];

	(void)state;
	for (int i = 0; i < 100000; i++) {
		json_t *outer = json_array();

		json_array_append_new(outer, value);
		value = outer;
	}
	assert_int_equal(rechash(value, hash), -ENOMEM);
	assert_non_null(rechash_ambiguity(value));
	while (value != NULL) { /* jansson frees recursively, which would overflow here */
		json_t *inner = json_incref(json_array_get(value, 0));

		json_decref(value);
		value = inner;
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_chain),
		cmocka_unit_test(test_signed_digest),
		cmocka_unit_test(test_all_types),
		cmocka_unit_test(test_streams),
		cmocka_unit_test(test_ambiguity),
		cmocka_unit_test(test_collisions),
		cmocka_unit_test(test_endless),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
