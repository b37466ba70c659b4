/* fd.h - descriptors: closing, flags, and passing them between our processes */
#ifndef HYPER_BASE_FD_H
#define HYPER_BASE_FD_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "hyper/base/attr.h"

/* Closes *fd unless it is -1 and sets it to -1. errno is preserved. */
void fd_close(int *fd);

/* The same for a TCP socket whose last descriptor this may be: its peer sees an end, though SO_LINGER was set for a reset. */
void fd_finish(int *fd);
/* Closing it will send an end. */
void fd_will_finish(int fd);

/* 0 or -errno. */
int fd_set_nonblock(int fd) ATTR_MUST_USE;
int fd_set_cloexec(int fd, bool on) ATTR_MUST_USE;

/* accept4() with SOCK_NONBLOCK | SOCK_CLOEXEC: the new descriptor (taken) or -errno. EINTR is retried. */
int fd_accept(int listen_fd) ATTR_MUST_USE;
/* The same, and who is at its other end. */
struct sockaddr_storage;
int fd_accept_from(int listen_fd, struct sockaddr_storage *ret_peer) ATTR_MUST_USE;

/* Is it a TCP socket over IPv4 or IPv6 that neither listens nor dials? What a sibling sends is checked with this. One
 * that is closed counts: whoever shut it down, reset or disconnected it, its sender did nothing wrong. */
bool fd_is_tcp(int fd);
/* Likewise, and is it over for who has it too: shut down in both directions, or disconnected? A reset by its peer is
 * something else; that is told for what was accepted, received bytes, and sent none. */
enum fd_tcp { FD_TCP_NONE, FD_TCP_OPEN, FD_TCP_SHUT };
enum fd_tcp fd_tcp_look(int fd);

/* What a read of one byte would say, without taking it: 1, 0 or -errno, which takes the socket's error from it. With 1 and
 * 0, *ret_inq is what TCP_INQ says: bytes that wait, and the peer's FIN as one more (0 where a kernel does not tell). */
int fd_tcp_peek(int fd, int *ret_inq) ATTR_MUST_USE;

/* Of a TCP socket in the state CLOSE without an error to be taken: has its peer's FIN come? A read says 0 behind
 * a FIN, and also behind a reset whose error somebody took before; but what TCP_INQ says with that 0 is 1 only
 * behind a FIN (Linux 6.18). True too while bytes wait: then no read has taken an error. */
bool fd_tcp_has_ended(int fd);

/* Sends a reset now, also when others hold duplicates, and closes our descriptor; -1 is fine. Where both sides have said
 * their FIN already (LAST_ACK, CLOSING) the kernel sends none and would only forget what is still unacknowledged, for
 * which the peer then waits for ever should a segment be lost (Linux 6.18): those go on and end by themselves. */
void fd_reset(int *fd);

/* A peer that vanished without a word is noticed within 30 s, with and without
 * bytes under way: keepalive after 15 s, every 5 s, three times, and
 * TCP_USER_TIMEOUT 30 s (faults.md "peer vanishes"). What a listener accepts
 * inherits all of it. A failure means that the
 * peer is gone already, which the next event of the socket tells. */
void fd_notice_vanished(int fd);

/* Sends one SEQPACKET datagram and at most one descriptor (pass_fd -1: none),
 * without waiting. The caller keeps its descriptor. 0 or -errno; EAGAIN,
 * EMFILE and ETOOMANYREFS are back-pressure: keep the message, try later.
 * EPIPE and ECONNRESET: the other end is gone. */
int fd_send(int sock, const void *data, size_t len, int pass_fd) ATTR_MUST_USE;

/* The same with the bytes of `iov` one behind the other, and up to FD_PASS_MAX descriptors. */
#define FD_PASS_MAX 16
struct iovec;
int fd_send_many(int sock, const struct iovec *iov, size_t n_iov, const int *pass_fds, size_t n_fds) ATTR_MUST_USE;

/* Receives one datagram and at most one descriptor, without waiting.
 * >0: its length, *ret_fd the descriptor (taken, close-on-exec) or -1.
 * 0: end of stream. -EAGAIN: nothing there. -EPROTO: truncated, empty with a
 * descriptor, or more than one descriptor; all that came was closed. *ret_fd
 * is -1 whenever the result is not > 0. *ret_lost (may be NULL) is true when
 * the kernel dropped a descriptor because we are at our limit: not the sender's
 * fault (MSG_CTRUNC without a descriptor, faults.md). */
ssize_t fd_recv(int sock, void *buf, size_t cap, int *ret_fd, bool *ret_lost) ATTR_MUST_USE;

/* Likewise with up to FD_PASS_MAX descriptors in the order in which they were sent, *ret_n of them. Where *ret_lost
 * is true those behind them were dropped at our limit. */
ssize_t
fd_recv_many(int sock, void *buf, size_t cap, int ret_fds[FD_PASS_MAX], size_t *ret_n, bool *ret_lost) ATTR_MUST_USE;

/* How many descriptors this process has open; for tests, status and start-up arithmetic. */
size_t fd_count(void);

#endif
