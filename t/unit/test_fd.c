/* test_fd.c - descriptors arrive whole or not at all, and none is left behind */
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
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

#include "hyper/base/attr.h"
#include "hyper/base/fd.h"

static void
make_pair(int sv[2])
{
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv), 0);
}

/* Sends what fd_send() never would: any number of copies of `fd`, any length. */
static void
send_raw(int sock, size_t len, int fd, int copies)
{
	union {
		struct cmsghdr align;
		char buf[CMSG_SPACE(4 * sizeof(int))];
	} ctl;
	char data[64] = "payload";
	struct iovec iov = { data, len };
	struct msghdr mh = { .msg_iov = &iov, .msg_iovlen = 1 };
	int fds[4] = { fd, fd, fd, fd };
	struct cmsghdr *c;

	if (copies) {
		memset(&ctl, 0, sizeof(ctl));
		mh.msg_control = ctl.buf;
		mh.msg_controllen = CMSG_SPACE((size_t)copies * sizeof(int));
		c = CMSG_FIRSTHDR(&mh);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN((size_t)copies * sizeof(int));
		memcpy(CMSG_DATA(c), fds, (size_t)copies * sizeof(int));
	}
	assert_int_equal(sendmsg(sock, &mh, 0), len);
}

/* No new descriptor may be opened until limit_restore(). */
static struct rlimit
limit_now(void)
{
	struct rlimit old, none;
	int lowest = fcntl(0, F_DUPFD, 0);

	assert_true(lowest >= 0);
	close(lowest);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
	none = old;
	none.rlim_cur = (rlim_t)lowest;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
	return old;
}

static void
test_receive(void **state)
{
	static const struct {
		size_t len, cap;
		int copies;
		bool at_limit;
		ssize_t rc;
		bool has_fd, is_lost;
	} tab[] = {
		{ 7, 16, 0, false, 7, false, false },
		{ 7, 16, 1, false, 7, true, false },
		{ 7, 16, 2, false, -EPROTO, false, false },
		{ 7, 16, 3, false, -EPROTO, false, false },
		{ 7, 16, 4, false, -EPROTO, false, false },
		{ 7, 7, 1, false, 7, true, false },
		{ 7, 6, 0, false, -EPROTO, false, false },
		{ 7, 6, 1, false, -EPROTO, false, false },
		{ 0, 16, 1, false, -EPROTO, false, false },
		{ 0, 16, 2, false, -EPROTO, false, false },
		{ 7, 16, 0, true, 7, false, false },
		{ 7, 16, 1, true, 7, false, true },
		{ 7, 16, 2, true, 7, false, true },
		{ 7, 16, 3, true, 7, false, true },
		{ 0, 16, 1, true, -EPROTO, false, false },
		{ 7, 6, 1, true, -EPROTO, false, false },
	};
	int sv[2], fd;
	struct rlimit old;
	size_t before;
	char buf[16];
	bool lost;
	ssize_t r;

	(void)state;
	make_pair(sv);
	before = fd_count();
	for (size_t i = 0; i < sizeof(tab) / sizeof(tab[0]); i++) {
		send_raw(sv[0], tab[i].len, 0, tab[i].copies);
		if (tab[i].at_limit)
			old = limit_now();
		fd = 1234;
		lost = true;
		r = fd_recv(sv[1], buf, tab[i].cap, &fd, &lost);
		if (tab[i].at_limit)
			assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
		if (r != tab[i].rc || (fd >= 0) != tab[i].has_fd || lost != tab[i].is_lost)
			fail_msg("case %zu: %zd fd %d lost %d", i, r, fd, lost);
		if (fd >= 0)
			assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
		fd_close(&fd);
		if (fd_count() != before)
			fail_msg("case %zu leaks descriptors", i);
	}
	close(sv[0]);
	assert_int_equal(fd_recv(sv[1], buf, sizeof(buf), &fd, NULL), 0);
	assert_int_equal(fd, -1);
	close(sv[1]);
}

static void
test_send(void **state)
{
	int sv[2], fd, rc, n = 0;
	size_t before = fd_count();
	char buf[16];

	(void)state;
	make_pair(sv);
	assert_int_equal(fd_recv(sv[1], buf, sizeof(buf), &fd, NULL), -EAGAIN);
	assert_int_equal(fd_send(sv[0], "one", 3, 0), 0);
	assert_int_equal(fd_recv(sv[1], buf, sizeof(buf), &fd, NULL), 3);
	assert_true(fd > 2);
	assert_memory_equal(buf, "one", 3);
	fd_close(&fd);
	assert_int_equal(fd, -1);
	/* the kernel's queue is finite: back-pressure, and never a wait */
	while ((rc = fd_send(sv[0], "x", 1, 0)) == 0 && n < 100000)
		n++;
	assert_int_equal(rc, -EAGAIN);
	assert_int_equal(fd_send(sv[0], "x", 1, 12345), -EBADF);
	close(sv[1]);
	assert_int_equal(fd_send(sv[0], "x", 1, -1), -ECONNRESET); /* it died with datagrams unread */
	assert_int_equal(fd_send(sv[0], "x", 1, -1), -EPIPE);
	close(sv[0]);
	assert_int_equal(fd_count(), before);
}

/* A peer that dies with unread datagrams: the kernel says ECONNRESET before it gives what that peer had sent. */
static void
test_dead_peer(void **state)
{
	int sv[2], fd;
	char buf[16];

	(void)state;
	make_pair(sv);
	assert_int_equal(fd_send(sv[1], "never read", 10, -1), 0);
	assert_int_equal(fd_send(sv[0], "last", 4, 0), 0);
	close(sv[0]);
	assert_int_equal(fd_recv(sv[1], buf, sizeof(buf), &fd, NULL), 4);
	assert_true(fd >= 0);
	fd_close(&fd);
	assert_int_equal(fd_recv(sv[1], buf, sizeof(buf), &fd, NULL), 0);
	close(sv[1]);
}

/* A listener and both ends of a connection to it, over loopback. */
static void
tcp_pair(int domain, int *ret_listener, int *ret_a, int *ret_b)
{
	struct sockaddr_storage ss = { .ss_family = (sa_family_t)domain };
	socklen_t len = sizeof(ss);
	int yes = 1;

	if (domain == AF_INET)
		((struct sockaddr_in *)&ss)->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	else
		((struct sockaddr_in6 *)&ss)->sin6_addr = in6addr_loopback;
	*ret_listener = socket(domain, SOCK_STREAM | SOCK_CLOEXEC, 0);
	setsockopt(*ret_listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
	assert_int_equal(bind(*ret_listener, (struct sockaddr *)&ss, len), 0);
	assert_int_equal(listen(*ret_listener, 4), 0);
	assert_int_equal(getsockname(*ret_listener, (struct sockaddr *)&ss, &len), 0);
	*ret_a = socket(domain, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(connect(*ret_a, (struct sockaddr *)&ss, len), 0);
	*ret_b = fd_accept(*ret_listener);
	assert_true(*ret_b >= 0);
}

/* Until it is taken off, every segment that comes is lost. */
static void
lose(int fd, bool on)
{
	struct sock_filter code = BPF_STMT(BPF_RET | BPF_K, 0);
	struct sock_fprog drop = { 1, &code };

	assert_int_equal(setsockopt(fd, SOL_SOCKET, on ? SO_ATTACH_FILTER : SO_DETACH_FILTER, &drop, sizeof(drop)), 0);
}

static void
test_is_tcp(void **state)
{
	int l, a, b, sv[2], p[2], u, dialing;
	struct sockaddr_in sin;
	socklen_t len = sizeof(sin);
	struct linger off = { 1, 0 };
	char buf[40];

	(void)state;
	tcp_pair(AF_INET, &l, &a, &b);
	assert_int_equal(fcntl(b, F_GETFD), FD_CLOEXEC);
	assert_true(fcntl(b, F_GETFL) & O_NONBLOCK);
	assert_int_equal(fd_accept(0), -ENOTSOCK);
	assert_int_equal(fd_set_nonblock(l), 0);
	assert_int_equal(fd_accept(l), -EAGAIN);
	make_pair(sv);
	assert_int_equal(pipe(p), 0);
	u = socket(AF_INET, SOCK_DGRAM, 0);
	dialing = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	lose(l, true);
	assert_int_equal(getsockname(l, (struct sockaddr *)&sin, &len), 0);
	assert_int_equal(connect(dialing, (struct sockaddr *)&sin, len), -1);
	assert_int_equal(errno, EINPROGRESS);
	assert_true(fd_is_tcp(a) && fd_is_tcp(b));
	assert_false(fd_is_tcp(l) || fd_is_tcp(sv[0]) || fd_is_tcp(p[0]) || fd_is_tcp(u) || fd_is_tcp(dialing));
	assert_false(fd_is_tcp(-1));
	/* reset after its bytes had come: still a connection, its sender did no wrong */
	assert_int_equal(write(a, "01234567890123456789012345678901", 32), 32);
	while (recv(b, buf, sizeof(buf), MSG_PEEK) < 32)
		assert_int_equal(errno, EAGAIN);
	setsockopt(a, SOL_SOCKET, SO_LINGER, &off, sizeof(off));
	close(a);
	while (recv(b, buf, sizeof(buf), 0) > 0)
		;
	assert_true(fd_is_tcp(b));
	close(l), close(b), close(sv[0]), close(sv[1]), close(p[0]), close(p[1]), close(u), close(dialing);
}

static bool
is_acked(int fd)
{
	struct tcp_info info = { 0 };
	socklen_t len = sizeof(info);

	assert_int_equal(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len), 0);
	return info.tcpi_state != TCP_FIN_WAIT1 && info.tcpi_state != TCP_LAST_ACK;
}

/* What can happen to a connection before it is looked at, in this order: D its peer sends, F ends, R resets;
 * s, b we shut down sending, both (and its peer knows); d we disconnect it, who has a duplicate too. */
static void
happen(char what, int *a, int b)
{
	const struct sockaddr none = { .sa_family = AF_UNSPEC };
	const struct linger hard = { 1, 0 };
	struct pollfd ours = { b, what == 'F' ? POLLRDHUP : 0, 0 };

	switch (what) {
	case 'D': assert_int_equal(send(*a, "x", 1, MSG_NOSIGNAL), 1); return;
	case 'F': shutdown(*a, SHUT_WR); break;
	case 'R':
		setsockopt(*a, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
		fd_close(a);
		break;
	case 's': assert_int_equal(shutdown(b, SHUT_WR), 0); return;
	case 'b':
		assert_int_equal(shutdown(b, SHUT_RDWR), 0);
		for (int i = 0; i < 5000 && !is_acked(b); i++)
			poll(NULL, 0, 1);
		assert_true(is_acked(b));
		return;
	case 'd': assert_int_equal(connect(b, &none, sizeof(none)), 0); return;
	}
	assert_int_equal(poll(&ours, 1, 5000), 1);
}

/* Whatever becomes of a connection, it stays one: who has it did nothing wrong. Who has a duplicate and gave up says
 * so by shutting it down. */
static void
test_look(void **state)
{
	static const struct {
		const char *what, *happens;
		enum fd_tcp is;
	} rows[] = {
		{ "open", "D", FD_TCP_OPEN },
		{ "the peer ended", "DF", FD_TCP_OPEN },
		{ "sending is over", "Ds", FD_TCP_OPEN },
		{ "reset by the peer, its bytes unread", "DR", FD_TCP_OPEN },
		{ "reset by the peer behind its end", "DFR", FD_TCP_OPEN },
		{ "reset by the peer before any byte", "R", FD_TCP_SHUT },
		{ "shut down", "Db", FD_TCP_SHUT },
		{ "shut down, then the peer", "DbF", FD_TCP_SHUT },
		{ "shut down, the peer before", "DFb", FD_TCP_SHUT },
		{ "shut down, and the peer goes on sending", "DbD", FD_TCP_SHUT },
		{ "shut down behind the peer's end, and reset", "DFbR", FD_TCP_SHUT },
		{ "shut down, and the peer resets it", "DbR", FD_TCP_SHUT },
		{ "disconnected", "Dd", FD_TCP_SHUT },
		{ "disconnected after the peer's reset", "DRd", FD_TCP_SHUT },
		{ "disconnected before any byte", "d", FD_TCP_SHUT },
	};
	int wrong = 0;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		int l, a, b;

		tcp_pair(AF_INET, &l, &a, &b);
		for (const char *h = rows[i].happens; *h; h++)
			happen(*h, &a, b);
		if (fd_tcp_look(b) != rows[i].is) {
			print_message("# %s: %d\n", rows[i].what, fd_tcp_look(b));
			wrong++;
		}
		close(l), close(b);
		fd_close(&a);
	}
	assert_int_equal(wrong, 0);
}

static void
test_flags(void **state)
{
	int p[2];
	size_t before = fd_count();

	(void)state;
	assert_int_equal(pipe(p), 0);
	assert_int_equal(fd_count(), before + 2);
	assert_int_equal(fd_set_nonblock(p[0]), 0);
	assert_true(fcntl(p[0], F_GETFL) & O_NONBLOCK);
	assert_int_equal(fd_set_cloexec(p[0], true), 0);
	assert_int_equal(fcntl(p[0], F_GETFD), FD_CLOEXEC);
	assert_int_equal(fd_set_cloexec(p[0], false), 0);
	assert_int_equal(fcntl(p[0], F_GETFD), 0);
	assert_int_equal(fd_set_nonblock(-1), -EBADF);
	assert_int_equal(fd_set_cloexec(-1, true), -EBADF);
	errno = EDOM;
	fd_close(&p[0]);
	fd_close(&p[0]);
	fd_close(&p[1]);
	assert_int_equal(errno, EDOM);
	assert_int_equal(fd_count(), before);
}

/* What the peer sees of a reset, by who has said a FIN before; `is_lost`: our last segments must be sent again. */
static void
test_reset(void **state)
{
	static const struct {
		const char *name;
		bool peer_fin, our_fin, is_lost, has_copy;
		ssize_t want; /* of the read behind our five bytes: 0 an end, -1 a reset */
	} tab[] = {
		{ "both open", false, false, false, false, -1 },
		{ "both open, others hold a duplicate", false, false, false, true, -1 },
		{ "it has ended", true, false, false, true, -1 },
		{ "both ended, ours is on its way", true, true, true, false, 0 },
		{ "both ended, ours is on its way, a duplicate", true, true, true, true, 0 },
	};
	struct linger hard = { 1, 0 };
	char buf[8];

	(void)state;
	for (size_t i = 0; i < sizeof(tab) / sizeof(tab[0]); i++) {
		int l, peer, fd, copy = -1;
		struct pollfd p;

		print_message("# %s\n", tab[i].name);
		tcp_pair(AF_INET, &l, &peer, &fd);
		setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
		if (tab[i].has_copy)
			copy = dup(fd);
		if (tab[i].peer_fin) {
			shutdown(peer, SHUT_WR);
			p = (struct pollfd){ fd, POLLIN, 0 };
			assert_int_equal(poll(&p, 1, 5000), 1);
		}
		if (tab[i].is_lost)
			lose(peer, true);
		assert_int_equal(send(fd, "hello", 5, 0), 5);
		if (tab[i].our_fin)
			shutdown(fd, SHUT_WR);
		fd_reset(&fd);
		assert_int_equal(fd, -1);
		if (copy >= 0 && tab[i].our_fin)
			fd_reset(&copy);
		if (tab[i].is_lost)
			lose(peer, false);
		p = (struct pollfd){ peer, POLLIN, 0 };
		assert_int_equal(poll(&p, 1, 10000), 1);
		assert_int_equal(recv(peer, buf, sizeof(buf), MSG_DONTWAIT), 5);
		assert_int_equal(poll(&p, 1, 10000), 1);
		assert_int_equal(recv(peer, buf, sizeof(buf), MSG_DONTWAIT), tab[i].want);
		fd_close(&copy);
		close(l), close(peer);
	}
	fd_reset(&(int){ -1 });
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_receive),
		cmocka_unit_test(test_send),
		cmocka_unit_test(test_dead_peer),
		cmocka_unit_test(test_is_tcp),
		cmocka_unit_test(test_look),
		cmocka_unit_test(test_reset),
		cmocka_unit_test(test_flags),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
