/* test_net_rpclane.c - an answer without end takes its share of the loop and of memory, and no more
 *
 * The server is a process of its own, which has filled the connection to the brim before the loop turns for the first
 * time, and goes on as fast as it can. T_CERTS names a folder of development certificates.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "hyper/base/clock.h"
#include "hyper/base/fd.h"
#include "hyper/net/listen.h"
#include "hyper/net/tls.h"
#include "hyper/wire/json.h"
#include "net/rpclane.h"
#include "net/tlsio.h"

#define GIVE_UP_MS 60000
#define UNIT_MAX   ((size_t)16384)
#define TURN_MAX   ((uint64_t)1024 * 1024) /* between two turns of another event; the mend's own bound is far below */

/* --- the other side --- */

struct answer {
	const char *head, *unit;
	int n_records; /* of one unit each; 0: without end, of as many units as fit */
	int want;
	uint64_t most; /* bytes that may be read in all */
};

/* Sends the whole of `data`; the socket does not block. 0, or -1 when the client has had enough. The first time that
 * there is no room a byte into *full says so. */
static int
send_record(SSL *ssl, const char *data, size_t len, int *full)
{
	struct pollfd p = { .fd = SSL_get_fd(ssl), .events = POLLOUT };
	int rc;

	while ((rc = SSL_write(ssl, data, (int)len)) <= 0) {
		if (SSL_get_error(ssl, rc) != SSL_ERROR_WANT_WRITE)
			return -1;
		if (*full >= 0 && write(*full, "f", 1) != 1)
			return -1;
		*full = -1;
		if (poll(&p, 1, GIVE_UP_MS) != 1)
			return -1;
	}
	return 0;
}

/* Answers one request, and waits for the client to go. */
static void
serve(int listener, SSL_CTX *ctx, const struct answer *a, const char *unit, size_t len, int full)
{
	int fd = accept(listener, NULL, NULL);
	struct pollfd p = { .fd = fd, .events = POLLIN };
	SSL *ssl = SSL_new(ctx);
	char request[4096];

	if (fd < 0 || !ssl || SSL_set_fd(ssl, fd) != 1 || SSL_accept(ssl) != 1 ||
	    SSL_read(ssl, request, sizeof(request)) <= 0)
		return;
	fcntl(fd, F_SETFL, O_NONBLOCK);
	if (send_record(ssl, a->head, strlen(a->head), &full) < 0)
		return;
	for (int i = 0; a->n_records == 0 || i < a->n_records; i++)
		if (send_record(ssl, unit, len, &full) < 0)
			return;
	if (full < 0 || write(full, "e", 1) == 1)
		poll(&p, 1, GIVE_UP_MS);
}

static char *
cert(const char *name, const char *ext)
{
	char *path = NULL;

	if (asprintf(&path, "%s/%s.%s", getenv("T_CERTS"), name, ext) < 0)
		abort();
	return path;
}

static SSL_CTX *
context(enum tls_role role)
{
	char *ca = cert("root", "crt"), err[TLS_ERR_MAX];
	struct conf_tls tls = { .ca_certificate_files = { &ca, 1 },
		.certificate_file = cert("hd-1", "crt"),
		.key_file = cert("hd-1", "key"),
		.verify_client = true };
	SSL_CTX *ctx = NULL;

	if (tls_ctx_new(&tls, role, TLS_ALPN_NONE, &ctx, err) != 0)
		fail_msg("%s", err);
	free(tls.certificate_file);
	free(tls.key_file);
	free(ca);
	return ctx;
}

/* --- our side --- */

struct run {
	struct event *tick;
	unsigned ticks;
	uint64_t at, most; /* bytes read: at the last tick, the most between two */
	int calls, status;
	size_t len;
};

static void
on_tick(evutil_socket_t fd, short what, void *arg)
{
	const struct timeval at_once = { 0, 0 };
	struct run *r = arg;
	uint64_t now = tlsio_moved()[0];

	(void)fd;
	(void)what;
	r->ticks++;
	r->most = now - r->at > r->most ? now - r->at : r->most;
	r->at = now;
	evtimer_add(r->tick, &at_once);
}

static void
on_answer(int status, const char *body, size_t len, void *arg)
{
	struct run *r = arg;

	(void)body;
	r->calls++;
	r->status = status;
	r->len = len;
}

/* The lane opens in the loop's turns, until it takes the call. */
static struct lane *
call(struct event_base *base, struct lanes *all, struct run *r)
{
	static const char request[] = "{\"jsonrpc\":\"2.0\",\"method\":\"echo\",\"id\":\"id\"}";
	const struct timeval tick = { .tv_usec = 10000 };
	int64_t end = clock_now_ms() + GIVE_UP_MS;
	struct lane *l = NULL;

	while (!(l = lanes_call(all, request, strlen(request), on_answer, r)) && clock_now_ms() < end) {
		event_base_loopexit(base, &tick);
		event_base_dispatch(base);
	}
	return l;
}

static void
check(const struct answer *c, struct event_base *base, struct lanes *all, int full)
{
	struct pollfd p = { .fd = full, .events = POLLIN };
	struct run r = { .status = 0 };
	int64_t end;
	uint64_t before;

	assert_non_null(call(base, all, &r));
	assert_int_equal(poll(&p, 1, GIVE_UP_MS), 1);
	before = r.at = tlsio_moved()[0];
	r.tick = evtimer_new(base, on_tick, &r);
	on_tick(-1, 0, &r);
	for (end = clock_now_ms() + GIVE_UP_MS; r.calls == 0 && clock_now_ms() < end;)
		event_base_loop(base, EVLOOP_ONCE);
	on_tick(-1, 0, &r);
	event_free(r.tick);
	assert_int_equal(r.calls, 1);
	assert_int_equal(r.status, c->want);
	assert_int_equal(r.len, (size_t)c->n_records * strlen(c->unit));
	assert_in_range(r.most, 1, TURN_MAX);
	assert_in_range(tlsio_moved()[0] - before, 1, c->most);
	assert_in_range(r.ticks, (tlsio_moved()[0] - before) / TURN_MAX, UINT32_MAX);
}

static void
test_answer(void **state)
{
	const struct answer *c = *state;
	struct lanes_conf conf = { .host_header = "hd-1", .path = "/jsonrpc", .server_name = "hd-1" };
	char unit[UNIT_MAX], err[LISTEN_ERR_MAX], hostport[64];
	size_t len = 0, before = fd_count(), n = strlen(c->unit);
	SSL_CTX *server, *client;
	struct listeners l;
	struct lanes *all;
	int full[2], status;
	pid_t pid;

	if (getenv("T_CERTS") == NULL)
		skip();
	for (; len + n <= sizeof(unit); len += n)
		memcpy(unit + len, c->unit, n);
	server = context(TLS_SERVER);
	client = context(TLS_CLIENT);
	assert_int_equal(listeners_open("127.0.0.1:0", &l, err), 0);
	assert_int_equal(fcntl(l.fd[0], F_SETFL, 0), 0);
	assert_int_equal(pipe2(full, O_CLOEXEC), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		serve(l.fd[0], server, c, unit, c->n_records > 0 ? n : len, full[1]);
		_exit(0);
	}
	snprintf(hostport, sizeof(hostport), "127.0.0.1:%u", (unsigned)l.port);
	conf.hostport = hostport;
	conf.base = event_base_new();
	conf.tls = client;
	assert_int_equal(lanes_new(&conf, &all), 0);
	check(c, conf.base, all, full[0]);
	lanes_free(all);
	event_base_free(conf.base);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	listeners_close(&l);
	fd_close(&full[0]);
	fd_close(&full[1]);
	SSL_CTX_free(server);
	SSL_CTX_free(client);
	assert_int_equal(fd_count(), before);
}

int
main(void)
{
	static struct answer cases[] = {
		{ "HTTP/1.1 200 OK\r\n\r\n", "x", 0, -EMSGSIZE, JSON_MAX_BYTES + TURN_MAX },
		{ "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "a\r\n0123456789\r\n", 0, -EMSGSIZE,
		    2 * JSON_MAX_BYTES },
		{ "HTTP/1.1 200 OK\r\n", "a: b\r\n", 0, -EPROTO, TURN_MAX },
		{ "HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 100 Continue\r\n\r\n", 0, -EPROTO, TURN_MAX },
		/* most of the records are with OpenSSL when the first turn ends, and the socket is silent */
		{ "HTTP/1.1 200 OK\r\nContent-Length: 200\r\n\r\n", "0123456789", 20, 200, TURN_MAX },
	};
	const struct CMUnitTest tests[] = {
		{ "endless, to the end of the connection", test_answer, NULL, NULL, &cases[0] },
		{ "endless, chunked", test_answer, NULL, NULL, &cases[1] },
		{ "endless head", test_answer, NULL, NULL, &cases[2] },
		{ "endless interim answers", test_answer, NULL, NULL, &cases[3] },
		{ "more than one turn reads, then silence", test_answer, NULL, NULL, &cases[4] },
	};

	signal(SIGPIPE, SIG_IGN);
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
