/* test_relay.c - the relay engine turn by turn: what no timing of whole programs can be relied on to show */
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "hyper/base/attr.h"
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

		if (n == 0 && !busy)
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

int
main(void)
{
	static int copy;
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(urgent_behind_an_event, setup, teardown),
		{ "urgent_behind_an_event, copied", urgent_behind_an_event, setup, teardown, &copy },
		cmocka_unit_test_setup_teardown(one_run_is_bounded, setup, teardown),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
