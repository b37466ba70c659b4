/* chan.c - the master's end of one worker's channel
 *
 * Always true:
 *  1. The outbox never overflows: nothing is read while half of it is used, a
 *     message read causes at most one answer, the few that nobody asked for
 *     (SETTINGS, STOP) fit in the other half, and all others are posted as far as
 *     chan_room() permits.
 *  2. EAGAIN, EMFILE, ENOBUFS, ENOMEM and ETOOMANYREFS are back-pressure: the
 *     message stays first in the outbox. A full socket wakes us when it has
 *     room; descriptors in flight do not, so those are tried again by time.
 *  3. A descriptor that nobody took is closed before the next message is read.
 *  4. What may be a token is wiped once the message was handled.
 *
 * Not here: which message is permitted when (slots.c), what it means (meet.c).
 */
#include "proxy/master/chan.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <event2/event.h>

#include "hyper/base/bug.h"
#include "hyper/base/fd.h"

#define CHAN_BATCH    32     /* messages read before others have their turn */
#define CHAN_RETRY_US 20000  /* until descriptors in flight are looked at again */
#define CHAN_DRAIN    100000 /* more than any socket buffer holds: the end of a drain in any case */

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

static void
flush_outbox(struct chan *c)
{
	const struct timeval later = { 0, CHAN_RETRY_US };
	int rc = 0;

	while (c->n > 0) {
		const struct out *o = &c->out[c->first];

		rc = fd_send(c->fd, o->buf, o->len, o->fd);
		/* Any other failure is the worker's end, which the reading side tells. */
		if (is_pressure(rc))
			break;
		c->first = (c->first + 1) % CHAN_OUTBOX;
		c->n--;
	}
	if (c->n > 0)
		event_add(rc == -EAGAIN ? c->writable : c->retry, rc == -EAGAIN ? NULL : &later);
	gate_reading(c);
}

/* 1 a message was handled, 0 nothing there, -EPIPE the end, -EPROTO the worker is wrong. */
static int
receive_one(struct chan *c, const char **ret_why)
{
	uint8_t buf[CHAN_MSG_MAX];
	struct chan_msg m = { .type = CHAN_ARRIVED };
	bool lost;
	int fd, rc = 1;
	ssize_t n = fd_recv(c->fd, buf, sizeof(buf), &fd, &lost);

	if (n == -EAGAIN)
		return 0;
	if (n == 0 || (n < 0 && n != -EPROTO))
		return -EPIPE;
	*ret_why = "malformed message";
	if (n < 0 || chan_unpack(buf, (size_t)n, &m) < 0) {
		rc = -EPROTO;
	} else if (chan_has_fd(m.type) != (fd >= 0 || lost)) {
		*ret_why = "wrong number of descriptors";
		rc = -EPROTO;
	} else if (c->ops->on_message(&m, &fd, lost, c->arg) < 0) {
		*ret_why = "unpermitted message";
		rc = -EPROTO;
	}
	fd_close(&fd);
	if (m.type == CHAN_ARRIVED || rc < 0) {
		explicit_bzero(buf, sizeof(buf));
		explicit_bzero(m.token, sizeof(m.token));
	}
	return rc;
}

static void
on_readable(evutil_socket_t fd, short what, void *arg)
{
	struct chan *c = arg;
	const char *why = NULL;
	int i, rc = 1;

	(void)fd;
	(void)what;
	for (i = 0; i < CHAN_BATCH && rc > 0 && c->n < CHAN_OUTBOX / 2; i++)
		rc = receive_one(c, &why);
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
		rc = receive_one(c, &why);
}
