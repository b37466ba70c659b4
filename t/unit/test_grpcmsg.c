/* test_grpcmsg.c - protobuf messages: round trips, the reference's bytes, and hostile bytes refused */
#include "hyper/wire/grpcmsg.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "hyper/base/attr.h"
#include "hyper/wire/json.h"

/* What the structs own when it came from a peer; borrowed here, never freed. */
static char METHOD[] = "hd-2._ping", ID[] = "hd-2._ping(1)", CLIENT[] = "hd-1", BAD_ID[] = "a.b(\xff)";

static json_t *
parse(const char *text)
{
	char err[JSON_ERR_MAX];
	json_t *value = NULL;

	if (text == NULL)
		return NULL;
	if (json_parse(text, strlen(text), &value, err) < 0)
		print_message("# %s: %s\n", text, err);
	assert_non_null(value);
	return value;
}

static void
check_json(const json_t *value, const char *expected)
{
	char *text = value != NULL ? json_text(value) : NULL;

	if (expected == NULL) {
		assert_null(value);
		return;
	}
	assert_non_null(text);
	assert_string_equal(text, expected);
	free(text);
}

/* Unpacks it as a value and as text: the two must agree in all they say. The value's one is returned. */
static int
unpack_response(const uint8_t *bytes, size_t len, struct grpc_response *ret)
{
	struct grpc_response as_text = { 0 };
	int e = grpc_response_unpack(bytes, len, false, ret);
	char *a, *b;

	assert_int_equal(grpc_response_unpack(bytes, len, true, &as_text), e);
	if (e < 0)
		return e;
	assert_string_equal(ret->id, as_text.id);
	assert_null(ret->answer.result_text);
	assert_true(as_text.answer.result == NULL || as_text.answer.result_text == NULL);
	a = rpc_answer_text(&ret->answer, "1");
	b = rpc_answer_text(&as_text.answer, "1");
	assert_non_null(a);
	assert_non_null(b);
	assert_string_equal(a, b);
	free(a);
	free(b);
	grpc_response_fini(&as_text);
	return 0;
}

/* A deterministic sequence, so that a failure can be seen again. */
static uint32_t
next_random(uint32_t *state)
{
	*state = *state * UINT32_C(1664525) + UINT32_C(1013904223);
	return *state >> 8;
}

/* The announcement of protocol.md 3.5, written down by hand: 21 bytes. */
static void
test_announcement(void **state)
{
	static const uint8_t bytes[] = { 0x0a, 1, '1', 0x12, 16, 0x0a, 14, 0x0a, 4, 'n', 'a', 'm', 'e', 0x12, 6, 0x1a,
		4, 'h', 'd', '-', '1' };
	struct grpc_response r = { 0 };
	uint8_t *frame = NULL;
	size_t len = 0;

	(void)state;
	assert_int_equal(sizeof bytes, 21);
	assert_int_equal(unpack_response(bytes, sizeof bytes, &r), 0);
	assert_string_equal(r.id, "1");
	check_json(r.answer.result, "{\"name\":\"hd-1\"}");
	assert_int_equal(grpc_response_pack(&r, &frame, &len), 0);
	assert_int_equal(len, GRPC_FRAME_HEAD + sizeof bytes);
	assert_memory_equal(frame, "\0\0\0\0\x15", GRPC_FRAME_HEAD);
	assert_memory_equal(frame + GRPC_FRAME_HEAD, bytes, sizeof bytes);
	free(frame);
	grpc_response_fini(&r);
}

/* What the reference answers to a _connectionRequest (protocol.md 3.5): 59 bytes, an id and no result. */
static void
test_no_result(void **state)
{
	static const char id[] = "hd-2._connectionRequest(59efc4497061e65a97b86714deff5750)";
	uint8_t bytes[59] = { 0x0a, sizeof id - 1 };
	struct grpc_response r = { 0 };
	char *text;

	(void)state;
	assert_int_equal(2 + sizeof id - 1, sizeof bytes);
	memcpy(bytes + 2, id, sizeof id - 1);
	assert_int_equal(unpack_response(bytes, sizeof bytes, &r), 0);
	assert_string_equal(r.id, id);
	assert_int_equal(r.answer.code, 0);
	text = rpc_answer_text(&r.answer, "1");
	assert_string_equal(text, "{\"jsonrpc\":\"2.0\",\"result\":{},\"id\":\"1\"}");
	free(text);
	grpc_response_fini(&r);
}

static const char *const values[][2] = {
	/* sent, received */
	{ "{}", "{}" },
	{ "{\"a\":1,\"b\":-1,\"c\":0}", "{\"a\":1,\"b\":-1,\"c\":0}" },
	{ "{\"a\":1.0,\"b\":0.1,\"c\":1e300}", "{\"a\":1,\"b\":0.1,\"c\":1e+300}" },
	{ "{\"a\":12345678901234567}", "{\"a\":12345678901234568}" },
	{ "{\"a\":9007199254740991,\"b\":9007199254740992}", "{\"a\":9007199254740991,\"b\":9007199254740992}" },
	{ "{\"a\":123456789012345678901234567890}", "{\"a\":1.2345678901234568e+29}" },
	{ "{\"a\":null,\"b\":true,\"c\":false}", "{\"a\":null,\"b\":true,\"c\":false}" },
	{ "{\"a\":[],\"b\":[1,[2,{}],null]}", "{\"a\":[],\"b\":[1,[2,{}],null]}" },
	{ "{\"a\":{\"b\":{\"c\":\"\"}}}", "{\"a\":{\"b\":{\"c\":\"\"}}}" },
	{ "{\"\":\"\xc3\xb6<>&\"}", "{\"\":\"\xc3\xb6<>&\"}" },
};

static void
test_request_round_trip(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(values); i++) {
		struct grpc_request out = { METHOD, ID, CLIENT, parse(values[i][0]) }, in = { 0 };
		uint8_t *frame = NULL;
		size_t len = 0;

		assert_int_equal(grpc_request_pack(&out, &frame, &len), 0);
		assert_int_equal(grpc_request_unpack(frame + GRPC_FRAME_HEAD, len - GRPC_FRAME_HEAD, &in), 0);
		assert_string_equal(in.method, "hd-2._ping");
		assert_string_equal(in.id, "hd-2._ping(1)");
		assert_string_equal(in.client_name, "hd-1");
		check_json(in.params, values[i][1]);
		free(frame);
		json_decref(out.params);
		grpc_request_fini(&in);
	}
}

static const struct {
	const char *result; /* NULL: an error, or none */
	const char *received;
	int code;
	const char *message, *data, *received_data;
} answers[] = {
	{ NULL, NULL, 0, NULL, NULL, NULL },
	{ "{}", "{}", 0, NULL, NULL, NULL },
	{ "\"ok\"", "\"ok\"", 0, NULL, NULL, NULL },
	{ "null", "null", 0, NULL, NULL, NULL },
	{ "[1,{\"_\":2}]", "[1,{\"_\":2}]", 0, NULL, NULL, NULL },
	{ "{\"_\":1,\"a\":2}", "{\"_\":1,\"a\":2}", 0, NULL, NULL, NULL },
	{ "5", "5", 0, NULL, NULL, NULL },
	{ NULL, NULL, 403, "Permission denied", NULL, NULL },
	{ NULL, NULL, -100, "text", "null", NULL },
	{ NULL, NULL, -32603, "", "{\"step\":\"told\"}", "{\"step\":\"told\"}" },
	{ NULL, NULL, 1, "x", "[\"list\"]", "[\"list\"]" },
	{ NULL, NULL, 1, "x", "{}", "{}" },
};

static void
test_response_round_trip(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(answers); i++) {
		struct grpc_response out = { .id = ID,
			.answer = { .code = answers[i].code,
			    .message = (char *)answers[i].message,
			    .data = parse(answers[i].data),
			    .result = parse(answers[i].result) } };
		struct grpc_response in = { 0 };
		uint8_t *frame = NULL;
		size_t len = 0;

		assert_int_equal(grpc_response_pack(&out, &frame, &len), 0);
		assert_int_equal(unpack_response(frame + GRPC_FRAME_HEAD, len - GRPC_FRAME_HEAD, &in), 0);
		assert_string_equal(in.id, ID);
		assert_int_equal(in.answer.code, answers[i].code);
		if (answers[i].message != NULL)
			assert_string_equal(in.answer.message, answers[i].message);
		check_json(in.answer.result, answers[i].received);
		check_json(in.answer.data, answers[i].received_data);
		free(frame);
		json_decref(out.answer.data);
		json_decref(out.answer.result);
		grpc_response_fini(&in);
	}
}

/* What may not be packed says so and makes nothing. */
static void
test_pack_refused(void **state)
{
	struct grpc_request r = { METHOD, ID, CLIENT, json_object() };
	uint8_t *frame = NULL;
	size_t len = 0;
	char *big = malloc(GRPC_MAX_MESSAGE + 1);

	(void)state;
	assert_non_null(big);
	json_object_set_new(r.params, "x", json_stringn("a\0b", 3));
	assert_int_equal(grpc_request_pack(&r, &frame, &len), -EINVAL);
	memset(big, 'x', GRPC_MAX_MESSAGE);
	big[GRPC_MAX_MESSAGE] = '\0';
	json_object_set_new(r.params, "x", json_string(big));
	assert_int_equal(grpc_request_pack(&r, &frame, &len), -EMSGSIZE);
	json_object_clear(r.params);
	r.id = BAD_ID;
	assert_int_equal(grpc_request_pack(&r, &frame, &len), -EINVAL);
	r.id = ID;
	for (int i = 0; i < 64; i++) {
		json_t *outer = json_object();

		json_object_set_new(outer, "x", r.params);
		r.params = outer;
	}
	assert_int_equal(grpc_request_pack(&r, &frame, &len), -EINVAL);
	assert_null(frame);
	json_decref(r.params);
	free(big);
}

/* Writes `depth` Structs one in another, each 0a len 0a 00? key "" and value; returns the length. */
static size_t
nest(uint8_t *buf, size_t cap, int depth)
{
	size_t len = 0;

	/* from the inside to the outside, written backwards from the end */
	for (int i = 0; i < depth; i++) {
		uint8_t head[24];
		size_t n = 0, body = len;
		/* Value{struct_value}: 2a <body>; Entry{value}: 12 <Value>; Struct{fields}: 0a <Entry> */
		for (int level = 0; level < 3; level++) {
			static const uint8_t tags[] = { 0x2a, 0x12, 0x0a };
			uint8_t part[8];
			size_t k = 0, v = body;

			part[k++] = tags[level];
			do {
				part[k++] = (uint8_t)((v & 0x7f) | (v > 0x7f ? 0x80 : 0));
				v >>= 7;
			} while (v > 0);
			memmove(head + k, head, n);
			memcpy(head, part, k);
			n += k;
			body += k;
		}
		assert_true(len + n <= cap);
		len += n;
		memcpy(buf + cap - len, head, n);
	}
	return len;
}

static int
unpack_nested(int depth)
{
	static uint8_t body[300000], msg[300008];
	size_t len = nest(body, sizeof body, depth - 1), n = 0, v;
	struct grpc_request r = { 0 };
	int e;

	msg[n++] = 0x12; /* Request.params: Struct number 1 */
	v = len;
	do {
		msg[n++] = (uint8_t)((v & 0x7f) | (v > 0x7f ? 0x80 : 0));
		v >>= 7;
	} while (v > 0);
	memcpy(msg + n, body + sizeof body - len, len);
	e = grpc_request_unpack(msg, n + len, &r);
	grpc_request_fini(&r);
	return e;
}

/* faults.md "protobuf recursion" */
static void
test_nested(void **state)
{
	(void)state;
	assert_int_equal(unpack_nested(1), 0);
	assert_int_equal(unpack_nested(64), 0);
	assert_int_equal(unpack_nested(65), -EINVAL);
	assert_int_equal(unpack_nested(2900), -EINVAL); /* about 34 kB */
	assert_int_equal(unpack_nested(20000), -EINVAL);
}

#define B(...)                                                                             \
	{                                                                                  \
		(const uint8_t[]){ __VA_ARGS__ }, sizeof((const uint8_t[]){ __VA_ARGS__ }) \
	}

static const struct {
	const char *what;
	struct {
		const uint8_t *bytes;
		size_t len;
	} msg;
	int expected;
	const char *params;
} requests[] = {
	{ "a method alone", B(0x0a, 1, 'm'), 0, "{}" },
	{ "unknown field, varint", B(0x78, 1), 0, "{}" },
	{ "unknown field, bytes with NUL", B(0x7a, 2, 0, 0xff), 0, "{}" },
	{ "unknown field, 8 and 4 bytes", B(0x79, 1, 2, 3, 4, 5, 6, 7, 8, 0x7d, 1, 2, 3, 4), 0, "{}" },
	{ "field number 0", B(0x02, 0), -EINVAL, NULL },
	{ "field number over 2^29", B(0xfa, 0xff, 0xff, 0xff, 0x7f, 0), -EINVAL, NULL },
	{ "start of a group", B(0x7b, 0x7c), -EINVAL, NULL },
	{ "wire type 7", B(0x7f, 1), -EINVAL, NULL },
	{ "string as varint", B(0x08, 1), -EINVAL, NULL },
	{ "length beyond the end", B(0x0a, 5, 'm'), -EINVAL, NULL },
	{ "length of 2^63", B(0x0a, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 1), -EINVAL, NULL },
	{ "varint of 11 bytes", B(0x78, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 1), -EINVAL, NULL },
	{ "NUL in method", B(0x0a, 3, 'a', 0, 'b'), -EINVAL, NULL },
	{ "NUL in id", B(0x1a, 1, 0), -EINVAL, NULL },
	{ "NUL in clientName", B(0x22, 2, 'a', 0), -EINVAL, NULL },
	{ "half a character", B(0x0a, 1, 0xc3), -EINVAL, NULL },
	{ "overlong NUL", B(0x0a, 2, 0xc0, 0x80), -EINVAL, NULL },
	{ "surrogate", B(0x0a, 3, 0xed, 0xa0, 0x80), -EINVAL, NULL },
	{ "method twice", B(0x0a, 1, 'm', 0x0a, 1, 'n'), -EINVAL, NULL },
	{ "params twice", B(0x12, 0, 0x12, 0), -EINVAL, NULL },
	{ "NUL in a key", B(0x12, 5, 0x0a, 3, 0x0a, 1, 0), -EINVAL, NULL },
	{ "NUL in a value", B(0x12, 7, 0x0a, 5, 0x12, 3, 0x1a, 1, 0), -EINVAL, NULL },
	{ "bad UTF-8 in a value", B(0x12, 7, 0x0a, 5, 0x12, 3, 0x1a, 1, 0xff), -EINVAL, NULL },
	{ "an entry without key and value", B(0x12, 2, 0x0a, 0), 0, "{\"\":null}" },
	{ "an entry whose value has no kind", B(0x12, 7, 0x0a, 5, 0x0a, 1, 'a', 0x12, 0), 0, "{\"a\":null}" },
	{ "a null value with number 7", B(0x12, 6, 0x0a, 4, 0x12, 2, 0x08, 7), 0, "{\"\":null}" },
	{ "a Value of two kinds", B(0x12, 8, 0x0a, 6, 0x12, 4, 0x20, 1, 0x08, 0), -EINVAL, NULL },
	{ "the same key twice: the last wins",
	    B(0x12, 18, 0x0a, 7, 0x0a, 1, 'a', 0x12, 2, 0x20, 1, 0x0a, 7, 0x0a, 1, 'a', 0x12, 2, 0x20, 0), 0,
	    "{\"a\":false}" },
	{ "NaN", B(0x12, 13, 0x0a, 11, 0x12, 9, 0x11, 0, 0, 0, 0, 0, 0, 0xf8, 0x7f), -EINVAL, NULL },
	{ "infinity", B(0x12, 13, 0x0a, 11, 0x12, 9, 0x11, 0, 0, 0, 0, 0, 0, 0xf0, 0x7f), -EINVAL, NULL },
	{ "-0.0", B(0x12, 13, 0x0a, 11, 0x12, 9, 0x11, 0, 0, 0, 0, 0, 0, 0, 0x80), 0, "{\"\":0}" },
};

static void
test_request_bytes(void **state)
{
	struct grpc_request empty = { 0 };

	(void)state;
	assert_int_equal(grpc_request_unpack(NULL, 0, &empty), 0);
	assert_string_equal(empty.method, "");
	check_json(empty.params, "{}");
	grpc_request_fini(&empty);
	for (size_t i = 0; i < ARRAY_LEN(requests); i++) {
		struct grpc_response answer = { 0 };
		struct grpc_request r = { 0 };
		int e = grpc_request_unpack(requests[i].msg.bytes, requests[i].msg.len, &r);

		if (e != requests[i].expected)
			print_message("# %s: %d\n", requests[i].what, e);
		assert_int_equal(e, requests[i].expected);
		if (e == 0)
			check_json(r.params, requests[i].params);
		else
			assert_null(r.method);
		/* `params` has the number of a response's result */
		if (unpack_response(requests[i].msg.bytes, requests[i].msg.len, &answer) == 0)
			grpc_response_fini(&answer);
		grpc_request_fini(&r);
	}
}

static const struct {
	const char *what;
	struct {
		const uint8_t *bytes;
		size_t len;
	} msg;
	int expected;
	int code;
} responses[] = {
	{ "nothing", B(0x0a, 1, '1'), 0, 0 },
	{ "an error without anything", B(0x1a, 0), 0, RPC_INTERNAL },
	{ "an error with code 0", B(0x1a, 2, 0x08, 0), 0, RPC_INTERNAL },
	{ "an error with code 403", B(0x1a, 3, 0x08, 0x93, 0x03), 0, 403 },
	{ "an error with code -100 of ten bytes",
	    B(0x1a, 11, 0x08, 0x9c, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01), 0, -100 },
	{ "a result and an error", B(0x12, 0, 0x1a, 2, 0x08, 7), 0, 7 },
	{ "a string as the code", B(0x1a, 3, 0x0a, 1, 'x'), -EINVAL, 0 },
	{ "NUL in the message", B(0x1a, 3, 0x12, 1, 0), -EINVAL, 0 },
	{ "a result without an end beside an error", B(0x12, 3, 0x0a, 4, 0x0a, 0x1a, 2, 0x08, 7), -EINVAL, 0 },
	{ "`_` and an unknown field", B(0x12, 9, 0x78, 1, 0x0a, 5, 0x0a, 1, '_', 0x12, 0), 0, 0 },
	{ "`_` without a value", B(0x12, 5, 0x0a, 3, 0x0a, 1, '_'), 0, 0 },
	{ "`_` twice", B(0x12, 14, 0x0a, 5, 0x0a, 1, '_', 0x12, 0, 0x0a, 5, 0x0a, 1, '_', 0x12, 0), 0, 0 },
	{ "`_` with a second value", B(0x12, 9, 0x0a, 7, 0x0a, 1, '_', 0x12, 0, 0x12, 0), -EINVAL, 0 },
};

static void
test_response_bytes(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(responses); i++) {
		struct grpc_response r = { 0 };
		int e = unpack_response(responses[i].msg.bytes, responses[i].msg.len, &r);

		if (e != responses[i].expected || r.answer.code != responses[i].code)
			print_message("# %s: %d, code %d\n", responses[i].what, e, r.answer.code);
		assert_int_equal(e, responses[i].expected);
		assert_int_equal(r.answer.code, responses[i].code);
		grpc_response_fini(&r);
	}
}

/* Which results come as text: all but those whose keys are too many to compare, or not different. */
static void
test_response_as_text(void **state)
{
	static const uint8_t twice[] = { 0x12, 10, 0x0a, 3, 0x0a, 1, 'a', 0x0a, 3, 0x0a, 1, 'a' };
	static const int keys[] = { 1, 64, 65, 300 };
	struct grpc_response in = { 0 };

	(void)state;
	assert_int_equal(grpc_response_unpack(twice, sizeof twice, true, &in), 0);
	assert_null(in.answer.result_text);
	check_json(in.answer.result, "{\"a\":null}");
	grpc_response_fini(&in);
	for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
		struct grpc_response out = { .id = ID, .answer = { .result = json_object() } };
		uint8_t *frame = NULL;
		size_t len = 0;
		char key[16];

		for (int k = 0; k < keys[i]; k++) {
			snprintf(key, sizeof key, "k\"%d\n", k);
			json_object_set_new(
			    out.answer.result, key, json_pack("[s, f, {}, []]", "\t\\\xc3\xb6", 0.1 * k));
		}
		assert_int_equal(grpc_response_pack(&out, &frame, &len), 0);
		assert_int_equal(grpc_response_unpack(frame + GRPC_FRAME_HEAD, len - GRPC_FRAME_HEAD, true, &in), 0);
		assert_int_equal(in.answer.result_text != NULL, keys[i] <= 64);
		grpc_response_fini(&in);
		assert_int_equal(unpack_response(frame + GRPC_FRAME_HEAD, len - GRPC_FRAME_HEAD, &in), 0);
		assert_int_equal(json_object_size(in.answer.result), keys[i]);
		grpc_response_fini(&in);
		free(frame);
		json_decref(out.answer.result);
	}
}

/* More values than json.h permits, as a list of null values of four bytes each. */
static void
test_many_values(void **state)
{
	size_t values_len = GRPC_MAX_MESSAGE - 64, n = 0, head;
	uint8_t *msg = calloc(1, GRPC_MAX_MESSAGE);
	struct grpc_request r = { 0 };

	(void)state;
	assert_non_null(msg);
	values_len -= values_len % 2;
	/* params{ entry{ value{ list{ value{} x 2 million } } } }, lengths as four-byte varints */
	for (int level = 0; level < 4; level++) {
		static const uint8_t tags[] = { 0x12, 0x0a, 0x12, 0x32 };
		size_t v = values_len + (size_t)(3 - level) * 5;

		msg[n++] = tags[level];
		for (int k = 0; k < 4; k++, v >>= 7)
			msg[n++] = (uint8_t)((v & 0x7f) | (k < 3 ? 0x80 : 0));
	}
	head = n;
	for (; n < head + values_len; n += 2)
		msg[n] = 0x0a;
	assert_int_equal(grpc_request_unpack(msg, n, &r), -EINVAL);
	/* and as many unknown fields */
	memset(msg, 0x78, GRPC_MAX_MESSAGE);
	assert_int_equal(grpc_request_unpack(msg, GRPC_MAX_MESSAGE, &r), -EINVAL);
	assert_int_equal(grpc_request_unpack(msg, 2 * 1000, &r), 0);
	grpc_request_fini(&r);
	free(msg);
}

/* A valid message cut at each byte, and changed in 2,000 ways: an answer every time, no crash. */
static void
test_mutations(void **state)
{
	struct grpc_request out = { METHOD, ID, CLIENT,
		parse("{\"a\":[1,2.5,null,{\"b\":\"text\",\"c\":{\"d\":[[],{}]}}],\"e\":true,\"f\":\"\xc3\xb6\"}") };
	uint8_t *frame = NULL, *msg, *copy;
	size_t len = 0;
	uint32_t seed = 7;
	int passed = 0;

	(void)state;
	assert_int_equal(grpc_request_pack(&out, &frame, &len), 0);
	msg = frame + GRPC_FRAME_HEAD;
	len -= GRPC_FRAME_HEAD;
	for (size_t cut = 0; cut <= len; cut++) {
		struct grpc_request in = { 0 };

		copy = malloc(cut + 1); /* exact, so that ASan sees one byte too far */
		copy = realloc(copy, cut > 0 ? cut : 1);
		assert_non_null(copy);
		memcpy(copy, msg, cut);
		if (grpc_request_unpack(copy, cut, &in) == 0)
			grpc_request_fini(&in);
		free(copy);
	}
	copy = malloc(len);
	assert_non_null(copy);
	for (int i = 0; i < 2000; i++) {
		struct grpc_request in = { 0 };
		struct grpc_response answer = { 0 };

		memcpy(copy, msg, len);
		for (uint32_t k = 0, n = 1 + next_random(&seed) % 4; k < n; k++)
			copy[next_random(&seed) % len] ^= (uint8_t)(1u << next_random(&seed) % 8);
		if (grpc_request_unpack(copy, len, &in) == 0) {
			char *text = json_text(in.params);

			assert_non_null(text);
			free(text);
			passed++;
			grpc_request_fini(&in);
		}
		if (unpack_response(copy, len, &answer) == 0)
			grpc_response_fini(&answer);
	}
	assert_in_range(passed, 1, 1999);
	free(copy);
	free(frame);
	json_decref(out.params);
}

static void
test_status_message(void **state)
{
	static const char *const cases[][3] = {
		/* text, encoded, decoded again */
		{ "", "", "" },
		{ "plain text ~", "plain text ~", "plain text ~" },
		{ "100%", "100%25", "100%" },
		{ "a\nb", "a%0Ab", "a\nb" },
		{ "\xc3\xb6", "%C3%B6", "\xc3\xb6" },
	};
	static const char *const wild[][2] = {
		{ "50% off", "50% off" },
		{ "%", "%" },
		{ "%4", "%4" },
		{ "%zz", "%zz" },
		{ "%41%", "A%" },
		{ "%c3%b6", "\xc3\xb6" },
		{ "%ff", "?" },
		{ "a%00b", "a?b" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		char *encoded = grpc_message_encode(cases[i][0]);
		char *decoded = grpc_message_decode(encoded, strlen(encoded));

		assert_string_equal(encoded, cases[i][1]);
		assert_string_equal(decoded, cases[i][2]);
		free(encoded);
		free(decoded);
	}
	for (size_t i = 0; i < ARRAY_LEN(wild); i++) {
		char *decoded = grpc_message_decode(wild[i][0], strlen(wild[i][0]));

		assert_string_equal(decoded, wild[i][1]);
		free(decoded);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_announcement),
		cmocka_unit_test(test_no_result),
		cmocka_unit_test(test_request_round_trip),
		cmocka_unit_test(test_response_round_trip),
		cmocka_unit_test(test_pack_refused),
		cmocka_unit_test(test_nested),
		cmocka_unit_test(test_request_bytes),
		cmocka_unit_test(test_response_bytes),
		cmocka_unit_test(test_response_as_text),
		cmocka_unit_test(test_many_values),
		cmocka_unit_test(test_mutations),
		cmocka_unit_test(test_status_message),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
