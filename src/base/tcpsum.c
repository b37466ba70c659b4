/* tcpsum.c - what was read from a TCP socket and written to it, by the kernel's counters
 *
 *      read    = received in order (with the FIN)        - FIN - what waits to be read
 *      written = acknowledged (with our FIN) + queued    - FIN
 *
 * Always true (Linux 6.18; t/unit/test_tcpsum.c asks the kernel each of these):
 *  1. tcpi_bytes_received grows with what enters the receive queue, the peer's FIN as one byte; a segment that comes
 *     twice, or beyond the window, counts once or not. FIONREAD is what waits of it, never the FIN.
 *  2. tcpi_bytes_acked grows with what leaves the send queue, our FIN as one byte; SIOCOUTQ is what is still in it,
 *     the FIN included. The SYN of an accepted socket is in neither.
 *  3. Both grow while we look. Two looks at a counter that agree, with a look at the queue in between, are one
 *     moment: counter and queue change together, under the socket's lock.
 *  4. A call that was interrupted by SIGKILL is in the sums with what it did, and only with that: both numbers move
 *     behind the bytes' own copy.
 *
 * Not here: urgent data without SO_OOBINLINE, which leaves the stream.
 */
#include "hyper/base/tcpsum.h"

#include <errno.h>
#include <linux/sockios.h>
#include <linux/tcp.h> /* netinet/tcp.h has a short struct tcp_info */
#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "hyper/base/fd.h"

#define TRIES 1000 /* each is two system calls: a peer that fills the line is slower than that */

#define BIT(s) (1u << (s))

/* Of tcpi_state; <netinet/tcp.h> names them, but cannot be included beside <linux/tcp.h>. */
enum {
	S_ESTABLISHED = 1,
	S_FIN_WAIT1 = 4,
	S_FIN_WAIT2 = 5,
	S_TIME_WAIT = 6,
	S_CLOSE = 7,
	S_CLOSE_WAIT = 8,
	S_LAST_ACK = 9,
	S_CLOSING = 11
};
#define HAS_THEIR_FIN (BIT(S_CLOSE_WAIT) | BIT(S_LAST_ACK) | BIT(S_CLOSING) | BIT(S_TIME_WAIT))
#define HAS_OUR_FIN   (BIT(S_FIN_WAIT1) | BIT(S_FIN_WAIT2) | BIT(S_CLOSING) | BIT(S_LAST_ACK) | BIT(S_TIME_WAIT))
#define IS_CONNECTION (BIT(S_ESTABLISHED) | BIT(S_CLOSE) | HAS_THEIR_FIN | HAS_OUR_FIN)

#define INFO_NEEDED (offsetof(struct tcp_info, tcpi_bytes_received) + sizeof(uint64_t))

static int
look(int fd, struct tcp_info *ret)
{
	socklen_t len = sizeof(*ret);

	memset(ret, 0, sizeof(*ret));
	if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, ret, &len) < 0)
		return errno == EBADF ? -errno : -ENOTSUP;
	return len < INFO_NEEDED || !(BIT(ret->tcpi_state) & IS_CONNECTION) ? -ENOTSUP : 0;
}

/* One moment: the counters, and what is in the queue that `request` asks for. */
static int
look_both(int fd, unsigned long request, struct tcp_info *ret, uint64_t *ret_queued)
{
	struct tcp_info after;
	int queued = 0, rc = look(fd, ret);

	for (int i = 0; rc == 0 && i < TRIES; i++) {
		if (ioctl(fd, request, &queued) < 0)
			return -errno;
		rc = look(fd, &after);
		if (rc == 0 && after.tcpi_state == ret->tcpi_state &&
		    after.tcpi_bytes_received == ret->tcpi_bytes_received &&
		    after.tcpi_bytes_acked == ret->tcpi_bytes_acked) {
			*ret_queued = (uint64_t)queued;
			return 0;
		}
		*ret = after;
	}
	return rc < 0 ? rc : -EAGAIN;
}

/* Did a closed one get its peer's FIN before? What TCP_INQ says with a read counts it where FIONREAD does not; a reset
 * without one has an error instead, or nothing. */
static bool
closed_after_fin(int fd, uint64_t waiting)
{
	int inq = 0;

	return fd_tcp_peek(fd, &inq) >= 0 && inq > 0 && (uint64_t)inq > waiting;
}

int
tcpsum_read(int fd, uint64_t *ret)
{
	struct tcp_info info;
	uint64_t waiting;
	bool has_fin;
	int rc = look_both(fd, SIOCINQ, &info, &waiting);

	if (rc < 0)
		return rc;
	has_fin = info.tcpi_state == S_CLOSE ? closed_after_fin(fd, waiting) : BIT(info.tcpi_state) & HAS_THEIR_FIN;
	if (info.tcpi_bytes_received < waiting + has_fin)
		return -ENOTSUP;
	*ret = info.tcpi_bytes_received - waiting - has_fin;
	return 0;
}

int
tcpsum_written(int fd, uint64_t *ret)
{
	struct tcp_info info;
	uint64_t queued;
	bool has_fin;
	int rc = look_both(fd, SIOCOUTQ, &info, &queued);

	if (rc == 0 && info.tcpi_state == S_CLOSE)
		rc = -ENOTCONN;
	if (rc < 0)
		return rc;
	has_fin = BIT(info.tcpi_state) & HAS_OUR_FIN;
	if (info.tcpi_bytes_acked + queued < has_fin)
		return -ENOTSUP;
	*ret = info.tcpi_bytes_acked + queued - has_fin;
	return 0;
}
