/* park.c - watching parked sockets in an epoll set of their own
 *
 * Always true:
 *  1. No byte is read: what a peer sent behind its token is the other peer's.
 *  2. A peer that only finished sending is not gone. With payload waiting in the
 *     socket it stays parked (a request and its half-close may come ahead of the
 *     other party); without any it will never say anything, and is gone.
 *
 * An own epoll set and not libevent's: libevent hands EPOLLERR to readers and
 * writers only, and reading is what must not be armed here. With nothing but
 * EV_CLOSED a reset would be a loop that never sleeps.
 *
 * Not here: what becomes of the record (session.c).
 */
#include "proxy/master/park.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <event2/event.h>

#include "hyper/base/fd.h"

#define PARK_BATCH 64

struct park {
	int epoll_fd;
	struct event *ev;
	park_on_gone on_gone;
	void *arg;
};

static uint64_t
pack_data(int fd, uint32_t key)
{
	return (uint64_t)key << 32 | (uint32_t)fd;
}

static int
watch(struct park *p, int op, int fd, uint32_t key, uint32_t events)
{
	struct epoll_event e = { .events = events, .data.u64 = pack_data(fd, key) };

	return epoll_ctl(p->epoll_fd, op, fd, &e) < 0 ? -errno : 0;
}

static void
on_event(struct park *p, const struct epoll_event *e)
{
	int fd = (int)(uint32_t)e->data.u64, waiting = 0;
	uint32_t key = (uint32_t)(e->data.u64 >> 32);

	/* From here on only what is reported unasked: EPOLLERR and EPOLLHUP. */
	if (!(e->events & (EPOLLERR | EPOLLHUP)) && ioctl(fd, FIONREAD, &waiting) == 0 && waiting > 0 &&
	    watch(p, EPOLL_CTL_MOD, fd, key, 0) == 0)
		return;
	p->on_gone(key, fd, p->arg);
}

static void
on_readable(evutil_socket_t fd, short what, void *arg)
{
	struct epoll_event e[PARK_BATCH];
	struct park *p = arg;
	int i, n = epoll_wait(p->epoll_fd, e, PARK_BATCH, 0);

	(void)fd;
	(void)what;
	/* Ending one session ends no other, so no event of this batch gets stale. */
	for (i = 0; i < n; i++)
		on_event(p, &e[i]);
}

int
park_new(struct event_base *base, park_on_gone on_gone, void *arg, struct park **ret)
{
	struct park *p = calloc(1, sizeof(*p));
	int rc;

	if (!p)
		return -ENOMEM;
	p->on_gone = on_gone;
	p->arg = arg;
	p->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	rc = p->epoll_fd < 0 ? -errno : 0;
	if (rc == 0) {
		p->ev = event_new(base, p->epoll_fd, EV_READ | EV_PERSIST, on_readable, p);
		rc = p->ev && event_add(p->ev, NULL) == 0 ? 0 : -ENOMEM;
	}
	if (rc < 0) {
		park_free(p);
		return rc;
	}
	*ret = p;
	return 0;
}

void
park_free(struct park *p)
{
	if (!p)
		return;
	if (p->ev)
		event_free(p->ev);
	fd_close(&p->epoll_fd);
	free(p);
}

int
park_add(struct park *p, int fd, uint32_t key)
{
	fd_notice_vanished(fd);
	return watch(p, EPOLL_CTL_ADD, fd, key, EPOLLRDHUP);
}

void
park_remove(struct park *p, int fd)
{
	epoll_ctl(p->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
}
