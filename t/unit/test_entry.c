/* test_entry.c - who may call whom, exactly as protocol.md section 5 says it */
#include "hyper/directory/entry.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "hyper/base/attr.h"
#include "hyper/wire/json.h"

static json_t *
parse(const char *text)
{
	char err[JSON_ERR_MAX];
	json_t *v = NULL;

	if (json_parse(text, strlen(text), &v, err) < 0)
		fail_msg("%s: %s", err, text);
	return v;
}

#define CALL(g)       "{\"group\":\"" g "\",\"rights\":[\"call\"]}"
#define SERVICE(p, m) "{\"name\":\"s\",\"permissions\":[" p "],\"methods\":[" m "]}"
#define METHOD(n, p)  "{\"name\":\"" n "\",\"permissions\":[" p "]}"

static void
test_permission_rule(void **state)
{
	static const struct {
		const char *services, *groups, *method;
		bool expect;
	} cases[] = {
		{ "[" SERVICE(CALL("a"), METHOD("m", "")) "]", "[\"a\"]", "m", true },
		{ "[" SERVICE(CALL("a"), METHOD("m", "")) "]", "[\"b\",\"a\"]", "m", true },
		{ "[" SERVICE(CALL("a"), METHOD("m", "")) "]", "[\"b\"]", "m", false },
		{ "[" SERVICE(CALL("a"), METHOD("m", "")) "]", "[]", "m", false },
		{ "[" SERVICE(CALL("a"), METHOD("m", "")) "]", "null", "m", false },
		{ "[" SERVICE(CALL("a"), METHOD("m", "")) "]", "[\"a\"]", "n", false },
		{ "[" SERVICE(CALL("a"), METHOD("m", "")) "]", "[\"a\"]", "", false },
		{ "[" SERVICE(CALL("a"), "") "]", "[\"a\"]", "m", false },
		{ "[" SERVICE("", METHOD("m", CALL("a"))) "]", "[\"a\"]", "m", true },
		{ "[" SERVICE("", METHOD("m", CALL("a")) "," METHOD("n", "")) "]", "[\"a\"]", "n", false },
		{ "[" SERVICE(CALL("*"), METHOD("m", "")) "]", "null", "m", true },
		{ "[" SERVICE(CALL("*"), METHOD("m", "")) "]", "[\"b\"]", "m", true },
		{ "[" SERVICE("{\"group\":\"a\",\"rights\":[]}", METHOD("m", "")) "]", "[\"a\"]", "m", false },
		{ "[" SERVICE("{\"group\":\"a\",\"rights\":null}", METHOD("m", "")) "]", "[\"a\"]", "m", false },
		{ "[" SERVICE("{\"group\":\"a\",\"rights\":[\"read\"]}", METHOD("m", "")) "]", "[\"a\"]", "m", false },
		{ "[" SERVICE("{\"group\":7,\"rights\":[\"call\"]}", METHOD("m", "")) "]", "[\"a\"]", "m", false },
		/* the first service that has the method decides */
		{ "[" SERVICE(CALL("x"), METHOD("m", "")) "," SERVICE(CALL("a"), METHOD("m", "")) "]", "[\"a\"]", "m",
		    false },
		{ "[" SERVICE(CALL("x"), METHOD("n", "")) "," SERVICE(CALL("a"), METHOD("m", "")) "]", "[\"a\"]", "m",
		    true },
		{ "null", "[\"a\"]", "m", false },
		{ "[]", "[\"a\"]", "m", false },
		{ "[null,1,\"x\"]", "[\"a\"]", "m", false },
	};
	json_t *callee, *client;
	size_t i;

	(void)state;
	for (i = 0; i < ARRAY_LEN(cases); i++) {
		callee = json_pack("{s:o}", "services", parse(cases[i].services));
		client = json_pack("{s:o}", "groups", parse(cases[i].groups));
		if (entry_permits(callee, client, cases[i].method) != cases[i].expect)
			fail_msg("case %zu: %s for %s", i, cases[i].services, cases[i].groups);
		json_decref(callee);
		json_decref(client);
	}
	assert_false(entry_permits(NULL, NULL, "m"));
}

static void
test_standing_streams(void **state)
{
	static const struct {
		const char *services, *groups;
		bool expect;
	} cases[] = {
		{ "[" SERVICE(CALL("a"), METHOD("m", "")) "]", "[\"a\"]", true },
		{ "[" SERVICE("", METHOD("m", CALL("a"))) "]", "[\"x\",\"a\"]", true },
		{ "[" SERVICE(CALL("*"), METHOD("m", CALL("*"))) "]", "[\"a\"]", false },
		{ "[" SERVICE(CALL("a"), METHOD("m", "")) "]", "null", false },
		{ "null", "[\"a\"]", false },
	};
	json_t *own, *other;
	size_t i;

	(void)state;
	for (i = 0; i < ARRAY_LEN(cases); i++) {
		own = json_pack("{s:o}", "services", parse(cases[i].services));
		other = json_pack("{s:o}", "groups", parse(cases[i].groups));
		assert_int_equal(entry_may_be_called_by(own, other), cases[i].expect);
		json_decref(own);
		json_decref(other);
	}
}

static void
test_channels_and_keys(void **state)
{
	json_t *entry = parse("{\"channels\":[{\"type\":\"grpc_client\",\"settings\":null},{\"type\":\"grpc_server\","
			      "\"settings\":{\"address\":\"localhost:1\",\"proxy\":\"p\"}}],"
			      "\"certificates\":[{\"fingerprint\":\"aa\",\"key_usage\":\"signing\"},"
			      "{\"fingerprint\":\"bb\",\"key_usage\":\"encryption\"}]}");
	json_t *internal =
	    parse("{\"channels\":[{\"type\":\"grpc_server\",\"settings\":{\"address\":\"a\",\"internal\":true}}]}");
	json_t *broken = parse("{\"channels\":[{\"type\":\"grpc_server\",\"settings\":null}],\"certificates\":null}");
	struct entry_grpc g = { "untouched", false, "x" };

	(void)state;
	assert_false(entry_grpc_server(broken, &g));
	assert_string_equal(g.address, "untouched");
	assert_true(entry_grpc_server(entry, &g));
	assert_string_equal(g.address, "localhost:1");
	assert_string_equal(g.proxy, "p");
	assert_false(g.internal);
	assert_true(entry_grpc_server(internal, &g));
	assert_true(g.internal);
	assert_string_equal(g.proxy, "");
	assert_true(entry_has_channel(entry, "grpc_client"));
	assert_false(entry_has_channel(entry, "quic"));
	assert_true(entry_has_encryption_key(entry, "bb"));
	assert_false(entry_has_encryption_key(entry, "aa"));
	assert_false(entry_has_encryption_key(entry, ""));
	assert_false(entry_has_encryption_key(broken, "bb"));
	json_decref(entry);
	json_decref(internal);
	json_decref(broken);
}

static void
test_settings(void **state)
{
	json_t *entry = parse("{\"settings\":["
			      "{\"operator\":\"x\",\"service\":\"proxy\",\"environment\":\"\",\"settings\":{\"n\":1}},"
			      "{\"operator\":\"\",\"service\":\"proxy\",\"environment\":\"\",\"settings\":{\"n\":2}},"
			      "{\"operator\":\"\",\"service\":\"\",\"environment\":\"\",\"settings\":{\"n\":3}}]}");

	(void)state;
	assert_int_equal(json_integer_value(json_object_get(entry_settings(entry, "proxy", "x"), "n")), 1);
	assert_int_equal(json_integer_value(json_object_get(entry_settings(entry, "proxy", "y"), "n")), 2);
	assert_int_equal(json_integer_value(json_object_get(entry_settings(entry, "mail", "y"), "n")), 3);
	assert_null(entry_settings(NULL, "proxy", "x"));
	json_decref(entry);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_permission_rule),
		cmocka_unit_test(test_standing_streams),
		cmocka_unit_test(test_channels_and_keys),
		cmocka_unit_test(test_settings),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
