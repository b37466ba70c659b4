/* ops.c - see the header
 *
 *   accept --> HEAD --whole head--> ANSWER --sent--> gone
 *      `------------ deadline, peer's end, made room for another ---^
 *
 * Always true:
 *  1. At most OPS_CONNS_MAX connections, each at most OPS_ANSWER_MS old: nobody's
 *     bytes move that deadline.
 *  2. What is read of a request is its head, at most HTTP_HEAD_MAX. A body is not
 *     waited for; the connection lingers so that the answer is not reset away.
 *  3. Nothing here changes the program: every route only renders.
 *
 * Not here: what the pages say (each program's own ops.c).
 */
#include "hyper/net/ops.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/socket.h>

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>

#include "hyper/base/fd.h"
#include "hyper/base/log.h"
#include "hyper/net/linger.h"
#include "hyper/net/listen.h"
#include "net/http.h"

#define ACCEPT_BATCH    8
#define ACCEPT_PAUSE_MS 100

struct ops_conn {
	struct ops *ops;
	TAILQ_ENTRY(ops_conn) link;
	struct bufferevent *bev; /* owns the socket */
	struct event *deadline;
	size_t scanned;
	bool answering;
};

struct ops {
	struct event_base *base;
	const struct ops_route *routes;
	size_t n_routes;
	void *arg;
	struct listeners listeners;
	struct event *accept_ev[LISTEN_MAX];
	struct event *resume_ev;
	TAILQ_HEAD(, ops_conn) conns; /* oldest first */
	size_t n_conns;
};

static void
conn_free(struct ops_conn *c)
{
	TAILQ_REMOVE(&c->ops->conns, c, link);
	c->ops->n_conns--;
	if (c->deadline)
		event_free(c->deadline);
	if (c->bev)
		bufferevent_free(c->bev);
	free(c);
}

/* Pages load nothing from elsewhere and may not be framed. */
static void
put_head(struct evbuffer *out, int status, const char *type, size_t len)
{
	evbuffer_add_printf(out,
	    "HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\nConnection: close\r\nCache-Control: "
	    "no-store\r\n"
	    "X-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\n"
	    "Content-Security-Policy: default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
	    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'\r\n%s\r\n",
	    status, http_status_text(status), type, len, status == 405 ? "Allow: GET, HEAD\r\n" : "");
}

static const struct ops_route *
find_route(const struct ops *o, const char *path)
{
	for (size_t i = 0; i < o->n_routes; i++)
		if (strcmp(o->routes[i].path, path) == 0)
			return &o->routes[i];
	return NULL;
}

/* NULL out of memory; else *ret_status and *ret_type are set. */
static struct evbuffer *
render(const struct ops *o, const struct http_head *h, int *ret_status, const char **ret_type)
{
	bool may = strcmp(h->method, "GET") == 0 || strcmp(h->method, "HEAD") == 0;
	const struct ops_route *r = may ? find_route(o, h->path) : NULL;
	struct evbuffer *body = evbuffer_new();

	if (!body)
		return NULL;
	*ret_type = r ? r->type : OPS_TEXT;
	if (r) {
		*ret_status = r->render(body, o->arg);
		return body;
	}
	*ret_status = may ? 404 : 405;
	evbuffer_add_printf(body, may ? "No such page. There are:" : "Only GET and HEAD are answered here, on:");
	for (size_t i = 0; i < o->n_routes; i++)
		evbuffer_add_printf(body, " %s", o->routes[i].path);
	evbuffer_add_printf(body, "\n");
	return body;
}

static void
answer(struct ops_conn *c, const struct http_head *h)
{
	struct evbuffer *out = bufferevent_get_output(c->bev), *body;
	const char *type;
	int status;

	body = render(c->ops, h, &status, &type);
	if (!body) {
		conn_free(c);
		return;
	}
	c->answering = true;
	bufferevent_disable(c->bev, EV_READ);
	put_head(out, status, type, evbuffer_get_length(body));
	if (strcmp(h->method, "HEAD") != 0)
		evbuffer_add_buffer(out, body);
	evbuffer_free(body);
}

static void
refuse(struct ops_conn *c, int status, const char *why)
{
	struct evbuffer *out = bufferevent_get_output(c->bev);

	c->answering = true;
	bufferevent_disable(c->bev, EV_READ);
	put_head(out, status, OPS_TEXT, strlen(why) + 1);
	evbuffer_add_printf(out, "%s\n", why);
}

static void
on_read(struct bufferevent *bev, void *arg)
{
	struct ops_conn *c = arg;
	struct evbuffer *in = bufferevent_get_input(bev);
	size_t len = evbuffer_get_length(in);
	const char *data = (const char *)evbuffer_pullup(in, -1), *why = "";
	struct http_head head;
	ssize_t n = data ? http_head_scan(data, len, &c->scanned) : 0;
	char *text;
	int status;

	if (n == 0 || c->answering)
		return;
	if (n < 0) {
		refuse(c, n == -EMSGSIZE ? 431 : 400, "expected the head of an HTTP/1.1 request");
		return;
	}
	text = malloc((size_t)n + 1);
	if (!text) {
		conn_free(c);
		return;
	}
	memcpy(text, data, (size_t)n);
	status = http_head_parse(text, (size_t)n, &head, &why);
	if (status == 0)
		answer(c, &head);
	else
		refuse(c, status, why);
	free(text);
}

static void
on_written(struct bufferevent *bev, void *arg)
{
	struct ops_conn *c = arg;
	int fd = bufferevent_getfd(bev);

	if (!c->answering)
		return;
	(void)linger_copy(c->ops->base, fd);
	shutdown(fd, SHUT_WR);
	conn_free(c);
}

static void
on_end(struct bufferevent *bev, short what, void *arg)
{
	struct ops_conn *c = arg;

	(void)bev;
	if (!c->answering || (what & BEV_EVENT_ERROR))
		conn_free(c);
}

static void
on_deadline(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	conn_free(arg);
}

static void
conn_new(struct ops *o, int fd)
{
	const struct timeval tv = { OPS_ANSWER_MS / 1000, OPS_ANSWER_MS % 1000 * 1000 };
	struct ops_conn *c = calloc(1, sizeof(*c));

	if (!c) {
		fd_close(&fd);
		return;
	}
	c->ops = o;
	TAILQ_INSERT_TAIL(&o->conns, c, link);
	o->n_conns++;
	c->deadline = evtimer_new(o->base, on_deadline, c);
	c->bev = bufferevent_socket_new(o->base, fd, BEV_OPT_CLOSE_ON_FREE);
	if (!c->bev)
		fd_close(&fd);
	if (!c->bev || !c->deadline || evtimer_add(c->deadline, &tv) < 0) {
		conn_free(c);
		return;
	}
	bufferevent_setcb(c->bev, on_read, on_written, on_end, c);
	bufferevent_setwatermark(c->bev, EV_READ, 0, HTTP_HEAD_MAX + 1);
	if (bufferevent_enable(c->bev, EV_READ | EV_WRITE) < 0)
		conn_free(c);
	else if (o->n_conns > OPS_CONNS_MAX)
		conn_free(TAILQ_FIRST(&o->conns));
}

static void
accepting_set(struct ops *o, bool on)
{
	for (size_t i = 0; i < o->listeners.n; i++) {
		if (on)
			event_add(o->accept_ev[i], NULL);
		else
			event_del(o->accept_ev[i]);
	}
}

static void
on_resume(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	accepting_set(arg, true);
}

static void
on_accept(evutil_socket_t listen_fd, short what, void *arg)
{
	const struct timeval pause = { 0, ACCEPT_PAUSE_MS * 1000 };
	struct ops *o = arg;

	(void)what;
	for (int i = 0; i < ACCEPT_BATCH; i++) {
		int fd = fd_accept((int)listen_fd);

		if (fd == -EAGAIN)
			return;
		if (fd == -EMFILE || fd == -ENFILE || fd == -ENOMEM || fd == -ENOBUFS) {
			accepting_set(o, false);
			event_add(o->resume_ev, &pause);
			return;
		}
		if (fd >= 0)
			conn_new(o, fd);
	}
}

static int
arm(struct ops *o)
{
	o->resume_ev = evtimer_new(o->base, on_resume, o);
	if (!o->resume_ev)
		return -ENOMEM;
	for (size_t i = 0; i < o->listeners.n; i++) {
		o->accept_ev[i] = event_new(o->base, o->listeners.fd[i], EV_READ | EV_PERSIST, on_accept, o);
		if (!o->accept_ev[i])
			return -ENOMEM;
	}
	accepting_set(o, true);
	return 0;
}

int
ops_new(struct event_base *base, const char *bind_address, const struct ops_route *routes, size_t n, void *arg,
    struct ops **ret, char err[OPS_ERR_MAX])
{
	struct ops *o = calloc(1, sizeof(*o));
	int rc;

	_Static_assert(LISTEN_ERR_MAX <= OPS_ERR_MAX, "one buffer for both");
	snprintf(err, OPS_ERR_MAX, "out of memory");
	if (!o)
		return -ENOMEM;
	o->base = base;
	o->routes = routes;
	o->n_routes = n;
	o->arg = arg;
	TAILQ_INIT(&o->conns);
	rc = listeners_open(bind_address, &o->listeners, err);
	if (rc == 0) {
		rc = arm(o);
		if (rc < 0)
			snprintf(err, OPS_ERR_MAX, "out of memory");
	}
	if (rc < 0) {
		ops_free(o);
		return rc;
	}
	err[0] = '\0';
	*ret = o;
	return 0;
}

void
ops_free(struct ops *o)
{
	if (!o)
		return;
	while (!TAILQ_EMPTY(&o->conns))
		conn_free(TAILQ_FIRST(&o->conns));
	for (size_t i = 0; i < LISTEN_MAX; i++)
		if (o->accept_ev[i])
			event_free(o->accept_ev[i]);
	if (o->resume_ev)
		event_free(o->resume_ev);
	listeners_close(&o->listeners);
	free(o);
}

uint16_t
ops_port(const struct ops *o)
{
	return o->listeners.port;
}
