/* test_log.c - one escaped line per event, never waited for, never lost silently
 *
 * Size: each destination and format has its table or its faults, and all share the capture of descriptor 2. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
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
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "hyper/base/bug.h"
#include "hyper/base/clock.h"
#include "hyper/base/fd.h"
#include "hyper/base/log.h"
#include "unit_tmp.h"

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

/* --- JSON, addresses, files, syslog --- */

static void
setup(const char *to, enum log_format format, enum log_ip ip)
{
	struct log_conf c = { .level = LOG_LVL_INFO, .format = format, .ip = ip, .to = to };
	char err[LOG_ERR_MAX];

	assert_int_equal(log_setup("prog", &c, err), 0);
}

/* The members behind `event`, of one line that is one object. */
static const char *
json_rest(int fd)
{
	char *text = drain(fd), *rest = strstr(text, "\"event\":\"e\"");

	assert_true(
	    matches(text, "^\\{\"time\":\"[-0-9T:.]{23}Z\",\"program\":\"prog\",\"pid\":[0-9]+,\"level\":\"info\","
			  "\"event\":\"e\"[^\n]*\\}\n$"));
	assert_non_null(rest);
	rest += strlen("\"event\":\"e\"");
	rest[strlen(rest) - 2] = '\0';
	return rest;
}

#define JSON(want, ...)                                     \
	do {                                                \
		log_info("e", __VA_ARGS__);                 \
		assert_string_equal(json_rest(p[0]), want); \
	} while (0)

static void
test_json(void **state)
{
	struct log_limit l = { .suppressed = 3 };
	char big[5000];
	char *line;
	int p[2];

	(void)state;
	assert_int_equal(pipe(p), 0);
	stderr_to(p[1]);
	tell_losses(p[0]);
	setup("stderr", LOG_FORMAT_JSON, LOG_IP_FULL);
	JSON("", "%s", "");
	JSON(",\"a\":1,\"b\":\"x\",\"c\":-2.50,\"d\":\"two words\"", "a=%d b=%s c=%.2f d=\"%s\"", 1, "x", -2.5,
	    "two words");
	JSON(",\"a\":\"17\",\"f\":\"1e5\",\"x\":\"1f\"", "a=%s f=%s x=%x", "17", "1e5", 0x1f);
	JSON(",\"state\":\"A>B\",\"why\":\"\"", "state=%s>%s why=\"%s\"", "A", "B", "");
	JSON(",\"why\":\"w\",\"text\":\"A>B\"", "%s>%s why=%s", "A", "B", "w");
	JSON(",\"ms\":1.005,\"worker\":3,\"peer\":\"127.0.0.1:9\"", "ms=%d.%03d%s", 1, 5, " worker=3 peer=127.0.0.1:9");
	JSON(",\"end\":\"h:1\",\"why\":\"a b\",\"n\":4", "end=%s%s", "h:1", " why=\"a b\" n=4");
	JSON(
	    ",\"port\":80,\"session\":\"123456789012\",\"text\":\"is up\"", "%s", "port=80 session=123456789012 is up");
	JSON(",\"pid_2\":7,\"a\":1,\"a_2\":2", "pid=%d a=%d a=%d", 7, 1, 2);
	/* what a stranger says stays within its value */
	JSON(",\"why\":\"x\\\" level=\\\"bug\",\"n\":1", "why=\"%s\" n=%d", "x\" level=\"bug", 1);
	JSON(",\"why\":\"a b=c\",\"n\":1", "why=%s n=%d", "a b=c", 1);
	JSON(",\"text\":\"why=\\\"\\u0001x\\u0002t\\\"\"", "why=\"%s\"", "\1x\2t");
	JSON(",\"why\":\"\\u000A\\u001B\\\\xFFgl\xc3\xbc\\u009B\"", "why=\"%s\"", "\n\x1b\xffgl\xc3\xbc\xc2\x9b");
	for (int shift = 0; shift < 7; shift++) {
		memset(big, shift % 2 ? '"' : '\n', sizeof(big));
		big[3000 + shift] = '\0';
		log_info("e", "why=\"%s\" n=%d", big, 1);
		line = drain(p[0]);
		assert_in_range(strlen(line), LOG_LINE_MAX - 10, LOG_LINE_MAX);
		assert_true(matches(line, "[^\\\\](\\\\[\"]|\\\\u000A)\"\\}\n$"));
	}
	log_limited(&l, LOG_LVL_INFO, "e", "n=%d", 1);
	assert_string_equal(json_rest(p[0]), ",\"suppressed\":3,\"n\":1");
	setup("stderr", LOG_FORMAT_TEXT, LOG_IP_FULL);
	stderr_back();
	close(p[0]);
}

static void
test_addr(void **state)
{
	static const struct {
		const char *ip, *full, *bare, *prefix;
	} tab[] = {
		{ "192.0.2.7", "192.0.2.7:80", "192.0.2.7", "192.0.2.0/24" },
		{ "2001:db8:1:2:3:4:5:6", "[2001:db8:1:2:3:4:5:6]:80", "2001:db8:1:2:3:4:5:6", "2001:db8:1::/48" },
		{ "::ffff:192.0.2.7", "192.0.2.7:80", "192.0.2.7", "192.0.2.0/24" },
	};
	struct sockaddr_storage ss;
	char text[LOG_ADDR_MAX];

	(void)state;
	for (size_t i = 0; i < sizeof(tab) / sizeof(tab[0]); i++) {
		struct sockaddr_in *in = (struct sockaddr_in *)&ss;
		struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&ss;

		memset(&ss, 0, sizeof(ss));
		if (inet_pton(AF_INET, tab[i].ip, &in->sin_addr) == 1) {
			in->sin_family = AF_INET;
			in->sin_port = htons(80);
		} else {
			assert_int_equal(inet_pton(AF_INET6, tab[i].ip, &in6->sin6_addr), 1);
			in6->sin6_family = AF_INET6;
			in6->sin6_port = htons(80);
		}
		log_ip_set(LOG_IP_FULL);
		log_addr(&ss, true, text);
		assert_string_equal(text, tab[i].full);
		log_addr(&ss, false, text);
		assert_string_equal(text, tab[i].bare);
		log_ip_set(LOG_IP_PREFIX);
		log_addr(&ss, true, text);
		assert_string_equal(text, tab[i].prefix);
		log_ip_set(LOG_IP_NONE);
		log_addr(&ss, true, text);
		assert_string_equal(text, "-");
	}
	log_ip_set(LOG_IP_FULL);
	memset(&ss, 0, sizeof(ss));
	log_addr(&ss, true, text);
	assert_string_equal(text, "?");
}

static char dir[UNIT_TMP_MAX];

static const char *
path_of(const char *name)
{
	static char path[4][256];
	static int at;

	at = (at + 1) % 4;
	snprintf(path[at], sizeof(path[at]), "%s/%s", dir, name);
	return path[at];
}

static const char *
setting_of(const char *what, const char *name)
{
	static char text[300];

	snprintf(text, sizeof(text), "%s:%s", what, path_of(name));
	return text;
}

static char *
file_text(const char *name)
{
	int fd = open(path_of(name), O_RDONLY);
	char *text;

	assert_true(fd >= 0);
	text = drain(fd);
	close(fd);
	return text;
}

/* A renamed file gets nothing more; one that cannot be opened is no loss; children share descriptor 2. */
static void
test_file(void **state)
{
	struct log_shared shared;
	struct log_conf wrong = { .to = "file:/no/such/folder/log" };
	char err[LOG_ERR_MAX] = "";
	int fd;

	(void)state;
	setup(setting_of("file", "log"), LOG_FORMAT_TEXT, LOG_IP_FULL);
	tell_losses(open("/dev/null", O_RDONLY | O_CLOEXEC));
	log_info("one", "%s", "");
	assert_true(matches(file_text("log"), "info one\n$"));
	assert_int_equal(rename(path_of("log"), path_of("log.1")), 0);
	log_batch(true);
	log_info("two", "%s", "");
	assert_int_equal(log_reopen(err), 0);
	log_info("three", "%s", "");
	log_batch(false);
	assert_true(matches(file_text("log.1"), "info one\n[^\n]* info two\n$"));
	assert_true(matches(file_text("log"), "^[^\n]* info three\n$"));
	/* the same is descriptor 2 */
	assert_int_equal(write(2, "raw\n", 4), 4);
	assert_true(matches(file_text("log"), "info three\nraw\n$"));
	assert_int_equal(log_setup("prog", &wrong, err), -ENOENT);
	assert_true(matches(err, "^/no/such/folder/log: No such file or directory"));
	log_info("four", "%s", "");
	assert_true(matches(file_text("log"), "raw\n[^\n]* info four\n$"));
	assert_int_equal(unlink(path_of("log")), 0);
	assert_int_equal(mkdir(path_of("log"), 0700), 0);
	assert_int_equal(log_reopen(err), -EISDIR);
	assert_int_equal(rmdir(path_of("log")), 0);
	/* a worker is given the new one */
	fd = open(path_of("log"), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
	assert_int_equal(log_take(fd), 0);
	shared = log_share();
	log_inherit("other", &shared);
	log_info("five", "%s", "");
	assert_true(matches(file_text("log"), "^[^\n]* other\\[[0-9]+\\] info five\n$"));
	setup("stderr", LOG_FORMAT_TEXT, LOG_IP_FULL);
	stderr_back();
}

/* A file that can grow no more: lines are counted, none is ever glued to the half of another. */
static void
test_file_full(void **state)
{
	struct rlimit old, small;
	uint64_t before;
	int n = 0, halves = 0;

	(void)state;
	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
	setup(setting_of("file", "full"), LOG_FORMAT_TEXT, LOG_IP_FULL);
	before = log_dropped();
	small = (struct rlimit){ .rlim_cur = 1000, .rlim_max = old.rlim_max };
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
	for (int i = 0; i < 30; i++)
		log_info("flood", "n=%d pad=%0100d", i, 0);
	assert_true(log_dropped() - before > 20);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
	log_info("after", "%s", "");
	for (char *line = file_text("full"); *line; line = strchr(line, '\n') + 1) {
		assert_non_null(strchr(line, '\n'));
		if (matches(line, "^[^\n]* info flood n=[0-9]+ pad=0{100}\n"))
			n++;
		else if (!matches(line, "^[^\n]* (info after|warn log_dropped lines=[0-9]+)\n"))
			halves++;
	}
	assert_in_range(n, 3, 8);
	assert_int_equal(halves, 1);
	assert_true(matches(file_text("full"), "info after\n[^\n]* warn log_dropped lines=[0-9]+\n$"));
	setup("stderr", LOG_FORMAT_TEXT, LOG_IP_FULL);
	stderr_back();
}

static int
syslog_listen(const char *name)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	snprintf(sun.sun_path, sizeof(sun.sun_path), "%.90s", path_of(name));
	unlink(sun.sun_path);
	assert_int_equal(bind(fd, (struct sockaddr *)&sun, sizeof(sun)), 0);
	return fd;
}

/* A daemon that is away, one that does not read, one that was started again. */
static void
test_syslog(void **state)
{
	uint64_t before = log_dropped();
	int64_t start;
	int fd, n;
	char buf[LOG_LINE_MAX];
	ssize_t len;

	(void)state;
	setup(setting_of("syslog", "sock"), LOG_FORMAT_TEXT, LOG_IP_FULL);
	log_info("nobody", "%s", "");
	assert_int_equal(log_dropped(), before + 1);
	fd = syslog_listen("sock");
	setup(setting_of("syslog", "sock"), LOG_FORMAT_TEXT, LOG_IP_FULL);
	log_error("one", "a=%d", 1);
	len = recv(fd, buf, sizeof(buf) - 1, MSG_DONTWAIT);
	assert_true(len > 0);
	buf[len] = '\0';
	assert_true(matches(buf, "^<27>[A-Z][a-z]{2} [ 0-9]{2} [0-9:]{8} prog\\[[0-9]+\\]: error one a=1$"));
	drain(fd);
	before = log_dropped();
	start = clock_now_ms();
	for (int i = 0; i < 5000; i++)
		log_info("flood", "n=%d pad=%0200d", i, 0);
	assert_true(clock_now_ms() - start < 5000);
	assert_true(log_dropped() > before);
	for (n = 0; recv(fd, buf, sizeof(buf), MSG_DONTWAIT) > 0; n++)
		assert_memory_equal(buf, "<30>", 4);
	assert_int_equal(log_dropped() - before + (uint64_t)n, 5000);
	close(fd);
	fd = syslog_listen("sock");
	setup(setting_of("syslog", "sock"), LOG_FORMAT_JSON, LOG_IP_FULL); /* as a reload would */
	drain(fd);
	close(fd);
	fd = syslog_listen("sock"); /* a daemon that was started again: found by the next line */
	log_info("two", "a=%d", 1);
	len = recv(fd, buf, sizeof(buf) - 1, MSG_DONTWAIT);
	assert_true(len > 0);
	buf[len] = '\0';
	assert_true(matches(buf, "prog\\[[0-9]+\\]: \\{\"time\":.*,\"event\":\"two\",\"a\":1\\}$"));
	close(fd);
	setup("stderr", LOG_FORMAT_TEXT, LOG_IP_FULL);
	stderr_back();
}

static void
test_to_parse(void **state)
{
	static const char *const bad[] = { "", "stdout", "file", "file:", "file:log", "syslog:", "syslog:x",
		"stderr:", "FILE:/x" };
	enum log_to to;
	const char *path;

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(log_to_parse(bad[i], &to, &path), -EINVAL);
	assert_int_equal(log_to_parse("stderr", &to, &path), 0);
	assert_int_equal(to, LOG_TO_STDERR);
	assert_int_equal(log_to_parse("syslog", &to, &path), 0);
	assert_int_equal(to, LOG_TO_SYSLOG);
	assert_string_equal(path, "/dev/log");
	assert_int_equal(log_to_parse("file:/a b", &to, &path), 0);
	assert_int_equal(to, LOG_TO_FILE);
	assert_string_equal(path, "/a b");
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
		cmocka_unit_test(test_json),
		cmocka_unit_test(test_addr),
		cmocka_unit_test(test_to_parse),
		cmocka_unit_test(test_file),
		cmocka_unit_test(test_file_full),
		cmocka_unit_test(test_syslog),
		cmocka_unit_test(test_limited),
		cmocka_unit_test(test_level),
		cmocka_unit_test(test_bug),
	};

	static const char *const names[] = { "log", "log.1", "full", "sock" };
	int rc;

	signal(SIGPIPE, SIG_IGN);
	saved_stderr = fcntl(2, F_DUPFD_CLOEXEC, 3);
	cmocka_set_message_output(CM_OUTPUT_TAP);
	if (!mkdtemp(unit_tmp(dir, "test_log")))
		return 1;
	rc = cmocka_run_group_tests(tests, NULL, NULL);
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		unlink(path_of(names[i]));
	rmdir(dir);
	return rc;
}
