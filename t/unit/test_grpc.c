/* test_grpc.c - two of our ends over loopback and real TLS: messages, ends, limits, frees in every callback */
#include <errno.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>
#include <event2/event.h>

#include "hyper/base/clock.h"
#include "hyper/base/fd.h"
#include "hyper/base/log.h"
#include "hyper/net/grpc.h"
#include "hyper/net/listen.h"
#include "pki.h"

#define WAIT_MS 20000

static char pki_dir[] = "/tmp/hyper-grpc-XXXXXX";
static char other_dir[] = "/tmp/hyper-grpc-XXXXXX";
static struct event_base *base;
static struct conf_tls server_tls, client_tls, bare_tls, other_tls;
static SSL_CTX *client_ctx;

/* One side of a stream. */
struct side {
	struct grpc_stream *s;
	struct grpc_conn *conn;
	const char *mode; /* what it does; a server's is the path */
	unsigned messages, half_closes, ends;
	size_t bytes, last_len;
	uint8_t last_first, last_last; /* first and last byte of the last message */
	int status;
	char message[300];
	struct grpc_conn **free_me; /* freed and set NULL in the callback that mode says */
};

struct fixture {
	struct conf_grpc_server conf;
	struct grpc_listener *listener;
	char address[64];
	struct grpc_conn *client, *server;
	unsigned accepted, secured_client, secured_server, closed_client, closed_server;
	bool refuse_client, refuse_server, free_on_secured, free_on_stream, free_on_closed;
	enum end_reason client_reason, server_reason;
	char client_why[GRPC_ERR_MAX], server_why[GRPC_ERR_MAX];
	struct side sides[400]; /* the server's, in order of arrival */
	size_t n_sides;
	size_t fds;
};

static struct fixture *fx;

static void
on_tick(evutil_socket_t sock, short what, void *arg)
{
	(void)sock;
	(void)what;
	(void)arg;
}

/* Runs the loop until the condition holds. */
#define UNTIL(cond)                                                 \
	do {                                                        \
		int64_t end_ = clock_now_ms() + WAIT_MS;            \
		while (!(cond) && clock_now_ms() < end_)            \
			if (event_base_loop(base, EVLOOP_ONCE) < 0) \
				abort();                            \
		if (!(cond))                                        \
			fail_msg("not reached in time: %s", #cond); \
	} while (0)

/* A few turns more, for what must not happen. */
static void
turns(int n)
{
	while (n-- > 0)
		event_base_loop(base, EVLOOP_ONCE);
}

static uint8_t *
frame_of(size_t len, uint8_t fill)
{
	uint8_t *f = malloc(GRPC_FRAME_HEAD + len);

	assert_non_null(f);
	f[0] = 0;
	f[1] = (uint8_t)(len >> 24);
	f[2] = (uint8_t)(len >> 16);
	f[3] = (uint8_t)(len >> 8);
	f[4] = (uint8_t)len;
	memset(f + GRPC_FRAME_HEAD, fill, len);
	return f;
}

static int
send_fill(struct grpc_stream *s, size_t len, uint8_t fill)
{
	return grpc_stream_send(s, frame_of(len, fill), GRPC_FRAME_HEAD + len);
}

static void
maybe_free(struct side *d, const char *when)
{
	if (d->free_me == NULL || *d->free_me == NULL || strcmp(d->mode, when) != 0)
		return;
	grpc_conn_free(*d->free_me);
	*d->free_me = NULL;
}

static void
on_message(struct grpc_stream *s, const uint8_t *msg, size_t len, void *arg)
{
	struct side *d = arg;

	d->messages++;
	d->bytes += len;
	d->last_len = len;
	d->last_first = len > 0 ? msg[0] : 0;
	if (strcmp(d->mode, "/T/echo") == 0)
		assert_int_equal(send_fill(s, len, d->last_first), 0);
	if (strcmp(d->mode, "/T/first") == 0)
		grpc_stream_finish(s, GRPC_OK, "one is enough");
	maybe_free(d, "free on message");
	maybe_free(d, "/T/free-on-message");
	/* still readable, whatever was ended above */
	d->last_last = len > 0 ? msg[len - 1] : 0;
}

static void
on_half_close(struct grpc_stream *s, void *arg)
{
	struct side *d = arg;

	d->half_closes++;
	maybe_free(d, "/T/free-on-half-close");
	if (d->conn == NULL || strcmp(d->mode, "/T/hang") == 0 || strncmp(d->mode, "/T/free", 7) == 0)
		return;
	if (strcmp(d->mode, "/T/late") == 0)
		for (int i = 0; i < 10; i++)
			assert_int_equal(send_fill(s, 1000, (uint8_t)i), 0);
	grpc_stream_finish(s, GRPC_OK, "");
}

static void
on_end(struct grpc_stream *s, int status, const char *message, void *arg)
{
	struct side *d = arg;

	(void)s;
	d->ends++;
	d->status = status;
	d->s = NULL;
	snprintf(d->message, sizeof d->message, "%s", message);
	maybe_free(d, "free on end");
	maybe_free(d, "/T/free-on-end");
}

static const struct grpc_stream_ops stream_ops = { on_message, on_half_close, on_end };

static bool
client_secured(struct grpc_conn *c, const struct tls_peer *peer, void *arg)
{
	struct fixture *f = arg;

	f->secured_client++;
	assert_true(tls_peer_has_name(peer, "hd-2"));
	assert_int_equal(strlen(peer->fingerprint), 64);
	assert_true(grpc_conn_is_ready(c));
	assert_true(grpc_conn_heard_ms(c) > 0 && grpc_conn_heard_ms(c) <= grpc_conn_secured_ms(c));
	if (f->free_on_secured) {
		grpc_conn_free(c);
		f->client = NULL;
	}
	return !f->refuse_client;
}

static void
client_closed(struct grpc_conn *c, enum end_reason reason, const char *why, void *arg)
{
	struct fixture *f = arg;

	assert_int_equal(grpc_conn_streams(c), 0);
	f->closed_client++;
	f->client_reason = reason;
	snprintf(f->client_why, sizeof f->client_why, "%s", why);
	if (f->free_on_closed) {
		grpc_conn_free(c);
		f->client = NULL;
	}
}

static const struct grpc_conn_ops client_ops = { client_secured, NULL, client_closed };

static bool
server_secured(struct grpc_conn *c, const struct tls_peer *peer, void *arg)
{
	struct fixture *f = arg;

	f->secured_server++;
	if (f->conf.tls->verify_client)
		assert_true(tls_peer_has_name(peer, "hd-1"));
	(void)c;
	return !f->refuse_server;
}

static bool
server_stream(struct grpc_conn *c, struct grpc_stream *s, const char *path, void *arg)
{
	struct fixture *f = arg;
	struct side *d = &f->sides[f->n_sides % ARRAY_LEN(f->sides)];

	if (strncmp(path, "/T/", 3) != 0)
		return false;
	f->n_sides++;
	memset(d, 0, sizeof *d);
	d->s = s;
	d->conn = c;
	d->mode = strdup(path);
	d->free_me = &f->server;
	grpc_stream_set(s, &stream_ops, d);
	if (strcmp(path, "/T/fail") == 0)
		grpc_stream_finish(s, 7, "nicht erlaubt: \xc3\xbc 100%");
	if (f->free_on_stream) {
		grpc_conn_free(c);
		f->server = NULL;
	}
	return true;
}

static void
server_closed(struct grpc_conn *c, enum end_reason reason, const char *why, void *arg)
{
	struct fixture *f = arg;

	f->closed_server++;
	f->server_reason = reason;
	snprintf(f->server_why, sizeof f->server_why, "%s", why);
	if (c == f->server)
		f->server = NULL;
	grpc_conn_free(c);
}

static const struct grpc_conn_ops server_ops = { server_secured, server_stream, server_closed };

static void *
on_conn(struct grpc_conn *c, void *arg)
{
	struct fixture *f = arg;

	f->accepted++;
	f->server = c;
	return f;
}

static void
listen_now(struct fixture *f)
{
	char err[GRPC_ERR_MAX];

	if (grpc_listener_new(base, &f->conf, &server_ops, on_conn, f, &f->listener, err) != 0)
		fail_msg("%s", err);
	snprintf(f->address, sizeof f->address, "localhost:%u", grpc_listener_port(f->listener));
}

static int
setup(void **state)
{
	fx = calloc(1, sizeof *fx);
	assert_non_null(fx);
	fx->fds = fd_count();
	fx->conf.bind_address = strdup("localhost:0");
	fx->conf.tls = &server_tls;
	fx->conf.max_connections = 16;
	listen_now(fx);
	*state = fx;
	return 0;
}

static int
teardown(void **state)
{
	struct fixture *f = *state;
	size_t i;

	grpc_conn_free(f->client);
	if (f->listener != NULL)
		UNTIL(f->closed_server == f->accepted || f->server == NULL || f->client == NULL);
	grpc_conn_free(f->server);
	grpc_listener_free(f->listener);
	/* all memory and descriptors are back a turn later, connections the test left to themselves as well */
	UNTIL(fd_count() == f->fds);
	turns(2);
	for (i = 0; i < f->n_sides && i < ARRAY_LEN(f->sides); i++) {
		assert_int_equal(f->sides[i].ends, 1);
		free((char *)(uintptr_t)f->sides[i].mode);
	}
	free(f->conf.bind_address);
	free(f);
	fx = NULL;
	return 0;
}

static void
dial(struct fixture *f, SSL_CTX *ctx, const char *name)
{
	assert_int_equal(grpc_conn_dial(base, ctx, f->address, name, 5000, &client_ops, f, &f->client), 0);
}

static void
dial_ready(struct fixture *f)
{
	dial(f, client_ctx, "hd-2");
	UNTIL(f->secured_client > 0 && f->secured_server > 0);
}

static struct side
open_side(struct fixture *f, const char *path, struct side *d)
{
	memset(d, 0, sizeof *d);
	d->conn = f->client;
	d->mode = "";
	d->free_me = &f->client;
	assert_int_equal(grpc_stream_open(f->client, path, "hd-2", &stream_ops, d, &d->s), 0);
	assert_non_null(d->s);
	assert_ptr_equal(grpc_stream_conn(d->s), f->client);
	return *d;
}

/* --- messages --- */

static void
test_sizes(void **state)
{
	static const size_t sizes[] = { 0, 1, 4, 5, 16379, 16384, 16385, 65535, 65536, 1048576, 3000000,
		GRPC_MAX_MESSAGE };
	struct fixture *f = *state;
	static struct side d; /* a failed test leaves it to its stream */
	size_t i;

	dial_ready(f);
	for (i = 0; i < ARRAY_LEN(sizes); i++) {
		open_side(f, "/T/echo", &d);
		assert_int_equal(send_fill(d.s, sizes[i], (uint8_t)(i + 1)), 0);
		grpc_stream_half_close(d.s);
		UNTIL(d.ends);
		assert_int_equal(d.status, GRPC_OK);
		assert_int_equal(d.messages, 1);
		assert_int_equal(d.last_len, sizes[i]);
		assert_int_equal(d.last_last, sizes[i] > 0 ? i + 1 : 0);
	}
	assert_int_equal(grpc_conn_streams(f->client), 0);
}

static void
test_pipelined(void **state)
{
	struct fixture *f = *state;
	static struct side d; /* a failed test leaves it to its stream */
	int i;

	dial_ready(f);
	open_side(f, "/T/echo", &d);
	for (i = 0; i < 2000; i++)
		assert_int_equal(send_fill(d.s, (size_t)i, (uint8_t)i), 0);
	UNTIL(d.messages == 2000);
	assert_int_equal(d.bytes, 2000 * 1999 / 2);
	assert_int_equal(d.ends, 0);
	grpc_stream_half_close(d.s);
	UNTIL(d.ends);
	assert_int_equal(d.status, GRPC_OK);
}

/* More than the server permits at a time: the rest waits and is served as well. */
static void
test_many_streams(void **state)
{
	struct fixture *f = *state;
	struct side *d = calloc(300, sizeof *d);
	unsigned ends = 0;
	int i;

	dial_ready(f);
	for (i = 0; i < 300; i++) {
		open_side(f, "/T/echo", &d[i]);
		assert_int_equal(send_fill(d[i].s, 5000, (uint8_t)i), 0);
		grpc_stream_half_close(d[i].s);
	}
	assert_int_equal(grpc_conn_streams(f->client), 300);
	while (ends < 300) {
		turns(1);
		for (ends = 0, i = 0; i < 300; i++)
			ends += d[i].ends;
	}
	for (i = 0; i < 300; i++) {
		assert_int_equal(d[i].status, GRPC_OK);
		assert_int_equal(d[i].last_last, (uint8_t)i);
	}
	assert_int_equal(f->accepted, 1);
	free(d);
}

static void
test_too_many_streams(void **state)
{
	struct fixture *f = *state;
	struct side *d = calloc(1025, sizeof *d);
	struct grpc_stream *s = NULL;
	int i;

	dial_ready(f);
	for (i = 0; i < 1024; i++)
		open_side(f, "/T/hang", &d[i]);
	assert_int_equal(grpc_stream_open(f->client, "/T/hang", "hd-2", &stream_ops, &d[1024], &s), -EBUSY);
	assert_null(s);
	UNTIL(f->n_sides == 100); /* the peer's limit */
	turns(5);
	assert_int_equal(f->n_sides, 100);
	grpc_conn_free(f->client);
	f->client = NULL;
	UNTIL(d[1023].ends);
	for (i = 0; i < 1024; i++) {
		assert_int_equal(d[i].ends, 1);
		assert_int_equal(d[i].status, GRPC_UNAVAILABLE);
	}
	UNTIL(f->closed_server == 1);
	free(d);
}

static void
test_half_close(void **state)
{
	struct fixture *f = *state;
	static struct side d; /* a failed test leaves it to its stream */

	dial_ready(f);
	open_side(f, "/T/late", &d);
	grpc_stream_half_close(d.s);
	assert_int_equal(send_fill(d.s, 1, 1), -ENOTCONN);
	UNTIL(d.ends);
	assert_int_equal(d.messages, 10);
	assert_int_equal(d.bytes, 10000);
	assert_int_equal(d.status, GRPC_OK);
	assert_int_equal(f->sides[0].half_closes, 1);
}

/* --- ends --- */

static void
test_statuses(void **state)
{
	struct fixture *f = *state;
	static struct side d; /* a failed test leaves it to its stream */

	dial_ready(f);
	open_side(f, "/T/fail", &d);
	UNTIL(d.ends && f->sides[0].ends);
	assert_int_equal(d.status, 7);
	assert_string_equal(d.message, "nicht erlaubt: \xc3\xbc 100%");
	assert_int_equal(f->sides[0].status, 7);
	open_side(f, "/Hyper/Nope", &d);
	UNTIL(d.ends);
	assert_int_equal(d.status, GRPC_UNIMPLEMENTED);
	assert_string_equal(d.message, "unknown method Nope for service Hyper");
	open_side(f, "/x", &d);
	UNTIL(d.ends);
	assert_int_equal(d.status, GRPC_UNIMPLEMENTED);
	/* answered before the request was complete: the stream is closed on both sides */
	open_side(f, "/T/first", &d);
	assert_int_equal(send_fill(d.s, 100, 9), 0);
	UNTIL(d.ends && f->sides[1].ends);
	assert_int_equal(d.status, GRPC_OK);
	assert_string_equal(d.message, "one is enough");
	assert_int_equal(f->sides[1].last_last, 9);
}

static void
test_reset(void **state)
{
	struct fixture *f = *state;
	static struct side d, e;

	dial_ready(f);
	open_side(f, "/T/hang", &d);
	UNTIL(f->n_sides == 1);
	grpc_stream_finish(d.s, GRPC_DEADLINE_EXCEEDED, "too late");
	assert_int_equal(d.ends, 0); /* never inside the call */
	UNTIL(d.ends && f->sides[0].ends);
	assert_int_equal(d.status, GRPC_DEADLINE_EXCEEDED);
	assert_string_equal(d.message, "too late");
	assert_int_equal(f->sides[0].status, GRPC_CANCELLED);
	/* at once, before its HEADERS left */
	open_side(f, "/T/hang", &d);
	grpc_stream_finish(d.s, GRPC_CANCELLED, "");
	open_side(f, "/T/echo", &e);
	assert_int_equal(send_fill(e.s, 10, 1), 0);
	grpc_stream_half_close(e.s);
	UNTIL(d.ends && e.ends);
	assert_int_equal(e.status, GRPC_OK);
}

static void
test_too_large(void **state)
{
	static const char text[] = "grpc: received message larger than max (5009926 vs. 4194304)";
	struct fixture *f = *state;
	static struct side d; /* a failed test leaves it to its stream */

	dial_ready(f);
	open_side(f, "/T/echo", &d);
	assert_int_equal(send_fill(d.s, 5009926, 1), 0);
	UNTIL(d.ends && f->sides[0].ends);
	assert_int_equal(d.status, GRPC_RESOURCE_EXHAUSTED);
	assert_string_equal(d.message, text);
	assert_int_equal(f->sides[0].messages, 0);
	/* the other direction: the client refuses and cancels */
	open_side(f, "/T/hang", &d);
	UNTIL(f->n_sides == 2);
	assert_int_equal(send_fill(f->sides[1].s, 5009926, 1), 0);
	UNTIL(d.ends && f->sides[1].ends);
	assert_int_equal(d.status, GRPC_RESOURCE_EXHAUSTED);
	assert_string_equal(d.message, text);
	assert_int_equal(f->sides[1].status, GRPC_CANCELLED);
	/* the connection serves on */
	open_side(f, "/T/echo", &d);
	assert_int_equal(send_fill(d.s, 10, 1), 0);
	UNTIL(d.messages == 1);
}

static void
test_compressed(void **state)
{
	struct fixture *f = *state;
	static struct side d; /* a failed test leaves it to its stream */
	uint8_t *frame;

	dial_ready(f);
	open_side(f, "/T/echo", &d);
	frame = frame_of(20, 1);
	frame[0] = 1;
	assert_int_equal(grpc_stream_send(d.s, frame, 25), 0);
	UNTIL(d.ends);
	assert_int_equal(d.status, GRPC_UNIMPLEMENTED);
	open_side(f, "/T/echo", &d);
	assert_int_equal(grpc_stream_send(d.s, frame_of(20, 1), 24), 0); /* a byte short */
	grpc_stream_half_close(d.s);
	UNTIL(d.ends);
	assert_int_equal(d.status, GRPC_INTERNAL);
	assert_string_equal(d.message, "the stream ended within a message");
}

static void
test_queue_cap(void **state)
{
	struct fixture *f = *state;
	static struct side d[9];
	int i;

	dial_ready(f);
	for (i = 0; i < 9; i++)
		open_side(f, "/T/echo", &d[i]);
	/* without turning the loop nothing leaves */
	assert_int_equal(send_fill(d[0].s, 4000000, 1), 0);
	assert_int_equal(send_fill(d[0].s, 4000000, 1), 0);
	assert_int_equal(send_fill(d[0].s, 4000000, 1), -ENOBUFS);
	for (i = 1; i < 7; i++)
		assert_int_equal(send_fill(d[i].s, 4000000, 1), 0);
	assert_int_equal(send_fill(d[7].s, 4000000, 1), -ENOBUFS); /* the connection's own cap */
	UNTIL(d[0].messages == 2 && d[6].messages == 1);
	assert_int_equal(send_fill(d[7].s, 4000000, 1), 0);
	UNTIL(d[7].messages == 1);
}

/* --- frees --- */

static void
test_free_in_stream_callbacks(void **state)
{
	static const char *const modes[] = { "free on message", "free on end" };
	struct fixture *f = *state;
	static struct side d, e;
	size_t i;

	for (i = 0; i < ARRAY_LEN(modes); i++) {
		f->secured_client = f->secured_server = f->closed_server = f->accepted = 0;
		dial_ready(f);
		open_side(f, "/T/hang", &e);
		open_side(f, "/T/echo", &d);
		d.mode = modes[i];
		assert_int_equal(send_fill(d.s, 100000, 1), 0);
		assert_int_equal(send_fill(d.s, 100000, 1), 0);
		grpc_stream_half_close(d.s);
		UNTIL(f->client == NULL && d.ends && e.ends && f->closed_server);
		assert_int_equal(d.ends, 1);
		assert_int_equal(e.status, GRPC_UNAVAILABLE);
		assert_int_equal(d.messages, i == 0 ? 1 : 2);
		assert_int_equal(f->closed_client, 0);
	}
}

static void
test_free_in_server_callbacks(void **state)
{
	static const char *const modes[] = { "/T/free-on-message", "/T/free-on-half-close", "/T/free-on-end",
		"/T/late" };
	struct fixture *f = *state;
	static struct side d; /* a failed test leaves it to its stream */
	size_t i;

	for (i = 0; i < ARRAY_LEN(modes); i++) {
		f->secured_client = f->secured_server = f->closed_client = 0;
		f->free_on_stream = i == 3;
		dial_ready(f);
		open_side(f, modes[i], &d);
		assert_int_equal(send_fill(d.s, 10, 1), 0);
		if (i == 2)
			UNTIL(f->sides[2].messages == 1);
		if (i == 2)
			grpc_stream_finish(d.s, GRPC_CANCELLED, "");
		else
			grpc_stream_half_close(d.s);
		UNTIL(d.ends && f->closed_client && f->server == NULL);
		if (i != 2)
			assert_int_equal(d.status, GRPC_UNAVAILABLE);
		assert_false(grpc_conn_is_ready(f->client));
		grpc_conn_free(f->client);
		f->client = NULL;
	}
	assert_int_equal(f->closed_server, 0);
}

static void
test_free_in_conn_callbacks(void **state)
{
	struct fixture *f = *state;

	f->free_on_secured = true;
	dial(f, client_ctx, "hd-2");
	UNTIL(f->client == NULL && f->closed_server == 1);
	f->free_on_secured = false;
	f->free_on_closed = true;
	f->secured_client = f->secured_server = 0;
	dial_ready(f);
	grpc_conn_free(f->server);
	f->server = NULL;
	UNTIL(f->closed_client == 1);
	assert_null(f->client);
	assert_int_equal(f->client_reason, END_CLOSED);
}

/* A loop that never runs again: event_base_free() does the rest. */
static void
test_free_without_loop(void **state)
{
	struct event_base *own = event_base_new(), *keep = base;
	struct grpc_conn *c = NULL;
	int sv[2];

	(void)state;
	base = own;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
	assert_int_equal(grpc_conn_adopt(own, client_ctx, sv[0], "hd-2", 1000, &client_ops, fx, &c), 0);
	grpc_conn_free(c);
	event_base_free(own);
	base = keep;
	close(sv[1]);
}

/* Freed at any moment of its making. */
static void
test_free_early(void **state)
{
	struct fixture *f = *state;
	int i;

	for (i = 0; i < 12; i++) {
		unsigned secured = f->secured_client;

		dial(f, client_ctx, "hd-2");
		turns(i);
		grpc_conn_free(f->client);
		f->client = NULL;
		turns(3);
		if (i == 0)
			assert_int_equal(f->secured_client, secured);
	}
	UNTIL(f->closed_server == f->accepted);
}

/* --- refusals --- */

static void
test_peer_vanishes(void **state)
{
	struct fixture *f = *state;
	static struct side d; /* a failed test leaves it to its stream */

	dial_ready(f);
	open_side(f, "/T/hang", &d);
	UNTIL(f->n_sides == 1);
	grpc_conn_free(f->server);
	f->server = NULL;
	UNTIL(d.ends && f->closed_client && f->sides[0].ends);
	assert_int_equal(d.status, GRPC_UNAVAILABLE);
	assert_int_equal(f->sides[0].status, GRPC_UNAVAILABLE);
	assert_non_null(strstr(f->client_why, " as hd-2: "));
	assert_int_equal(grpc_stream_open(f->client, "/T/x", "hd-2", &stream_ops, &d, &d.s), -ENOTCONN);
}

static void
test_dial_refused(void **state)
{
	struct fixture *f = *state;

	grpc_listener_free(f->listener);
	f->listener = NULL;
	dial(f, client_ctx, "hd-2");
	assert_int_equal(f->closed_client, 0);
	UNTIL(f->closed_client);
	assert_int_equal(f->client_reason, END_UNREACHABLE);
	assert_non_null(strstr(f->client_why, f->address));
	assert_non_null(strstr(f->client_why, "Connection refused"));
}

static void
test_dial_names(void **state)
{
	static const struct {
		const char *address;
		int rc;
	} cases[] = { { "localhost", -EINVAL }, { "", -EINVAL }, { "host.invalid:1", 0 }, { "127.0.0.1:1", 0 },
		{ "[::1]:1", 0 } };
	struct fixture *f = *state;
	size_t i;

	for (i = 0; i < ARRAY_LEN(cases); i++) {
		f->closed_client = 0;
		f->client = NULL;
		assert_int_equal(
		    grpc_conn_dial(base, client_ctx, cases[i].address, "hd-2", 3000, &client_ops, f, &f->client),
		    cases[i].rc);
		if (cases[i].rc != 0)
			continue;
		UNTIL(f->closed_client);
		assert_true(f->client_reason == END_UNREACHABLE || f->client_reason == END_DEADLINE);
		assert_non_null(strstr(f->client_why, cases[i].address));
		grpc_conn_free(f->client);
		f->client = NULL;
	}
	/* given up while the look-up thread still runs */
	assert_int_equal(
	    grpc_conn_dial(base, client_ctx, "host.invalid:1", "hd-2", 3000, &client_ops, f, &f->client), 0);
	grpc_conn_free(f->client);
	f->client = NULL;
}

static void
test_wrong_certificates(void **state)
{
	struct fixture *f = *state;
	SSL_CTX *bare = NULL, *other = NULL;
	char err[TLS_ERR_MAX];
	struct {
		SSL_CTX *ctx;
		const char *name, *why;
	} cases[3] = { { client_ctx, "hd-3", "hostname mismatch" }, { NULL, "hd-2", "certificate" },
		{ NULL, "hd-2", "certificate" } };
	size_t i;

	assert_int_equal(tls_ctx_new(&bare_tls, TLS_CLIENT, TLS_ALPN_H2, &bare, err), 0);
	assert_int_equal(tls_ctx_new(&other_tls, TLS_CLIENT, TLS_ALPN_H2, &other, err), 0);
	cases[1].ctx = other; /* trusts another CA */
	cases[2].ctx = bare;  /* has no certificate: the server says so after our handshake is done */
	for (i = 0; i < ARRAY_LEN(cases); i++) {
		f->closed_client = f->closed_server = 0;
		dial(f, cases[i].ctx, cases[i].name);
		UNTIL(f->closed_client && f->closed_server);
		assert_int_equal(f->client_reason, END_TLS);
		assert_int_equal(f->server_reason, END_TLS);
		if (strstr(f->client_why, cases[i].why) == NULL || strstr(f->client_why, f->address) == NULL)
			fail_msg("case %zu: %s", i, f->client_why);
		assert_int_equal(f->secured_server, 0);
		grpc_conn_free(f->client);
		f->client = NULL;
	}
	SSL_CTX_free(bare);
	SSL_CTX_free(other);
}

static void
test_pinning(void **state)
{
	struct fixture *f = *state;

	f->refuse_server = true;
	dial(f, client_ctx, "hd-2");
	UNTIL(f->closed_server && f->closed_client);
	assert_int_equal(f->server_reason, END_TLS);
	assert_non_null(strstr(f->server_why, "hd-1"));
	grpc_conn_free(f->client);
	f->client = NULL;
	f->refuse_server = false;
	f->refuse_client = true;
	f->closed_server = f->closed_client = 0;
	dial(f, client_ctx, "hd-2");
	UNTIL(f->closed_server && f->closed_client);
	assert_int_equal(f->client_reason, END_TLS);
	assert_non_null(strstr(f->client_why, "hd-2"));
}

/* Plain text, half a ClientHello, nothing at all. */
static void
test_garbage(void **state)
{
	static const char *const texts[] = { "GET / HTTP/1.1\r\nHost: x\r\n\r\n", "\x16\x03\x03\x02", "" };
	struct fixture *f = *state;
	struct grpc_conn *c = NULL;
	size_t i;

	for (i = 0; i < ARRAY_LEN(texts); i++) {
		int sv[2];

		f->closed_client = 0;
		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
		assert_int_equal(grpc_conn_adopt(base, client_ctx, sv[0], "hd-2", 200, &client_ops, f, &c), 0);
		assert_int_equal(write(sv[1], texts[i], strlen(texts[i])), strlen(texts[i]));
		UNTIL(f->closed_client);
		assert_int_equal(f->client_reason, i == 0 ? END_TLS : END_DEADLINE);
		assert_non_null(strstr(f->client_why, "TLS handshake with "));
		grpc_conn_free(c);
		close(sv[1]);
	}
}

static int
connect_to(uint16_t port)
{
	struct sockaddr_in sin = {
		.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)
	};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&sin, sizeof sin), 0);
	return fd;
}

static void
test_max_connections(void **state)
{
	struct fixture *f = *state;
	int fd[17], i;
	char byte;

	for (i = 0; i < 17; i++)
		fd[i] = connect_to(grpc_listener_port(f->listener));
	UNTIL(f->accepted == 16);
	turns(2);
	assert_int_equal(f->accepted, 16);
	assert_int_equal(read(fd[16], &byte, 1), 0); /* closed at once */
	for (i = 0; i < 17; i++)
		close(fd[i]);
	UNTIL(f->closed_server == 16);
	f->secured_client = f->secured_server = 0;
	dial_ready(f);
}

static void
test_rate_limit(void **state)
{
	struct fixture *f = *state;
	struct conf_rate rate = { .window_ms = 3600000, .limit = 3 };
	int fd[5], i;

	grpc_listener_free(f->listener);
	f->conf.tcp_rate_limits.v = &rate;
	f->conf.tcp_rate_limits.n = 1;
	listen_now(f);
	for (i = 0; i < 5; i++)
		fd[i] = connect_to(grpc_listener_port(f->listener));
	UNTIL(f->accepted == 3);
	turns(2);
	assert_int_equal(f->accepted, 3);
	for (i = 0; i < 5; i++)
		close(fd[i]);
	UNTIL(f->closed_server == 3);
	f->conf.tcp_rate_limits.n = 0;
	grpc_listener_free(f->listener);
	f->listener = NULL;
}

/* The listener goes first, its connections live on. */
static void
test_listener_freed_first(void **state)
{
	struct fixture *f = *state;
	static struct side d; /* a failed test leaves it to its stream */

	dial_ready(f);
	grpc_listener_free(f->listener);
	f->listener = NULL;
	open_side(f, "/T/echo", &d);
	assert_int_equal(send_fill(d.s, 10, 1), 0);
	UNTIL(d.messages == 1);
}

/* An outsider's two ends over a socketpair, the brokered case: the dialling side serves. */
static void
test_adopted_pair(void **state)
{
	struct fixture *f = *state;
	static struct side d; /* a failed test leaves it to its stream */
	SSL_CTX *ctx = NULL;
	char err[TLS_ERR_MAX];
	int sv[2];

	assert_int_equal(tls_ctx_new(&server_tls, TLS_SERVER, TLS_ALPN_H2, &ctx, err), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
	assert_int_equal(grpc_conn_adopt(base, ctx, sv[0], NULL, 5000, &server_ops, f, &f->server), 0);
	SSL_CTX_free(ctx);
	f->accepted = 1;
	turns(1);
	assert_int_equal(grpc_conn_adopt(base, client_ctx, sv[1], "hd-2", 5000, &client_ops, f, &f->client), 0);
	UNTIL(f->secured_client && f->secured_server);
	open_side(f, "/T/echo", &d);
	assert_int_equal(send_fill(d.s, 100000, 7), 0);
	UNTIL(d.messages == 1);
	assert_int_equal(d.last_last, 7);
}

static int
group_setup(void **state)
{
	static const struct timeval tick = { .tv_usec = 20000 };
	char err[TLS_ERR_MAX];
	struct event *ev;

	(void)state;
	signal(SIGPIPE, SIG_IGN); /* as daemon_new() does */
	log_open("test_grpc", getenv("T_DEBUG") != NULL ? LOG_LVL_DEBUG : LOG_LVL_ERROR);
	pki_open(pki_dir);
	pki_issue(pki_dir, "hd-1");
	pki_issue(pki_dir, "hd-2");
	pki_open(other_dir);
	pki_issue(other_dir, "hd-1");
	server_tls = pki_conf(pki_dir, "hd-2");
	client_tls = pki_conf(pki_dir, "hd-1");
	bare_tls = pki_conf(pki_dir, NULL);
	other_tls = pki_conf(other_dir, "hd-1");
	if (tls_ctx_new(&client_tls, TLS_CLIENT, TLS_ALPN_H2, &client_ctx, err) != 0)
		fail_msg("%s", err);
	base = event_base_new();
	ev = event_new(base, -1, EV_PERSIST, on_tick, NULL); /* so that UNTIL looks at its clock */
	assert_int_equal(event_add(ev, &tick), 0);
	*state = ev;
	return 0;
}

static int
group_teardown(void **state)
{
	event_free(*state);
	event_base_free(base);
	SSL_CTX_free(client_ctx);
	pki_conf_fini(&server_tls);
	pki_conf_fini(&client_tls);
	pki_conf_fini(&bare_tls);
	pki_conf_fini(&other_tls);
	pki_close(pki_dir);
	pki_close(other_dir);
	return 0;
}

#define TEST(t) cmocka_unit_test_setup_teardown(t, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_sizes),
		TEST(test_pipelined),
		TEST(test_many_streams),
		TEST(test_too_many_streams),
		TEST(test_half_close),
		TEST(test_statuses),
		TEST(test_reset),
		TEST(test_too_large),
		TEST(test_compressed),
		TEST(test_queue_cap),
		TEST(test_free_in_stream_callbacks),
		TEST(test_free_in_server_callbacks),
		TEST(test_free_in_conn_callbacks),
		TEST(test_free_without_loop),
		TEST(test_free_early),
		TEST(test_peer_vanishes),
		TEST(test_dial_refused),
		TEST(test_dial_names),
		TEST(test_wrong_certificates),
		TEST(test_pinning),
		TEST(test_garbage),
		TEST(test_max_connections),
		TEST(test_rate_limit),
		TEST(test_listener_freed_first),
		TEST(test_adopted_pair),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("grpc", tests, group_setup, group_teardown);
}
