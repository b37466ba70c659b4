/* test_admin.c - the admin socket: values that come back as they went, bombs refused, one user, late answers */
#include "hyper/net/admin.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <event2/event.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "hyper/base/attr.h"
#include "hyper/base/clock.h"
#include "hyper/base/fd.h"
#include "hyper/net/adminwait.h"
#include "hyper/wire/mpjson.h"
#include "unit_tmp.h"

static void
test_round_trip(void **state)
{
	static const char *const tab[] = {
		"null",
		"true",
		"[]",
		"{}",
		"[0,1,-1,127,128,255,256,65535,65536,-32,-33,-129,9007199254740993,-9223372036854775808]",
		"[0.5,-1.25e300]",
		"[\"\",\"a\",\"\\u00e4\",\"0123456789012345678901234567890123456789\"]",
		"{\"a\":[{\"b\":[1,[2,[3]]]}],\"c\":null}",
		"[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]",
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(tab); i++) {
		json_t *a = json_loads(tab[i], JSON_DECODE_ANY, NULL), *b = NULL;
		uint8_t *data = NULL;
		size_t len;

		assert_non_null(a);
		assert_int_equal(mpjson_pack(a, &data, &len), 0);
		assert_int_equal(mpjson_unpack(data, len, &b), 0);
		assert_true(json_equal(a, b));
		for (size_t cut = 0; cut < len; cut++) {
			json_t *none = NULL;

			if (mpjson_unpack(data, cut, &none) != -EPROTO)
				fail_msg("%s cut at %zu was taken", tab[i], cut);
		}
		json_decref(a);
		json_decref(b);
		free(data);
	}
}

static void
test_bombs(void **state)
{
	static const struct {
		const char *name;
		uint8_t bytes[8];
		size_t len;
	} tab[] = {
		{ "nothing", { 0 }, 0 },
		{ "two values", { 0xc0, 0xc0 }, 2 },
		{ "array32 of 4 G", { 0xdd, 0xff, 0xff, 0xff, 0xff }, 5 },
		{ "map32 of 4 G", { 0xdf, 0xff, 0xff, 0xff, 0xff }, 5 },
		{ "str32 of 4 G", { 0xdb, 0xff, 0xff, 0xff, 0xff, 'a' }, 6 },
		{ "bin", { 0xc4, 1, 0 }, 3 },
		{ "ext", { 0xd4, 1, 0 }, 3 },
		{ "never used", { 0xc1 }, 1 },
		{ "a key that is a number", { 0x81, 1, 2 }, 3 },
		{ "bad UTF-8", { 0xa1, 0xff }, 2 },
		{ "a map without its value", { 0x81, 0xa1, 'a' }, 3 },
	};
	uint8_t deep[64];
	json_t *v = NULL;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(tab); i++)
		if (mpjson_unpack(tab[i].bytes, tab[i].len, &v) != -EPROTO)
			fail_msg("%s was taken", tab[i].name);
	memset(deep, 0x91, sizeof(deep));
	deep[sizeof(deep) - 1] = 0xc0;
	assert_int_equal(mpjson_unpack(deep, sizeof(deep), &v), -EPROTO);
	assert_null(v);
}

#define BIG ((size_t)4 * 1024 * 1024) /* more than a socket holds */

struct server {
	struct event_base *base;
	struct admin_call *waiting;
	struct admin_waits *waits;
	int dropped;
	int turns;    /* of its loop */
	int first_fd; /* the lowest free one before anybody came */
};

static void
on_call(struct admin_call *c, const char *verb, const json_t *args, void *arg)
{
	struct server *s = arg;

	if (strcmp(verb, "echo") == 0)
		admin_answer(c, json_pack("{s:b, s:O}", "ok", 1, "args", args));
	else if (strcmp(verb, "turns") == 0)
		admin_answer(c, json_pack("{s:b, s:i}", "ok", 1, "turns", s->turns));
	else if (strcmp(verb, "few") == 0) { /* from now on one connection at a time */
		struct rlimit rl;

		assert_int_equal(getrlimit(RLIMIT_NOFILE, &rl), 0);
		rl.rlim_cur = (rlim_t)s->first_fd + 1;
		assert_int_equal(setrlimit(RLIMIT_NOFILE, &rl), 0);
		admin_answer(c, json_pack("{s:b}", "ok", 1));
	} else if (strcmp(verb, "big") == 0) {
		char *text = calloc(1, BIG + 1);

		assert_non_null(text);
		memset(text, 'x', BIG);
		admin_answer(c, json_pack("{s:b, s:s}", "ok", 1, "text", text));
		free(text);
	} else if (strcmp(verb, "drop") == 0) /* what waits until it is over, or the client has gone */
		assert_int_equal(admin_waits_add(s->waits, c, 0, INT64_MAX), 0);
	else if (strcmp(verb, "dropped") == 0)
		admin_answer(c, json_pack("{s:b, s:i}", "ok", 1, "n", s->dropped));
	else if (strcmp(verb, "wait") == 0)
		s->waiting = c;
	else if (strcmp(verb, "go") == 0) {
		if (s->waiting)
			admin_answer(s->waiting, json_pack("{s:b}", "ok", 1));
		s->waiting = NULL;
		admin_answer(c, json_pack("{s:b}", "ok", 1));
	} else if (strcmp(verb, "end") == 0) {
		admin_answer(c, json_pack("{s:b}", "ok", 1));
		event_base_loopexit(s->base, &(struct timeval){ 0, 50000 });
	} else
		admin_answer(c, admin_error("no verb %s", verb));
}

static bool
never_met(size_t until, void *arg)
{
	(void)until;
	(void)arg;
	return false;
}

static json_t *
count_dropped(const char *error, void *arg)
{
	struct server *s = arg;

	(void)error;
	s->dropped++;
	return NULL;
}

static const struct admin_waits_ops waits_ops = { never_met, count_dropped };

static void
on_look(evutil_socket_t fd, short what, void *arg)
{
	struct server *s = arg;

	(void)fd;
	(void)what;
	admin_waits_look(s->waits, clock_now_ms());
}

/* The answer's text; the server runs in a process of its own. */
static int
ask(const char *path, const char *verb, int64_t ms, char *ret, size_t cap)
{
	json_t *args = json_pack("{s:s}", "x", "y"), *answer = NULL;
	char err[ADMIN_ERR_MAX] = "", *text;
	int rc = admin_ask(path, verb, args, ms, &answer, err);

	text = answer ? json_dumps(answer, JSON_COMPACT | JSON_SORT_KEYS) : strdup(err);
	snprintf(ret, cap, "%s", text);
	free(text);
	json_decref(args);
	json_decref(answer);
	return rc;
}

static void
serve(const char *path, int ready_fd)
{
	struct server s = { .base = event_base_new() };
	const struct timeval tv = { 0, 100000 };
	struct event *look = event_new(s.base, -1, EV_PERSIST, on_look, &s);
	char err[ADMIN_ERR_MAX];
	struct admin *a = NULL;
	int rc;

	alarm(120);               /* a test that failed would leave it behind */
	signal(SIGPIPE, SIG_IGN); /* as daemon.c does */
	assert_int_equal(admin_waits_new(&waits_ops, &s, &s.waits), 0);
	assert_int_equal(event_add(look, &tv), 0);
	rc = admin_new(s.base, path, on_call, &s, &a, err);
	s.first_fd = dup(0);
	close(s.first_fd);
	(void)!write(ready_fd, rc == 0 ? "1" : "0", 1);
	if (rc == 0)
		do {
			event_base_loop(s.base, EVLOOP_ONCE);
			s.turns++;
		} while (!event_base_got_exit(s.base));
	admin_waits_free(s.waits);
	admin_free(a);
	event_free(look);
	event_base_free(s.base);
	_exit(rc == 0 ? 0 : 1);
}

static void
raw_bytes(const char *path, const char *bytes, size_t len)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	char c;

	memcpy(sun.sun_path, path, strlen(path) + 1);
	assert_int_equal(connect(fd, (struct sockaddr *)&sun, sizeof(sun)), 0);
	assert_int_equal(write(fd, bytes, len), (ssize_t)len);
	assert_int_equal(read(fd, &c, 1), 0); /* closed without an answer */
	fd_close(&fd);
}

/* The answer to one who comes again when refused (which is no SIGPIPE): others may not have gone yet. */
static void
answered(const char *path, const char *verb, char *ret, size_t cap)
{
	for (int tries = 0; ask(path, verb, 5000, ret, cap) != 0; tries++) {
		if (tries > 600)
			fail_msg("%s is not answered: %s", verb, ret);
		usleep(50000);
	}
}

/* Clients that ask and never read, as many as may be: they are closed, and then somebody else is answered. */
static void
unread_answers(const char *path)
{
	static const char ask_big[] = "\0\0\0\x10\x82\xa4verb\xa3"
				      "big\xa4"
				      "args\x80";
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	int fd[ADMIN_CONNS_MAX];
	char text[512];

	memcpy(sun.sun_path, path, strlen(path) + 1);
	for (size_t i = 0; i < ARRAY_LEN(fd); i++) {
		fd[i] = socket(AF_UNIX, SOCK_STREAM, 0);
		assert_int_equal(connect(fd[i], (struct sockaddr *)&sun, sizeof(sun)), 0);
		(void)!send(fd[i], ask_big, sizeof(ask_big) - 1, MSG_NOSIGNAL);
	}
	answered(path, "echo", text, sizeof(text));
	for (size_t i = 0; i < ARRAY_LEN(fd); i++)
		fd_close(&fd[i]);
}

/* Sends the verb and goes away once the server has read it. */
static void
ask_and_go(const char *path, const char *verb)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0), len;
	uint8_t ask[64];

	memcpy(sun.sun_path, path, strlen(path) + 1);
	len = snprintf((char *)ask + 4, sizeof(ask) - 4,
	    "\x82\xa4verb%c%s\xa4"
	    "args\x80",
	    (char)(0xa0 | strlen(verb)), verb);
	memcpy(ask, (const uint8_t[]){ 0, 0, 0, (uint8_t)len }, 4);
	assert_int_equal(connect(fd, (struct sockaddr *)&sun, sizeof(sun)), 0);
	/* refused at once where those before were not let go yet: that is no answer, and none is wanted */
	(void)!send(fd, ask, (size_t)len + 4, MSG_NOSIGNAL);
	fd_close(&fd);
}

/* Who asked and went away keeps nobody out, be it that its call is never answered; calls that only wait are dropped. */
static void
abandoned(const char *path)
{
	/* few enough that none is refused once one behind them was answered */
	enum { IN_A_ROW = ADMIN_CONNS_MAX / 4 };
	char text[512];
	int n = 0;

	for (int i = 0; i < 3 * ADMIN_CONNS_MAX; i++) {
		ask_and_go(path, "wait");
		if (i % IN_A_ROW == 0)
			answered(path, "echo", text, sizeof(text));
	}
	answered(path, "echo", text, sizeof(text));
	for (int i = 0; i < 20 * ADMIN_CONNS_MAX; i++) {
		ask_and_go(path, "drop");
		if (i % IN_A_ROW == 0)
			answered(path, "echo", text, sizeof(text));
	}
	for (int tries = 0; n < 10 * ADMIN_CONNS_MAX && tries < 600; tries++) {
		answered(path, "dropped", text, sizeof(text));
		if (sscanf(text, "{\"n\":%d", &n) != 1)
			fail_msg("%s", text);
		usleep(20000);
	}
	assert_in_range(n, 10 * ADMIN_CONNS_MAX, 20 * ADMIN_CONNS_MAX);
}

/* Connections that wait for a descriptor do not keep the loop turning. */
static void
no_descriptors(const char *path)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	char text[512];
	int fd[4], turns;

	memcpy(sun.sun_path, path, strlen(path) + 1);
	answered(path, "few", text, sizeof(text));
	answered(path, "turns", text, sizeof(text));
	assert_int_equal(sscanf(text, "{\"ok\":true,\"turns\":%d}", &turns), 1);
	turns = -turns;
	for (size_t i = 0; i < ARRAY_LEN(fd); i++) {
		fd[i] = socket(AF_UNIX, SOCK_STREAM, 0);
		assert_int_equal(connect(fd[i], (struct sockaddr *)&sun, sizeof(sun)), 0);
	}
	assert_int_equal(ask(path, "echo", 500, text, sizeof(text)), -ETIMEDOUT);
	for (size_t i = 0; i < ARRAY_LEN(fd); i++)
		fd_close(&fd[i]);
	answered(path, "turns", text, sizeof(text));
	assert_int_equal(sscanf(text, "{\"ok\":true,\"turns\":%d}", &fd[0]), 1);
	assert_in_range(turns + fd[0], 1, 200);
}

/* A server that stands still: who asks gives up in time, and nobody takes its place. */
static void
full_queue(const char *path, pid_t server)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	int fd[ADMIN_CONNS_MAX + 8], status;
	char text[512];
	pid_t second;

	memcpy(sun.sun_path, path, strlen(path) + 1);
	assert_int_equal(kill(server, SIGSTOP), 0);
	for (size_t i = 0; i < ARRAY_LEN(fd); i++) {
		fd[i] = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
		(void)!connect(fd[i], (struct sockaddr *)&sun, sizeof(sun));
	}
	alarm(60);
	assert_int_equal(ask(path, "echo", 200, text, sizeof(text)), -ETIMEDOUT);
	second = fork();
	if (second == 0)
		serve(path, open("/dev/null", O_WRONLY));
	assert_int_equal(waitpid(second, &status, 0), second);
	assert_int_equal(WEXITSTATUS(status), 1);
	alarm(0);
	for (size_t i = 0; i < ARRAY_LEN(fd); i++)
		fd_close(&fd[i]);
	assert_int_equal(kill(server, SIGCONT), 0);
}

static void
test_socket(void **state)
{
	char dir[UNIT_TMP_MAX], path[256], text[512], ready = 0;
	struct stat st;
	int pipe_fd[2], status;
	pid_t server, waiter;

	(void)state;
	assert_non_null(mkdtemp(unit_tmp(dir, "hyper-admin")));
	snprintf(path, sizeof(path), "%s/admin.sock", dir);
	assert_int_equal(ask(path, "echo", 1000, text, sizeof(text)), -ENOENT);
	assert_non_null(strstr(text, "is it running"));
	assert_int_equal(pipe(pipe_fd), 0);
	server = fork();
	if (server == 0)
		serve(path, pipe_fd[1]);
	assert_int_equal(read(pipe_fd[0], &ready, 1), 1);
	assert_int_equal(ready, '1');
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_int_equal(ask(path, "echo", 5000, text, sizeof(text)), 0);
	assert_string_equal(text, "{\"args\":{\"x\":\"y\"},\"ok\":true}");
	assert_int_equal(ask(path, "nonsense", 5000, text, sizeof(text)), 0);
	assert_string_equal(text, "{\"error\":\"no verb nonsense\",\"ok\":false}");
	raw_bytes(path, "\xff\xff\xff\xff", 4);
	raw_bytes(path, "\0\0\0\1\xc1", 5);
	/* an answer that comes later, to one that waits; one that gave up does no harm */
	assert_int_equal(ask(path, "wait", 50, text, sizeof(text)), -ETIMEDOUT);
	assert_int_equal(ask(path, "go", 5000, text, sizeof(text)), 0);
	waiter = fork();
	if (waiter == 0)
		_exit(ask(path, "wait", 10000, text, sizeof(text)) == 0 ? 0 : 1);
	do {
		assert_int_equal(ask(path, "go", 5000, text, sizeof(text)), 0);
		usleep(2000);
	} while (waitpid(waiter, &status, WNOHANG) == 0);
	assert_int_equal(status, 0);
	/* a second server is refused while the first one answers */
	waiter = fork();
	if (waiter == 0)
		serve(path, pipe_fd[1]);
	assert_int_equal(waitpid(waiter, &status, 0), waiter);
	assert_int_equal(WEXITSTATUS(status), 1);
	abandoned(path);
	full_queue(path, server);
	unread_answers(path);
	no_descriptors(path);
	answered(path, "end", text, sizeof(text));
	assert_int_equal(waitpid(server, &status, 0), server);
	assert_int_equal(status, 0);
	assert_int_equal(access(path, F_OK), -1);
	close(pipe_fd[0]);
	close(pipe_fd[1]);
	rmdir(dir);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_bombs),
		cmocka_unit_test(test_socket),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
