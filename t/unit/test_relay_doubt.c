/* test_relay_doubt.c - no byte stays behind a read that seemed to take all, and nobody is woken where none can
 *
 * UNIX sockets: each message is a segment of its own there, and takes a slot of the pipe.
 */
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
#include "hyper/base/clock.h"
#include "hyper/base/fd.h"
#include "hyper/relay/relay.h"

enum { PAIRS = 160, TRIES = 1000, PIPE = 65536, LIMIT_MS = 20000 };

/* More bytes than a pipe has slots. */
#define FIRST  "twenty-five one-byte lots"
#define SECOND "as many of them once more"

static struct {
	int epoll_fd;
	struct relay *relay;
	int peer[PAIRS][2];
	uint64_t wakes; /* of the loop, with or without an event */
} t;

static void
on_end(const struct relay_end *end, void *arg)
{
	(void)end;
	(void)arg;
}

static void
engine_start(size_t pipe_size, bool copies)
{
	struct relay_conf conf = { .pipe_size = pipe_size, .max_pipes = 4, .makes_pipes = true, .copy_mode = copies };

	memset(&t, 0, sizeof(t));
	conf.epoll_fd = t.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	t.relay = relay_new(&conf, on_end, NULL);
	assert_non_null(t.relay);
}

static void
pairs_start(size_t n)
{
	for (size_t i = 0; i < n; i++) {
		int ab[2][2];

		for (int side = 0; side < 2; side++) {
			assert_int_equal(
			    socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ab[side]), 0);
			t.peer[i][side] = ab[side][0];
		}
		assert_int_equal(relay_pair_new(t.relay, i + 1, ab[0][1], ab[1][1]), 0);
	}
}

static void
engine_stop(size_t n)
{
	relay_free(t.relay);
	fd_close(&t.epoll_fd);
	for (size_t i = 0; i < n; i++)
		for (int side = 0; side < 2; side++)
			fd_close(&t.peer[i][side]);
}

/* One turn as a worker makes it, which waits no longer than `most` ms. True: something was done. */
static bool
turn(int64_t most)
{
	struct epoll_event ev[64];
	bool busy = relay_run(t.relay);
	int64_t wait = relay_next_ms(t.relay) - clock_now_ms();
	int n;

	wait = busy || wait < 0 ? 0 : wait < most ? wait : most;
	n = epoll_wait(t.epoll_fd, ev, ARRAY_LEN(ev), (int)wait);
	for (int k = 0; k < n; k++)
		relay_on_event(t.relay, ev[k].data.ptr, ev[k].events);
	t.wakes++;
	return n > 0 || busy;
}

/* Until neither an event comes nor anything is planned. */
static void
rest(void)
{
	int64_t limit = clock_now_ms() + LIMIT_MS;

	while (turn(5) || relay_next_ms(t.relay) != INT64_MAX)
		assert_true(clock_now_ms() < limit);
}

static void
say(int fd, const char *text, size_t segment)
{
	for (size_t len = strlen(text); len > 0; len -= segment, text += segment)
		assert_int_equal(send(fd, text, segment, 0), segment);
}

static void
expect(int fd, const char *text)
{
	char buf[256];
	ssize_t n = recv(fd, buf, sizeof(buf), MSG_DONTWAIT);

	assert_int_equal(n, strlen(text));
	assert_memory_equal(buf, text, strlen(text));
}

/* The first read leaves the rest behind. In turns that come fast the look waits; in slow ones it does not. */
static void
rest_of_a_full_pipe_comes(void **state)
{
	struct epoll_event ev;
	bool later = false;

	(void)state;
	engine_start(PIPE, false);
	pairs_start(1);
	rest();
	for (int i = 0; i < TRIES && !later; i++) {
		say(t.peer[0][0], FIRST, 1);
		turn(0); /* the turn before */
		later = relay_next_ms(t.relay) != INT64_MAX;
		rest();
		expect(t.peer[0][1], FIRST);
	}
	assert_true(later); /* one of so many was fast */
	(void)!relay_run(t.relay);
	usleep(50000);
	say(t.peer[0][0], SECOND, 1);
	assert_int_equal(epoll_wait(t.epoll_fd, &ev, 1, 0), 1);
	relay_on_event(t.relay, ev.data.ptr, ev.events);
	assert_true(relay_next_ms(t.relay) == INT64_MAX);
	rest();
	expect(t.peer[0][1], SECOND);
	engine_stop(1);
}

/* Once caught, each read is looked after at once: a stream of such segments does not stutter. */
static void
caught_once_is_enough(void **state)
{
	(void)state;
	engine_start(PIPE, false);
	pairs_start(1);
	rest();
	for (int i = 0; i < TRIES; i++) {
		say(t.peer[0][0], FIRST, 1);
		turn(0);
		if (relay_next_ms(t.relay) != INT64_MAX)
			break;
		rest();
		expect(t.peer[0][1], FIRST);
	}
	assert_true(relay_next_ms(t.relay) != INT64_MAX);
	while (relay_next_ms(t.relay) != INT64_MAX)
		turn(1000);
	/* Its turn is due, and it is known now. */
	say(t.peer[0][0], SECOND, 1);
	for (int i = 0; i < 20; i++) {
		turn(0);
		assert_true(relay_next_ms(t.relay) == INT64_MAX);
	}
	expect(t.peer[0][1], FIRST SECOND);
	engine_stop(1);
}

/* More sides than the list has places, both ways at once. */
static void
many_at_once(void **state)
{
	(void)state;
	engine_start(PIPE, false);
	pairs_start(PAIRS);
	rest();
	for (int round = 0; round < 5; round++) {
		for (size_t i = 0; i < PAIRS; i++)
			for (int side = 0; side < 2; side++)
				say(t.peer[i][side], side ? FIRST : SECOND, 1);
		rest();
		for (size_t i = 0; i < PAIRS; i++) {
			expect(t.peer[i][0], FIRST);
			expect(t.peer[i][1], SECOND);
		}
	}
	engine_stop(PAIRS);
}

/* A read of fewer bytes than the pipe has slots, and a short one into a buffer, plan nothing at all. */
static void
beyond_doubt(void **state)
{
	static const struct {
		size_t pipe_size;
		bool copies;
		const char *text;
	} cases[] = {
		{ 65536, false, "fifteen bytes.." },
		{ 65536, true, "twenty bytes, or more than sixteen" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		engine_start(cases[i].pipe_size, cases[i].copies);
		pairs_start(1);
		rest();
		for (int k = 0; k < TRIES; k++) {
			say(t.peer[0][0], cases[i].text, 1);
			turn(0);
			assert_true(relay_next_ms(t.relay) == INT64_MAX);
			expect(t.peer[0][1], cases[i].text);
		}
		engine_stop(1);
	}
}

/* A pair that ends or moves while it is in the list is not looked for; the next one of that id is another. */
static void
gone_before_the_look(void **state)
{
	struct relay_bundle bundle;
	bool later = false;

	(void)state;
	for (int i = 0; i < TRIES && !later; i++) {
		engine_start(PIPE, false);
		pairs_start(2);
		rest();
		for (int k = 0; k < 2; k++)
			say(t.peer[k][0], FIRST, 1);
		turn(0);
		later = relay_next_ms(t.relay) != INT64_MAX;
		(void)!relay_pair_release(t.relay, 1, &bundle);
		fd_close(&t.peer[1][1]);
		rest();
		assert_int_equal(relay_counts(t.relay).pairs, 0);
		engine_stop(2);
	}
	assert_true(later);
}

/* However many messages there were: one look after the last of them, then nothing. */
static void
silence_is_free(void **state)
{
	(void)state;
	engine_start(PIPE, false);
	pairs_start(4);
	for (int i = 0; i < 50; i++) {
		say(t.peer[i % 4][i / 4 % 2], FIRST, strlen(FIRST));
		turn(0);
	}
	rest();
	t.wakes = 0;
	for (int64_t limit = clock_now_ms() + 100; clock_now_ms() < limit;)
		turn(100);
	assert_in_range(t.wakes, 1, 2);
	engine_stop(4);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(rest_of_a_full_pipe_comes),
		cmocka_unit_test(caught_once_is_enough),
		cmocka_unit_test(many_at_once),
		cmocka_unit_test(beyond_doubt),
		cmocka_unit_test(gone_before_the_look),
		cmocka_unit_test(silence_is_free),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
