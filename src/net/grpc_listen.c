/* grpc_listen.c - accepts connections for gRPC: rate limits, a cap, a handshake deadline
 *
 * Always true:
 *  1. l->n_conns is the number of sockets it accepted that are still open, and
 *     never over conf->max_connections: the oldest one that stands still in its
 *     handshake makes room; where there is none, the one too many is closed at once
 *     (leaving it in the kernel's queue would make its peer wait for nothing).
 *  2. The memory lives while somebody holds it: the owner until
 *     grpc_listener_free(), each connection until its socket is closed.
 *  3. Out of descriptors or memory, accepting pauses for a moment: it never spins.
 *
 * Not here: who the peer is (on_secured), what it may call.
 */
#include "net/grpc_impl.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <event2/event.h>

#include "hyper/base/bug.h"
#include "hyper/base/clock.h"
#include "hyper/base/fd.h"
#include "hyper/base/log.h"

#define ACCEPT_BATCH    16 /* per turn, so that accepted ones are served as well */
#define ACCEPT_PAUSE_MS 100
#define RATE_ADDRESSES  4096
#define STALL_LOOKS     16 /* so one that drips is no shield for those behind it */

struct grpc_listener {
	struct event_base *base;
	const struct conf_grpc_server *conf;
	const struct grpc_conn_ops *ops;
	grpc_on_conn on_conn;
	void *arg;
	SSL_CTX *ctx;
	struct ratelimit *rates;
	struct listeners sockets;
	struct event *ev_accept[LISTEN_MAX];
	struct event *ev_resume;
	size_t n_conns;
	size_t holders;                  /* the owner and the connections */
	TAILQ_HEAD(, grpc_conn) shaking; /* in their handshake, the oldest first */
	struct log_limit quiet;
};

static void
listener_stop(struct grpc_listener *l)
{
	size_t i;

	for (i = 0; i < LISTEN_MAX; i++) {
		if (l->ev_accept[i] != NULL)
			event_free(l->ev_accept[i]);
		l->ev_accept[i] = NULL;
	}
	if (l->ev_resume != NULL)
		event_free(l->ev_resume);
	l->ev_resume = NULL;
	listeners_close(&l->sockets);
}

static void
listener_put(struct grpc_listener *l)
{
	BUG_ON(l->holders == 0);
	if (--l->holders > 0)
		return;
	ratelimit_free(l->rates);
	SSL_CTX_free(l->ctx);
	free(l);
}

void
grpc_listener_unref(struct grpc_listener *l)
{
	if (l == NULL)
		return;
	l->n_conns--;
	listener_put(l);
}

void
grpc_listener_free(struct grpc_listener *l)
{
	if (l == NULL)
		return;
	listener_stop(l);
	listener_put(l);
}

uint16_t
grpc_listener_port(const struct grpc_listener *l)
{
	return l->sockets.port;
}

static int
listener_resume(struct grpc_listener *l)
{
	size_t i;

	for (i = 0; i < l->sockets.n; i++)
		if (event_add(l->ev_accept[i], NULL) != 0)
			return -ENOMEM;
	return 0;
}

static void
listener_pause(struct grpc_listener *l, int err)
{
	const struct timeval pause = { .tv_usec = ACCEPT_PAUSE_MS * 1000 };
	size_t i;

	log_limited(&l->quiet, LOG_LVL_WARN, "accept", "svc=grpc err=%d why=\"%s\"", err, strerror(err));
	if (evtimer_add(l->ev_resume, &pause) != 0)
		return;
	for (i = 0; i < l->sockets.n; i++)
		event_del(l->ev_accept[i]);
}

static void
on_resume(evutil_socket_t sock, short what, void *arg)
{
	struct grpc_listener *l = arg;

	(void)sock;
	(void)what;
	if (listener_resume(l) != 0)
		listener_pause(l, ENOMEM);
}

void
grpc_listener_shaken(struct grpc_conn *c)
{
	TAILQ_REMOVE(&c->listener->shaking, c, shaking);
	c->is_shaking = false;
}

/* At the cap: who needs no certificate to fill the server must not keep everybody else out. True: there will be
 * room in the next turn of the loop, the new one waits in the kernel's queue. */
static bool
make_room(struct grpc_listener *l)
{
	struct grpc_conn *c = NULL;
	int looks = STALL_LOOKS;

	if (l->n_conns >= l->conf->max_connections)
		TAILQ_FOREACH (c, &l->shaking, shaking)
			if (looks-- == 0 || tls_is_stalled(c->fd, clock_now_ms() - (c->connect_ms - c->timeout_ms)))
				break;
	if (c == NULL || looks < 0)
		return false;
	grpc_conn_fail(c, END_BUSY, "TLS handshake with %s: stood still, made room for a new connection", c->peer);
	return true;
}

/* One connection: given. */
static void
listener_serve(struct grpc_listener *l, int fd)
{
	struct sockaddr_storage sa = { 0 };
	socklen_t len = sizeof sa;
	struct grpc_conn *c = NULL;
	int rc;

	if (getpeername(fd, (struct sockaddr *)&sa, &len) != 0) { /* reset already */
		fd_close(&fd);
		return;
	}
	if (!ratelimit_permits(l->rates, (struct sockaddr *)&sa) || l->n_conns >= l->conf->max_connections) {
		log_limited(&l->quiet, LOG_LVL_WARN, "refuse", "svc=grpc why=\"%s\"",
		    l->n_conns >= l->conf->max_connections ? "max_connections are open" : "tcp_rate_limits");
		fd_close(&fd);
		return;
	}
	rc = grpc_conn_accept(l->base, l->ctx, fd, GRPC_HANDSHAKE_MS, l->ops, l, &c);
	if (rc != 0) {
		log_limited(&l->quiet, LOG_LVL_WARN, "accept", "svc=grpc err=%d why=\"%s\"", -rc, strerror(-rc));
		return;
	}
	l->n_conns++;
	l->holders++;
	TAILQ_INSERT_TAIL(&l->shaking, c, shaking);
	c->is_shaking = true;
	grpc_conn_set_arg(c, l->on_conn(c, l->arg));
}

static void
on_accept(evutil_socket_t sock, short what, void *arg)
{
	struct grpc_listener *l = arg;
	int i, fd = 0;

	(void)what;
	l->holders++; /* on_conn may free the listener */
	for (i = 0; i < ACCEPT_BATCH && fd >= 0 && l->sockets.n > 0 && !make_room(l); i++) {
		fd = fd_accept((int)sock);
		if (fd >= 0)
			listener_serve(l, fd);
		else if (fd == -EMFILE || fd == -ENFILE || fd == -ENOBUFS || fd == -ENOMEM)
			listener_pause(l, -fd);
	}
	listener_put(l);
}

static int
events_new(struct grpc_listener *l)
{
	size_t i;

	l->ev_resume = evtimer_new(l->base, on_resume, l);
	if (l->ev_resume == NULL)
		return -ENOMEM;
	for (i = 0; i < l->sockets.n; i++) {
		l->ev_accept[i] = event_new(l->base, l->sockets.fd[i], EV_READ | EV_PERSIST, on_accept, l);
		if (l->ev_accept[i] == NULL)
			return -ENOMEM;
	}
	return listener_resume(l);
}

int
grpc_listener_new(struct event_base *base, const struct conf_grpc_server *conf, const struct grpc_conn_ops *ops,
    grpc_on_conn on_conn, void *listener_arg, struct grpc_listener **ret, char err[GRPC_ERR_MAX])
{
	struct grpc_listener *l = calloc(1, sizeof *l);
	int rc = -ENOMEM;

	snprintf(err, GRPC_ERR_MAX, "out of memory");
	if (l == NULL)
		return rc;
	l->base = base;
	l->conf = conf;
	l->ops = ops;
	l->on_conn = on_conn;
	l->arg = listener_arg;
	l->holders = 1;
	TAILQ_INIT(&l->shaking);
	l->rates = ratelimit_new(&conf->tcp_rate_limits, RATE_ADDRESSES);
	if (l->rates != NULL)
		rc = tls_ctx_new(conf->tls, TLS_SERVER, TLS_ALPN_H2, &l->ctx, err);
	if (rc == 0)
		rc = listeners_open(conf->bind_address, &l->sockets, err);
	if (rc == 0) {
		rc = events_new(l);
		if (rc != 0)
			snprintf(err, GRPC_ERR_MAX, "out of memory");
	}
	if (rc != 0) {
		grpc_listener_free(l);
		return rc;
	}
	*ret = l;
	return 0;
}

/* --- reload --- */

struct grpc_listener_next {
	const struct conf_grpc_server *conf;
	SSL_CTX *ctx;
	struct ratelimit *rates;
};

void
grpc_listener_next_free(struct grpc_listener_next *n)
{
	if (n == NULL)
		return;
	ratelimit_free(n->rates);
	SSL_CTX_free(n->ctx);
	free(n);
}

int
grpc_listener_prepare(const struct conf_grpc_server *conf, struct grpc_listener_next **ret, char err[GRPC_ERR_MAX])
{
	struct grpc_listener_next *n = calloc(1, sizeof *n);
	int rc = -ENOMEM;

	snprintf(err, GRPC_ERR_MAX, "out of memory");
	if (n == NULL)
		return rc;
	n->conf = conf;
	n->rates = ratelimit_new(&conf->tcp_rate_limits, RATE_ADDRESSES);
	if (n->rates != NULL)
		rc = tls_ctx_new(conf->tls, TLS_SERVER, TLS_ALPN_H2, &n->ctx, err);
	if (rc != 0)
		grpc_listener_next_free(n);
	else
		*ret = n;
	return rc;
}

void
grpc_listener_apply(struct grpc_listener *l, struct grpc_listener_next *n)
{
	struct grpc_listener_next old = { .ctx = l->ctx, .rates = n->rates };

	/* the same limits go on with what they have counted */
	if (!rates_equal(&l->conf->tcp_rate_limits, &n->conf->tcp_rate_limits)) {
		old.rates = l->rates;
		l->rates = n->rates;
	}
	l->conf = n->conf;
	l->ctx = n->ctx;
	*n = old;
	grpc_listener_next_free(n);
}

SSL_CTX *
grpc_listener_ctx(const struct grpc_listener *l)
{
	return l->ctx;
}
