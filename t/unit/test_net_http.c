/* test_net_http.c - request heads and chunked bodies, whole and byte by byte */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <errno.h>
#include <event2/buffer.h>

#include "hyper/base/attr.h"
#include "net/http.h"

#define HOST "Host: x\r\n"

static void
test_scan(void **state)
{
	static const struct {
		const char *text;
		ssize_t want;
	} cases[] = {
		{ "", 0 },
		{ "GET / HTTP/1.1\r\n", 0 },
		{ "GET / HTTP/1.1\r\n\r", 0 },
		{ "GET / HTTP/1.1\r\n\r\n", 18 },
		{ "GET / HTTP/1.1\r\n\r\nrest", 18 },
		{ "A: \t\x80\xff\r\n\r\n", 10 },
		{ "GET / HTTP/1.1\n", -EINVAL },
		{ "GET / HTTP/1.1\r\r", -EINVAL },
		{ "GET\rX", -EINVAL },
		{ "\x16\x03\x01", -EINVAL },
		{ "A: \x7f", -EINVAL },
		{ "A: \x1b[2J", -EINVAL },
	};
	size_t i, n;

	(void)state;
	for (i = 0; i < ARRAY_LEN(cases); i++) {
		size_t scanned = 0, len = strlen(cases[i].text);
		ssize_t rc = http_head_scan(cases[i].text, len, &scanned);

		assert_int_equal(rc, cases[i].want);
		/* the same byte by byte */
		scanned = 0;
		for (rc = 0, n = 0; rc == 0 && n <= len; n++)
			rc = http_head_scan(cases[i].text, n, &scanned);
		assert_int_equal(rc, cases[i].want);
	}
}

static void
test_scan_limit(void **state)
{
	char *big = malloc(HTTP_HEAD_MAX + 10);
	size_t scanned = 0;

	(void)state;
	memset(big, 'a', HTTP_HEAD_MAX + 10);
	assert_int_equal(http_head_scan(big, HTTP_HEAD_MAX - 1, &scanned), 0);
	assert_int_equal(http_head_scan(big, HTTP_HEAD_MAX, &scanned), -EMSGSIZE);
	scanned = 0;
	assert_int_equal(http_head_scan(big, HTTP_HEAD_MAX + 10, &scanned), -EMSGSIZE);
	memcpy(big + HTTP_HEAD_MAX - 4, "\r\n\r\n", 4);
	scanned = 0;
	assert_int_equal(http_head_scan(big, HTTP_HEAD_MAX + 10, &scanned), HTTP_HEAD_MAX);
	free(big);
}

static int
parse(const char *text, char **ret_copy, struct http_head *ret)
{
	const char *why = NULL;
	size_t len = strlen(text);
	int rc;

	*ret_copy = malloc(len + 1);
	memcpy(*ret_copy, text, len);
	rc = http_head_parse(*ret_copy, len, ret, &why);
	if (rc != 0)
		assert_non_null(why);
	return rc;
}

static void
test_parse_status(void **state)
{
	static const struct {
		const char *text;
		int want;
	} cases[] = {
		{ "POST / HTTP/1.1\r\n" HOST "\r\n", 0 },
		{ "POST / HTTP/1.0\r\n\r\n", 0 },
		{ "OPTIONS * HTTP/1.1\r\n" HOST "\r\n", 0 },
		{ "POST http://a/b HTTP/1.1\r\n" HOST "\r\n", 0 },
		{ "POST / HTTP/1.1\r\n\r\n", 400 },
		{ "POST / HTTP/1.1\r\n" HOST HOST "\r\n", 400 },
		{ "POST  / HTTP/1.1\r\n" HOST "\r\n", 400 },
		{ "POST / HTTP/1.1 \r\n" HOST "\r\n", 505 },
		{ "POST / HTTP/1.2\r\n" HOST "\r\n", 505 },
		{ "POST / HTTP/2\r\n" HOST "\r\n", 505 },
		{ "POST / http/1.1\r\n" HOST "\r\n", 400 },
		{ "POST x HTTP/1.1\r\n" HOST "\r\n", 400 },
		{ "POST\r\n" HOST "\r\n", 400 },
		{ " POST / HTTP/1.1\r\n" HOST "\r\n", 400 },
		{ "PO(ST / HTTP/1.1\r\n" HOST "\r\n", 400 },
		{ "POST / HTTP/1.1\r\n" HOST "A\r\n\r\n", 400 },
		{ "POST / HTTP/1.1\r\n" HOST ": a\r\n\r\n", 400 },
		{ "POST / HTTP/1.1\r\n" HOST "A : a\r\n\r\n", 400 },
		{ "POST / HTTP/1.1\r\n" HOST " A: a\r\n\r\n", 400 },
		{ "POST / HTTP/1.1\r\n" HOST "A: a\r\n b\r\n\r\n", 400 },
		{ "POST / HTTP/1.1\r\n" HOST "Content-Length: 0\r\n\r\n", 0 },
		{ "POST / HTTP/1.1\r\n" HOST "Content-Length: 999999999999999999\r\n\r\n", 0 },
		{ "POST / HTTP/1.1\r\n" HOST "Content-Length: 9999999999999999999\r\n\r\n", 400 },
		{ "POST / HTTP/1.1\r\n" HOST "Content-Length: \r\n\r\n", 400 },
		{ "POST / HTTP/1.1\r\n" HOST "Content-Length: -1\r\n\r\n", 400 },
		{ "POST / HTTP/1.1\r\n" HOST "Content-Length: 0x5\r\n\r\n", 400 },
		{ "POST / HTTP/1.1\r\n" HOST "Content-Length: 5\r\ncontent-length: 5\r\n\r\n", 400 },
		{ "POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: CHUNKED\r\n\r\n", 0 },
		{ "POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", 400 },
		{ "POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked, chunked\r\n\r\n", 501 },
		{ "POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: identity\r\n\r\n", 501 },
		{ "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400 },
		{ "POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n", 400 },
		{ "POST / HTTP/1.1\r\n" HOST "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", 400 },
		{ "POST / HTTP/1.1\r\n" HOST "Expect: 100-Continue\r\n\r\n", 0 },
		{ "POST / HTTP/1.1\r\n" HOST "Expect: tea\r\n\r\n", 417 },
	};
	size_t i;

	(void)state;
	for (i = 0; i < ARRAY_LEN(cases); i++) {
		struct http_head h;
		char *copy;
		int rc = parse(cases[i].text, &copy, &h);

		if (rc != cases[i].want)
			print_error("case %zu: %s", i, cases[i].text);
		assert_int_equal(rc, cases[i].want);
		free(copy);
	}
}

static void
test_parse_keep(void **state)
{
	static const struct {
		const char *version, *connection;
		bool want;
	} cases[] = {
		{ "HTTP/1.1", "X: y", true },
		{ "HTTP/1.1", "Connection: close", false },
		{ "HTTP/1.1", "Connection: Upgrade, Close", false },
		{ "HTTP/1.1", "Connection: closed", true },
		{ "HTTP/1.1", "Connection: keep-alive", true },
		{ "HTTP/1.0", "X: y", false },
		{ "HTTP/1.0", "Connection: Keep-Alive", true },
		{ "HTTP/1.0", "Connection: keep-alive, close", false },
	};
	size_t i;

	(void)state;
	for (i = 0; i < ARRAY_LEN(cases); i++) {
		struct http_head h;
		char text[200], *copy;

		snprintf(text, sizeof(text), "POST /a?b HTTP/1.1\r\n" HOST "%s\r\n\r\n", cases[i].connection);
		memcpy(strstr(text, "HTTP/1.1"), cases[i].version, 8);
		assert_int_equal(parse(text, &copy, &h), 0);
		assert_int_equal(h.keep, cases[i].want);
		assert_string_equal(h.path, "/a");
		assert_string_equal(h.method, "POST");
		free(copy);
	}
}

static void
test_parse_texts(void **state)
{
	struct http_head h;
	char *copy;

	(void)state;
	assert_int_equal(parse("OPTIONS /jsonrpc HTTP/1.1\r\nHOST:x\r\norigin: \t https://a \t\r\ncontent-TYPE: a/b\r\n"
			       "access-control-request-headers: X-A\r\n\r\n",
			     &copy, &h),
	    0);
	assert_string_equal(h.host, "x");
	assert_string_equal(h.origin, "https://a");
	assert_string_equal(h.content_type, "a/b");
	assert_string_equal(h.acr_headers, "X-A");
	assert_int_equal(h.length, -1);
	assert_false(h.chunked);
	free(copy);
}

static void
test_is_json(void **state)
{
	static const struct {
		const char *type;
		bool want;
	} cases[] = {
		{ NULL, false },
		{ "", false },
		{ "application/json", true },
		{ "APPLICATION/JSON", true },
		{ "application/json;charset=utf-8", true },
		{ "application/json ; charset=latin1", true },
		{ "application/json, text/html", false },
		{ "application/jsonx", false },
		{ "application/json-rpc", false },
		{ "text/json", false },
	};
	size_t i;

	(void)state;
	for (i = 0; i < ARRAY_LEN(cases); i++)
		assert_int_equal(http_is_json(cases[i].type), cases[i].want);
}

/* Feeds `text` in pieces of `step` bytes; what the decoder said last. */
static int
decode(const char *text, size_t step, size_t max, struct http_body *body, size_t *ret_left)
{
	struct evbuffer *in = evbuffer_new();
	struct http_chunks c = { .left = 0 };
	size_t len = strlen(text), at = 0;
	int rc = 0;

	while (rc == 0 && at < len) {
		size_t n = step < len - at ? step : len - at;

		evbuffer_add(in, text + at, n);
		at += n;
		rc = http_chunks_step(&c, in, body, max);
	}
	*ret_left = evbuffer_get_length(in) + len - at;
	evbuffer_free(in);
	return rc;
}

static void
test_chunks(void **state)
{
	static const struct {
		const char *text;
		int want;
		const char *body;
		size_t left;
	} cases[] = {
		{ "0\r\n\r\n", 1, "", 0 },
		{ "3\r\nabc\r\n0\r\n\r\n", 1, "abc", 0 },
		{ "3\r\nabc\r\n2\r\nde\r\n0\r\n\r\nPOST", 1, "abcde", 4 },
		{ "00000003 ;a=\"b\"\r\nabc\r\n0;x\r\nT: u\r\nV: w\r\n\r\n", 1, "abc", 0 },
		{ "A\r\n0123456789\r\n0\r\n\r\n", 1, "0123456789", 0 },
		{ "B\r\n0123456789a\r\n0\r\n\r\n", -EMSGSIZE, NULL, 0 },
		{ "9\r\n012345678\r\n2\r\nab\r\n0\r\n\r\n", -EMSGSIZE, NULL, 0 },
		{ "FFFFFFFF\r\n", -EMSGSIZE, NULL, 0 },
		{ "FFFFFFFFF\r\n", -EINVAL, NULL, 0 },
		{ "\r\n", -EINVAL, NULL, 0 },
		{ "-1\r\n", -EINVAL, NULL, 0 },
		{ "0x1\r\n", -EINVAL, NULL, 0 },
		{ "1 1\r\n", -EINVAL, NULL, 0 },
		{ "1\r\nab\r\n", -EINVAL, NULL, 0 },
		{ "1\r\na0\r\n", -EINVAL, NULL, 0 },
		{ "3\r\nab", 0, "ab", 0 },
		{ "0\r\n", 0, "", 0 },
	};
	static const size_t steps[] = { 1, 2, 3, 7, 1000 };
	size_t i, s;

	(void)state;
	for (i = 0; i < ARRAY_LEN(cases); i++)
		for (s = 0; s < ARRAY_LEN(steps); s++) {
			struct http_body body = { .len = 0 };
			size_t left;
			int rc = decode(cases[i].text, steps[s], 10, &body, &left);

			if (rc != cases[i].want)
				print_error("case %zu in steps of %zu\n", i, steps[s]);
			assert_int_equal(rc, cases[i].want);
			if (cases[i].body != NULL) {
				assert_int_equal(body.len, strlen(cases[i].body));
				assert_true(body.len == 0 || memcmp(body.data, cases[i].body, body.len) == 0);
			}
			if (rc == 1)
				assert_int_equal(left, cases[i].left);
			assert_true(body.len <= 10);
			http_body_fini(&body);
		}
}

/* Lines that never end: refused before they are kept. */
static void
test_chunks_limits(void **state)
{
	struct http_body body = { .len = 0 };
	char *text = malloc(70000);
	size_t left, i;

	(void)state;
	memset(text, 'a', 69999);
	text[69999] = '\0';
	memcpy(text, "1;", 2);
	assert_int_equal(decode(text, 16, 10, &body, &left), -EINVAL);
	assert_true(left > 69000);
	memcpy(text, "0\r\n", 3);
	for (i = 3; i + 8 < 69999; i += 8)
		memcpy(text + i, "abc: d\r\n", 8);
	assert_int_equal(decode(text, 16, 10, &body, &left), -EINVAL);
	assert_true(left > 65000);
	assert_int_equal(body.len, 0);
	http_body_fini(&body);
	free(text);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_scan),
		cmocka_unit_test(test_scan_limit),
		cmocka_unit_test(test_parse_status),
		cmocka_unit_test(test_parse_keep),
		cmocka_unit_test(test_parse_texts),
		cmocka_unit_test(test_is_json),
		cmocka_unit_test(test_chunks),
		cmocka_unit_test(test_chunks_limits),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
