/* test_grpc_conn.c - connections: freed in every callback, refused, garbage, limits of the listener */
#include "grpc_fixture.h"

#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "hyper/base/fd.h"
#include "hyper/net/listen.h"

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

static void
free_client_now(evutil_socket_t sock, short what, void *arg)
{
	struct fixture *f = arg;

	(void)sock;
	(void)what;
	grpc_conn_free(f->client);
	f->client = NULL;
}

/* Freed by an event that comes in the same turn of the loop as the end of the TCP handshake, just before it. */
static void
test_free_while_tcp_connects(void **state)
{
	struct fixture *f = *state;
	struct event *ev = event_new(base, -1, 0, free_client_now, f);

	dial(f, client_ctx, "hd-2");
	turns(1); /* connect() has been called, loopback is done with it */
	event_active(ev, EV_TIMEOUT, 0);
	turns(3);
	assert_null(f->client);
	assert_int_equal(f->secured_client, 0);
	event_free(ev);
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

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_free_in_stream_callbacks),
		TEST(test_free_in_server_callbacks),
		TEST(test_free_in_conn_callbacks),
		TEST(test_free_without_loop),
		TEST(test_free_early),
		TEST(test_free_while_tcp_connects),
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
	return cmocka_run_group_tests_name("grpc_conn", tests, group_setup, group_teardown);
}
