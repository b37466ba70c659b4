/* fd.c - closing, accepting and passing descriptors
 *
 * Always true:
 *  1. A descriptor that was taken from the kernel is either in what is returned or
 *     closed. What the sender wrote makes no difference.
 *  2. Nothing here waits, and every new descriptor is close-on-exec.
 *
 * Not here: what a datagram means, and when to send again (the channel's owner).
 */
#include "hyper/base/fd.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/tcp.h> /* netinet/tcp.h has a short struct tcp_info */
#include <netinet/in.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "hyper/base/bug.h"

#define USER_TIMEOUT_MS 30000

/* Of tcpi_state; <netinet/tcp.h> names them, but cannot be included beside <linux/tcp.h>. */
enum {
	TCP_ESTABLISHED = 1,
	TCP_SYN_SENT = 2,
	TCP_CLOSE = 7,
	TCP_CLOSE_WAIT = 8,
	TCP_LAST_ACK = 9,
	TCP_LISTEN = 10,
	TCP_CLOSING = 11
};

/* Room for FD_PASS_MAX descriptors. CMSG_SPACE is padded, so a few more may fit than were asked for. */
union control {
	struct cmsghdr align;
	char buf[CMSG_SPACE(FD_PASS_MAX * sizeof(int))];
};
#define FDS_MAX (sizeof(union control) / sizeof(int))

void
fd_close(int *fd)
{
	int saved = errno;

	if (*fd >= 0)
		close(*fd);
	*fd = -1;
	errno = saved;
}

void
fd_will_finish(int fd)
{
	const struct linger off = { 0 };

	(void)!setsockopt(fd, SOL_SOCKET, SO_LINGER, &off, sizeof(off));
}

void
fd_finish(int *fd)
{
	if (*fd >= 0)
		fd_will_finish(*fd);
	fd_close(fd);
}

int
fd_set_nonblock(int fd)
{
	int flags = fcntl(fd, F_GETFL);

	if (flags < 0)
		return -errno;
	return fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0 ? -errno : 0;
}

int
fd_set_cloexec(int fd, bool on)
{
	return fcntl(fd, F_SETFD, on ? FD_CLOEXEC : 0) < 0 ? -errno : 0;
}

int
fd_accept_from(int listen_fd, struct sockaddr_storage *ret_peer)
{
	socklen_t len;
	int fd;

	do {
		len = sizeof(*ret_peer);
		fd = accept4(
		    listen_fd, (struct sockaddr *)ret_peer, ret_peer ? &len : NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	} while (fd < 0 && errno == EINTR);
	return fd < 0 ? -errno : fd;
}

int
fd_accept(int listen_fd)
{
	return fd_accept_from(listen_fd, NULL);
}

static int
sock_option(int fd, int level, int name)
{
	socklen_t len = sizeof(int);
	int v;

	return getsockopt(fd, level, name, &v, &len) < 0 ? -1 : v;
}

/* Both directions, with no error: a reset sets POLLERR as well. */
static bool
is_shut(int fd)
{
	struct pollfd p = { .fd = fd };

	return poll(&p, 1, 0) == 1 && p.revents == POLLHUP;
}

enum fd_tcp
fd_tcp_look(int fd)
{
	struct tcp_info info;
	socklen_t len = sizeof(info);

	/* what is no TCP over IPv4 or IPv6 has no TCP_INFO; what an old kernel does not tell is 0 */
	memset(&info, 0, sizeof(info));
	if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) < 0)
		return FD_TCP_NONE;
	switch (info.tcpi_state) {
	case TCP_LISTEN:
	case TCP_SYN_SENT: return FD_TCP_NONE;
	case TCP_ESTABLISHED:
	case TCP_CLOSE_WAIT:
		return FD_TCP_OPEN; /* nobody has shut it down here */
	/* Over. By its peer's reset, which is no fault of who has it, where bytes had come and no end of ours had been
	 * acknowledged: what follows upon our end can leave an error, too. Disconnecting forgets all counts. */
	case TCP_CLOSE:
		if (info.tcpi_bytes_received == 0 || info.tcpi_bytes_acked > 0)
			return FD_TCP_SHUT;
		break;
	}
	return is_shut(fd) ? FD_TCP_SHUT : FD_TCP_OPEN;
}

bool
fd_is_tcp(int fd)
{
	return fd_tcp_look(fd) != FD_TCP_NONE;
}

int
fd_tcp_peek(int fd, int *ret_inq)
{
	union control ctl;
	char c;
	struct iovec iov = { .iov_base = &c, .iov_len = 1 };
	struct msghdr mh = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = ctl.buf, .msg_controllen = sizeof(ctl.buf)
	};
	int on = 1, off = 0, err;
	struct cmsghdr *cm;
	ssize_t n;

	(void)!setsockopt(fd, IPPROTO_TCP, TCP_INQ, &on, sizeof(on));
	n = recvmsg(fd, &mh, MSG_PEEK | MSG_DONTWAIT);
	err = errno;
	(void)!setsockopt(fd, IPPROTO_TCP, TCP_INQ, &off, sizeof(off));
	if (n < 0)
		return -err;
	*ret_inq = 0;
	for (cm = CMSG_FIRSTHDR(&mh); cm; cm = CMSG_NXTHDR(&mh, cm))
		if (cm->cmsg_level == IPPROTO_TCP && cm->cmsg_type == TCP_CM_INQ)
			memcpy(ret_inq, CMSG_DATA(cm), sizeof(*ret_inq));
	return (int)n;
}

bool
fd_tcp_has_ended(int fd)
{
	int inq = 0, n = fd_tcp_peek(fd, &inq);

	return n != 0 ? n > 0 : inq > 0;
}

void
fd_notice_vanished(int fd)
{
	static const struct {
		int level, name, value;
	} opt[] = {
		{ SOL_SOCKET, SO_KEEPALIVE, 1 },
		{ IPPROTO_TCP, TCP_KEEPIDLE, 15 },
		{ IPPROTO_TCP, TCP_KEEPINTVL, 5 },
		{ IPPROTO_TCP, TCP_KEEPCNT, 3 },
		{ IPPROTO_TCP, TCP_USER_TIMEOUT, USER_TIMEOUT_MS },
	};
	size_t i;

	/* the last one of the list is there: inherited from the listener, or set before */
	if (sock_option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT) > 0)
		return;
	for (i = 0; i < ARRAY_LEN(opt); i++)
		(void)!setsockopt(fd, opt[i].level, opt[i].name, &opt[i].value, sizeof(opt[i].value));
}

int
fd_send_many(int sock, const struct iovec *iov, size_t n_iov, const int *pass_fds, size_t n_fds)
{
	struct msghdr mh = { .msg_iov = (struct iovec *)iov, .msg_iovlen = n_iov };
	union control ctl;
	struct cmsghdr *c;
	size_t len = 0;
	ssize_t n;

	for (size_t i = 0; i < n_iov; i++)
		len += iov[i].iov_len;
	BUG_ON(len == 0 || n_fds > FD_PASS_MAX); /* an empty datagram looks like the end of the stream */
	if (n_fds > 0) {
		memset(&ctl, 0, CMSG_SPACE(n_fds * sizeof(int)));
		mh.msg_control = ctl.buf;
		mh.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
		c = CMSG_FIRSTHDR(&mh);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
		memcpy(CMSG_DATA(c), pass_fds, n_fds * sizeof(int));
	}
	do
		n = sendmsg(sock, &mh, MSG_DONTWAIT | MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	return n == (ssize_t)len ? 0 : -EMSGSIZE;
}

int
fd_send(int sock, const void *data, size_t len, int pass_fd)
{
	const struct iovec iov = { .iov_base = (void *)data, .iov_len = len };

	return fd_send_many(sock, &iov, 1, &pass_fd, pass_fd >= 0);
}

/* Collects the descriptors of all control messages; returns how many. */
static size_t
take_fds(struct msghdr *mh, int fds[FDS_MAX])
{
	struct cmsghdr *c;
	size_t n = 0, i, here;

	for (c = CMSG_FIRSTHDR(mh); c; c = CMSG_NXTHDR(mh, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		here = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (i = 0; i < here && n < FDS_MAX; i++, n++)
			memcpy(&fds[n], CMSG_DATA(c) + i * sizeof(int), sizeof(int));
	}
	return n;
}

static ssize_t
receive(int sock, struct msghdr *mh)
{
	bool was_reset = false;
	ssize_t n;

	for (;;) {
		n = recvmsg(sock, mh, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
		if (n >= 0)
			return n;
		/* A peer that died with unread datagrams leaves ECONNRESET, reported
		 * once and ahead of what it had sent before: that is still to be read. */
		if (errno == ECONNRESET && !was_reset)
			was_reset = true;
		else if (errno == ENOMEM || errno == ENOBUFS)
			return -EAGAIN; /* the kernel has no memory now; what was sent is still to be read */
		else if (errno != EINTR)
			return -errno;
	}
}

ssize_t
fd_recv_many(int sock, void *buf, size_t cap, int ret_fds[FD_PASS_MAX], size_t *ret_n, bool *ret_lost)
{
	union control ctl;
	struct iovec iov = { .iov_base = buf, .iov_len = cap };
	struct msghdr mh = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = ctl.buf, .msg_controllen = sizeof(ctl.buf)
	};
	int fds[FDS_MAX];
	bool is_cut;
	size_t n;
	ssize_t r;

	*ret_n = 0;
	*ret_lost = false;
	r = receive(sock, &mh);
	if (r < 0)
		return r;
	/* before judging r: an empty datagram can carry descriptors */
	n = take_fds(&mh, fds);
	is_cut = mh.msg_flags & MSG_CTRUNC;
	if (r == 0 && n == 0 && !is_cut)
		return 0;
	if (r == 0 || n > FD_PASS_MAX || (mh.msg_flags & MSG_TRUNC)) {
		while (n > 0)
			fd_close(&fds[--n]);
		return -EPROTO;
	}
	memcpy(ret_fds, fds, n * sizeof(int));
	*ret_n = n;
	/* cut is not the sender's fault unless it sent more than there may be: we are out of descriptors */
	*ret_lost = is_cut;
	return r;
}

ssize_t
fd_recv(int sock, void *buf, size_t cap, int *ret_fd, bool *ret_lost)
{
	int fds[FD_PASS_MAX];
	bool lost;
	size_t n;
	ssize_t r = fd_recv_many(sock, buf, cap, fds, &n, &lost);

	*ret_fd = -1;
	if (ret_lost)
		*ret_lost = r > 0 && n == 0 && lost;
	if (n > 1 || (n == 1 && lost)) {
		while (n > 0)
			fd_close(&fds[--n]);
		return -EPROTO;
	}
	if (n == 1)
		*ret_fd = fds[0];
	return r;
}

size_t
fd_count(void)
{
	DIR *d = opendir("/proc/self/fd");
	struct dirent *e;
	size_t n = 0;

	if (!d)
		return 0;
	while ((e = readdir(d)))
		if (e->d_name[0] != '.')
			n++;
	closedir(d);
	return n - 1; /* without the folder's own */
}

void
fd_reset(int *fd)
{
	const struct sockaddr sa = { .sa_family = AF_UNSPEC };
	struct linger linger = { 0 };
	struct tcp_info info = { 0 };
	socklen_t len = sizeof(info);
	bool is_over;

	if (*fd < 0)
		return;
	is_over = getsockopt(*fd, IPPROTO_TCP, TCP_INFO, &info, &len) == 0 &&
		  (info.tcpi_state == TCP_LAST_ACK || info.tcpi_state == TCP_CLOSING);
	if (!is_over && connect(*fd, &sa, sizeof(sa)) < 0)
		linger.l_onoff = 1;
	if (is_over || linger.l_onoff)
		(void)!setsockopt(*fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
	fd_close(fd);
}
