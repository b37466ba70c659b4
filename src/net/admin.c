/* admin.c - see the header: the server's side
 *
 *   accept --> ASKED (a frame comes) --whole--> SERVED --answer--> written --> gone
 *
 * Always true:
 *  1. Who connects is of our own user or root (SO_PEERCRED), whatever the modes
 *     of the folder permit.
 *  2. At most ADMIN_CONNS_MAX connections; one that has not asked within
 *     ASK_MS is closed, and one that has not taken its answer within ANSWER_MS.
 *  3. Without descriptors accepting pauses for ACCEPT_PAUSE_MS instead of spinning.
 *  4. A call outlives its connection: the client may go, the answer then goes nowhere. Its place among the
 *     connections is given back at once, so who asks for a day and leaves locks nobody out; at most GONE_MAX
 *     such calls, beyond that nobody is let in (admin_waits_look() drops those that only wait).
 *
 * Not here: what the verbs do.
 */
#include "hyper/net/admin.h"

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>

#include "hyper/base/fd.h"
#include "hyper/base/log.h"
#include "hyper/wire/json.h"
#include "hyper/wire/mpjson.h"
#include "net/adminframe.h"

#define ASK_MS          5000
#define ANSWER_MS       5000
#define ACCEPT_BATCH    8
#define ACCEPT_PAUSE_MS 100
#define GONE_MAX        256

struct admin_call {
	struct admin *admin;
	TAILQ_ENTRY(admin_call) link;
	struct bufferevent *bev; /* NULL: the client has gone, or it never came to be */
	struct event *deadline;
	bool is_gone;     /* the client: counted in n_gone */
	bool is_asked;    /* the request was given to on_call */
	bool is_answered; /* frees itself once it is written */
};

struct admin {
	struct event_base *base;
	struct event *accept_ev;
	struct event *resume_ev; /* pending while accepting is paused */
	admin_on_call on_call;
	void *arg;
	int fd;
	char *path;
	bool keeps_file;
	TAILQ_HEAD(, admin_call) calls;
	size_t n_calls; /* with a client */
	size_t n_gone;  /* without one, and not answered yet */
};

static void
call_free(struct admin_call *c)
{
	TAILQ_REMOVE(&c->admin->calls, c, link);
	if (c->is_gone)
		c->admin->n_gone--;
	else
		c->admin->n_calls--;
	if (c->deadline)
		event_free(c->deadline);
	if (c->bev)
		bufferevent_free(c->bev);
	free(c);
}

json_t *
admin_error(const char *fmt, ...)
{
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	return json_pack("{s:b, s:s}", "ok", 0, "error", text);
}

void
admin_answer(struct admin_call *c, json_t *answer)
{
	const struct timeval tv = { ANSWER_MS / 1000, ANSWER_MS % 1000 * 1000 };
	uint8_t *data = NULL;
	size_t len = 0;

	if (!c->bev || !answer || mpjson_pack(answer, &data, &len) < 0 || len > ADMIN_FRAME_MAX ||
	    evtimer_add(c->deadline, &tv) < 0) {
		json_decref(answer);
		free(data);
		call_free(c);
		return;
	}
	json_decref(answer);
	c->is_answered = true;
	adminframe_put(bufferevent_get_output(c->bev), data, len);
	free(data);
}

bool
admin_is_gone(const struct admin_call *c)
{
	return c->is_gone;
}

/* --- one connection --- */

static void
on_written(struct bufferevent *bev, void *arg)
{
	struct admin_call *c = arg;

	(void)bev;
	if (c->is_answered)
		call_free(c);
}

static void
serve(struct admin_call *c, const json_t *request)
{
	const char *verb = json_str(request, "verb");
	const json_t *args = json_object_get(request, "args");

	event_del(c->deadline);
	c->is_asked = true;
	if (!verb || !json_is_object(args))
		admin_answer(c, admin_error("expected {verb, args}"));
	else
		c->admin->on_call(c, verb, args, c->admin->arg);
}

static void
on_read(struct bufferevent *bev, void *arg)
{
	struct admin_call *c = arg;
	json_t *request = NULL;
	int rc;

	if (c->is_asked) {
		/* else its end behind them would never be seen */
		evbuffer_drain(bufferevent_get_input(bev), SIZE_MAX);
		return;
	}
	rc = adminframe_take(bufferevent_get_input(bev), ADMIN_ASK_MAX, &request);
	if (rc == 0)
		return;
	if (rc < 0)
		call_free(c);
	else
		serve(c, request);
	json_decref(request);
}

static void
on_end(struct bufferevent *bev, short what, void *arg)
{
	struct admin_call *c = arg;

	(void)what;
	if (!c->is_asked || c->is_answered) {
		call_free(c);
		return;
	}
	bufferevent_free(bev);
	c->bev = NULL;
	c->is_gone = true;
	c->admin->n_calls--;
	c->admin->n_gone++;
}

static void
on_deadline(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	call_free(arg);
}

static bool
may_ask(int fd)
{
	struct ucred cred;
	socklen_t len = sizeof(cred);

	return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) == 0 && (cred.uid == 0 || cred.uid == geteuid());
}

static void
call_new(struct admin *a, int fd)
{
	const struct timeval tv = { ASK_MS / 1000, ASK_MS % 1000 * 1000 };
	struct admin_call *c = calloc(1, sizeof(*c));

	if (!c) {
		fd_close(&fd);
		return;
	}
	c->admin = a;
	TAILQ_INSERT_TAIL(&a->calls, c, link);
	a->n_calls++;
	c->deadline = evtimer_new(a->base, on_deadline, c);
	c->bev = bufferevent_socket_new(a->base, fd, BEV_OPT_CLOSE_ON_FREE);
	if (!c->bev)
		fd_close(&fd);
	if (!c->bev || !c->deadline || evtimer_add(c->deadline, &tv) < 0) {
		call_free(c);
		return;
	}
	bufferevent_setcb(c->bev, on_read, on_written, on_end, c);
	bufferevent_setwatermark(c->bev, EV_READ, 0, ADMIN_ASK_MAX + ADMINFRAME_HEAD);
	if (bufferevent_enable(c->bev, EV_READ | EV_WRITE) < 0)
		call_free(c);
}

/* The connection stays in the kernel's queue, and its event would come again at once. */
static void
accepting_pause(struct admin *a)
{
	const struct timeval tv = { 0, ACCEPT_PAUSE_MS * 1000 };

	if (evtimer_add(a->resume_ev, &tv) == 0)
		event_del(a->accept_ev);
}

static void
on_resume(evutil_socket_t fd, short what, void *arg)
{
	struct admin *a = arg;

	(void)fd;
	(void)what;
	if (event_add(a->accept_ev, NULL) < 0)
		accepting_pause(a);
}

static void
on_accept(evutil_socket_t listen_fd, short what, void *arg)
{
	static struct log_limit limit;
	struct admin *a = arg;

	(void)what;
	for (int i = 0; i < ACCEPT_BATCH; i++) {
		int fd = fd_accept((int)listen_fd);

		if (fd == -EMFILE || fd == -ENFILE || fd == -ENOBUFS || fd == -ENOMEM)
			accepting_pause(a);
		if (fd < 0)
			return; /* the next one wakes us again; the operator may ask again */
		if (!may_ask(fd) || a->n_calls >= ADMIN_CONNS_MAX || a->n_gone >= GONE_MAX) {
			log_limited(&limit, LOG_LVL_WARN, "admin", "err=refused why=\"another user, or %d at a time\"",
			    ADMIN_CONNS_MAX);
			fd_close(&fd);
		} else {
			call_new(a, fd);
		}
	}
}

/* --- the socket --- */

/* Is somebody listening there? A file that a killed process left says no. */
static bool
is_served(const struct sockaddr_un *sun)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	/* EAGAIN: its queue is full */
	bool is = fd >= 0 && (connect(fd, (const struct sockaddr *)sun, sizeof(*sun)) == 0 || errno == EAGAIN);

	fd_close(&fd);
	return is;
}

/* 0 with *ret_fd taken, or -errno. */
static int
open_socket(const char *path, int *ret_fd)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	mode_t mask;
	int fd, rc = 0;

	if (strlen(path) >= sizeof(sun.sun_path))
		return -ENAMETOOLONG;
	memcpy(sun.sun_path, path, strlen(path) + 1);
	if (is_served(&sun))
		return -EADDRINUSE;
	if (unlink(path) < 0 && errno != ENOENT)
		return -errno;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	mask = umask(0177);
	if (bind(fd, (struct sockaddr *)&sun, sizeof(sun)) < 0 || listen(fd, ADMIN_CONNS_MAX) < 0)
		rc = -errno;
	umask(mask);
	if (rc < 0) {
		fd_close(&fd);
		return rc;
	}
	*ret_fd = fd;
	return 0;
}

int
admin_new(struct event_base *base, const char *path, admin_on_call on_call, void *arg, struct admin **ret,
    char err[ADMIN_ERR_MAX])
{
	struct admin *a = calloc(1, sizeof(*a));
	int rc = -ENOMEM;

	if (a) {
		a->base = base;
		a->on_call = on_call;
		a->arg = arg;
		a->fd = -1;
		TAILQ_INIT(&a->calls);
		rc = open_socket(path, &a->fd);
	}
	if (rc == 0) {
		a->path = strdup(path);
		a->accept_ev = event_new(base, a->fd, EV_READ | EV_PERSIST, on_accept, a);
		a->resume_ev = evtimer_new(base, on_resume, a);
		if (!a->path || !a->accept_ev || !a->resume_ev || event_add(a->accept_ev, NULL) < 0)
			rc = -ENOMEM;
	}
	if (rc < 0) {
		snprintf(err, ADMIN_ERR_MAX, "admin_socket %s: %s%s", path, strerror(-rc),
		    rc == -EADDRINUSE ? ": another process serves it, stop that one or name another file"
		    : rc == -ENOENT   ? ": make its folder first"
				      : "");
		admin_free(a);
		return rc;
	}
	*ret = a;
	return 0;
}

void
admin_keep_file(struct admin *a)
{
	a->keeps_file = true;
}

void
admin_free(struct admin *a)
{
	struct admin_call *c, *next;

	if (!a)
		return;
	for (c = TAILQ_FIRST(&a->calls); c; c = next) {
		next = TAILQ_NEXT(c, link);
		/* written at once, as far as the socket takes it: it is small */
		if (c->bev && c->is_asked && !c->is_answered)
			adminframe_send_last(bufferevent_getfd(c->bev), "stopped");
		call_free(c);
	}
	if (a->accept_ev)
		event_free(a->accept_ev);
	if (a->resume_ev)
		event_free(a->resume_ev);
	fd_close(&a->fd);
	if (a->path && !a->keeps_file)
		unlink(a->path);
	free(a->path);
	free(a);
}
