/* dial.c - a TCP connection to host:port that never blocks the loop
 *
 *   start --name--> look-up thread --eventfd--> addresses
 *   start --numeric, localhost----------------> addresses --> connect, connect, ... --> first one wins
 *
 * Always true:
 *  1. The callback runs once, from the loop, after the dial was freed.
 *  2. A look-up thread never touches a dial, only its struct lookup; whoever of
 *     the two sides is done last frees it. Its eventfd is written and closed
 *     under the lock, so never after it was closed.
 *  3. One timer bounds everything: look-up, all addresses.
 *  4. At most LOOKUPS_MAX threads exist; a hanging resolver cannot use up memory.
 *
 * Why a thread and not libevent's evdns: names must mean what getaddrinfo(3)
 * says on this machine (/etc/hosts, nsswitch.conf), and evdns asks DNS only.
 *
 * Not here: TLS, tokens, who may be dialled.
 */
#include "hyper/net/dial.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <event2/event.h>

#include "hyper/base/fd.h"
#include "hyper/net/listen.h"

#define DIAL_ADDRESSES  8
#define DIAL_STAGGER_MS 250 /* RFC 8305 section 8, "Connection Attempt Delay" */
#define LOOKUPS_MAX     32

struct address {
	struct sockaddr_storage sa;
	socklen_t len;
};

/* Shared with the look-up thread. */
struct lookup {
	pthread_mutex_t lock;
	bool done, abandoned;
	int event_fd;
	char host[256], port[8];
	int gai; /* getaddrinfo's result */
	struct addrinfo *list;
};

struct attempt {
	struct dial *dial;
	int fd;
	struct event *ev;
};

struct dial {
	struct event_base *base;
	dial_cb cb;
	void *arg;
	char *hostport;
	struct lookup *lookup;
	struct event *ev_lookup;
	struct event *ev_deadline;
	struct event *ev_next; /* start the next address: at once the first time, then staggered */
	struct address addr[DIAL_ADDRESSES];
	size_t n_addr, next;
	struct attempt attempt[DIAL_ADDRESSES];
	size_t pending;
	int last_error;
};

static unsigned lookups_running;  /* in the loop's thread: look-ups not yet collected */
static unsigned lookups_orphaned; /* atomic: threads whose dial is gone */

static void dial_connect_next(struct dial *);

/* Neither side needs it any more. */
static void
lookup_free(struct lookup *l)
{
	if (l == NULL)
		return;
	if (l->list != NULL)
		freeaddrinfo(l->list);
	fd_close(&l->event_fd);
	pthread_mutex_destroy(&l->lock);
	free(l);
}

static void *
lookup_run(void *arg)
{
	struct lookup *l = arg;
	struct addrinfo hints = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG };
	struct addrinfo *list = NULL;
	uint64_t one = 1;
	bool abandoned;
	int gai = getaddrinfo(l->host, l->port, &hints, &list);

	pthread_mutex_lock(&l->lock);
	l->gai = gai;
	l->list = gai == 0 ? list : NULL;
	l->done = true;
	abandoned = l->abandoned;
	if (!abandoned && write(l->event_fd, &one, sizeof one) < 0)
		l->gai = EAI_SYSTEM; /* cannot happen on an eventfd; the deadline ends the dial */
	pthread_mutex_unlock(&l->lock);
	if (abandoned) {
		lookup_free(l);
		__atomic_sub_fetch(&lookups_orphaned, 1, __ATOMIC_RELAXED);
	}
	return NULL;
}

/* The dial does not want it any more; the thread may still run. */
static void
lookup_release(struct lookup *l)
{
	bool done;

	if (l == NULL)
		return;
	pthread_mutex_lock(&l->lock);
	done = l->done;
	l->abandoned = true;
	if (!done)
		__atomic_add_fetch(&lookups_orphaned, 1, __ATOMIC_RELAXED);
	pthread_mutex_unlock(&l->lock);
	lookups_running--;
	if (done)
		lookup_free(l);
}

static void
dial_done(struct dial *d, int fd, const char *why)
{
	dial_cb cb = d->cb;
	void *arg = d->arg;

	dial_free(d);
	cb(fd, why, arg);
}

static void
dial_fail(struct dial *d, int err, const char *text)
{
	char why[DIAL_WHY_MAX];

	snprintf(why, sizeof why, "dial %.100s: %.120s", d->hostport, text);
	dial_done(d, -err, why);
}

static void
attempt_stop(struct attempt *a)
{
	if (a->ev != NULL)
		event_free(a->ev);
	a->ev = NULL;
	fd_close(&a->fd);
}

/* A connect ended. */
static void
on_attempt(evutil_socket_t sock, short what, void *arg)
{
	struct attempt *a = arg;
	struct dial *d = a->dial;
	socklen_t len = sizeof d->last_error;
	int err = 0, fd = a->fd;

	(void)what;
	if (getsockopt((int)sock, SOL_SOCKET, SO_ERROR, &err, &len) != 0)
		err = errno;
	if (err == 0) {
		a->fd = -1;
		dial_done(d, fd, "");
		return;
	}
	d->last_error = err;
	attempt_stop(a);
	d->pending--;
	dial_connect_next(d);
}

/* 0: under way. */
static int
attempt_start(struct dial *d, struct attempt *a, const struct address *to)
{
	int one = 1, rc = 0;

	a->fd = socket(to->sa.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP);
	if (a->fd < 0)
		return -errno;
	/* small answers must not wait for acknowledgements of earlier ones */
	if (setsockopt(a->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) != 0 ||
	    (connect(a->fd, (const struct sockaddr *)&to->sa, to->len) != 0 && errno != EINPROGRESS))
		rc = -errno;
	a->ev = rc == 0 ? event_new(d->base, a->fd, EV_WRITE, on_attempt, a) : NULL;
	if (rc == 0 && (a->ev == NULL || event_add(a->ev, NULL) != 0))
		rc = -ENOMEM;
	if (rc != 0)
		attempt_stop(a);
	return rc;
}

/* Starts the next address that can be started; ends the dial when none is left. */
static void
dial_connect_next(struct dial *d)
{
	const struct timeval stagger = { .tv_usec = DIAL_STAGGER_MS * 1000 };
	int rc = -EHOSTUNREACH;

	while (d->next < d->n_addr && rc != 0) {
		struct attempt *a = &d->attempt[d->next];

		rc = attempt_start(d, a, &d->addr[d->next]);
		d->next++;
		if (rc == 0)
			d->pending++;
		else
			d->last_error = -rc;
	}
	if (rc == 0 && d->next < d->n_addr && evtimer_add(d->ev_next, &stagger) != 0)
		d->last_error = ENOMEM; /* then the next one starts when this one fails */
	if (d->pending == 0)
		dial_fail(d, d->last_error, strerror(d->last_error));
}

static void
on_next(evutil_socket_t sock, short what, void *arg)
{
	(void)sock;
	(void)what;
	dial_connect_next(arg);
}

static void
on_deadline(evutil_socket_t sock, short what, void *arg)
{
	struct dial *d = arg;

	(void)sock;
	(void)what;
	dial_fail(d, ETIMEDOUT,
	    d->lookup != NULL ? "the name could not be resolved in time" : "no answer to the TCP connection in time");
}

static void
add_addresses(struct dial *d, const struct addrinfo *ai)
{
	for (; ai != NULL && d->n_addr < DIAL_ADDRESSES; ai = ai->ai_next) {
		if (ai->ai_addrlen > sizeof d->addr[0].sa)
			continue;
		memcpy(&d->addr[d->n_addr].sa, ai->ai_addr, ai->ai_addrlen);
		d->addr[d->n_addr++].len = ai->ai_addrlen;
	}
}

static void
on_lookup(evutil_socket_t sock, short what, void *arg)
{
	struct dial *d = arg;
	struct lookup *l = d->lookup;
	int gai;

	(void)sock;
	(void)what;
	pthread_mutex_lock(&l->lock);
	gai = l->gai;
	add_addresses(d, l->list);
	pthread_mutex_unlock(&l->lock);
	event_free(d->ev_lookup);
	d->ev_lookup = NULL;
	d->lookup = NULL;
	lookup_release(l);
	if (gai != 0)
		dial_fail(d, EHOSTUNREACH, gai_strerror(gai));
	else
		dial_connect_next(d);
}

/* A thread that takes no signals: those belong to the loop. */
static int
thread_start(struct lookup *l)
{
	pthread_attr_t attr;
	sigset_t all, old;
	pthread_t thread;
	int rc;

	sigfillset(&all);
	rc = pthread_attr_init(&attr);
	if (rc != 0)
		return -rc;
	rc = pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	if (rc == 0)
		rc = pthread_create(&thread, &attr, lookup_run, l);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	pthread_attr_destroy(&attr);
	return rc == 0 ? 0 : -ENOMEM;
}

static int
lookup_start(struct dial *d, const char *host, const char *port)
{
	struct lookup *l;
	int rc = -ENOMEM;

	if (lookups_running + __atomic_load_n(&lookups_orphaned, __ATOMIC_RELAXED) >= LOOKUPS_MAX)
		return -EBUSY;
	l = calloc(1, sizeof *l);
	if (l == NULL)
		return -ENOMEM;
	pthread_mutex_init(&l->lock, NULL);
	snprintf(l->host, sizeof l->host, "%s", host);
	snprintf(l->port, sizeof l->port, "%s", port);
	l->event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (l->event_fd < 0)
		goto out;
	d->ev_lookup = event_new(d->base, l->event_fd, EV_READ, on_lookup, d);
	if (d->ev_lookup == NULL || event_add(d->ev_lookup, NULL) != 0)
		goto out;
	rc = thread_start(l);
	if (rc == 0) {
		d->lookup = l;
		lookups_running++;
		l = NULL;
	}
out:
	if (rc != 0 && d->ev_lookup != NULL) {
		event_free(d->ev_lookup);
		d->ev_lookup = NULL;
	}
	lookup_free(l);
	return rc;
}

static int
resolve(struct dial *d)
{
	struct addrinfo hints = {
		.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV
	};
	const bool local = strncasecmp(d->hostport, "localhost:", 10) == 0;
	static const char *const loopback[] = { "::1", "127.0.0.1" };
	struct addrinfo *list = NULL;
	char host[256], port[8];
	uint16_t n = 0;
	size_t i;

	if (hostport_parse(d->hostport, host, &n) != 0)
		return -EINVAL;
	snprintf(port, sizeof port, "%u", n);
	for (i = 0; i < (local ? ARRAY_LEN(loopback) : 1); i++) {
		if (getaddrinfo(local ? loopback[i] : host, port, &hints, &list) != 0)
			continue;
		add_addresses(d, list);
		freeaddrinfo(list);
	}
	if (d->n_addr == 0)
		return lookup_start(d, host, port);
	event_active(d->ev_next, EV_TIMEOUT, 0);
	return 0;
}

int
dial_start(struct event_base *base, const char *hostport, int64_t timeout_ms, dial_cb cb, void *arg, struct dial **ret)
{
	const struct timeval deadline = { .tv_sec = timeout_ms / 1000, .tv_usec = timeout_ms % 1000 * 1000 };
	struct dial *d = calloc(1, sizeof *d);
	int rc = -ENOMEM;
	size_t i;

	if (d == NULL)
		return -ENOMEM;
	d->base = base;
	d->cb = cb;
	d->arg = arg;
	d->last_error = EHOSTUNREACH;
	for (i = 0; i < DIAL_ADDRESSES; i++)
		d->attempt[i] = (struct attempt){ .dial = d, .fd = -1 };
	d->hostport = strdup(hostport);
	d->ev_deadline = evtimer_new(base, on_deadline, d);
	d->ev_next = evtimer_new(base, on_next, d);
	if (d->hostport == NULL || d->ev_deadline == NULL || d->ev_next == NULL)
		goto out;
	if (evtimer_add(d->ev_deadline, &deadline) != 0)
		goto out;
	rc = resolve(d);
	if (rc == 0) {
		*ret = d;
		d = NULL;
	}
out:
	dial_free(d);
	return rc;
}

void
dial_free(struct dial *d)
{
	size_t i;

	if (d == NULL)
		return;
	for (i = 0; i < DIAL_ADDRESSES; i++)
		attempt_stop(&d->attempt[i]);
	if (d->ev_lookup != NULL)
		event_free(d->ev_lookup);
	lookup_release(d->lookup);
	if (d->ev_deadline != NULL)
		event_free(d->ev_deadline);
	if (d->ev_next != NULL)
		event_free(d->ev_next);
	free(d->hostport);
	free(d);
}
