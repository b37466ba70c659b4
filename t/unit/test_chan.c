/* test_chan.c - the master's end of a worker's channel: hostile messages, back-pressure, what a dead worker had sent */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>
#include <event2/event.h>

#include "hyper/base/fd.h"
#include "proxy/master/chan.h"

#define ASKED 1000

static struct {
	struct event_base *base;
	struct chan *c;
	int peer;
	unsigned n_msg, n_fd, n_end, n_room;
	const char *why;
	bool reply, may_lose;
	unsigned n_lost;
} h;

static int
on_message(const struct chan_msg *m, int *fd, bool lost, void *arg)
{
	struct chan_msg out = { .type = CHAN_REFUSED, .gen = 1, .conn = m->conn, .reason = END_BUSY };

	assert_ptr_equal(arg, &h);
	assert_true(!lost || (h.may_lose && *fd < 0));
	h.n_lost += lost;
	assert_int_equal(m->conn, h.n_msg);
	h.n_msg++;
	if (*fd >= 0)
		h.n_fd++;
	if (h.reply)
		chan_post(h.c, &out, -1);
	return m->type == CHAN_DRAINED ? -EPROTO : 0;
}

static void
on_end(const char *why, void *arg)
{
	(void)arg;
	h.n_end++;
	h.why = why;
	chan_free(h.c);
	h.c = NULL;
}

static void
on_room(void *arg)
{
	(void)arg;
	h.n_room++;
}

static const struct chan_ops ops = { on_message, on_end, on_room };

static int
setup(void **state)
{
	int sv[2];

	(void)state;
	memset(&h, 0, sizeof(h));
	h.base = event_base_new();
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, sv), 0);
	h.peer = sv[1];
	h.c = chan_new(h.base, sv[0], &ops, &h);
	assert_non_null(h.c);
	return 0;
}

static int
teardown(void **state)
{
	(void)state;
	chan_free(h.c);
	event_base_free(h.base);
	fd_close(&h.peer);
	return 0;
}

static void
turn(void)
{
	int i;

	for (i = 0; i < 20; i++)
		event_base_loop(h.base, EVLOOP_NONBLOCK);
}

/* Any number of descriptors, which fd_send() would not send. */
static void
send_raw(const void *data, size_t len, int copies)
{
	union {
		struct cmsghdr align;
		char buf[CMSG_SPACE(4 * sizeof(int))];
	} ctl = { .buf = { 0 } };
	struct iovec iov = { (void *)data, len };
	struct msghdr mh = { .msg_iov = &iov, .msg_iovlen = 1 };
	int fds[4] = { h.peer, h.peer, h.peer, h.peer };
	struct cmsghdr *c;

	if (copies) {
		mh.msg_control = ctl.buf;
		mh.msg_controllen = CMSG_SPACE((size_t)copies * sizeof(int));
		c = CMSG_FIRSTHDR(&mh);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN((size_t)copies * sizeof(int));
		memcpy(CMSG_DATA(c), fds, (size_t)copies * sizeof(int));
	}
	assert_int_equal(sendmsg(h.peer, &mh, 0), len);
}

static void
test_hostile(void **state)
{
	static const struct {
		const char *name;
		enum chan_type type; /* 0: garbage */
		size_t cut;
		int fds;
		const char *why; /* NULL: it is accepted */
	} cases[] = {
		{ "arrived with a socket", CHAN_ARRIVED, 0, 1, NULL },
		{ "ended", CHAN_ENDED, 0, 0, NULL },
		{ "garbage", 0, 0, 0, "malformed message" },
		{ "garbage with a descriptor", 0, 0, 1, "malformed message" },
		{ "one byte short", CHAN_ENDED, 1, 0, "malformed message" },
		{ "arrived without one", CHAN_ARRIVED, 0, 0, "wrong number of descriptors" },
		{ "ended with one", CHAN_ENDED, 0, 1, "wrong number of descriptors" },
		{ "arrived with two", CHAN_ARRIVED, 0, 2, "wrong number of descriptors" },
		{ "arrived with three", CHAN_ARRIVED, 0, 3, "wrong number of descriptors" },
		{ "refused by the reader", CHAN_DRAINED, 0, 0, "unpermitted message" },
	};
	uint8_t buf[CHAN_MSG_MAX];
	size_t i, before = fd_count();
	int len;

	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct chan_msg m = { .type = cases[i].type, .gen = 1 };

		setup(state);
		memset(buf, 0xc1, sizeof(buf));
		len = cases[i].type ? chan_pack(&m, buf) : 3;
		assert_true(len > 0);
		send_raw(buf, (size_t)len - cases[i].cut, cases[i].fds);
		turn();
		if (h.n_end != (cases[i].why ? 1 : 0) || (cases[i].why && strcmp(h.why, cases[i].why) != 0))
			fail_msg("%s: end=%u why=%s", cases[i].name, h.n_end, h.why ? h.why : "-");
		teardown(state);
		assert_int_equal(fd_count(), before);
	}
}

static void
send_asked(unsigned *n)
{
	struct chan_msg m = { .type = CHAN_ARRIVED, .gen = 1, .conn = *n };
	uint8_t buf[CHAN_MSG_MAX];
	int len = chan_pack(&m, buf);

	assert_true(len > 0);
	if (fd_send(h.peer, buf, (size_t)len, h.peer) == 0)
		(*n)++;
}

/* The worker asks and asks and does not read; then it reads: all answers, in order, none lost. */
static void
test_back_pressure(void **state)
{
	unsigned asked = 0, answered = 0, i;
	uint8_t buf[CHAN_DATAGRAM_MAX];
	struct chan_msg m[CHAN_DATAGRAM_MSGS];
	int fd, k, got;
	size_t fds;
	ssize_t n;

	(void)state;
	h.reply = true;
	for (i = 0; i < 3 * ASKED; i++) {
		if (asked < ASKED)
			send_asked(&asked);
		event_base_loop(h.base, EVLOOP_NONBLOCK);
	}
	assert_true(h.n_msg < ASKED); /* it stopped reading: this is what the test is about */
	for (i = 0; i < 100 * ASKED && answered < ASKED; i++) {
		if (asked < ASKED)
			send_asked(&asked);
		n = fd_recv(h.peer, buf, sizeof(buf), &fd, NULL);
		event_base_loop(h.base, EVLOOP_NONBLOCK);
		if (n == -EAGAIN)
			continue;
		assert_true(n > 0);
		got = chan_unpack_all(buf, (size_t)n, m, &fds);
		assert_true(got > 0);
		for (k = 0; k < got; k++, answered++)
			assert_int_equal(m[k].conn, answered);
	}
	assert_int_equal(answered, ASKED);
	assert_int_equal(h.n_fd, ASKED);
	assert_int_equal(h.n_end, 0);
}

static size_t
pack_into(uint8_t *buf, size_t at, enum chan_type type, unsigned conn)
{
	struct chan_msg m = { .type = type, .gen = 1, .conn = conn };
	int len = chan_pack(&m, buf + at);

	assert_true(len > 0);
	return at + (size_t)len;
}

/* Several in one datagram: each gets its descriptor, all answers come back in one, and one that is wrong spoils all. */
static void
test_together(void **state)
{
	uint8_t buf[CHAN_DATAGRAM_MAX];
	struct chan_msg m[CHAN_DATAGRAM_MSGS];
	size_t len = 0, fds;
	int fd;
	ssize_t n;

	(void)state;
	h.reply = true;
	for (unsigned i = 0; i < 4; i++)
		len = pack_into(buf, len, CHAN_ARRIVED, i);
	send_raw(buf, len, 4);
	turn();
	assert_int_equal(h.n_msg, 4);
	assert_int_equal(h.n_fd, 4);
	n = fd_recv(h.peer, buf, sizeof(buf), &fd, NULL);
	assert_true(n > 0);
	assert_int_equal(chan_unpack_all(buf, (size_t)n, m, &fds), 4);
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(m[i].conn, i);
	/* four connections and three sockets */
	len = 0;
	for (unsigned i = 4; i < 8; i++)
		len = pack_into(buf, len, CHAN_ARRIVED, i);
	send_raw(buf, len, 3);
	turn();
	assert_int_equal(h.n_msg, 4);
	assert_int_equal(h.n_end, 1);
	assert_string_equal(h.why, "wrong number of descriptors");
}

/* At our limit the kernel drops the last ones: these are lost, the others are not. */
static void
test_lost(void **state)
{
	struct rlimit old, low;
	uint8_t buf[CHAN_DATAGRAM_MAX];
	size_t len = 0;
	int lowest;

	(void)state;
	for (unsigned i = 0; i < 3; i++)
		len = pack_into(buf, len, CHAN_ARRIVED, i);
	send_raw(buf, len, 3);
	lowest = dup(0);
	close(lowest);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
	low = (struct rlimit){ (rlim_t)lowest + 2, old.rlim_max };
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
	h.may_lose = true;
	turn();
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
	assert_int_equal(h.n_msg, 3);
	assert_int_equal(h.n_fd, 2);
	assert_int_equal(h.n_lost, 1);
	assert_int_equal(h.n_end, 0);
}

static void
test_descriptor_waits(void **state)
{
	struct chan_msg m = { .type = CHAN_PAIR, .gen = 1, .pair = 1 };
	uint8_t buf[CHAN_MSG_MAX];
	int fd, posted = 0, taken = 0, i;
	size_t before = fd_count();

	(void)state;
	/* fill the socket, then a few more into the outbox */
	for (i = 0; i < 2000 && !chan_has_queued(h.c, 0); i++, posted++)
		chan_post(h.c, &m, 0);
	assert_true(chan_has_queued(h.c, 0));
	assert_in_range(chan_room(h.c), 1, CHAN_OUTBOX / 2 - 1);
	while (chan_room(h.c) > 0) {
		chan_post(h.c, &m, 0);
		posted++;
	}
	for (i = 0; i < 5; i++, posted++)
		chan_post(h.c, &m, 0);
	for (i = 0; i < 100000 && taken < posted; i++) {
		if (fd_recv(h.peer, buf, sizeof(buf), &fd, NULL) > 0) {
			assert_true(fd >= 0);
			fd_close(&fd);
			taken++;
		}
		event_base_loop(h.base, EVLOOP_NONBLOCK);
	}
	assert_int_equal(taken, posted);
	assert_false(chan_has_queued(h.c, 0));
	assert_true(h.n_room > 0);
	assert_int_equal(chan_room(h.c), CHAN_OUTBOX / 2);
	assert_int_equal(fd_count(), before);
}

static void
test_end(void **state)
{
	(void)state;
	fd_close(&h.peer);
	turn();
	assert_int_equal(h.n_end, 1);
	assert_null(h.why);
}

/* A worker that died had sent something: it is delivered, and nothing is answered. */
static void
test_drain(void **state)
{
	unsigned n = 0;

	(void)state;
	h.reply = true;
	while (n < 50)
		send_asked(&n);
	fd_close(&h.peer);
	chan_drain(h.c);
	assert_int_equal(h.n_msg, 50);
	assert_int_equal(h.n_end, 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_hostile),
		cmocka_unit_test_setup_teardown(test_back_pressure, setup, teardown),
		cmocka_unit_test_setup_teardown(test_together, setup, teardown),
		cmocka_unit_test_setup_teardown(test_lost, setup, teardown),
		cmocka_unit_test_setup_teardown(test_descriptor_waits, setup, teardown),
		cmocka_unit_test_setup_teardown(test_end, setup, teardown),
		cmocka_unit_test_setup_teardown(test_drain, setup, teardown),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
