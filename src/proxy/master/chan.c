/* chan.c - the master's end of one worker's channel
 *
 * Always true:
 *  1. The outbox never overflows: nothing is read while half of it is used, a
 *     message read causes at most one answer, so a datagram CHAN_DATAGRAM_MSGS of them; the few
 *     that nobody asked for (SETTINGS, STOP) fit in what is left, and all others are posted as far
 *     as chan_room() permits.
 *  2. EAGAIN, EMFILE, ENOBUFS, ENOMEM and ETOOMANYREFS are back-pressure: the
 *     message stays first in the outbox. A full socket wakes us when it has
 *     room; descriptors in flight do not, so those are tried again by time.
 *  3. A descriptor that nobody took is closed before the next datagram is read.
 *  4. What may be a token is wiped once its datagram was handled.
 *  5. A datagram is judged as a whole before any of its messages is handed on.
 *  6. What was read together is answered together: answers leave when all that was there has been read, in
 *     as few datagrams as they fit in. One with a descriptor ends its datagram, so that
 *     the one descriptor that a worker keeps in reserve is enough.
 *
 * Not here: which message is permitted when (slots.c), what it means (meet.c).
 */
#include "proxy/master/chan.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>

#include <event2/event.h>

#include "hyper/base/bug.h"
#include "hyper/base/fd.h"

#define CHAN_BATCH    32     /* messages read before others have their turn, and what else is in the last datagram */
#define CHAN_RETRY_US 20000  /* until descriptors in flight are looked at again */
#define CHAN_DRAIN    100000 /* datagrams: more than any socket buffer holds: the end of a drain in any case */

struct out {
	uint8_t buf[CHAN_MSG_MAX];
	size_t len;
	int fd; /* borrowed, -1 none */
};

struct chan {
	int fd;
	struct event *readable, *writable, *retry;
	const struct chan_ops *ops;
	void *arg;
	bool is_dead;    /* the worker is gone: what is posted goes nowhere */
	bool is_reading; /* what is posted leaves once all was read */
	size_t first, n; /* ring */
	struct out out[CHAN_OUTBOX];
};

static void
gate_reading(struct chan *c)
{
	if (c->n >= CHAN_OUTBOX / 2)
		event_del(c->readable);
	else
		event_add(c->readable, NULL);
}

static bool
is_pressure(int rc)
{
	return rc == -EAGAIN || rc == -EMFILE || rc == -ENFILE || rc == -ETOOMANYREFS || rc == -ENOBUFS ||
	       rc == -ENOMEM;
}

/* The first of the outbox as one datagram. How many they are, or -errno. */
static int
send_first(struct chan *c)
{
	struct iovec iov[CHAN_DATAGRAM_MSGS];
	int n = 0, fd = -1, rc;

	while (n < CHAN_DATAGRAM_MSGS && (size_t)n < c->n && fd < 0) {
		struct out *o = &c->out[(c->first + (size_t)n) % CHAN_OUTBOX];

		iov[n++] = (struct iovec){ .iov_base = o->buf, .iov_len = o->len };
		fd = o->fd;
	}
	rc = fd_send_many(c->fd, iov, (size_t)n, &fd, fd >= 0);
	return rc < 0 && is_pressure(rc) ? rc
					 : n; /* any other failure is the worker's end, which the reading side tells */
}

static void
flush_outbox(struct chan *c)
{
	const struct timeval later = { 0, CHAN_RETRY_US };
	int n = 0;

	while (c->n > 0 && (n = send_first(c)) > 0) {
		c->first = (c->first + (size_t)n) % CHAN_OUTBOX;
		c->n -= (size_t)n;
	}
	if (c->n > 0)
		event_add(n == -EAGAIN ? c->writable : c->retry, n == -EAGAIN ? NULL : &later);
	gate_reading(c);
}

/* Hands on the messages of one datagram. 0 or -EPROTO. */
static int
deliver(struct chan *c, const struct chan_msg *m, int n, int *fds, size_t n_fds)
{
	size_t next = 0;

	for (int i = 0; i < n; i++) {
		int none = -1, *fd = &none;
		bool has_fd = chan_has_fd(m[i].type), lost = has_fd && next >= n_fds;

		if (has_fd && !lost)
			fd = &fds[next++];
		if (c->ops->on_message(&m[i], fd, lost, c->arg) < 0)
			return -EPROTO;
	}
	return 0;
}

/* The number of messages that were handled, 0 nothing there, -EPIPE the end, -EPROTO the worker is wrong. */
static int
receive_some(struct chan *c, const char **ret_why)
{
	uint8_t buf[CHAN_DATAGRAM_MAX];
	struct chan_msg m[CHAN_DATAGRAM_MSGS];
	int fds[FD_PASS_MAX], rc;
	size_t n_fds, wanted = 0;
	bool lost;
	ssize_t n = fd_recv_many(c->fd, buf, sizeof(buf), fds, &n_fds, &lost);

	if (n == -EAGAIN)
		return 0;
	if (n == 0 || (n < 0 && n != -EPROTO))
		return -EPIPE;
	*ret_why = "malformed message";
	rc = n < 0 ? -EPROTO : chan_unpack_all(buf, (size_t)n, m, &wanted);
	if (rc > 0 && (lost ? wanted <= n_fds : wanted != n_fds)) {
		*ret_why = "wrong number of descriptors";
		rc = -EPROTO;
	} else if (rc > 0 && deliver(c, m, rc, fds, n_fds) < 0) {
		*ret_why = "unpermitted message";
		rc = -EPROTO;
	}
	while (n_fds > 0)
		fd_close(&fds[--n_fds]);
	if (n > 0) { /* tokens; `m` may be full of them, or have never been written */
		explicit_bzero(buf, (size_t)n);
		for (int i = 0; i < (rc > 0 ? rc : 0); i++)
			explicit_bzero(m[i].token, sizeof(m[i].token));
		if (rc < 0)
			explicit_bzero(m, sizeof(m));
	}
	return rc < 0 ? -EPROTO : rc;
}

static void
on_readable(evutil_socket_t fd, short what, void *arg)
{
	struct chan *c = arg;
	const char *why = NULL;
	int n = 0, rc;

	(void)fd;
	(void)what;
	/* One that is not full is the last one most of the time; should it not be, the loop comes here again. */
	c->is_reading = true;
	do {
		rc = receive_some(c, &why);
		n += rc;
		if (c->n >= CHAN_DATAGRAM_MSGS)
			flush_outbox(c);
	} while (rc == CHAN_DATAGRAM_MSGS && n < CHAN_BATCH && c->n < CHAN_OUTBOX / 2);
	c->is_reading = false;
	if (c->n > 0)
		flush_outbox(c);
	if (rc >= 0)
		return;
	event_del(c->readable);
	c->ops->on_end(rc == -EPROTO ? why : NULL, c->arg);
}

static void
on_writable(evutil_socket_t fd, short what, void *arg)
{
	struct chan *c = arg;

	(void)fd;
	(void)what;
	flush_outbox(c);
	if (c->n <= CHAN_OUTBOX / 4)
		c->ops->on_room(c->arg);
}

struct chan *
chan_new(struct event_base *base, int fd, const struct chan_ops *ops, void *arg)
{
	struct chan *c = calloc(1, sizeof(*c));

	if (!c) {
		fd_close(&fd);
		return NULL;
	}
	c->fd = fd;
	c->ops = ops;
	c->arg = arg;
	c->readable = event_new(base, fd, EV_READ | EV_PERSIST, on_readable, c);
	c->writable = event_new(base, fd, EV_WRITE, on_writable, c);
	c->retry = evtimer_new(base, on_writable, c);
	if (!c->readable || !c->writable || !c->retry || event_add(c->readable, NULL) < 0) {
		chan_free(c);
		return NULL;
	}
	return c;
}

void
chan_free(struct chan *c)
{
	if (!c)
		return;
	if (c->readable)
		event_free(c->readable);
	if (c->writable)
		event_free(c->writable);
	if (c->retry)
		event_free(c->retry);
	fd_close(&c->fd);
	free(c);
}

void
chan_post(struct chan *c, const struct chan_msg *m, int pass_fd)
{
	struct out *o;
	int len;

	if (c->is_dead)
		return;
	BUG_ON(c->n >= CHAN_OUTBOX);
	o = &c->out[(c->first + c->n) % CHAN_OUTBOX];
	len = chan_pack(m, o->buf);
	BUG_ON(len < 0 || chan_has_fd(m->type) != (pass_fd >= 0));
	o->len = (size_t)len;
	o->fd = pass_fd;
	c->n++;
	if (c->is_reading)
		return;
	/* behind others that wait it must wait too */
	if (c->n == 1)
		flush_outbox(c);
	else
		gate_reading(c);
}

bool
chan_has_queued(const struct chan *c, int pass_fd)
{
	size_t i;

	for (i = 0; i < c->n; i++)
		if (c->out[(c->first + i) % CHAN_OUTBOX].fd == pass_fd)
			return true;
	return false;
}

size_t
chan_room(const struct chan *c)
{
	return c->is_dead || c->n >= CHAN_OUTBOX / 2 ? 0 : CHAN_OUTBOX / 2 - c->n;
}

bool
chan_is_dead(const struct chan *c)
{
	return c->is_dead;
}

void
chan_drain(struct chan *c)
{
	const char *why;
	int i, rc = 1;

	c->is_dead = true;
	for (i = 0; i < CHAN_DRAIN && rc > 0; i++)
		rc = receive_some(c, &why);
}
