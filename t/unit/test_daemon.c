/* test_daemon.c - signals come through the loop, the first exit code wins, the service manager is told */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
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

static void
test_ready(void **state)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	char dir[] = "/tmp/hyper-daemon-XXXXXX", name[64], buf[32];
	int fd, p[2], saved = dup(2);
	ssize_t n;

	(void)state;
	assert_int_equal(pipe(p), 0);
	dup2(p[1], 2);
	log_open("prog", LOG_LVL_INFO);
	assert_non_null(mkdtemp(dir));
	for (int is_abstract = 0; is_abstract < 2; is_abstract++) {
		snprintf(name, sizeof(name), "%s%s/notify", is_abstract ? "@" : "", dir);
		memset(sun.sun_path, 0, sizeof(sun.sun_path));
		memcpy(sun.sun_path, name, strlen(name));
		if (is_abstract)
			sun.sun_path[0] = '\0';
		fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0);
		assert_int_equal(bind(fd, (struct sockaddr *)&sun,
				     (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(name))),
		    0);
		setenv("NOTIFY_SOCKET", name, 1);
		daemon_ready("port=%d", 99);
		n = read(fd, buf, sizeof(buf));
		assert_int_equal(n, 7);
		assert_memory_equal(buf, "READY=1", 7);
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

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_signals),
		cmocka_unit_test(test_stop),
		cmocka_unit_test(test_ready),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
