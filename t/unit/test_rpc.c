/* test_rpc.c - JSON-RPC: request form, ids and error bodies as on the reference's wire */
#include "hyper/wire/rpc.h"

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

#define JSON_REQUIRED "{\"jsonrpc\":\"2.0\",\"error\":{\"code\":-32700,\"message\":\"JSON required\"},\"id\":null}"

static const struct {
	const char *body;
	const char *answer; /* whole text */
} unparsed[] = {
	{ "", JSON_REQUIRED },
	{ "x", JSON_REQUIRED },
	{ "[]", JSON_REQUIRED },
	{ "\"text\"", JSON_REQUIRED },
	{ "[{\"jsonrpc\":\"2.0\",\"method\":\"a\",\"params\":{}}]", JSON_REQUIRED },
	{ "{\"jsonrpc\":\"2.0\",\"method\":\"a\",\"params\":{},\"params\":{}}", JSON_REQUIRED },
	{ "{\"jsonrpc\":\"2.0\",\"method\":\"a\",\"params\":{}} x", JSON_REQUIRED },
	/* protocol.md 4.1, without the stray comma */
	{ "{\"jsonrpc\":2,\"method\":\"a\",\"params\":{}}",
	    "{\"jsonrpc\":\"2.0\",\"error\":{\"code\":-32600,\"message\":\"invalid request: invalid input data: "
	    "jsonrpc(expected a string)\",\"data\":{\"message\":\"invalid input data: jsonrpc(expected a string)\","
	    "\"code\":\"FORM-ERROR\",\"data\":{\"jsonrpc\":\"expected a string\"},\"traceback\":[]}},\"id\":null}" },
};

static void
test_unparsed(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(unparsed); i++) {
		struct rpc_request r = { 0 };
		char *body = NULL;

		assert_int_not_equal(rpc_request_parse(unparsed[i].body, strlen(unparsed[i].body), &r, &body), 0);
		assert_non_null(body);
		assert_string_equal(body, unparsed[i].answer);
		assert_null(r.method);
		free(body);
	}
}

/* Each fault is named, and only the faults. */
static const struct {
	const char *body;
	const char *faults;
} forms[] = {
	{ "{}", "jsonrpc(expected a string), method(expected a string), params(expected an object)" },
	{ "{\"jsonrpc\":\"2.0,\",\"method\":\"a\",\"params\":{}}", "jsonrpc(expected 2.0)" },
	{ "{\"jsonrpc\":\"1.0\",\"method\":\"a\",\"params\":{}}", "jsonrpc(expected 2.0)" },
	{ "{\"jsonrpc\":\"2.0\",\"method\":\"\",\"params\":{}}", "method(expected 1 to 100 bytes)" },
	{ "{\"jsonrpc\":\"2.0\",\"method\":7,\"params\":{}}", "method(expected a string)" },
	{ "{\"jsonrpc\":\"2.0\",\"method\":\"a\"}", "params(expected an object)" },
	{ "{\"jsonrpc\":\"2.0\",\"method\":\"a\",\"params\":[]}", "params(expected an object)" },
	{ "{\"jsonrpc\":\"2.0\",\"method\":\"a\",\"params\":null}", "params(expected an object)" },
#define ID(v)    "{\"jsonrpc\":\"2.0\",\"method\":\"a\",\"params\":{},\"id\":" v "}"
#define ID_FAULT "id(expected a string of up to 1024 bytes or an integer of 32 bits)"
	{ ID("5.5"), ID_FAULT },
	{ ID("true"), ID_FAULT },
	{ ID("false"), ID_FAULT },
	{ ID("{}"), ID_FAULT },
	{ ID("[]"), ID_FAULT },
	{ ID("2147483648"), ID_FAULT },
	{ ID("-2147483649"), ID_FAULT },
	{ ID("99999999999999999999"), ID_FAULT },
	{ "{\"jsonrpc\":1,\"id\":5.5}", "jsonrpc(expected a string), method(expected a string), params(expected an "
					"object), " ID_FAULT },
};

static void
test_forms(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(forms); i++) {
		struct rpc_request r = { 0 };
		struct rpc_answer a = { 0 };
		char *body = NULL, message[512];

		assert_int_equal(
		    rpc_request_parse(forms[i].body, strlen(forms[i].body), &r, &body), RPC_INVALID_REQUEST);
		assert_int_equal(rpc_answer_parse(body, strlen(body), &a), 0);
		snprintf(message, sizeof message, "invalid request: invalid input data: %s", forms[i].faults);
		assert_string_equal(a.message, message);
		assert_string_equal(json_str(a.data, "message"), message + strlen("invalid request: "));
		assert_string_equal(json_str(a.data, "code"), "FORM-ERROR");
		rpc_answer_fini(&a);
		free(body);
	}
}

#define N32 "12345678901234567890123456789012"

static const struct {
	const char *id; /* on the wire */
	const char *internal;
	const char *back; /* on the wire again, when it is not the same */
} ids[] = {
	{ "\"1\"", "1", NULL },
	{ "\"abc def\"", "abc def", NULL },
	{ "\"\\\"\\u00fc\"", "\"\xc3\xbc", "\"\\\"\xc3\xbc\"" },
	{ "0", "n:0", NULL },
	{ "7", "n:7", NULL },
	{ "-7", "n:-7", NULL },
	{ "5.0", "n:5", "5" },
	{ "-0.0", "n:0", "0" },
	{ "1e3", "n:1000", "1000" },
	{ "2147483647", "n:2147483647", NULL },
	{ "-2147483648", "n:-2147483648", NULL },
	{ "\"n:7\"", "nn:7", NULL },
	{ "\"nn:7\"", "nnnn:7", NULL },
	{ "\"nnn:-7\"", "nnnnnn:-7", NULL },
	{ "\"n:" N32 "\"", "nn:" N32, NULL },
	{ "\"n:" N32 "3\"", "n:" N32 "3", NULL },
	{ "\"n:\"", "n:", NULL },
	{ "\"n:-\"", "n:-", NULL },
	{ "\"n:7x\"", "n:7x", NULL },
	{ "\"m:7\"", "m:7", NULL },
	{ "\":7\"", ":7", NULL },
	{ "\"hd-2.echo(n:7)\"", "hd-2.echo(n:7)", NULL },
};

static void
check_id(const char *id, const char *internal, const char *back)
{
	struct rpc_answer a = rpc_ok(NULL);
	struct rpc_request r = { 0 };
	char *body = NULL, text[1400], *out;

	snprintf(text, sizeof text, "{\"jsonrpc\":\"2.0\",\"method\":\"a\",\"params\":{},\"id\":%s}", id);
	assert_int_equal(rpc_request_parse(text, strlen(text), &r, &body), 0);
	assert_string_equal(r.id, internal);
	out = rpc_answer_text(&a, r.id);
	snprintf(text, sizeof text, "{\"jsonrpc\":\"2.0\",\"result\":{},\"id\":%s}", back);
	assert_string_equal(out, text);
	free(out);
	rpc_request_fini(&r);
}

static void
test_ids(void **state)
{
	char longest[1027], internal[1025];

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(ids); i++)
		check_id(ids[i].id, ids[i].internal, ids[i].back != NULL ? ids[i].back : ids[i].id);
	memset(internal, 'x', 1024);
	internal[1024] = '\0';
	snprintf(longest, sizeof longest, "\"%s\"", internal);
	check_id(longest, internal, longest);
}

static void
test_id_made_up(void **state)
{
	static const char *const bodies[] = {
		"{\"jsonrpc\":\"2.0\",\"method\":\"a\",\"params\":{}}",
		"{\"jsonrpc\":\"2.0\",\"method\":\"a\",\"params\":{},\"id\":null}",
		"{\"jsonrpc\":\"2.0\",\"method\":\"a\",\"params\":{},\"id\":\"\"}",
	};
	char last[33] = "";

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(bodies); i++) {
		struct rpc_request r = { 0 };
		char *body = NULL;
		uint8_t bytes[16];

		assert_int_equal(rpc_request_parse(bodies[i], strlen(bodies[i]), &r, &body), 0);
		assert_int_equal(strlen(r.id), 32);
		assert_int_equal(hex_decode(r.id, bytes, sizeof bytes), 0);
		assert_string_not_equal(r.id, last);
		memcpy(last, r.id, sizeof last);
		rpc_request_fini(&r);
	}
}

/* Limits on both sides of the edge; members are taken as they are. */
static void
test_request(void **state)
{
	struct rpc_request r = { 0 };
	char *body = NULL, text[1400], name[1026], *params;

	(void)state;
	memset(name, 'm', 101);
	for (int len = 100; len <= 101; len++) {
		snprintf(text, sizeof text,
		    "{\"x\":[],\"jsonrpc\":\"2.0\",\"method\":\"%.*s\",\"params\":{\"a\":1.0},\"id\":1}", len, name);
		assert_int_equal(
		    rpc_request_parse(text, strlen(text), &r, &body), len == 100 ? 0 : RPC_INVALID_REQUEST);
	}
	assert_int_equal(strlen(r.method), 100);
	params = json_text(r.params);
	assert_string_equal(params, "{\"a\":1}");
	free(params);
	free(body);
	rpc_request_fini(&r);
	memset(name, 'i', 1025);
	name[1025] = '\0';
	snprintf(text, sizeof text, "{\"jsonrpc\":\"2.0\",\"method\":\"a\",\"params\":{},\"id\":\"%s\"}", name);
	assert_int_equal(rpc_request_parse(text, strlen(text), &r, &body), RPC_INVALID_REQUEST);
	free(body);
}

static void
check_text(struct rpc_answer a, const char *id, const char *expected)
{
	char *text = rpc_answer_text(&a, id);

	assert_non_null(text);
	assert_string_equal(text, expected);
	free(text);
	rpc_answer_fini(&a);
}

static void
test_answer_text(void **state)
{
	char longish[3000];
	struct rpc_answer a;
	json_t *form = NULL;

	(void)state;
	check_text(rpc_ok(NULL), "1", "{\"jsonrpc\":\"2.0\",\"result\":{},\"id\":\"1\"}");
	check_text(rpc_ok(json_string("ok")), NULL, "{\"jsonrpc\":\"2.0\",\"result\":\"ok\",\"id\":null}");
	check_text(rpc_ok(json_null()), "n:5", "{\"jsonrpc\":\"2.0\",\"result\":null,\"id\":5}");
	check_text(rpc_fail(RPC_NOT_FOUND, NULL, "not found"), "1",
	    "{\"jsonrpc\":\"2.0\",\"error\":{\"code\":404,\"message\":\"not found\"},\"id\":\"1\"}");
	check_text(rpc_fail(RPC_BROKER, json_object(), "no channel for %s", "x\"y"), "1",
	    "{\"jsonrpc\":\"2.0\",\"error\":{\"code\":1,\"message\":\"no channel for x\\\"y\",\"data\":{}},\"id\":"
	    "\"1\"}");
	check_text(rpc_fail(0, NULL, "\xff"), "1",
	    "{\"jsonrpc\":\"2.0\",\"error\":{\"code\":-32603,\"message\":\"?\"},\"id\":\"1\"}");
	check_text((struct rpc_answer){ .code = 1 }, "1",
	    "{\"jsonrpc\":\"2.0\",\"error\":{\"code\":1,\"message\":\"out of memory\"},\"id\":\"1\"}");
	check_text(rpc_fail_step(RPC_BUSY, END_BUSY, STEP_ISSUED, "a1b2", 250, "full"), "1",
	    "{\"jsonrpc\":\"2.0\",\"error\":{\"code\":-32001,\"message\":\"full\",\"data\":{\"reason\":\"busy\","
	    "\"step\":\"issued\",\"session\":\"a1b2\",\"retry_after_ms\":250,"
	    "\"help\":\"ask again later; if it happens often, raise the limit that the message or the log names\"}},"
	    "\"id\":\"1\"}");
	check_text(rpc_fail_step(RPC_DENIED, END_DENIED, STEP_NONE, NULL, 0, "no"), "1",
	    "{\"jsonrpc\":\"2.0\",\"error\":{\"code\":403,\"message\":\"no\",\"data\":{\"reason\":\"denied\","
	    "\"help\":\"an admin of the directory can permit the caller's group to call this method\"}},\"id\":"
	    "\"1\"}");
	rpc_form_fault(&form, "to", "expected a string");
	rpc_form_fault(&form, "channel", "expected a string");
	rpc_form_fault(&form, "to", "only the first counts");
	check_text(rpc_form_answer(form), "1",
	    "{\"jsonrpc\":\"2.0\",\"error\":{\"code\":-32602,\"message\":\"invalid params\",\"data\":{\"message\":"
	    "\"invalid input data: to(expected a string), channel(expected a string)\",\"code\":\"FORM-ERROR\","
	    "\"data\":{\"to\":\"expected a string\",\"channel\":\"expected a "
	    "string\"},\"traceback\":[]}},\"id\":\"1\"}");
	/* what a stranger's bytes are quoted in still fits JSON and protobuf: invariant 3 of rpc.c */
	a = rpc_fail(1, NULL, "GOAWAY %s", "\xc3\xa4 \xff!");
	assert_string_equal(a.message, "GOAWAY ?? ?!");
	rpc_answer_fini(&a);
	a = rpc_fail(1, NULL, "GOAWAY %s", "\xc3\xa4!");
	assert_string_equal(a.message, "GOAWAY \xc3\xa4!");
	rpc_answer_fini(&a);
	/* a long message is cut between characters */
	for (size_t i = 0; i + 2 < sizeof longish; i += 2)
		memcpy(longish + i, "\xc3\xbc", 3);
	for (int shift = 0; shift < 2; shift++) {
		a = rpc_fail(1, NULL, "%s%s", shift ? "x" : "", longish);
		assert_in_range(strlen(a.message), 1000, 1024);
		assert_true(utf8_is_clean(a.message, strlen(a.message)));
		rpc_answer_fini(&a);
	}
}

static void
test_request_text(void **state)
{
	json_t *params = json_pack("{s:f, s:n}", "a", 1.0, "n");
	char *text = rpc_request_text("echo", params, "hd-2.echo(n:7)");

	(void)state;
	assert_string_equal(text,
	    "{\"jsonrpc\":\"2.0\",\"method\":\"echo\",\"params\":{\"a\":1,\"n\":null},\"id\":\"hd-2.echo(n:7)\"}");
	free(text);
	json_decref(params);
}

static const struct {
	const char *body;
	int r;
	int code;
	const char *message, *result, *data;
} answers[] = {
	{ "{\"jsonrpc\":\"2.0\",\"result\":[],\"id\":\"x\"}", 0, 0, NULL, "[]", NULL },
	{ "{\"jsonrpc\":\"2.0\",\"result\":null,\"id\":\"x\"}", 0, 0, NULL, "null", NULL },
	{ "{\"result\":\"ok\",\"error\":null,\"extra\":1}", 0, 0, NULL, "\"ok\"", NULL },
	{ "{\"id\":7}", 0, 0, NULL, NULL, NULL },
	{ "{\"jsonrpc\":\"2.0,\",\"error\":{\"code\":-32700,\"message\":\"JSON required\"},\"id\":null}", 0, -32700,
	    "JSON required", NULL, NULL },
	{ "{\"error\":{\"code\":7.0,\"message\":\"m\",\"data\":{\"a\":1}},\"result\":{}}", 0, 7, "m", NULL,
	    "{\"a\":1}" },
	{ "{\"error\":{\"code\":0,\"message\":\"m\"}}", 0, -32603, "m", NULL, NULL },
	{ "{\"error\":{\"code\":1}}", 0, 1, "", NULL, NULL },
	{ "{\"error\":{\"message\":\"m\"}}", -EINVAL, 0, NULL, NULL, NULL },
	{ "{\"error\":{\"code\":\"1\",\"message\":\"m\"}}", -EINVAL, 0, NULL, NULL, NULL },
	{ "{\"error\":{\"code\":1.5,\"message\":\"m\"}}", -EINVAL, 0, NULL, NULL, NULL },
	{ "{\"error\":{\"code\":4294967297,\"message\":\"m\"}}", -EINVAL, 0, NULL, NULL, NULL },
	{ "{\"error\":{\"code\":1,\"message\":{}}}", -EINVAL, 0, NULL, NULL, NULL },
	{ "{\"error\":\"text\"}", -EINVAL, 0, NULL, NULL, NULL },
	{ "[]", -EINVAL, 0, NULL, NULL, NULL },
	{ "", -EINVAL, 0, NULL, NULL, NULL },
	{ "<html>", -EINVAL, 0, NULL, NULL, NULL },
};

static void
check_value(const json_t *value, const char *expected)
{
	char *text = value != NULL ? json_text(value) : NULL;

	if (expected == NULL)
		assert_null(value);
	else
		assert_string_equal(text, expected);
	free(text);
}

static void
test_answer_parse(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(answers); i++) {
		struct rpc_answer a = { 0 };

		assert_int_equal(rpc_answer_parse(answers[i].body, strlen(answers[i].body), &a), answers[i].r);
		assert_int_equal(a.code, answers[i].code);
		if (answers[i].message != NULL)
			assert_string_equal(a.message, answers[i].message);
		else
			assert_null(a.message);
		check_value(a.result, answers[i].result);
		check_value(a.data, answers[i].data);
		rpc_answer_fini(&a);
		rpc_answer_fini(&a); /* twice is fine */
	}
}

static uint32_t
next_random(uint32_t *state)
{
	*state = *state * UINT32_C(1664525) + UINT32_C(1013904223);
	return *state >> 8;
}

/* Whatever comes, there is a request or a body to send, and the body is an answer. */
static void
test_mutations(void **state)
{
	static const char text[] =
	    "{\"method\": \"hd-2._ping\", \"id\": \"nn:1\", \"params\": {\"a\":[]}, \"jsonrpc\": "
	    "\"2.0\"}";
	char copy[sizeof text];
	size_t len = sizeof text - 1;
	uint32_t seed = 3;

	(void)state;
	for (size_t i = 0; i < 2000 + len; i++) {
		struct rpc_request r = { 0 };
		struct rpc_answer a = { 0 };
		char *body = NULL;
		size_t n = i < len ? i : len;

		memcpy(copy, text, sizeof text);
		if (i >= len)
			copy[next_random(&seed) % len] ^= (char)(1u << next_random(&seed) % 8);
		if (rpc_request_parse(copy, n, &r, &body) == 0) {
			assert_null(body);
			assert_true(r.method[0] != '\0' && r.id[0] != '\0' && json_is_object(r.params));
			rpc_request_fini(&r);
			continue;
		}
		assert_non_null(body);
		assert_int_equal(rpc_answer_parse(body, strlen(body), &a), 0);
		assert_true(a.code == RPC_PARSE || a.code == RPC_INVALID_REQUEST);
		rpc_answer_fini(&a);
		free(body);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_unparsed),
		cmocka_unit_test(test_forms),
		cmocka_unit_test(test_ids),
		cmocka_unit_test(test_id_made_up),
		cmocka_unit_test(test_request),
		cmocka_unit_test(test_answer_text),
		cmocka_unit_test(test_request_text),
		cmocka_unit_test(test_answer_parse),
		cmocka_unit_test(test_mutations),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
