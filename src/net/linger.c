/* linger.c - closing a connection so that the other side sees an end and not a reset
 *
 * A close() while the peer still sends makes the kernel answer with a reset,
 * and a reset may overtake what we sent before. Through the proxy both ends
 * would be told of a broken connection where there was none.
 *
 * Always true:
 *  1. Each socket is closed once: at the peer's end, after LINGER_MS, or by linger_wait().
 *  2. At most LINGER_SOCKETS linger; LINGER_BYTES of each are read.
 *
 * Not here: close_notify and FIN, which the owner of the connection sends.
 */
#include "hyper/net/linger.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/queue.h>
#include <sys/socket.h>

#include <event2/event.h>

#include "hyper/base/clock.h"
#include "hyper/base/fd.h"

#define LINGER_BYTES ((size_t)16 * 1024 * 1024)

struct linger_sock {
	struct event_base *base;
	struct event *ev, *deadline;
	int fd;
	size_t dropped;
	LIST_ENTRY(linger_sock) link;
};

static LIST_HEAD(, linger_sock) lingering = LIST_HEAD_INITIALIZER(lingering);
static size_t n_lingering;

static void
linger_free(struct linger_sock *l)
{
	LIST_REMOVE(l, link);
	n_lingering--;
	event_free(l->ev);
	event_free(l->deadline);
	fd_close(&l->fd);
	free(l);
}

static void
on_readable(evutil_socket_t fd, short what, void *arg)
{
	struct linger_sock *l = arg;
	char buf[16384];
	ssize_t n;

	(void)what;
	n = recv(fd, buf, sizeof(buf), MSG_DONTWAIT);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n > 0)
		l->dropped += (size_t)n;
	if (n <= 0 || l->dropped > LINGER_BYTES)
		linger_free(l);
}

/* A timer of its own: the deadline is the socket's, not the next byte's. */
static void
on_deadline(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	linger_free(arg);
}

/* 0 or -ENOMEM, then nothing has changed. */
static int
linger_start(struct event_base *base, int fd)
{
	const struct timeval limit = { LINGER_MS / 1000, LINGER_MS % 1000 * 1000 };
	struct linger_sock *l = calloc(1, sizeof(*l));

	if (!l)
		return -ENOMEM;
	l->base = base;
	l->fd = fd;
	l->ev = event_new(base, fd, EV_READ | EV_PERSIST, on_readable, l);
	l->deadline = evtimer_new(base, on_deadline, l);
	if (l->ev && l->deadline && event_add(l->ev, NULL) == 0 && evtimer_add(l->deadline, &limit) == 0) {
		LIST_INSERT_HEAD(&lingering, l, link);
		n_lingering++;
		return 0;
	}
	if (l->ev)
		event_free(l->ev);
	if (l->deadline)
		event_free(l->deadline);
	free(l);
	return -ENOMEM;
}

bool
linger_copy(struct event_base *base, int fd)
{
	int copy = n_lingering < LINGER_SOCKETS ? fcntl(fd, F_DUPFD_CLOEXEC, 3) : -1;

	if (copy < 0)
		return false;
	if (linger_start(base, copy) == 0)
		return true;
	fd_close(&copy);
	return false;
}

void
linger_wait(struct event_base *base, int64_t ms)
{
	int64_t end = clock_now_ms() + ms;
	struct linger_sock *l, *next;

	while (n_lingering > 0 && clock_now_ms() < end)
		event_base_loop(base, EVLOOP_ONCE);
	for (l = LIST_FIRST(&lingering); l; l = next) {
		next = LIST_NEXT(l, link);
		if (l->base == base)
			linger_free(l);
	}
}
