/* test_log.c - one escaped line per event, never waited for, never lost silently */
#include <errno.h>
#include <fcntl.h>
#include <regex.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "hyper/base/bug.h"
#include "hyper/base/clock.h"
#include "hyper/base/fd.h"
#include "hyper/base/log.h"

static int saved_stderr;

/* stderr becomes `fd`; `fd` is given. */
static void
stderr_to(int fd)
{
	assert_int_equal(dup2(fd, 2), 2);
	close(fd);
	log_open("prog", LOG_LVL_INFO);
}

static void
stderr_back(void)
{
	stderr_to(fcntl(saved_stderr, F_DUPFD_CLOEXEC, 3));
}

/* All that waits in `fd`. */
static char *
drain(int fd)
{
	static char buf[300000];
	size_t used = 0;
	ssize_t n;

	assert_int_equal(fd_set_nonblock(fd), 0);
	while ((n = read(fd, buf + used, sizeof(buf) - 1 - used)) > 0)
		used += (size_t)n;
	buf[used] = '\0';
	return buf;
}

static bool
matches(const char *text, const char *pattern)
{
	regex_t re;
	int rc;

	assert_int_equal(regcomp(&re, pattern, REG_EXTENDED | REG_NOSUB), 0);
	rc = regexec(&re, text, 0, NULL, 0);
	regfree(&re);
	return rc == 0;
}

static void
test_line(void **state)
{
	int p[2];

	(void)state;
	assert_int_equal(pipe(p), 0);
	stderr_to(p[1]);
	errno = EDOM;
	log_info("paired", "conn=%d why=\"%s\"", 17,
	    "gl\xc3\xbc"
	    "ck");
	log_debug("hidden", "%s", "");
	log_error("bare", "%s", "");
	assert_int_equal(errno, EDOM);
	assert_true(matches(drain(p[0]),
	    "^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\\.[0-9]{3}Z prog\\[[0-9]+\\] info paired "
	    "conn=17 why=\"gl\xc3\xbc"
	    "ck\"\n[^\n]* error bare\n$"));
	/* other users of the same pipe still see a blocking descriptor */
	assert_false(fcntl(2, F_GETFL) & O_NONBLOCK);
	stderr_back();
	close(p[0]);
}

static void
test_escape(void **state)
{
	static const struct {
		const char *in, *out;
	} tab[] = {
		{ "a\nb", "a\\x0Ab" },
		{ "\x1b[31m", "\\x1B[31m" },
		{ "\x7f", "\\x7F" },
		{ "\xff\xc3", "\\xFF\\xC3" },
		{ "\xe2\x82\xac", "\xe2\x82\xac" },
		{ "\xc2\x9b"
		  "1m",
		    "\\xC2\\x9B1m" },
		{ "\xc2\xa0", "\xc2\xa0" },
		{ "\xed\xa0\x80", "\\xED\\xA0\\x80" },
	};
	char want[64];
	int p[2];

	(void)state;
	assert_int_equal(pipe(p), 0);
	stderr_to(p[1]);
	for (size_t i = 0; i < sizeof(tab) / sizeof(tab[0]); i++) {
		log_info("e", "%s", tab[i].in);
		snprintf(want, sizeof(want), "] info e %s\n", tab[i].out);
		assert_non_null(strstr(drain(p[0]), want));
	}
	stderr_back();
	close(p[0]);
}

static void
test_cut(void **state)
{
	char big[5000], *line;
	int p[2];

	(void)state;
	assert_int_equal(pipe(p), 0);
	stderr_to(p[1]);
	for (int shift = 0; shift < 4; shift++) {
		memset(big, 'x', sizeof(big));
		for (size_t i = (size_t)shift; i + 3 < sizeof(big); i += 3)
			memcpy(big + i, "\xe2\x82\xac", 3);
		big[sizeof(big) - 1] = '\0';
		log_info("big", "%s", big);
		line = drain(p[0]);
		assert_in_range(strlen(line), LOG_LINE_MAX - 4, LOG_LINE_MAX);
		assert_int_equal(line[strlen(line) - 1], '\n');
		assert_null(strstr(line, "\\x")); /* no half character at the cut */
	}
	stderr_back();
	close(p[0]);
}

/* What a full pipe, socket or a closed stderr costs: the lines, counted. Never a wait. */
static void
overflow(int in, int out)
{
	uint64_t before;
	char *text;

	stderr_to(in);
	before = log_dropped();
	for (int i = 0; i < 5000; i++)
		log_info("flood", "n=%d pad=%0200d", i, 0);
	assert_true(log_dropped() > before);
	text = drain(out);
	assert_non_null(strstr(text, "info flood n=0 "));
	assert_int_equal(text[strlen(text) - 1], '\n');
	log_info("after", "%s", "");
	assert_true(matches(drain(out), "info after\n.* warn log_dropped lines=[0-9]+\n$"));
	stderr_back();
	close(out);
}

static void
test_overflow(void **state)
{
	uint64_t before;
	int p[2];

	(void)state;
	assert_int_equal(pipe(p), 0);
	overflow(p[1], p[0]);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, p), 0);
	overflow(p[1], p[0]);
	/* the reader is gone */
	assert_int_equal(pipe(p), 0);
	close(p[0]);
	stderr_to(p[1]);
	before = log_dropped();
	log_info("nobody", "%s", "");
	assert_int_equal(log_dropped(), before + 1);
	stderr_back();
}

static void
test_closed_stderr(void **state)
{
	int fd;

	(void)state;
	close(2);
	log_open("prog", LOG_LVL_INFO);
	fd = open("/dev/null", O_RDONLY);
	assert_true(fd > 2); /* 2 was filled, so no socket can take its place */
	close(fd);
	log_info("into_nothing", "%s", "");
	stderr_back();
}

static void
test_limited(void **state)
{
	struct log_limit l = { 0 };
	char *text;
	int p[2];

	(void)state;
	assert_int_equal(pipe(p), 0);
	stderr_to(p[1]);
	for (int i = 0; i < 100; i++)
		log_limited(&l, LOG_LVL_WARN, "stranger", "n=%d", i);
	text = drain(p[0]);
	assert_true(matches(text, "^[^\n]* warn stranger n=0\n$"));
	l.next_ms = clock_now_ms(); /* the second is over */
	log_limited(&l, LOG_LVL_WARN, "stranger", "n=%d", 100);
	assert_true(matches(drain(p[0]), "^[^\n]* warn stranger suppressed=99 n=100\n$"));
	log_limited(&l, LOG_LVL_DEBUG, "stranger", "n=%d", 101);
	assert_int_equal(l.suppressed, 0);
	stderr_back();
	close(p[0]);
}

static void
test_level(void **state)
{
	enum log_level l = LOG_LVL_BUG;

	(void)state;
	assert_int_equal(log_level_parse("bug", &l), -EINVAL);
	assert_int_equal(log_level_parse("Info", &l), -EINVAL);
	assert_int_equal(log_level_parse("", &l), -EINVAL);
	assert_int_equal(l, LOG_LVL_BUG);
	assert_int_equal(log_level_parse("debug", &l), 0);
	assert_int_equal(l, LOG_LVL_DEBUG);
	assert_int_equal(log_level_parse("error", &l), 0);
	assert_int_equal(l, LOG_LVL_ERROR);
}

static void
test_bug(void **state)
{
	int p[2], status;
	pid_t pid;

	(void)state;
	assert_int_equal(pipe(p), 0);
	pid = fork();
	if (pid == 0) {
		stderr_to(p[1]);
		signal(SIGABRT, SIG_DFL);
		BUG_ON(p[0] >= 0);
		_exit(0);
	}
	close(p[1]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
	assert_true(matches(drain(p[0]), "\\] bug bug at=test_log\\.c:[0-9]+ cond=\"p\\[0\\] >= 0\"\n"));
	close(p[0]);
}

/* What an earlier test lost is told of. */
static void
tell_losses(int out)
{
	log_info("first", "%s", "");
	drain(out);
}

/* Batched: nothing before the flush, all in order with it; a warning takes all along. */
static void
test_batch(void **state)
{
	int p[2], status;
	pid_t pid;

	(void)state;
	assert_int_equal(pipe(p), 0);
	stderr_to(p[1]);
	tell_losses(p[0]);
	log_batch(true);
	log_info("one", "%s", "");
	log_info("two", "n=%d", 2);
	assert_string_equal(drain(p[0]), "");
	log_flush();
	assert_true(matches(drain(p[0]), "^[^\n]* info one\n[^\n]* info two n=2\n$"));
	log_flush();
	assert_string_equal(drain(p[0]), "");
	log_info("three", "%s", "");
	log_warn("four", "%s", "");
	assert_true(matches(drain(p[0]), "^[^\n]* info three\n[^\n]* warn four\n$"));
	/* a child writes its own lines only, with its own pid */
	log_info("parent", "%s", "");
	pid = fork();
	if (pid == 0) {
		log_info("child", "real=[%d]", (int)getpid());
		log_batch(false);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(matches(drain(p[0]), "^[^\n]* info child real=[^\n]*\n$"));
	log_batch(false);
	assert_true(matches(drain(p[0]), "^[^\n]* info parent\n$"));
	log_info("at_once", "%s", "");
	assert_true(matches(drain(p[0]), "^[^\n]* info at_once\n$"));
	stderr_back();
	close(p[0]);
}

/* More than the buffer holds is written on the way; what a full pipe refuses is counted line by line. */
static void
test_batch_full(void **state)
{
	uint64_t before, lost;
	char *text, *line;
	int p[2], n = 0;

	(void)state;
	assert_int_equal(pipe(p), 0);
	stderr_to(p[1]);
	tell_losses(p[0]);
	log_batch(true);
	before = log_dropped();
	for (int i = 0; i < 5000; i++)
		log_info("flood", "n=%d pad=%0200d", i, 0);
	log_flush();
	lost = log_dropped() - before;
	assert_true(lost > 0);
	text = drain(p[0]);
	for (line = text; *line; line = strchr(line, '\n') + 1) {
		if (matches(line, "^[^\n]* warn log_dropped lines=[0-9]+\n"))
			continue;
		n++;
		assert_true(matches(line, "^[0-9]{4}-[^\n]* info flood n=[0-9]+ pad=0{200}\n"));
		assert_non_null(strchr(line, '\n'));
	}
	assert_int_equal((uint64_t)n + lost, 5000);
	log_batch(false);
	log_info("after", "%s", "");
	assert_true(matches(drain(p[0]), "info after\n"));
	stderr_back();
	close(p[0]);
}

/* What was collected is there when the process ends: by exit() and by a bug. */
static void
test_batch_end(void **state)
{
	static const char *const want[] = { "^[^\n]* info last\n$", "^[^\n]* info last\n[^\n]* bug bug at=[^\n]*\n" };

	(void)state;
	for (int way = 0; way < 2; way++) {
		int p[2], status;
		pid_t pid;

		assert_int_equal(pipe(p), 0);
		pid = fork();
		if (pid == 0) {
			stderr_to(p[1]);
			signal(SIGABRT, SIG_DFL);
			log_batch(true);
			log_info("last", "%s", "");
			BUG_ON(way == 1);
			exit(0);
		}
		close(p[1]);
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_true(matches(drain(p[0]), want[way]));
		close(p[0]);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_line),
		cmocka_unit_test(test_escape),
		cmocka_unit_test(test_cut),
		cmocka_unit_test(test_overflow),
		cmocka_unit_test(test_batch),
		cmocka_unit_test(test_batch_full),
		cmocka_unit_test(test_batch_end),
		cmocka_unit_test(test_closed_stderr),
		cmocka_unit_test(test_limited),
		cmocka_unit_test(test_level),
		cmocka_unit_test(test_bug),
	};

	signal(SIGPIPE, SIG_IGN);
	saved_stderr = fcntl(2, F_DUPFD_CLOEXEC, 3);
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
