/* test_slots.c - worker slots: what a wrong, dead or frozen worker costs, and that it costs nobody else
 *
 * This program is its own worker: slots.c executes /proc/self/exe, and main()
 * plays the role that HYPER_TEST_ROLE names.
 */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>
#include <event2/event.h>

#include "hyper/base/attr.h"
#include "hyper/base/clock.h"
#include "hyper/base/fd.h"
#include "hyper/base/log.h"
#include "hyper/net/listen.h"
#include "hyper/proxy/worker_abi.h"
#include "proxy/master/slots.h"

/* --- the worker --- */

static void
say(const struct chan_msg *m, int fd)
{
	uint8_t buf[CHAN_MSG_MAX];
	int n = chan_pack(m, buf);

	if (n < 0 || fd_send(WORKER_FD_CHANNEL, buf, (size_t)n, fd) < 0)
		_exit(50);
}

static bool
env_is_small(void)
{
	return !getenv("PROXY_SETTINGS") && !getenv("HOME") && getenv("HYPER_TEST_ROLE");
}

/* Beats until STOP or the channel's end. */
static void
beat(bool on)
{
	struct worker_stats *page = mmap(NULL, sizeof(*page), PROT_READ | PROT_WRITE, MAP_SHARED, WORKER_FD_STATS, 0);
	uint8_t buf[CHAN_DATAGRAM_MAX];
	struct chan_msg m[CHAN_DATAGRAM_MSGS];
	int fd, k;
	size_t fds;
	ssize_t n;

	if (page == MAP_FAILED)
		_exit(51);
	for (;;) {
		if (on)
			page->heartbeat_ns = (uint64_t)clock_now_ns();
		n = fd_recv(WORKER_FD_CHANNEL, buf, sizeof(buf), &fd, NULL);
		if (n == 0)
			_exit(0);
		k = n > 0 ? chan_unpack_all(buf, (size_t)n, m, &fds) : 0;
		while (k > 0)
			if (m[--k].type == CHAN_STOP)
				_exit(0);
		usleep(20000); /* lasts: a worker's turn */
	}
}

static int
play(const char *role, uint32_t gen)
{
	struct chan_msg ready = { .type = CHAN_READY, .gen = gen, .pid = (uint32_t)getpid() };
	struct chan_msg arrived = { .type = CHAN_ARRIVED, .gen = gen, .conn = 1 };
	struct chan_msg ended = { .type = CHAN_ENDED, .gen = gen, .pair = 7 };
	struct chan_msg even = { .type = CHAN_DRAIN, .gen = gen };
	char p[4] = "\xc1\xc1";

	if (strcmp(role, "dies") == 0)
		return 3;
	if (strcmp(role, "fds") == 0 && (fd_count() != 8 || !env_is_small()))
		return 40 + (int)fd_count();
	if (strcmp(role, "wrong pid") == 0)
		ready.pid++;
	if (strcmp(role, "wrong generation") == 0)
		ready.gen++;
	if (strcmp(role, "early") == 0)
		say(&arrived, WORKER_FD_LISTENER);
	say(&ready, -1);
	if (strcmp(role, "serves and dies") == 0)
		return 3;
	if (strcmp(role, "ready twice") == 0)
		say(&ready, -1);
	else if (strcmp(role, "garbage") == 0)
		(void)!send(WORKER_FD_CHANNEL, p, 2, 0);
	else if (strcmp(role, "unpermitted") == 0)
		say(&even, -1);
	else if (strcmp(role, "refused") == 0)
		say(&ended, -1);
	else if (strcmp(role, "closes") == 0)
		close_range(WORKER_FD_CHANNEL, WORKER_FD_CHANNEL, 0), pause();
	else if (strcmp(role, "deaf") == 0)
		for (;;)
			pause();
	beat(strcmp(role, "frozen") != 0);
	return 0;
}

/* --- the master --- */

static struct {
	struct event_base *base;
	struct listeners listeners;
	struct slots *slots;
	struct event *child, *guard;
	unsigned n_lost, n_serving, n_ready, n_empty, n_tick;
	uint32_t lost_gen;
	bool wait_lost, wait_ready;
} h;

static int
on_message(struct slot *s, const struct chan_msg *m, int *fd, bool lost, void *arg)
{
	(void)s;
	(void)fd;
	(void)lost;
	(void)arg;
	return m->type == CHAN_ENDED ? -EPROTO : 0;
}

static void
on_serving(struct slot *s, void *arg)
{
	(void)arg;
	assert_non_null(slot_ledger(s));
	assert_non_null(slot_pipes(s));
	h.n_serving++;
}

static void
on_room(struct slot *s, void *arg)
{
	(void)s;
	(void)arg;
}

static void
on_lost(struct slot *s, int status, void *arg)
{
	(void)arg;
	(void)status;
	h.n_lost++;
	h.lost_gen = slot_gen(s);
	/* whatever the role was, the next generation is a good one */
	setenv("HYPER_TEST_ROLE", "good", 1);
	if (h.wait_lost)
		event_base_loopbreak(h.base);
}

static void
on_ready(void *arg)
{
	(void)arg;
	h.n_ready++;
	if (h.wait_ready)
		event_base_loopbreak(h.base);
}

static void
on_empty(void *arg)
{
	(void)arg;
	h.n_empty++;
	event_base_loopbreak(h.base);
}

static void
on_tick(void *arg)
{
	(void)arg;
	h.n_tick++;
}

static void
on_child(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	(void)arg;
	if (h.slots)
		slots_reap(h.slots);
}

static void
on_guard(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	(void)arg;
	fail_msg("nothing happened within the deadline");
}

static const struct slots_ops ops = { on_message, on_serving, on_room, on_lost, on_ready, on_empty, on_tick };

static void
start(const char *role, unsigned workers)
{
	const struct timeval tv = { 30, 0 };
	struct slots_conf conf = {
		.workers = workers, .table_fd = 0, .listeners = &h.listeners, .n_pipes = 8, .n_seats = 16
	};
	char err[LISTEN_ERR_MAX];

	memset(&h, 0, sizeof(h));
	setenv("HYPER_TEST_ROLE", role, 1);
	setenv("PROXY_SETTINGS", "not for workers", 1);
	setenv("HOME", "/", 1);
	h.base = event_base_new();
	h.child = evsignal_new(h.base, SIGCHLD, on_child, NULL);
	h.guard = evtimer_new(h.base, on_guard, NULL);
	event_add(h.child, NULL);
	event_add(h.guard, &tv);
	assert_int_equal(listeners_open("127.0.0.1:0", &h.listeners, err), 0);
	assert_int_equal(slots_new(h.base, &conf, &ops, &h, &h.slots), 0);
}

static void
stop(bool now)
{
	slots_stop(h.slots, now);
	while (!h.n_empty)
		event_base_loop(h.base, EVLOOP_ONCE);
	assert_int_equal(h.n_empty, 1);
	slots_free(h.slots);
	h.slots = NULL;
	listeners_close(&h.listeners);
	event_free(h.child);
	event_free(h.guard);
	event_base_free(h.base);
}

static void
run_until_lost(void)
{
	unsigned before = h.n_lost;

	h.wait_lost = true;
	while (h.n_lost == before)
		event_base_loop(h.base, EVLOOP_ONCE);
	h.wait_lost = false;
}

static void
run_until_ready(void)
{
	while (!h.n_ready)
		event_base_loop(h.base, EVLOOP_ONCE);
}

static void
test_serves(void **state)
{
	static const char *const roles[] = { "good", "fds" };
	size_t i, before = fd_count();

	(void)state;
	for (i = 0; i < ARRAY_LEN(roles); i++) {
		start(roles[i], 2);
		run_until_ready();
		assert_int_equal(h.n_lost, 0);
		stop(false);
		assert_int_equal(h.n_lost, 2);
		assert_int_equal(h.n_ready, 1);
		assert_int_equal(fd_count(), before);
	}
}

/* One wrong worker: gone, and the next generation serves. */
static void
test_wrong(void **state)
{
	static const char *const roles[] = { "dies", "wrong pid", "wrong generation", "early", "ready twice", "garbage",
		"unpermitted", "refused", "closes" };
	size_t i, before = fd_count();
	char pids[32];

	(void)state;
	for (i = 0; i < ARRAY_LEN(roles); i++) {
		start(roles[i], 1);
		run_until_lost();
		if (h.lost_gen != 1)
			fail_msg("%s: generation %u was lost", roles[i], h.lost_gen);
		do {
			event_base_loop(h.base, EVLOOP_ONCE);
			slots_pids(h.slots, pids, sizeof(pids));
		} while (!pids[0]);
		stop(false);
		assert_int_equal(fd_count(), before);
	}
}

static void
test_frozen(void **state)
{
	int64_t t = clock_now_ms();

	(void)state;
	start("frozen", 1);
	run_until_lost();
	t = clock_now_ms() - t;
	assert_in_range(t, 3000, 12000);
	assert_true(h.n_tick >= 6);
	stop(false);
}

static void
kill_worker(unsigned i)
{
	char pids[64], *p = pids;

	slots_pids(h.slots, pids, sizeof(pids));
	while (i-- > 0)
		p = strchr(p, ',') + 1;
	assert_int_equal(kill((pid_t)strtol(p, NULL, 10), SIGKILL), 0);
}

/* So many deaths, each followed by a process of this role. */
static void
lose(unsigned n, const char *next)
{
	while (n-- > 0) {
		run_until_lost();
		setenv("HYPER_TEST_ROLE", next, 1);
	}
}

/* One that dies and dies is started less and less often while another serves; without any, no pause of one that serves is long. */
static void
test_backs_off(void **state)
{
	int64_t t;

	(void)state;
	start("good", 2);
	run_until_ready();
	setenv("HYPER_TEST_ROLE", "dies", 1);
	kill_worker(1);
	lose(1, "dies");
	t = clock_now_ms();
	lose(4, "dies");
	/* 0.1 s after the kill, then 0.1 + 0.2 + 0.4 s; libevent counts with a coarse clock */
	assert_true(clock_now_ms() - t >= 750);
	assert_int_equal(h.lost_gen, 5);
	/* The next one is 0.8 s away; now the other one goes as well. */
	kill_worker(0);
	lose(1, "serves and dies");
	t = clock_now_ms();
	lose(14, "serves and dies");
	/* 0.1 s each, not 0.1 to 6.4 s at one and 0.8 to 6.4 s at the other, 12 s in all */
	assert_in_range(clock_now_ms() - t, 1000, 9000);
	stop(false);
}

/* Where all die before they are READY there is no hurry; a reload ends the pause, a READY makes it short again. */
static void
test_none_gets_ready(void **state)
{
	const struct chan_settings settings = { 0 };
	struct slot_view v;
	int64_t t;

	(void)state;
	start("dies", 1);
	lose(1, "dies");
	t = clock_now_ms();
	lose(4, "dies");
	/* 0.1 + 0.2 + 0.4 + 0.8 s between the five */
	assert_true(clock_now_ms() - t >= 1400);
	slots_view(h.slots, 0, &v);
	assert_int_equal(v.crashes, 5);
	assert_in_range(v.starts_in_ms, 1000, 2000);
	/* 1.6 s to the next one, were it not for the reload */
	setenv("HYPER_TEST_ROLE", "serves and dies", 1);
	t = clock_now_ms();
	slots_apply(h.slots, &settings, 1);
	slots_view(h.slots, 0, &v);
	assert_string_equal(v.state, "STARTING");
	lose(6, "serves and dies");
	/* 0.1 s each, not 3.2, 6.4, 10 ... */
	assert_true(clock_now_ms() - t < 9000);
	assert_true(h.n_serving >= 6);
	stop(false);
}

/* Two that die and die together are paused as one alone is. */
static void
test_none_of_two_gets_ready(void **state)
{
	int64_t t = clock_now_ms();

	(void)state;
	start("dies", 2);
	setenv("HYPER_TEST_ROLE", "dies", 1);
	lose(10, "dies");
	/* five of each; with the 0.1 s that a pool without workers had, ten would take 0.5 s */
	assert_true(clock_now_ms() - t >= 1100);
	stop(false);
}

/* The out-of-memory killer or an operator: no fault of the worker's, so the next one comes soon, each time. */
static void
test_killed_from_outside(void **state)
{
	int64_t t = clock_now_ms();
	char pid[32];
	unsigned i;

	(void)state;
	start("good", 1);
	for (i = 0; i < 7; i++) {
		while (h.n_serving <= i)
			event_base_loop(h.base, EVLOOP_ONCE);
		slots_pids(h.slots, pid, sizeof(pid));
		assert_int_equal(kill((pid_t)strtol(pid, NULL, 10), SIGKILL), 0);
		run_until_lost();
		assert_int_equal(h.lost_gen, i + 1);
	}
	/* not 0.1 + 0.2 + 0.4 + 0.8 + 1.6 + 3.2 s, and not more than ten a second */
	assert_in_range(clock_now_ms() - t, 600, 5000);
	stop(false);
}

static void
test_stop(void **state)
{
	size_t before = fd_count();
	int64_t t;

	(void)state;
	start("deaf", 2);
	run_until_ready();
	t = clock_now_ms();
	stop(false);
	t = clock_now_ms() - t;
	assert_in_range(t, POOL_STOP_MS - 50, POOL_STOP_MS + 5000); /* libevent counts with a coarse clock */
	start("deaf", 2);
	run_until_ready();
	t = clock_now_ms();
	stop(true);
	assert_true(clock_now_ms() - t < POOL_STOP_MS);
	assert_int_equal(fd_count(), before);
}

int
main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_serves),
		cmocka_unit_test(test_wrong),
		cmocka_unit_test(test_frozen),
		cmocka_unit_test(test_backs_off),
		cmocka_unit_test(test_none_gets_ready),
		cmocka_unit_test(test_none_of_two_gets_ready),
		cmocka_unit_test(test_killed_from_outside),
		cmocka_unit_test(test_stop),
	};

	if (argc == 4 && strcmp(argv[1], "worker") == 0)
		return play(getenv("HYPER_TEST_ROLE"), (uint32_t)strtoul(argv[3], NULL, 10));
	/* what any program may have open must not reach a worker */
	if (dup(0) < 0)
		return 1;
	log_open("test_slots", LOG_LVL_BUG);
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
