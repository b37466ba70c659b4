/* test_grpc_wire.c - what our gRPC ends put on the wire, frame by frame (protocol.md 3.2): header order, values, bytes
 *
 * The other end is no library's: a TLS socket and frames, of which only HPACK
 * is nghttp2's.
 */
#include "grpc_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include <nghttp2/nghttp2.h>
#include <openssl/err.h>
#include <openssl/ssl.h>

#include "hyper/base/fd.h"

#define PREFACE     "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
#define PREFACE_LEN 24
#define RAW_MAX     65536

enum { F_DATA = 0, F_HEADERS = 1, F_RST_STREAM = 3, F_SETTINGS = 4, F_PING = 6, F_WINDOW_UPDATE = 8 };
enum { END_STREAM = 1, ACK = 1, END_HEADERS = 4 };

/* The end that is written here. */
struct raw {
	int fd;
	SSL_CTX *ctx;
	SSL *ssl;
	uint8_t in[RAW_MAX];
	size_t len;    /* of `in` */
	size_t passed; /* of it: looked at */
	nghttp2_hd_inflater *hpack;
};

struct frame {
	uint8_t type, flags;
	int32_t stream;
	size_t len;
	const uint8_t *body;
};

static void
raw_open(struct raw *r, enum tls_role role, int fd)
{
	const struct conf_tls *conf = role == TLS_SERVER ? &server_tls : &client_tls;
	char err[TLS_ERR_MAX];

	memset(r, 0, sizeof *r);
	r->fd = fd;
	assert_int_equal(fd_set_nonblock(fd), 0);
	assert_int_equal(tls_ctx_new(conf, role, TLS_ALPN_H2, &r->ctx, err), 0);
	r->ssl = tls_ssl_new(r->ctx, role, role == TLS_CLIENT ? "hd-2" : NULL);
	assert_non_null(r->ssl);
	assert_int_equal(SSL_set_fd(r->ssl, fd), 1);
	assert_int_equal(nghttp2_hd_inflate_new(&r->hpack), 0);
}

static void
raw_close(struct raw *r)
{
	nghttp2_hd_inflate_del(r->hpack);
	SSL_free(r->ssl);
	SSL_CTX_free(r->ctx);
	fd_close(&r->fd);
}

/* Handshake and reading go on as far as the bytes that are there allow. */
static void
raw_pump(struct raw *r)
{
	int n;

	ERR_clear_error();
	if (SSL_do_handshake(r->ssl) != 1)
		return;
	while (r->len < RAW_MAX && (n = SSL_read(r->ssl, r->in + r->len, (int)(RAW_MAX - r->len))) > 0)
		r->len += (size_t)n;
	ERR_clear_error();
}

/* Looks for the next frame; SETTINGS, PING and WINDOW_UPDATE are passed over. */
static bool
raw_frame(struct raw *r, struct frame *ret)
{
	raw_pump(r);
	while (r->len - r->passed >= 9) {
		const uint8_t *h = r->in + r->passed;
		struct frame f = { .type = h[3], .flags = h[4], .len = (size_t)h[0] << 16 | (size_t)h[1] << 8 | h[2] };

		if (r->len - r->passed < 9 + f.len)
			return false;
		f.stream = (int32_t)((uint32_t)h[5] << 24 | (uint32_t)h[6] << 16 | (uint32_t)h[7] << 8 | h[8]);
		f.body = h + 9;
		r->passed += 9 + f.len;
		if (f.type == F_SETTINGS || f.type == F_PING || f.type == F_WINDOW_UPDATE)
			continue;
		*ret = f;
		return true;
	}
	return false;
}

static struct frame
next_frame(struct raw *r)
{
	struct frame f = { .type = 0 };
	bool got = false;

	UNTIL(got || (got = raw_frame(r, &f))); /* UNTIL asks once more at its end */
	return f;
}

static void
raw_write(struct raw *r, const void *data, size_t len)
{
	/* a peer that has hung up is no fault: what it said before tells */
	if (SSL_write(r->ssl, data, (int)len) != (int)len)
		ERR_clear_error();
}

static void
raw_send_frame(struct raw *r, uint8_t type, uint8_t flags, uint32_t stream, const void *body, size_t len)
{
	uint8_t head[9] = { (uint8_t)(len >> 16), (uint8_t)(len >> 8), (uint8_t)len, type, flags,
		(uint8_t)(stream >> 24), (uint8_t)(stream >> 16), (uint8_t)(stream >> 8), (uint8_t)stream };

	raw_write(r, head, sizeof head);
	if (len > 0)
		raw_write(r, body, len);
}

/* "name: value\n" of each field, in their order. */
static void
fields_of(struct raw *r, const struct frame *f, char *ret, size_t cap)
{
	const uint8_t *in = f->body;
	size_t left = f->len, at = 0;
	int flags = 0;

	assert_int_equal(f->type, F_HEADERS);
	assert_int_equal(f->flags & ~END_STREAM, END_HEADERS); /* no padding, no priority */
	ret[0] = '\0';
	while ((flags & NGHTTP2_HD_INFLATE_FINAL) == 0) {
		nghttp2_nv nv;
		ssize_t n = nghttp2_hd_inflate_hd2(r->hpack, &nv, &flags, in, left, 1);

		assert_true(n >= 0);
		in += n;
		left -= (size_t)n;
		if (flags & NGHTTP2_HD_INFLATE_EMIT)
			at += (size_t)snprintf(ret + at, cap - at, "%.*s: %.*s\n", (int)nv.namelen,
			    (const char *)nv.name, (int)nv.valuelen, (const char *)nv.value);
		assert_true(at < cap);
	}
	nghttp2_hd_inflate_end_headers(r->hpack);
}

/* A literal field without indexing or Huffman (RFC 7541 6.2.2), names and values shorter than 127. */
static size_t
put_field(uint8_t *to, const char *name, const char *value)
{
	size_t n = strlen(name), v = strlen(value);

	to[0] = 0;
	to[1] = (uint8_t)n;
	memcpy(to + 2, name, n);
	to[2 + n] = (uint8_t)v;
	memcpy(to + 3 + n, value, v);
	return 3 + n + v;
}

/* As the reference's client: HEADERS of a call in its order. */
static void
raw_call(struct raw *r, uint32_t stream, const char *path)
{
	const char *const fields[][2] = { { ":method", "POST" }, { ":scheme", "https" }, { ":path", path },
		{ ":authority", "hd-2" }, { "content-type", "application/grpc" },
		{ "user-agent", "grpc-go/1.44.1-dev" }, { "te", "trailers" } };
	uint8_t block[512];
	size_t len = 0, i;

	for (i = 0; i < ARRAY_LEN(fields); i++)
		len += put_field(block + len, fields[i][0], fields[i][1]);
	raw_send_frame(r, F_HEADERS, END_HEADERS, stream, block, len);
}

/* --- the client's side --- */

static void
test_client_bytes(void **state)
{
	static const uint8_t message[] = { 0, 0, 0, 0, 3, 'a', 'b', 'c' };
	char fields[1024], want[1024];
	struct fixture *f = *state;
	static struct side d;
	struct frame frame;
	struct raw r;
	uint8_t *copy;
	int sv[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
	raw_open(&r, TLS_SERVER, sv[1]);
	assert_int_equal(grpc_conn_adopt(base, client_ctx, sv[0], "hd-2", 5000, &client_ops, f, &f->client), 0);
	UNTIL((raw_pump(&r), f->secured_client));
	open_side(f, "/Hyper/Call", &d);
	copy = malloc(sizeof message);
	memcpy(copy, message, sizeof message);
	assert_int_equal(grpc_stream_send(d.s, copy, sizeof message), 0);
	grpc_stream_half_close(d.s);
	UNTIL((raw_pump(&r), r.len >= PREFACE_LEN));
	assert_memory_equal(r.in, PREFACE, PREFACE_LEN);
	r.passed = PREFACE_LEN;
	assert_int_equal(r.in[PREFACE_LEN + 3], F_SETTINGS); /* RFC 9113 3.4: the preface ends with SETTINGS */

	frame = next_frame(&r);
	fields_of(&r, &frame, fields, sizeof fields);
	snprintf(want, sizeof want,
	    ":method: POST\n:scheme: https\n:path: /Hyper/Call\n:authority: hd-2\n"
	    "content-type: application/grpc\nuser-agent: hyper/%s\nte: trailers\n",
	    PACKAGE_VERSION);
	assert_string_equal(fields, want);
	assert_int_equal(frame.stream, 1);
	assert_int_equal(frame.flags & END_STREAM, 0);

	frame = next_frame(&r);
	assert_int_equal(frame.type, F_DATA);
	assert_int_equal(frame.len, sizeof message);
	assert_memory_equal(frame.body, message, sizeof message);
	if ((frame.flags & END_STREAM) == 0) {
		frame = next_frame(&r);
		assert_int_equal(frame.type, F_DATA);
		assert_int_equal(frame.len, 0);
		assert_int_equal(frame.flags & END_STREAM, END_STREAM);
	}
	grpc_conn_free(f->client);
	f->client = NULL;
	UNTIL(d.ends);
	raw_close(&r);
}

/* --- the server's side --- */

/* Our server at one end, a raw client that has said its preface at the other. */
static void
serve_raw(struct fixture *f, struct raw *r)
{
	SSL_CTX *ctx = NULL;
	char err[TLS_ERR_MAX];
	int sv[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
	assert_int_equal(tls_ctx_new(&server_tls, TLS_SERVER, TLS_ALPN_H2, &ctx, err), 0);
	assert_int_equal(grpc_conn_adopt(base, ctx, sv[0], NULL, 5000, &server_ops, f, &f->server), 0);
	SSL_CTX_free(ctx);
	f->accepted++;
	raw_open(r, TLS_CLIENT, sv[1]);
	UNTIL((raw_pump(r), f->secured_server));
	raw_write(r, PREFACE, PREFACE_LEN);
	raw_send_frame(r, F_SETTINGS, 0, 0, NULL, 0); /* empty, as the reference's client */
}

static void
test_server_bytes(void **state)
{
	static const char head[] = ":status: 200\ncontent-type: application/grpc\n";
	static const uint8_t message[] = { 0, 0, 0, 0, 2, 7, 7 };
	struct fixture *f = *state;
	char fields[1024];
	struct frame frame;
	struct raw r;

	serve_raw(f, &r);
	raw_call(&r, 1, "/T/hang");
	UNTIL(f->n_sides == 1);
	raw_send_frame(&r, F_PING, 0, 0, "8 bytes!", 8);
	turns(3);
	assert_false(raw_frame(&r, &frame)); /* no headers before there is a message: a client must not wait for them */
	assert_int_equal(send_fill(f->sides[0].s, 2, 7), 0);
	frame = next_frame(&r);
	fields_of(&r, &frame, fields, sizeof fields);
	assert_string_equal(fields, head);
	assert_int_equal(frame.flags & END_STREAM, 0);
	frame = next_frame(&r);
	assert_int_equal(frame.type, F_DATA);
	assert_int_equal(frame.len, sizeof message);
	assert_memory_equal(frame.body, message, sizeof message);
	assert_int_equal(frame.flags & END_STREAM, 0);
	grpc_stream_finish(f->sides[0].s, GRPC_OK, "");
	do
		frame = next_frame(&r);
	while (frame.type == F_DATA && frame.len == 0 && (frame.flags & END_STREAM) == 0);
	fields_of(&r, &frame, fields, sizeof fields);
	assert_string_equal(fields, "grpc-status: 0\ngrpc-message: \n");
	assert_int_equal(frame.flags & END_STREAM, END_STREAM);
	raw_close(&r);
	UNTIL(f->closed_server == 1);
}

/* path, what the stream's first and only HEADERS say */
static const struct {
	const char *path, *fields;
} only[] = {
	{ "/Hyper/Nope", ":status: 200\ncontent-type: application/grpc\ngrpc-status: 12\n"
			 "grpc-message: unknown method Nope for service Hyper\n" },
	{ "/T/fail", ":status: 200\ncontent-type: application/grpc\ngrpc-status: 7\n"
		     "grpc-message: nicht erlaubt: %C3%BC 100%25\n" },
};

static void
test_server_trailers_only(void **state)
{
	struct fixture *f = *state;
	char fields[1024];
	struct frame frame;
	struct raw r;
	size_t i;

	serve_raw(f, &r);
	for (i = 0; i < ARRAY_LEN(only); i++) {
		raw_call(&r, (uint32_t)(2 * i + 1), only[i].path);
		do /* the request was not complete: NO_ERROR ends it (RFC 9113 8.1) */
			frame = next_frame(&r);
		while (frame.type == F_RST_STREAM);
		fields_of(&r, &frame, fields, sizeof fields);
		assert_string_equal(fields, only[i].fields);
		assert_int_equal(frame.flags & END_STREAM, END_STREAM);
	}
	raw_close(&r);
	UNTIL(f->closed_server == 1);
}

/* --- frames by chance --- */

static uint32_t
next_random(uint32_t *seed)
{
	*seed = *seed * UINT32_C(1664525) + UINT32_C(1013904223);
	return *seed >> 8;
}

/* One frame that may be right, wrong, or right at the wrong time. */
static void
send_random_frame(struct raw *r, uint32_t *seed)
{
	static const char *const fields[][2] = { { ":status", "200" }, { ":status", "103" }, { ":status", "503" },
		{ ":method", "POST" }, { ":path", "/T/echo" }, { "content-type", "application/grpc" },
		{ "content-type", "text/html" }, { "grpc-status", "0" }, { "grpc-status", "x" },
		{ "grpc-message", "%zz%41" }, { "bad name", "v" }, { "te", "trailers" } };
	static const uint8_t bytes[] = { 0, 0, 0, 0, 2, 'a', 'b', 0, 0, 0, 0, 9, 'c', 1, 0xff, 0xff, 0xff, 0xff };
	uint8_t body[256], type = (uint8_t)(next_random(seed) % 11), flags = (uint8_t)(next_random(seed) % 6);
	size_t len = 0, n = next_random(seed) % 4, i;

	switch (type) {
	case F_DATA:
		len = next_random(seed) % sizeof bytes;
		memcpy(body, bytes, len);
		break;
	case F_HEADERS:
		for (i = 0; i <= n; i++) {
			const char *const *f = fields[next_random(seed) % ARRAY_LEN(fields)];

			len += put_field(body + len, f[0], f[1]);
		}
		break;
	default:
		len = (size_t[]){ 4, 8, 6, next_random(seed) % 40 }[n];
		for (i = 0; i < len; i++)
			body[i] = (uint8_t)(next_random(seed) % 3);
		break;
	}
	raw_send_frame(r, type, flags, next_random(seed) % 3, body, len);
}

/* Each stream has one end, each connection too, whatever the peer sends. */
static void
test_frames_by_chance(void **state)
{
	struct fixture *f = *state;
	static struct side d;
	uint32_t seed = 11;
	struct raw r;
	int sv[2], i, k;

	for (i = 0; i < 150; i++) {
		f->closed_client = f->closed_server = f->secured_client = f->secured_server = 0;
		if (i % 2 == 0) {
			assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
			raw_open(&r, TLS_SERVER, sv[1]);
			assert_int_equal(
			    grpc_conn_adopt(base, client_ctx, sv[0], "hd-2", 5000, &client_ops, f, &f->client), 0);
			UNTIL((raw_pump(&r), f->secured_client));
			raw_pump(&r);
			open_side(f, "/Hyper/Call", &d);
			assert_int_equal(send_fill(d.s, 10, 1), 0);
			raw_send_frame(&r, F_SETTINGS, 0, 0, NULL, 0);
		} else {
			serve_raw(f, &r);
			raw_call(&r, 1, next_random(&seed) % 2 ? "/T/echo" : "/T/hang");
		}
		for (k = 0; k < 12; k++) {
			send_random_frame(&r, &seed);
			if (next_random(&seed) % 2)
				turns(1);
		}
		raw_close(&r);
		UNTIL(i % 2 == 0 ? f->closed_client == 1 && d.ends == 1 : f->closed_server == 1);
		grpc_conn_free(f->client);
		f->client = NULL;
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_client_bytes),
		TEST(test_server_bytes),
		TEST(test_server_trailers_only),
		TEST(test_frames_by_chance),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("grpc_wire", tests, group_setup, group_teardown);
}
