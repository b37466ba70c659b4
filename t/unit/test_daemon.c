/* test_daemon.c - signals come through the loop, the first exit code wins, the service manager is told */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>
#include <event2/event.h>

#include "hyper/base/attr.h"
#include "hyper/base/daemon.h"
#include "hyper/base/fd.h"
#include "hyper/base/log.h"
#include "hyper/base/notify.h"
#include "unit_tmp.h"

struct seen {
	struct daemon *d;
	enum daemon_signal got[8];
	size_t n, want;
};

static void
on_signal(enum daemon_signal sig, void *arg)
{
	struct seen *s = arg;

	if (s->n < ARRAY_LEN(s->got))
		s->got[s->n++] = sig;
	if (s->n >= s->want)
		daemon_stop(s->d, 3);
}

static void
test_signals(void **state)
{
	static const struct {
		int signo[3];
		enum daemon_signal want[3];
		size_t n;
	} tab[] = {
		{ { SIGTERM }, { DAEMON_STOP }, 1 },
		{ { SIGTERM, SIGHUP, SIGTERM }, { DAEMON_STOP, DAEMON_RELOAD, DAEMON_STOP_NOW }, 3 },
		{ { SIGINT }, { DAEMON_STOP_NOW }, 1 },
		{ { SIGQUIT }, { DAEMON_STOP_NOW }, 1 },
		{ { SIGHUP, SIGUSR1, SIGCHLD }, { DAEMON_RELOAD, DAEMON_REOPEN, DAEMON_CHILD }, 3 },
	};
	size_t before = fd_count();

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(tab); i++) {
		struct seen s = { .want = 1 };

		assert_int_equal(daemon_new(on_signal, &s, &s.d), 0);
		/* one at a time: signals that wait together have no order */
		for (size_t k = 0; k < tab[i].n; k++) {
			s.want = k + 1;
			kill(getpid(), tab[i].signo[k]);
			while (s.n < k + 1)
				event_base_loop(daemon_base(s.d), EVLOOP_ONCE);
			assert_int_equal(s.got[k], tab[i].want[k]);
		}
		assert_int_equal(daemon_run(s.d), 3);
		daemon_free(s.d);
	}
	daemon_free(NULL);
	assert_int_equal(fd_count(), before);
}

static void
on_timer(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	daemon_stop(arg, EXIT_SETTINGS);
	daemon_stop(arg, EXIT_FAIL);
}

static void
test_stop(void **state)
{
	struct timeval soon = { 0, 1000 };
	struct seen s = { .want = 9 };
	struct sigaction sa;
	struct rlimit rl;

	(void)state;
	assert_int_equal(daemon_new(on_signal, &s, &s.d), 0);
	assert_int_equal(event_base_once(daemon_base(s.d), -1, EV_TIMEOUT, on_timer, s.d, &soon), 0);
	sigaction(SIGPIPE, NULL, &sa);
	assert_true(sa.sa_handler == SIG_IGN);
	getrlimit(RLIMIT_NOFILE, &rl);
	assert_true(rl.rlim_cur == rl.rlim_max);
	assert_int_equal(daemon_run(s.d), EXIT_SETTINGS);
	daemon_free(s.d);
	sigaction(SIGPIPE, NULL, &sa);
	assert_true(sa.sa_handler == SIG_DFL);
	sigaction(SIGTERM, NULL, &sa);
	assert_true(sa.sa_handler == SIG_DFL);
	/* a stop before the loop is not forgotten */
	assert_int_equal(daemon_new(on_signal, &s, &s.d), 0);
	daemon_stop(s.d, EXIT_UNAVAILABLE);
	assert_int_equal(daemon_run(s.d), EXIT_UNAVAILABLE);
	daemon_free(s.d);
}

/* A manager's socket named `name` ("@..." abstract), and NOTIFY_SOCKET set to it. */
static int
manager_open(const char *name)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0);

	memcpy(sun.sun_path, name, strlen(name));
	if (name[0] == '@')
		sun.sun_path[0] = '\0';
	assert_int_equal(
	    bind(fd, (struct sockaddr *)&sun, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(name))), 0);
	setenv("NOTIFY_SOCKET", name, 1);
	return fd;
}

/* The next datagram, "" none. */
static const char *
heard(int fd)
{
	static char buf[1024];
	ssize_t n = read(fd, buf, sizeof(buf) - 1);

	buf[n > 0 ? n : 0] = '\0';
	return buf;
}

static void
describe(char ret[NOTIFY_STATUS_MAX], void *arg)
{
	snprintf(ret, NOTIFY_STATUS_MAX, "%s", (const char *)arg);
}

static void
test_ready(void **state)
{
	char dir[UNIT_TMP_MAX], name[UNIT_TMP_MAX + 8], want[128], what[32];
	int fd, p[2], saved = dup(2);
	ssize_t n;

	(void)state;
	assert_int_equal(pipe(p), 0);
	dup2(p[1], 2);
	log_open("prog", LOG_LVL_INFO);
	assert_non_null(mkdtemp(unit_tmp(dir, "hyper-daemon")));
	for (int is_abstract = 0; is_abstract < 2; is_abstract++) {
		snprintf(name, sizeof(name), "%s%s/notify", is_abstract ? "@" : "", dir);
		fd = manager_open(name);
		notify_open();
		notify_reloading();
		assert_string_equal(heard(fd), ""); /* not before it was ready */
		daemon_ready("port=%d", 99);
		snprintf(want, sizeof(want), "READY=1\nMAINPID=%d", (int)getpid());
		assert_string_equal(heard(fd), want);
		notify_reloading();
		assert_memory_equal(heard(fd), "RELOADING=1\nMONOTONIC_USEC=", 27);
		snprintf(what, sizeof(what), "serving\n3 pairs");
		notify_describe(describe, what);
		notify_ready();
		snprintf(want, sizeof(want), "READY=1\nMAINPID=%d\nSTATUS=serving", (int)getpid());
		assert_string_equal(heard(fd), want);
		notify_status();
		assert_string_equal(heard(fd), ""); /* nothing new */
		snprintf(what, sizeof(what), "draining");
		notify_status();
		assert_string_equal(heard(fd), "STATUS=draining");
		notify_stopping(30000);
		assert_string_equal(heard(fd), "STOPPING=1\nEXTEND_TIMEOUT_USEC=30000000\nSTATUS=draining");
		notify_reloading();
		notify_ready();
		notify_stopping(0);
		assert_string_equal(heard(fd), ""); /* nothing takes it back */
		notify_describe(NULL, NULL);
		close(fd);
		unlink(name);
	}
	rmdir(dir);
	unsetenv("NOTIFY_SOCKET");
	dup2(saved, 2);
	log_open("prog", LOG_LVL_INFO);
	close(saved);
	close(p[1]);
	char text[512] = "";

	n = read(p[0], text, sizeof(text) - 1);
	assert_true(n > 0);
	assert_non_null(strstr(text, "] info ready port=99\n"));
	assert_null(strstr(text, "warn"));
	close(p[0]);
}

/* A queue that is full: what must not be lost is said later. A manager that is gone is left alone. */
static void
test_slow_manager(void **state)
{
	char name[64];
	int fd, n = 0;

	(void)state;
	log_open("prog", LOG_LVL_BUG);
	snprintf(name, sizeof(name), "@hyper-daemon-%d", (int)getpid());
	fd = manager_open(name);
	notify_open();
	notify_ready();
	for (int i = 0; i < 10000; i++)
		notify_ready();
	while (*heard(fd))
		n++;
	assert_in_range(n, 1, 9999);
	notify_tick();
	assert_memory_equal(heard(fd), "READY=1\n", 8);
	notify_tick();
	assert_string_equal(heard(fd), "");
	assert_non_null(getenv("NOTIFY_SOCKET"));
	close(fd);
	notify_ready();
	assert_null(getenv("NOTIFY_SOCKET"));
	assert_int_equal(notify_tick_ms(), 0);
	log_open("prog", LOG_LVL_INFO);
}

static void
on_busy(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	(void)arg;
	usleep(300000);
}

/* Ticks that a loop of `ms` sends, with a call-back that takes 300 ms of them where `is_busy`. */
static int
ticks(int fd, int ms, bool is_busy)
{
	struct timeval end = { .tv_usec = ms * 1000 }, soon = { 0, 0 };
	struct seen s = { .want = 9 };
	int n = 0;

	assert_int_equal(daemon_new(on_signal, &s, &s.d), 0);
	if (is_busy)
		event_base_once(daemon_base(s.d), -1, EV_TIMEOUT, on_busy, NULL, &soon);
	event_base_once(daemon_base(s.d), -1, EV_TIMEOUT, on_timer, s.d, &end);
	daemon_run(s.d);
	daemon_free(s.d);
	for (const char *text = heard(fd); *text; text = heard(fd))
		n += strcmp(text, "WATCHDOG=1") == 0;
	return n;
}

static void
test_watchdog(void **state)
{
	static const struct {
		const char *usec, *pid;
		int64_t tick_ms;
	} tab[] = {
		{ NULL, NULL, 3000 },
		{ "40000", NULL, 20 },
		{ "30000000", NULL, 3000 },
		{ "8000000", NULL, 2000 },
		{ "10000000", NULL, 2500 },
		{ "40000", "1", 3000 },
		{ "x", NULL, 3000 },
		{ "0", NULL, 3000 },
		{ "-40000", NULL, 3000 },
		{ "40000", "self", 20 },
	};
	char name[64], pid[16];
	int fd, n;

	(void)state;
	snprintf(name, sizeof(name), "@hyper-daemon-%d", (int)getpid());
	snprintf(pid, sizeof(pid), "%d", (int)getpid());
	fd = manager_open(name);
	for (size_t i = 0; i < ARRAY_LEN(tab); i++) {
		unsetenv("WATCHDOG_USEC");
		unsetenv("WATCHDOG_PID");
		if (tab[i].usec)
			setenv("WATCHDOG_USEC", tab[i].usec, 1);
		if (tab[i].pid)
			setenv("WATCHDOG_PID", strcmp(tab[i].pid, "self") == 0 ? pid : tab[i].pid, 1);
		notify_open();
		assert_int_equal(notify_tick_ms(), tab[i].tick_ms);
	}
	n = ticks(fd, 300, false);
	assert_in_range(n, 2, 18);
	/* one at the start and one when the loop comes back: a loop that stands still feeds nothing */
	n = ticks(fd, 290, true);
	assert_in_range(n, 1, 3);
	unsetenv("WATCHDOG_USEC");
	unsetenv("WATCHDOG_PID");
	assert_int_equal(ticks(fd, 100, false), 0);
	unsetenv("NOTIFY_SOCKET");
	close(fd);
	assert_int_equal(ticks(-1, 10, false), 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_signals),
		cmocka_unit_test(test_stop),
		cmocka_unit_test(test_ready),
		cmocka_unit_test(test_slow_manager),
		cmocka_unit_test(test_watchdog),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
