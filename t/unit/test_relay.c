/* test_relay.c - the relay engine turn by turn: what no timing of whole programs can be relied on to show */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "hyper/base/attr.h"
#include "hyper/base/clock.h"
#include "hyper/base/fd.h"
#include "hyper/relay/relay.h"

#define TURNS      500        /* more than any case needs */
#define TURN_BYTES (8 * 4096) /* what one pair moves in a turn, one way: eight fills of a pipe */

static struct {
	int epoll_fd;
	struct relay *relay;
	struct relay_end end;
	int ends;
} t;

static void
on_end(const struct relay_end *end, void *arg)
{
	(void)arg;
	t.end = *end;
	t.ends++;
}

static int
setup(void **state)
{
	struct relay_conf conf = {
		.pipe_size = 4096, .max_pipes = 4, .makes_pipes = true, .copy_mode = *state != NULL
	};

	t.ends = 0;
	conf.epoll_fd = t.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	t.relay = relay_new(&conf, on_end, NULL);
	return t.relay ? 0 : -1;
}

static int
teardown(void **state)
{
	(void)state;
	relay_free(t.relay);
	fd_close(&t.epoll_fd);
	return 0;
}

/* Two ends of one TCP connection: ret[0] is the test's, ret[1] the engine's. */
static void
tcp_pair(int ret[2])
{
	struct sockaddr_in sin = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	socklen_t len = sizeof(sin);

	assert_int_equal(bind(listener, (struct sockaddr *)&sin, len), 0);
	assert_int_equal(listen(listener, 1), 0);
	assert_int_equal(getsockname(listener, (struct sockaddr *)&sin, &len), 0);
	ret[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(connect(ret[0], (struct sockaddr *)&sin, len), 0);
	ret[1] = fd_accept(listener);
	assert_true(ret[1] >= 0);
	close(listener);
}

/* Turns of the loop until nothing is left to do. */
static void
settle(void)
{
	struct epoll_event ev[8];

	for (int i = 0; i < TURNS; i++) {
		bool busy = relay_run(t.relay);
		int n = epoll_wait(t.epoll_fd, ev, ARRAY_LEN(ev), busy ? 0 : 20);

		if (n == 0 && !busy && relay_next_ms(t.relay) - clock_now_ms() > 20)
			return;
		for (int k = 0; k < n; k++)
			relay_on_event(t.relay, ev[k].data.ptr, ev[k].events);
	}
	fail_msg("it does not come to rest");
}

static void
expect_read(int fd, const char *text)
{
	char buf[64];
	ssize_t n;
	size_t have = 0;

	while ((n = recv(fd, buf + have, sizeof(buf) - have, MSG_DONTWAIT)) > 0)
		have += (size_t)n;
	assert_int_equal(have, strlen(text));
	assert_memory_equal(buf, text, have);
}

/* The engine was told of bytes; before it reads them an urgent byte, more bytes and the end come behind them. For
 * splice(2) that looks like the end of the stream. */
static void
urgent_behind_an_event(void **state)
{
	int a[2], b[2], n;
	struct epoll_event ev[8];

	(void)state;
	tcp_pair(a);
	tcp_pair(b);
	assert_int_equal(relay_pair_new(t.relay, 1, a[1], b[1]), 0);
	settle();
	assert_int_equal(send(a[0], "one ", 4, 0), 4);
	n = epoll_wait(t.epoll_fd, ev, ARRAY_LEN(ev), 1000);
	assert_int_equal(n, 1);
	assert_false(ev[0].events & EPOLLPRI);
	assert_int_equal(send(a[0], "!", 1, MSG_OOB), 1);
	assert_int_equal(send(a[0], " two", 4, 0), 4);
	assert_int_equal(shutdown(a[0], SHUT_WR), 0);
	for (int k = 0; k < n; k++)
		relay_on_event(t.relay, ev[k].data.ptr, ev[k].events);
	settle();
	expect_read(b[0], "one ! two");
	close(b[0]);
	settle();
	assert_int_equal(t.ends, 1);
	assert_int_equal(t.end.reason, END_CLOSED);
	assert_int_equal(t.end.bytes_ab, 9);
	close(a[0]);
}

/* However many pairs have work left, one turn of the loop is short: heartbeat, accepts and messages wait for it. */
static void
one_run_is_bounded(void **state)
{
	enum { PAIRS = 200 };
	static char text[131072];
	static int a[PAIRS][2], b[PAIRS][2];
	uint64_t before, moved;

	(void)state;
	for (int i = 0; i < PAIRS; i++) {
		struct epoll_event ev[4];
		int n;

		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, a[i]), 0);
		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, b[i]), 0);
		assert_int_equal(send(a[i][0], text, sizeof(text), 0), sizeof(text));
		assert_int_equal(relay_pair_new(t.relay, (uint64_t)i + 1, a[i][1], b[i][1]), 0);
		n = epoll_wait(t.epoll_fd, ev, ARRAY_LEN(ev), 0);
		for (int k = 0; k < n; k++)
			relay_on_event(t.relay, ev[k].data.ptr, ev[k].events);
	}
	before = relay_counts(t.relay).bytes;
	assert_true(before < PAIRS * sizeof(text)); /* each had its turn, and has bytes left */
	assert_true(relay_run(t.relay));
	moved = relay_counts(t.relay).bytes - before;
	assert_in_range(moved, 1, 64 * TURN_BYTES);
	for (int i = 0; i < TURNS && relay_run(t.relay); i++)
		;
	assert_int_equal(relay_counts(t.relay).bytes, PAIRS * sizeof(text)); /* all come to their turn */
	relay_close_all(t.relay, END_STOPPED);
	for (int i = 0; i < PAIRS; i++) {
		close(a[i][0]);
		close(b[i][0]);
	}
}

/* --- limits, pipes that are given, pairs that move ---------------------------- */

static struct {
	size_t wanted, calls;
} want;

static void
on_want(size_t n, void *arg)
{
	(void)arg;
	want.wanted += n;
	want.calls++;
}

/* An engine of its own in place of setup()'s. */
static struct relay *
engine_new(struct relay_conf conf)
{
	memset(&want, 0, sizeof(want));
	conf.epoll_fd = t.epoll_fd;
	conf.max_pipes = 4;
	relay_free(t.relay);
	t.relay = relay_new(&conf, on_end, NULL);
	assert_non_null(t.relay);
	return t.relay;
}

/* Turns of the loop until a pair has ended. */
static void
wait_end(void)
{
	struct epoll_event ev[8];
	int64_t limit = clock_now_ms() + 10000;

	while (t.ends == 0 && clock_now_ms() < limit) {
		bool busy = relay_run(t.relay);
		int64_t wait = relay_next_ms(t.relay) - clock_now_ms();
		int n = epoll_wait(t.epoll_fd, ev, ARRAY_LEN(ev),
		    busy || t.ends || wait < 0 ? 0
		    : wait > 5000              ? 5000
					       : (int)wait);

		for (int k = 0; k < n; k++)
			relay_on_event(t.relay, ev[k].data.ptr, ev[k].events);
	}
	assert_int_equal(t.ends, 1);
}

static void
silent_pairs_end(void **state)
{
	static const struct {
		int64_t idle, half;
		bool is_half;
		enum end_reason reason;
		int64_t least;
	} cases[] = {
		{ 200, 0, false, END_IDLE, 200 },
		{ 200, 0, true, END_HALF_CLOSED, 200 },
		{ 60000, 100, true, END_HALF_CLOSED, 100 },
		{ 0, 100, true, END_HALF_CLOSED, 100 },
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct relay_conf conf = { .makes_pipes = true, .copy_mode = *state != NULL };
		int64_t since;
		int a[2], b[2];

		conf.idle_timeout_ms = cases[i].idle;
		conf.half_closed_timeout_ms = cases[i].half;
		engine_new(conf);
		t.ends = 0;
		tcp_pair(a);
		tcp_pair(b);
		assert_int_equal(relay_pair_new(t.relay, 1, a[1], b[1]), 0);
		settle();
		usleep(50000); /* its time starts again with what follows */
		assert_int_equal(send(a[0], "x", 1, 0), 1);
		if (cases[i].is_half)
			shutdown(a[0], SHUT_WR);
		since = clock_now_ms();
		wait_end();
		assert_int_equal(t.end.reason, cases[i].reason);
		assert_int_equal(t.end.bytes_ab, 1);
		assert_true(clock_now_ms() - since >= cases[i].least);
		close(a[0]);
		close(b[0]);
	}
}

static void
no_pipe_then_one(void **state)
{
	int a[2], b[2];

	(void)state;
	engine_new((struct relay_conf){ .on_want = on_want });
	tcp_pair(a);
	tcp_pair(b);
	assert_int_equal(relay_pair_new(t.relay, 1, a[1], b[1]), 0);
	assert_int_equal(send(a[0], "one", 3, 0), 3);
	settle();
	expect_read(b[0], "");
	assert_int_equal(relay_counts(t.relay).waiting, 1);
	assert_int_equal(want.wanted, 1);
	assert_int_equal(want.calls, 1); /* asked once, and not spinning */
	assert_int_equal(relay_pipe_give(t.relay, 7, relay_pipe_open(65536)), 0);
	assert_int_equal(relay_pipe_give(t.relay, 7, relay_pipe_open(65536)), -EINVAL); /* it is here */
	settle();
	expect_read(b[0], "one");
	assert_int_equal(relay_counts(t.relay).waiting, 0);
	assert_int_equal(relay_counts(t.relay).pipes_idle, 1);
	assert_int_equal(relay_counts(t.relay).buffered, 0);
	close(a[0]);
	close(b[0]);
}

static void
no_pipe_then_none(void **state)
{
	int a[2], b[2];

	(void)state;
	engine_new((struct relay_conf){ .on_want = on_want });
	tcp_pair(a);
	tcp_pair(b);
	assert_int_equal(relay_pair_new(t.relay, 1, a[1], b[1]), 0);
	assert_int_equal(send(a[0], "one", 3, 0), 3);
	settle();
	relay_pipe_none(t.relay);
	settle();
	expect_read(b[0], "one");
	assert_int_equal(relay_counts(t.relay).buffered, 1);
	assert_int_equal(send(b[0], "two", 3, 0), 3); /* and for a while nobody asks again */
	settle();
	expect_read(a[0], "two");
	assert_int_equal(want.calls, 1);
	close(a[0]);
	close(b[0]);
}

/* A living pair with bytes in a pipe goes to another engine and back, in each state of its ends. */
static void
released_and_adopted(void **state)
{
	static char text[200000];
	int a[2], b[2], kept[2], pipe_fd = relay_pipe_open(65536), n, small = 4096;
	struct relay_bundle bundle;
	size_t got = 0;
	ssize_t len;

	(void)state;
	engine_new((struct relay_conf){ .on_want = on_want });
	tcp_pair(a);
	tcp_pair(b);
	setsockopt(b[1], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
	kept[0] = dup(a[1]);
	kept[1] = dup(b[1]);
	assert_int_equal(relay_pair_new(t.relay, 5, a[1], b[1]), 0);
	assert_int_equal(relay_pipe_give(t.relay, 4, relay_pipe_open(4096)), 0); /* an end is read into one, too */
	assert_int_equal(relay_pipe_give(t.relay, 3, dup(pipe_fd)), 0);
	assert_int_equal(fd_set_nonblock(a[0]), 0);
	while ((len = send(a[0], text, sizeof(text), 0)) > 0) {
		got -= (size_t)len;
		settle();
	}
	assert_int_equal(shutdown(b[0], SHUT_WR), 0);
	settle();
	for (int round = 0; round < 3; round++) {
		assert_int_equal(relay_pair_release(t.relay, 5, &bundle), 0);
		assert_int_equal(relay_pair_release(t.relay, 5, &bundle), -ENOENT);
		assert_int_equal(bundle.flags, RELAY_EOF_BA | RELAY_UNSURE); /* nobody tuned its sockets beforehand */
		assert_int_equal(bundle.pipe[0].no, 3);
		assert_int_equal(bundle.pipe[0].fd, 0);
		assert_int_equal(bundle.pipe[1].fd, -1);
		assert_int_equal(ioctl(pipe_fd, FIONREAD, &n), 0);
		assert_true(n > 0);
		engine_new((struct relay_conf){ .on_want = on_want });
		bundle.fd[0] = dup(kept[0]);
		bundle.fd[1] = dup(kept[1]);
		bundle.pipe[0].fd = dup(pipe_fd);
		assert_int_equal(relay_pair_adopt(t.relay, &bundle), 0);
		settle();
		assert_int_equal(t.ends, 0);
	}
	shutdown(a[0], SHUT_WR);
	while (t.ends == 0) {
		settle();
		while ((len = recv(b[0], text, sizeof(text), MSG_DONTWAIT)) > 0)
			got += (size_t)len;
	}
	while ((len = recv(b[0], text, sizeof(text), 0)) > 0)
		got += (size_t)len;
	assert_int_equal(len, 0);
	assert_int_equal(got, 0);
	assert_int_equal(t.end.reason, END_CLOSED);
	for (int i = 0; i < 2; i++)
		close(kept[i]);
	close(pipe_fd);
	close(a[0]);
	close(b[0]);
}

/* The engine that had the pair took the error, or the end, and died before it wrote so down. */
static void
reset_is_no_end(void **state)
{
	static const struct {
		bool is_reset, is_taken;
		uint32_t flags;
		enum end_reason reason;
	} cases[] = {
		{ true, false, 0, END_RESET },
		{ true, true, 0, END_RESET },
		{ true, false, RELAY_EOF_BA, END_RESET },
		{ true, true, RELAY_EOF_BA, END_RESET },
		{ false, false, RELAY_EOF_BA, END_CLOSED },
		{ false, true, RELAY_EOF_BA, END_CLOSED },
	};
	struct linger linger = { .l_onoff = 1 };
	char buf[8];

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct relay_bundle bundle = { .id = 9, .suspect = true, .flags = cases[i].flags };
		int a[2], b[2];

		engine_new((struct relay_conf){ .makes_pipes = true });
		t.ends = 0;
		tcp_pair(a);
		tcp_pair(b);
		if (cases[i].flags & RELAY_EOF_BA) {
			shutdown(b[0], SHUT_WR);
			shutdown(a[1], SHUT_WR);
		}
		if (cases[i].is_reset)
			setsockopt(a[0], SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
		close(a[0]);
		if (cases[i].is_taken)
			(void)!recv(a[1], buf, sizeof(buf), 0);
		bundle.fd[0] = a[1];
		bundle.fd[1] = b[1];
		bundle.pipe[0].fd = bundle.pipe[1].fd = -1;
		assert_int_equal(relay_pair_adopt(t.relay, &bundle), 0);
		settle();
		assert_int_equal(t.ends, 1);
		assert_int_equal(t.end.reason, cases[i].reason);
		assert_int_equal(recv(b[0], buf, sizeof(buf), 0), cases[i].is_reset ? -1 : 0);
		close(b[0]);
	}
}

/* A peer that goes on sending while the other one does not read wakes the worker for each segment: after a few we do
 * not listen, and once there is room again we do. */
static void
segments_into_a_stalled_pair(void **state)
{
	int a[2], b[2], small = 4096, one = 1, events = 0;
	char big[4096], got[65536];
	struct epoll_event ev[8];
	int64_t until = clock_now_ms() + 20000;
	size_t sent = 0, have = 0;
	ssize_t n;

	(void)state;
	memset(big, 'x', sizeof(big));
	tcp_pair(a);
	tcp_pair(b);
	assert_int_equal(setsockopt(b[0], SOL_SOCKET, SO_RCVBUF, &small, sizeof(small)), 0);
	assert_int_equal(setsockopt(b[1], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)), 0);
	assert_int_equal(setsockopt(a[0], IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)), 0);
	assert_int_equal(relay_pair_new(t.relay, 1, a[1], b[1]), 0);
	for (int still = 0; still < 2;) {
		uint64_t before = relay_counts(t.relay).bytes;

		n = send(a[0], big, 4096, MSG_DONTWAIT);
		assert_true(n > 0);
		sent += (size_t)n;
		settle();
		still = relay_counts(t.relay).bytes == before ? still + 1 : 0;
	}
	for (int i = 0; i < 200; i++, sent++) {
		assert_int_equal(send(a[0], "y", 1, MSG_DONTWAIT), 1);
		n = epoll_wait(t.epoll_fd, ev, ARRAY_LEN(ev), 1);
		events += (int)n;
		for (int k = 0; k < n; k++)
			relay_on_event(t.relay, ev[k].data.ptr, ev[k].events);
		(void)relay_run(t.relay);
	}
	assert_in_range(events, 1, 20);
	while (have < sent && clock_now_ms() < until) {
		n = recv(b[0], got, sizeof(got), MSG_DONTWAIT);
		have += n > 0 ? (size_t)n : 0;
		settle();
	}
	assert_int_equal(have, sent);
	/* it listens again */
	for (int i = 0; i < 3; i++) {
		assert_int_equal(send(a[0], "again", 5, 0), 5);
		settle();
		expect_read(b[0], "again");
	}
	close(a[0]);
	settle();
	close(b[0]);
	settle();
	assert_int_equal(t.end.reason, END_CLOSED);
}

int
main(void)
{
	static int copy;
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(urgent_behind_an_event, setup, teardown),
		{ "urgent_behind_an_event, copied", urgent_behind_an_event, setup, teardown, &copy },
		cmocka_unit_test_setup_teardown(one_run_is_bounded, setup, teardown),
		cmocka_unit_test_setup_teardown(silent_pairs_end, setup, teardown),
		cmocka_unit_test_setup_teardown(segments_into_a_stalled_pair, setup, teardown),
		{ "segments_into_a_stalled_pair, copied", segments_into_a_stalled_pair, setup, teardown, &copy },
		{ "silent_pairs_end, copied", silent_pairs_end, setup, teardown, &copy },
		cmocka_unit_test_setup_teardown(no_pipe_then_one, setup, teardown),
		cmocka_unit_test_setup_teardown(no_pipe_then_none, setup, teardown),
		cmocka_unit_test_setup_teardown(released_and_adopted, setup, teardown),
		cmocka_unit_test_setup_teardown(reset_is_no_end, setup, teardown),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
