/* sock.c - what the engine asks of a socket, and how it lets go of one
 *
 * Other processes may hold duplicates of our sockets. Closing then neither
 * removes a socket from epoll nor sends anything: so EPOLL_CTL_DEL, shutdown()
 * and fd_reset(), which act on the socket itself.
 */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>

#include "hyper/base/fd.h"
#include "relay/engine.h"

static void
set_opt(int fd, int level, int name, int value)
{
	/* Only a socket that is no TCP socket refuses; tests may join such ones. */
	(void)!setsockopt(fd, level, name, &value, sizeof(value));
}

/* What close() does to bytes that wait, and to the peer: a reset, or what TCP does by itself. */
static void
set_linger(int fd, bool is_reset)
{
	struct linger linger = { .l_onoff = is_reset, .l_linger = 0 };

	(void)!setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
}

/* TCP_USER_TIMEOUT cannot tell a peer that vanished from one that answers probes but leaves its
 * window shut: a reader that takes nothing at all for 30 s is reset too
 * (30.5 s on Linux 6.18). So the kernel's is off, and vanished.c looks. */
static void
sock_keep(int fd, const struct relay_keep *keep)
{
	if (keep->idle_s == 0) {
		fd_notice_vanished(fd);
		return;
	}
	set_opt(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
	set_opt(fd, IPPROTO_TCP, TCP_KEEPIDLE, keep->idle_s);
	set_opt(fd, IPPROTO_TCP, TCP_KEEPINTVL, keep->interval_s);
	set_opt(fd, IPPROTO_TCP, TCP_KEEPCNT, keep->count);
	set_opt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, 0);
}

void
relay_tune_listener(int fd, const struct relay_keep *keep)
{
	sock_keep(fd, keep);
	set_opt(fd, IPPROTO_TCP, TCP_NODELAY, 1);
	set_opt(fd, SOL_SOCKET, SO_OOBINLINE, 1); /* an urgent byte keeps its place in the stream */
	set_linger(fd, true);                     /* what a killed process leaves behind is a reset, not an end */
}

/* Did it inherit all that from its listener? Nobody else sets this, and it is set last: what was accepted before has
 * none of it. Limits that have changed since hold for what is accepted from then on. */
static bool
sock_is_tuned(int fd)
{
	struct linger linger = { 0 };
	socklen_t len = sizeof(linger);

	return getsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, &len) == 0 && linger.l_onoff && linger.l_linger == 0;
}

bool
sock_tune(int fd, const struct relay_keep *keep)
{
	if (sock_is_tuned(fd))
		return true;
	set_opt(fd, SOL_SOCKET, SO_RCVLOWAT, 1);
	relay_tune_listener(fd, keep);
	return false;
}

void
sock_rekeep(int fd, const struct relay_keep *was, const struct relay_keep *now)
{
	if (was->idle_s == now->idle_s && was->interval_s == now->interval_s && was->count == now->count)
		return;
	if (was->idle_s == 0 || now->idle_s == 0) {
		sock_keep(fd, now);
		return;
	}
	if (was->idle_s != now->idle_s)
		set_opt(fd, IPPROTO_TCP, TCP_KEEPIDLE, now->idle_s);
	if (was->interval_s != now->interval_s)
		set_opt(fd, IPPROTO_TCP, TCP_KEEPINTVL, now->interval_s);
	if (was->count != now->count)
		set_opt(fd, IPPROTO_TCP, TCP_KEEPCNT, now->count);
}

int
sock_take_error(int fd)
{
	int err = 0;
	socklen_t len = sizeof(err);

	return getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len) == 0 ? err : 0;
}

bool
sock_was_reset(int fd, bool fin_sent)
{
	struct tcp_info info = { 0 };
	socklen_t len = sizeof(info);

	if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) < 0 || info.tcpi_state != TCP_CLOSE)
		return false;
	return !fin_sent || sock_take_error(fd) != 0 || !fd_tcp_has_ended(fd);
}

void
sock_finish(int *fd)
{
	set_linger(*fd, false);
	fd_close(fd);
}
