/* test_net_listen.c - host:port texts, listeners on every address, rate limits */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>

#include "hyper/base/clock.h"
#include "hyper/base/fd.h"
#include "hyper/net/listen.h"

static void
test_hostport(void **state)
{
	static const struct {
		const char *text, *host;
		int port;
	} cases[] = {
		{ "localhost:4444", "localhost", 4444 },
		{ "a.b-c_d:0", "a.b-c_d", 0 },
		{ "127.0.0.1:65535", "127.0.0.1", 65535 },
		{ "[::1]:80", "::1", 80 },
		{ "[::ffff:127.0.0.1]:80", "::ffff:127.0.0.1", 80 },
		{ "", NULL, 0 },
		{ "localhost", NULL, 0 },
		{ "localhost:", NULL, 0 },
		{ ":80", NULL, 0 },
		{ "a:65536", NULL, 0 },
		{ "a:080000", NULL, 0 },
		{ "a:-1", NULL, 0 },
		{ "a:8x", NULL, 0 },
		{ "a:8 ", NULL, 0 },
		{ "a b:80", NULL, 0 },
		{ "a\n:80", NULL, 0 },
		{ "::1:80", NULL, 0 },
		{ "[::1]", NULL, 0 },
		{ "[::1]80", NULL, 0 },
		{ "[::1:80", NULL, 0 },
		{ "[]:80", NULL, 0 },
		{ "[localhost]:80", NULL, 0 },
		{ "[::g]:80", NULL, 0 },
		{ "[1:2]:80", NULL, 0 },
	};
	size_t i;

	(void)state;
	for (i = 0; i < ARRAY_LEN(cases); i++) {
		char host[256] = "untouched";
		uint16_t port = 7;
		int rc = hostport_parse(cases[i].text, host, &port);

		if ((rc == 0) != (cases[i].host != NULL))
			print_error("case '%s'\n", cases[i].text);
		assert_int_equal(rc, cases[i].host != NULL ? 0 : -EINVAL);
		assert_string_equal(host, cases[i].host != NULL ? cases[i].host : "untouched");
		assert_int_equal(port, cases[i].host != NULL ? cases[i].port : 7);
	}
}

static void
test_hostport_long(void **state)
{
	char text[400], host[256];
	uint16_t port;

	(void)state;
	memset(text, 'a', sizeof(text));
	memcpy(text + 255, ":80", 4);
	assert_int_equal(hostport_parse(text, host, &port), 0);
	assert_int_equal(strlen(host), 255);
	memcpy(text + 255, "a:80", 5);
	assert_int_equal(hostport_parse(text, host, &port), -EINVAL);
}

static void
test_listen_localhost(void **state)
{
	size_t before = fd_count(), i;
	struct listeners l, twice;
	char err[LISTEN_ERR_MAX], text[HOSTPORT_MAX];
	int probe = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct sockaddr_in6 v6 = { .sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT };
	bool have_v6 = probe >= 0 && bind(probe, (struct sockaddr *)&v6, sizeof(v6)) == 0;

	(void)state;
	fd_close(&probe);
	assert_int_equal(listeners_open("localhost:0", &l, err), 0);
	assert_int_equal(l.n, have_v6 ? 2 : 1);
	assert_int_not_equal(l.port, 0);
	for (i = 0; i < l.n; i++) {
		struct sockaddr_storage sa;
		socklen_t len = sizeof(sa);
		char want[HOSTPORT_MAX];

		assert_int_equal(getsockname(l.fd[i], (struct sockaddr *)&sa, &len), 0);
		sockaddr_text((struct sockaddr *)&sa, len, text);
		snprintf(want, sizeof(want), i == 0 ? "127.0.0.1:%u" : "[::1]:%u", (unsigned)l.port);
		assert_string_equal(text, want);
		assert_true(fcntl(l.fd[i], F_GETFL) & O_NONBLOCK);
		assert_true(fcntl(l.fd[i], F_GETFD) & FD_CLOEXEC);
	}
	/* the same port again: refused with words, nothing left open */
	snprintf(text, sizeof(text), "localhost:%u", (unsigned)l.port);
	memset(&twice, 0x55, sizeof(twice));
	assert_int_equal(listeners_open(text, &twice, err), -EADDRINUSE);
	assert_non_null(strstr(err, "another program"));
	assert_int_equal(twice.n, (size_t)0x5555555555555555);
	listeners_close(&l);
	assert_int_equal(l.n, 0);
	assert_int_equal(fd_count(), before);
}

/* The second address of a name is taken: nothing of the first stays bound. */
static void
test_listen_all_or_none(void **state)
{
	size_t before = fd_count();
	struct listeners v6, l;
	char err[LISTEN_ERR_MAX], text[HOSTPORT_MAX];

	(void)state;
	if (listeners_open("[::1]:0", &v6, err) != 0)
		skip();
	snprintf(text, sizeof(text), "localhost:%u", (unsigned)v6.port);
	assert_int_equal(listeners_open(text, &l, err), -EADDRINUSE);
	assert_non_null(strstr(err, "[::1]:"));
	listeners_close(&v6);
	assert_int_equal(fd_count(), before);
}

static void
test_listen_refused(void **state)
{
	static const struct {
		const char *text;
		int want;
		const char *why;
	} cases[] = {
		{ "nonsense", -EINVAL, "host:port" },
		{ "192.0.2.1:0", -EADDRNOTAVAIL, "not an address of this machine" },
		/* a label too long to be asked for: no name server is bothered */
		{ "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa:0", -EADDRNOTAVAIL,
		    "cannot resolve" },
	};
	struct listeners l;
	char err[LISTEN_ERR_MAX];
	size_t i;

	(void)state;
	for (i = 0; i < ARRAY_LEN(cases); i++) {
		assert_int_equal(listeners_open(cases[i].text, &l, err), cases[i].want);
		assert_non_null(strstr(err, cases[i].why));
	}
}

static struct sockaddr *
addr(const char *text)
{
	static struct sockaddr_storage sa;
	struct sockaddr_in *in = (void *)&sa;
	struct sockaddr_in6 *in6 = (void *)&sa;

	memset(&sa, 0, sizeof(sa));
	if (inet_pton(AF_INET, text, &in->sin_addr) == 1)
		sa.ss_family = AF_INET;
	else if (inet_pton(AF_INET6, text, &in6->sin6_addr) == 1)
		sa.ss_family = AF_INET6;
	return (struct sockaddr *)&sa;
}

static void
test_rates(void **state)
{
	struct conf_rate rates[] = { { .window_ms = 3600000, .limit = 3 }, { .window_ms = 1000, .limit = 1000 } };
	struct conf_rates conf = { rates, 2 };
	struct ratelimit *r = ratelimit_new(&conf, 100);
	static const struct {
		const char *from;
		bool want;
	} cases[] = {
		{ "127.0.0.1", true },
		{ "127.0.0.1", true },
		{ "127.0.0.2", true },
		{ "127.0.0.1", true },
		{ "127.0.0.1", false },
		{ "127.0.0.1", false },
		{ "::ffff:127.0.0.1", false }, /* the same host */
		{ "::ffff:127.0.0.3", true },
		{ "2001:db8:0:1::1", true },
		{ "2001:db8:0:1::2", true },
		{ "2001:db8:0:1:ffff::3", true },
		{ "2001:db8:0:1::4", false }, /* one /64 */
		{ "2001:db8:0:2::1", true },
		{ "127.0.0.2", true },
	};
	size_t i;

	(void)state;
	for (i = 0; i < ARRAY_LEN(cases); i++) {
		if (ratelimit_permits(r, addr(cases[i].from)) != cases[i].want)
			fail_msg("case %zu: %s", i, cases[i].from);
	}
	ratelimit_free(r);
	ratelimit_free(NULL);
}

static void
test_rates_none(void **state)
{
	struct conf_rates conf = { NULL, 0 };
	struct ratelimit *r = ratelimit_new(&conf, 1);
	int i;

	(void)state;
	for (i = 0; i < 100; i++)
		assert_true(ratelimit_permits(r, addr("127.0.0.1")));
	ratelimit_free(r);
}

/* A bounded table: one that keeps coming is not forgotten for the sake of many others. */
static void
test_rates_bounded(void **state)
{
	struct conf_rate rate = { .window_ms = 3600000, .limit = 1 };
	struct conf_rates conf = { &rate, 1 };
	struct ratelimit *r = ratelimit_new(&conf, 8);
	int i;

	(void)state;
	assert_true(ratelimit_permits(r, addr("10.0.0.1")));
	assert_true(ratelimit_permits(r, addr("10.0.0.2")));
	for (i = 0; i < 1000; i++) {
		char text[32];

		snprintf(text, sizeof(text), "10.1.%d.%d", i / 250, i % 250);
		assert_true(ratelimit_permits(r, addr(text)));
		assert_false(ratelimit_permits(r, addr("10.0.0.1")));
	}
	assert_true(ratelimit_permits(r, addr("10.0.0.2"))); /* replaced long ago */
	ratelimit_free(r);
}

/* Waits for the next window of a second at most, with a deadline. */
static void
test_rates_window(void **state)
{
	struct conf_rate rate = { .window_ms = 1000, .limit = 2 };
	struct conf_rates conf = { &rate, 1 };
	struct ratelimit *r = ratelimit_new(&conf, 8);
	int64_t end = clock_now_ms() + 5000, window;
	int permitted = 0;

	(void)state;
	window = clock_wall_utc_ns() / 1000000000;
	while (clock_wall_utc_ns() / 1000000000 == window && clock_now_ms() < end)
		continue; /* begin with a fresh one */
	window = clock_wall_utc_ns() / 1000000000;
	while (clock_wall_utc_ns() / 1000000000 == window && clock_now_ms() < end)
		permitted += ratelimit_permits(r, addr("127.0.0.1"));
	/* the last try may have fallen into the next window */
	assert_in_range(permitted, 2, 3);
	assert_true(ratelimit_permits(r, addr("127.0.0.1")));
	ratelimit_free(r);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_hostport),
		cmocka_unit_test(test_hostport_long),
		cmocka_unit_test(test_listen_localhost),
		cmocka_unit_test(test_listen_all_or_none),
		cmocka_unit_test(test_listen_refused),
		cmocka_unit_test(test_rates),
		cmocka_unit_test(test_rates_none),
		cmocka_unit_test(test_rates_bounded),
		cmocka_unit_test(test_rates_window),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
