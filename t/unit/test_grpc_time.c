/* test_grpc_time.c - what only time brings: keepalive, idle connections, peers that stop reading
 *
 * Built with grpc_*.c of its own whose minutes are fractions of a second (grpc.inc). The two ends
 * talk through a relay that can be stalled in either direction.
 */
#include "grpc_fixture.h"

#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "hyper/base/fd.h"

struct way {
	int from, to;
	bool stalled;
	size_t bytes;
	struct event *ev;
	char buf[65536];
	size_t len, off;
};

static struct way up, down; /* client to server, server to client */

static void
way_close(struct way *w)
{
	if (w->ev != NULL)
		event_free(w->ev);
	w->ev = NULL;
	shutdown(w->to, SHUT_RDWR);
	shutdown(w->from, SHUT_RDWR);
}

/* Polled: simple, and a stalled way looks like a peer that does not read. */
static void
on_way(evutil_socket_t sock, short what, void *arg)
{
	const struct timeval again = { .tv_usec = 1000 };
	struct way *w = arg;
	ssize_t n;

	(void)sock;
	(void)what;
	evtimer_add(w->ev, &again);
	while (!w->stalled) {
		if (w->len == 0) {
			n = recv(w->from, w->buf, sizeof w->buf, MSG_DONTWAIT);
			if (n == 0 || (n < 0 && errno != EAGAIN))
				way_close(w);
			if (n <= 0)
				return;
			w->len = (size_t)n;
			w->bytes += (size_t)n;
			w->off = 0;
		}
		n = send(w->to, w->buf + w->off, w->len, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (n < 0)
			return;
		w->off += (size_t)n;
		w->len -= (size_t)n;
	}
}

static void
way_open(struct way *w, int from, int to)
{
	const struct timeval now = { 0 };

	memset(w, 0, sizeof *w);
	w->from = from;
	w->to = to;
	w->ev = evtimer_new(base, on_way, w);
	assert_int_equal(evtimer_add(w->ev, &now), 0);
}

static int
relay_setup(void **state)
{
	int a[2], b[2], rc = setup(state);
	SSL_CTX *ctx = NULL;
	char err[TLS_ERR_MAX];

	if (rc != 0)
		return rc;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, a), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, b), 0);
	way_open(&up, a[1], b[1]);
	way_open(&down, b[1], a[1]);
	assert_int_equal(tls_ctx_new(&server_tls, TLS_SERVER, TLS_ALPN_H2, &ctx, err), 0);
	assert_int_equal(grpc_conn_adopt(base, ctx, b[0], NULL, 5000, &server_ops, fx, &fx->server), 0);
	SSL_CTX_free(ctx);
	fx->accepted = 1;
	assert_int_equal(grpc_conn_adopt(base, client_ctx, a[0], "hd-2", 5000, &client_ops, fx, &fx->client), 0);
	UNTIL(fx->secured_client && fx->secured_server);
	return 0;
}

static int
relay_teardown(void **state)
{
	way_close(&up);
	way_close(&down);
	close(up.from);
	close(up.to);
	return teardown(state);
}

static void
wait_ms(int64_t ms)
{
	int64_t end = clock_now_ms() + ms;

	while (clock_now_ms() < end)
		turns(1);
}

/* Quiet, but there: PINGs go and come, nothing else happens. */
static void
test_quiet(void **state)
{
	struct fixture *f = *state;
	static struct side d;
	size_t sent, got;

	open_side(f, "/T/hang", &d);
	UNTIL(f->n_sides == 1);
	wait_ms(100);
	sent = up.bytes;
	got = down.bytes;
	wait_ms(3 * GRPC_PING_CLIENT_MS);
	assert_true(grpc_conn_is_ready(f->client));
	assert_int_equal(f->closed_server, 0);
	assert_true(up.bytes >= sent + 17 && up.bytes < sent + 1000);
	assert_true(down.bytes >= got + 17 && down.bytes < got + 1000);
	grpc_stream_finish(d.s, GRPC_CANCELLED, "");
	UNTIL(d.ends && f->sides[0].ends);
}

/* The peer's machine is gone: no FIN, no reset. */
static void
test_vanished(void **state)
{
	struct fixture *f = *state;
	static struct side d;

	open_side(f, "/T/hang", &d);
	UNTIL(f->n_sides == 1);
	up.stalled = down.stalled = true;
	UNTIL(f->closed_client && f->closed_server);
	assert_int_equal(f->client_reason, END_DEADLINE);
	assert_int_equal(f->server_reason, END_DEADLINE);
	assert_non_null(strstr(f->client_why, "PING"));
	assert_int_equal(d.status, GRPC_UNAVAILABLE);
	assert_int_equal(f->sides[0].status, GRPC_UNAVAILABLE);
}

static void
test_idle(void **state)
{
	struct fixture *f = *state;
	static struct side d;
	int64_t begin = clock_now_ms(); /* the server is idle later than that, by as much as the machine is busy */

	open_side(f, "/T/echo", &d);
	assert_int_equal(send_fill(d.s, 10, 1), 0);
	grpc_stream_half_close(d.s);
	UNTIL(d.ends);
	UNTIL(f->closed_client && f->closed_server);
	assert_true(clock_now_ms() - begin >= GRPC_IDLE_MS);
	assert_int_equal(f->client_reason, END_CLOSED);
	assert_int_equal(f->server_reason, END_CLOSED);
	assert_non_null(strstr(f->server_why, "idle"));
	assert_non_null(strstr(f->client_why, "GOAWAY"));
}

/* A request that was sent before the client saw "going away" is served. */
static void
test_idle_with_late_request(void **state)
{
	struct fixture *f = *state;
	static struct side d;

	down.stalled = true; /* the client will not see it */
	UNTIL(!grpc_conn_is_ready(f->server));
	open_side(f, "/T/echo", &d);
	assert_int_equal(send_fill(d.s, 10, 1), 0);
	grpc_stream_half_close(d.s);
	UNTIL(f->n_sides == 1 && f->sides[0].ends);
	down.stalled = false;
	UNTIL(d.ends && f->closed_client && f->closed_server);
	assert_int_equal(d.status, GRPC_OK);
	assert_int_equal(d.messages, 1);
	assert_int_equal(f->client_reason, END_CLOSED);
}

/* The client opens streams and says nothing, or half of it: neither is kept for ever, and what they held is given back. */
static void
test_message_never_whole(void **state)
{
	static const uint8_t half[] = { 0, 0, 0, 0, 100, 'a', 'b' };
	struct fixture *f = *state;
	static struct side silent, stuck, fine;
	uint8_t *frame = malloc(sizeof half);

	open_side(f, "/T/hang", &silent);
	open_side(f, "/T/hang", &stuck);
	open_side(f, "/T/echo", &fine);
	memcpy(frame, half, sizeof half);
	assert_int_equal(grpc_stream_send(stuck.s, frame, sizeof half), 0);
	assert_int_equal(send_fill(fine.s, 10, 1), 0);
	UNTIL(silent.ends && stuck.ends);
	assert_int_equal(silent.status, GRPC_DEADLINE_EXCEEDED);
	assert_int_equal(stuck.status, GRPC_DEADLINE_EXCEEDED);
	assert_int_equal(fine.messages, 1); /* it owes nothing: it may be silent between messages */
	wait_ms(GRPC_MESSAGE_MS / 2);
	assert_int_equal(fine.ends, 0);
	assert_int_equal(send_fill(fine.s, 10, 1), 0);
	UNTIL(fine.messages == 2);
	grpc_stream_half_close(fine.s);
	UNTIL(fine.ends);
	assert_int_equal(fine.status, GRPC_OK);
}

/* The client does not take its answer: the stream's memory is given back. */
static void
test_answer_not_taken(void **state)
{
	struct fixture *f = *state;
	static struct side d;

	open_side(f, "/T/echo", &d);
	assert_int_equal(send_fill(d.s, 10, 1), 0);
	UNTIL(d.messages == 1);
	down.stalled = true;
	assert_int_equal(send_fill(f->sides[0].s, 3000000, 1), 0);
	grpc_stream_half_close(d.s);
	UNTIL(f->sides[0].ends);
	assert_int_equal(f->sides[0].status, GRPC_DEADLINE_EXCEEDED);
	assert_int_equal(f->sides[0].half_closes, 1);
}

/* A flood from a peer that reads nothing: our GOAWAY cannot leave, and is not waited for. */
static void
test_flood_not_reading(void **state)
{
	struct fixture *f = *state;
	static struct side d, many[300];
	int i;

	open_side(f, "/T/echo", &d);
	assert_int_equal(send_fill(d.s, 10, 1), 0);
	UNTIL(d.messages == 1);
	down.stalled = true;
	assert_int_equal(send_fill(f->sides[0].s, 3000000, 1), 0);
	wait_ms(20); /* all buffers on the way are full */
	for (i = 0; i < 300 && !f->closed_server; i++) {
		open_side(f, "/T/hang", &many[i]);
		event_base_loop(base, EVLOOP_NONBLOCK); /* waiting would be for the client's PING at last */
		if (many[i].s != NULL)
			grpc_stream_finish(many[i].s, GRPC_CANCELLED, "");
		event_base_loop(base, EVLOOP_NONBLOCK);
	}
	UNTIL(f->closed_server);
	assert_int_equal(f->server_reason, END_RESET);
	assert_null(strstr(f->server_why, "PING"));
}

static void
test_silent_handshake(void **state)
{
	struct sockaddr_in sin = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct fixture *f = *state;
	char byte;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	sin.sin_port = htons(grpc_listener_port(f->listener));
	assert_int_equal(connect(fd, (struct sockaddr *)&sin, sizeof sin), 0);
	UNTIL(f->closed_server == 1);
	assert_int_equal(f->server_reason, END_DEADLINE);
	assert_int_equal(read(fd, &byte, 1), 0);
	close(fd);
}

#define RELAYED(t) cmocka_unit_test_setup_teardown(t, relay_setup, relay_teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		RELAYED(test_quiet),
		RELAYED(test_vanished),
		RELAYED(test_idle),
		RELAYED(test_idle_with_late_request),
		RELAYED(test_message_never_whole),
		RELAYED(test_answer_not_taken),
		RELAYED(test_flood_not_reading),
		TEST(test_silent_handshake),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("grpc_time", tests, group_setup, group_teardown);
}
