/* test_relay_group.c - a limit that several pairs share: kept, divided fairly, and no cost to anybody else
 *
 * The test is both peers of each pair: it writes whatever the sockets take, reads
 * and counts what comes, and runs the engine's loop as a worker would. Time is the
 * test's own (the linker puts its clock in the place of the true one): it goes on
 * when the engine waits, and a little with each turn. So nothing here depends on how
 * fast or how busy the machine is. Sockets are UNIX ones, which have no timers,
 * but where a reset is wanted.
 */
#include <errno.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "hyper/base/attr.h"
#include "hyper/base/clock.h"
#include "hyper/base/fd.h"
#include "hyper/relay/relay.h"

enum { PAIRS = 4, SOCKBUF = 65536, TURNS_A_MS = 4 };
enum mode { SPLICE, COPY, SMALL };

static struct {
	int epoll_fd;
	struct relay *relay;
	struct relay_end end;
	int ends;
	int peer[PAIRS][2];
	bool sends[PAIRS][2];
	uint64_t got[PAIRS][2]; /* by the peer of that side */
	uint64_t turns;         /* of the engine */
	bool is_tcp;
} t;

/* --- the clock --- */

int64_t __wrap_clock_now_ms(void);

static int64_t now_ms = 1000000;

int64_t
__wrap_clock_now_ms(void)
{
	return now_ms;
}

/* --- the engine and its peers --- */

static void
on_end(const struct relay_end *end, void *arg)
{
	(void)arg;
	t.end = *end;
	t.ends++;
}

static void
engine_start(enum mode mode)
{
	struct relay_conf conf = {
		.pipe_size = 65536,
		.max_pipes = 4,
		.makes_pipes = true,
		.copy_mode = mode == COPY,
		.copy_small = mode == SMALL,
	};

	memset(&t, 0, sizeof(t));
	conf.epoll_fd = t.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	t.relay = relay_new(&conf, on_end, NULL);
	assert_non_null(t.relay);
	for (int i = 0; i < PAIRS; i++)
		t.peer[i][0] = t.peer[i][1] = -1;
}

static void
engine_stop(void)
{
	relay_free(t.relay);
	fd_close(&t.epoll_fd);
	for (int i = 0; i < PAIRS; i++)
		for (int side = 0; side < 2; side++)
			fd_close(&t.peer[i][side]);
}

/* Buffers are bounded, so that what is sent at the end is little. */
static void
set_buffers(int fd)
{
	int size = SOCKBUF;

	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size)), 0);
	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size)), 0);
}

static int
connect_unix(int *ret_peer)
{
	int fds[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds), 0);
	for (int i = 0; i < 2; i++)
		set_buffers(fds[i]);
	*ret_peer = fds[1];
	return fds[0];
}

/* For resets. */
static int
connect_tcp(int *ret_peer)
{
	struct sockaddr_in sin = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), fd;
	socklen_t len = sizeof(sin);

	set_buffers(listener);
	assert_int_equal(bind(listener, (struct sockaddr *)&sin, len), 0);
	assert_int_equal(listen(listener, 1), 0);
	assert_int_equal(getsockname(listener, (struct sockaddr *)&sin, &len), 0);
	*ret_peer = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	set_buffers(*ret_peer);
	assert_int_equal(connect(*ret_peer, (struct sockaddr *)&sin, len), 0);
	fd = fd_accept(listener);
	assert_true(fd >= 0);
	assert_int_equal(fd_set_nonblock(*ret_peer), 0);
	close(listener);
	return fd;
}

/* Pair n + 1 of this group; `sends`: "a", "b", "ab" or "". */
static void
pair_start(int n, uint64_t group, uint64_t rate, const char *sends)
{
	int a = t.is_tcp ? connect_tcp(&t.peer[n][0]) : connect_unix(&t.peer[n][0]);
	int b = t.is_tcp ? connect_tcp(&t.peer[n][1]) : connect_unix(&t.peer[n][1]);

	assert_int_equal(relay_pair_new(t.relay, (uint64_t)n + 1, a, b), 0);
	assert_int_equal(relay_pair_join(t.relay, (uint64_t)n + 1, group, rate), 0);
	t.sends[n][0] = strchr(sends, 'a') != NULL;
	t.sends[n][1] = strchr(sends, 'b') != NULL;
}

/* One turn of the engine, which waits no longer than `most` ms and than it was told to. */
static void
engine_turn(int64_t most)
{
	struct epoll_event ev[16];
	bool busy = relay_run(t.relay);
	int64_t wait = relay_next_ms(t.relay) - now_ms;
	int n;

	wait = busy || wait < 0 ? 0 : wait < most ? wait : most;
	n = epoll_wait(t.epoll_fd, ev, ARRAY_LEN(ev), t.is_tcp ? (int)wait : 0);
	t.turns++;
	if (n == 0 && wait > 0)
		now_ms += wait;
	else if (t.turns % TURNS_A_MS == 0)
		now_ms++;
	for (int k = 0; k < n; k++)
		relay_on_event(t.relay, ev[k].data.ptr, ev[k].events);
}

static void
peers_move(void)
{
	static char buf[65536];
	ssize_t n;

	for (int i = 0; i < PAIRS; i++)
		for (int side = 0; side < 2; side++) {
			if (t.peer[i][side] < 0)
				continue;
			while (t.sends[i][side] &&
			       send(t.peer[i][side], buf, sizeof(buf), MSG_DONTWAIT | MSG_NOSIGNAL) > 0)
				;
			while ((n = recv(t.peer[i][side], buf, sizeof(buf), MSG_DONTWAIT)) > 0)
				t.got[i][side] += (uint64_t)n;
		}
}

static void
run_for(int64_t ms)
{
	int64_t limit = now_ms + ms;

	while (now_ms < limit) {
		peers_move();
		engine_turn(2);
	}
}

static uint64_t
got_total(int pair)
{
	return t.got[pair][0] + t.got[pair][1];
}

static void
expect_near(uint64_t value, uint64_t want, unsigned percent, const char *what)
{
	if (value < want - want * percent / 100 || value > want + want * percent / 100)
		fail_msg("%s: %llu is not within %u %% of %llu", what, (unsigned long long)value, percent,
		    (unsigned long long)want);
}

/* --- the cases -------------------------------------------------------------- */

static void
rate_is_kept(void **state)
{
	static const struct {
		uint64_t rate;
		int pairs;
		const char *sends;
	} cases[] = {
		{ 100000, 1, "a" },
		{ 2000000, 1, "a" },
		{ 2000000, 1, "ab" },
		{ 10000000, 3, "ab" },
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		uint64_t got = 0;
		int64_t since = now_ms;

		engine_start(*(const enum mode *)*state);
		for (int k = 0; k < cases[i].pairs; k++)
			pair_start(k, 7, cases[i].rate, cases[i].sends);
		run_for(1200);
		for (int k = 0; k < PAIRS; k++)
			got += got_total(k);
		expect_near(got, cases[i].rate * (uint64_t)(now_ms - since) / 1000, 15, "rate");
		if (cases[i].sends[1])
			expect_near(t.got[0][0], t.got[0][1], 20, "both ways");
		assert_int_equal(relay_counts(t.relay).groups, 1);
		engine_stop();
	}
}

/* However differently they behave: one sends both ways, one in small pieces, one came later. */
static void
pairs_share(void **state)
{
	engine_start(*(const enum mode *)*state);
	pair_start(0, 7, 3000000, "ab");
	run_for(200);
	pair_start(1, 7, 3000000, "a");
	pair_start(2, 7, 3000000, "b");
	memset(t.got, 0, sizeof(t.got));
	run_for(1500);
	for (int k = 0; k < 3; k++)
		expect_near(got_total(k), 1500000, 20, "share");
	engine_stop();
}

/* Who waits costs no turn, no pipe and no buffer, and others do not notice. */
static void
others_are_unaffected(void **state)
{
	engine_start(*(const enum mode *)*state);
	pair_start(0, 7, 20000, "ab");
	pair_start(1, 8, 4000000, "a");
	pair_start(2, 0, 0, "a");
	pair_start(3, 9, 0, "a");
	run_for(1000);
	assert_in_range(got_total(0), 1, 40000);
	expect_near(got_total(1), 4000000, 15, "another group");
	assert_true(got_total(2) > 8000000); /* no group */
	assert_true(got_total(3) > 8000000); /* a group without a limit */
	assert_int_equal(relay_counts(t.relay).groups, 3);
	for (int k = 1; k < PAIRS; k++)
		t.sends[k][0] = false;
	run_for(200);
	assert_int_equal(relay_counts(t.relay).held, 1);
	assert_int_equal(relay_counts(t.relay).pipes_used, 0);
	assert_int_equal(relay_counts(t.relay).buffered, 0);
	t.turns = 0;
	for (int64_t limit = now_ms + 1000; now_ms < limit;)
		engine_turn(1000);
	assert_in_range(t.turns, 5, 200); /* 20 quanta a second, and their echoes */
	engine_stop();
}

static void
idle_group_costs_nothing(void **state)
{
	engine_start(*(const enum mode *)*state);
	pair_start(0, 7, 20000, "");
	pair_start(1, 8, 20000, "");
	assert_int_equal(send(t.peer[0][0], "x", 1, 0), 1);
	run_for(100);
	assert_int_equal(t.got[0][1], 1);
	assert_true(relay_next_ms(t.relay) == INT64_MAX);
	t.turns = 0;
	for (int64_t limit = now_ms + 300; now_ms < limit;)
		engine_turn(1000);
	assert_in_range(t.turns, 1, 2);
	engine_stop();
}

/* What it saved while it rested is bounded. */
static void
burst_is_bounded(void **state)
{
	engine_start(*(const enum mode *)*state);
	pair_start(0, 7, 100000, "");
	run_for(1500);
	t.sends[0][0] = true;
	run_for(100);
	assert_in_range(got_total(0), RELAY_BURST_MIN, RELAY_BURST_MIN + 30000);
	engine_stop();
}

static void
rate_changes(void **state)
{
	engine_start(*(const enum mode *)*state);
	pair_start(0, 7, 1100, "a");
	run_for(50);
	relay_group_rate(t.relay, 7, 2000000);
	relay_group_rate(t.relay, 8, 1); /* unknown: passed over */
	run_for(1000);
	expect_near(got_total(0), 2000000, 15, "after the change");
	relay_group_rate(t.relay, 7, 0);
	run_for(300);
	assert_true(got_total(0) > 6000000);
	relay_group_rate(t.relay, 7, 100000);
	run_for(50);
	memset(t.got, 0, sizeof(t.got));
	run_for(1000);
	assert_in_range(got_total(0), 50000, 100000 + 2 * RELAY_BURST_MIN);
	engine_stop();
}

/* By an end, a reset, a release and a move to another group, while it waits. */
static void
last_pair_frees(void **state)
{
	struct relay_bundle bundle;
	struct linger linger = { .l_onoff = 1 };

	engine_start(*(const enum mode *)*state);
	t.is_tcp = true;
	assert_int_equal(relay_pair_join(t.relay, 99, 7, 1), -ENOENT);
	for (int k = 0; k < PAIRS; k++)
		pair_start(k, 7 + (uint64_t)(k > 1), 5000, "ab");
	run_for(100);
	assert_int_equal(relay_counts(t.relay).held, PAIRS);
	assert_int_equal(relay_counts(t.relay).groups, 2);

	assert_int_equal(relay_pair_join(t.relay, 1, 9, 5000), 0);
	assert_int_equal(relay_counts(t.relay).groups, 3);
	assert_int_equal(relay_pair_release(t.relay, 1, &bundle), 0);
	fd_close(&t.peer[0][0]);
	fd_close(&t.peer[0][1]);
	assert_int_equal(relay_counts(t.relay).groups, 2);

	/* What came before the reset is passed on, whatever the limit; no end is seen. */
	t.sends[1][0] = t.sends[1][1] = false;
	setsockopt(t.peer[1][0], SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
	fd_close(&t.peer[1][0]);
	run_for(100);
	assert_int_equal(t.ends, 1);
	assert_int_equal(t.end.reason, END_RESET);
	assert_true(t.got[1][1] > 8192);
	assert_int_equal(relay_counts(t.relay).groups, 1);

	relay_close_all(t.relay, END_STOPPED);
	assert_int_equal(relay_counts(t.relay).groups, 0);
	assert_int_equal(relay_counts(t.relay).held, 0);
	assert_true(relay_next_ms(t.relay) == INT64_MAX);
	engine_stop();
}

int
main(void)
{
	static enum mode splice = SPLICE, copy = COPY, small = SMALL;
	const struct CMUnitTest tests[] = {
		{ "rate_is_kept", rate_is_kept, NULL, NULL, &splice },
		{ "rate_is_kept, copied", rate_is_kept, NULL, NULL, &copy },
		{ "rate_is_kept, small", rate_is_kept, NULL, NULL, &small },
		{ "pairs_share", pairs_share, NULL, NULL, &splice },
		{ "pairs_share, copied", pairs_share, NULL, NULL, &copy },
		{ "others_are_unaffected", others_are_unaffected, NULL, NULL, &splice },
		{ "others_are_unaffected, small", others_are_unaffected, NULL, NULL, &small },
		{ "idle_group_costs_nothing", idle_group_costs_nothing, NULL, NULL, &splice },
		{ "burst_is_bounded", burst_is_bounded, NULL, NULL, &splice },
		{ "rate_changes", rate_changes, NULL, NULL, &splice },
		{ "last_pair_frees", last_pair_frees, NULL, NULL, &splice },
		{ "last_pair_frees, copied", last_pair_frees, NULL, NULL, &copy },
		{ "last_pair_frees, small", last_pair_frees, NULL, NULL, &small },
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
