/* park.c - watching parked sockets in an epoll set of their own
 *
 * Always true:
 *  1. No byte is read: what a peer sent behind its token is the other peer's.
 *  2. A peer that only finished sending is not gone. With payload waiting in the
 *     socket it stays parked (a request and its half-close may come ahead of the
 *     other party); without any it will never say anything, and is gone.
 *
 *  3. A socket is looked at from PARK_YOUNG_MS after it came, or within twice that: where both parties dial at the
 *     same time the first one has left by then, and was never put into epoll nor taken out. One that is reset
 *     meanwhile and met all the same gives its peer a reset.
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
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <event2/event.h>

#include "hyper/base/clock.h"
#include "hyper/base/fd.h"
#include "hyper/base/log.h"

#define PARK_BATCH    64
#define PARK_YOUNG_MS 50

struct park {
	int epoll_fd;
	struct event *ev;
	struct event *timer;           /* pending while `young` is not empty */
	TAILQ_HEAD(, park_item) young; /* not in epoll yet, the oldest first */
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

static void
arm_timer(struct park *p)
{
	const struct timeval tv = { 0, PARK_YOUNG_MS * 1000 };

	if (!TAILQ_EMPTY(&p->young) && !evtimer_pending(p->timer, NULL))
		evtimer_add(p->timer, &tv);
}

static void
on_timer(evutil_socket_t fd, short what, void *arg)
{
	static struct log_limit limit;
	int64_t until = clock_now_ms() - PARK_YOUNG_MS;
	struct park *p = arg;
	struct park_item *i;
	int rc = 0;

	(void)fd;
	(void)what;
	while (rc == 0 && (i = TAILQ_FIRST(&p->young)) && i->since_ms <= until) {
		rc = watch(p, EPOLL_CTL_ADD, i->fd, i->key, EPOLLRDHUP);
		if (rc < 0) { /* again next time; its token's deadline ends it in any case */
			log_limited(&limit, LOG_LVL_WARN, "park", "err=\"%s\" why=\"not watched yet\"", strerror(-rc));
			break;
		}
		TAILQ_REMOVE(&p->young, i, link);
		i->is_young = false;
	}
	arm_timer(p);
}

int
park_new(struct event_base *base, park_on_gone on_gone, void *arg, struct park **ret)
{
	struct park *p = calloc(1, sizeof(*p));
	int rc;

	if (!p)
		return -ENOMEM;
	TAILQ_INIT(&p->young);
	p->on_gone = on_gone;
	p->arg = arg;
	p->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	rc = p->epoll_fd < 0 ? -errno : 0;
	if (rc == 0) {
		p->ev = event_new(base, p->epoll_fd, EV_READ | EV_PERSIST, on_readable, p);
		p->timer = evtimer_new(base, on_timer, p);
		rc = p->ev && p->timer && event_add(p->ev, NULL) == 0 ? 0 : -ENOMEM;
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
	if (p->timer)
		event_free(p->timer);
	fd_close(&p->epoll_fd);
	free(p);
}

void
park_add(struct park *p, struct park_item *i, int fd, uint32_t key)
{
	*i = (struct park_item){ .fd = fd, .key = key, .since_ms = clock_now_ms(), .is_young = true };
	TAILQ_INSERT_TAIL(&p->young, i, link);
	arm_timer(p);
}

void
park_remove(struct park *p, struct park_item *i)
{
	if (i->is_young)
		TAILQ_REMOVE(&p->young, i, link);
	else
		epoll_ctl(p->epoll_fd, EPOLL_CTL_DEL, i->fd, NULL);
	i->is_young = false;
}
