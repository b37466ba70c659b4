/* rpcserver.c - JSON-RPC over HTTP: listeners, who may connect, how many at once
 *
 * Always true:
 *  1. At most conf->max_connections connections: at the cap the one that has been
 *     silent longest between requests makes room, or else the oldest one that stands
 *     still in its TLS handshake; when there is none, accepting pauses and new ones
 *     wait in the kernel's queue.
 *  2. Without descriptors or memory accepting pauses for ACCEPT_PAUSE_MS instead of
 *     spinning.
 *  3. A connection over a rate limit is accepted and closed at once, before TLS.
 *
 * Not here: one connection's life (rpcconn.c), methods (sd, server, proxy).
 */
#include "hyper/net/rpcserver.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <event2/buffer.h>

#include "hyper/base/bug.h"
#include "hyper/base/fd.h"
#include "hyper/base/log.h"
#include "hyper/wire/json.h"
#include "net/rpcconn.h"

#define ACCEPT_BATCH    32 /* then other events get their turn */
#define ACCEPT_PAUSE_MS 100
#define FRESH_MS        500  /* a new connection is about to send its request */
#define SILENT_MS       1000 /* a connection that said nothing for so long may be given up */
#define RATE_ADDRESSES  4096

/* The only place that writes srv->accepting. */
static void
accepting_set(struct rpc_server *srv, bool on)
{
	size_t i;

	event_del(srv->resume_ev);
	on = on && !srv->is_held;
	if (srv->accepting == on)
		return;
	srv->accepting = on;
	for (i = 0; i < srv->listeners.n; i++) {
		if (on)
			event_add(srv->accept_ev[i], NULL);
		else
			event_del(srv->accept_ev[i]);
	}
}

static void
accepting_pause(struct rpc_server *srv, const char *err, const char *why)
{
	struct timeval tv = { .tv_usec = ACCEPT_PAUSE_MS * 1000 };
	static struct log_limit limit;

	log_limited(&limit, LOG_LVL_WARN, "accept", "err=%s why=\"%s, new connections wait\"", err, why);
	accepting_set(srv, false);
	event_add(srv->resume_ev, &tv);
}

static void
on_resume(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	accepting_set(arg, true);
}

void
rpc_server_on_room(struct rpc_server *srv)
{
	if (srv->resume_ev != NULL)
		accepting_set(srv, true);
}

/* At the cap, who goes: NULL when nobody may. */
static struct rpc_conn *
longest_silent(const struct rpc_server *srv)
{
	struct rpc_conn *c = TAILQ_FIRST(&srv->idle);

	/* one that has just come has its request under way: a burst must not eat itself */
	if (c != NULL && rpc_conn_idle_ms(c) >= SILENT_MS)
		return c;
	/* or who needs no certificate to fill the server would keep everybody else out */
	return rpc_conn_stalled(srv);
}

/* False: stop accepting for now. */
static bool
accept_one(struct rpc_server *srv, int listen_fd)
{
	static struct log_limit limit;
	struct sockaddr_storage peer = { .ss_family = AF_UNSPEC };
	struct sockaddr *sa = (struct sockaddr *)(void *)&peer;
	bool full = srv->n_conns >= srv->conf->max_connections;
	/* asked once: a byte that comes meanwhile would change the answer. Nobody goes until it does. */
	struct rpc_conn *leaves = full ? longest_silent(srv) : NULL;
	socklen_t len = sizeof(peer);
	char text[LOG_ADDR_MAX];
	int fd;

	if (full && leaves == NULL) {
		accepting_pause(srv, "full", "max_connections is reached and all are at work");
		return false;
	}
	fd = fd_accept(listen_fd);
	if (fd == -EMFILE || fd == -ENFILE || fd == -ENOBUFS || fd == -ENOMEM) {
		accepting_pause(srv, "paused", strerror(-fd));
		return false;
	}
	if (fd < 0) /* the peer may be gone already, others are waiting behind it */
		return fd != -EAGAIN && fd != -EWOULDBLOCK;
	if (getpeername(fd, sa, &len) != 0) {
		fd_close(&fd);
		return true;
	}
	if (!ratelimit_permits(srv->rates, sa)) {
		log_addr(sa, true, text);
		log_limited(
		    &limit, LOG_LVL_INFO, "accept", "err=rate peer=%s why=\"over tcp_rate_limits, closed\"", text);
		fd_close(&fd);
		return true;
	}
	if (leaves != NULL)
		rpc_conn_free(leaves, "made room for a new connection");
	if (rpc_conn_new(srv, fd, sa) != 0) {
		accepting_pause(srv, "paused", "out of memory");
		return false;
	}
	return true;
}

static void
on_accept(evutil_socket_t fd, short what, void *arg)
{
	int i;

	(void)what;
	for (i = 0; i < ACCEPT_BATCH; i++)
		if (!accept_one(arg, (int)fd))
			break;
}

static int
arm(struct rpc_server *srv)
{
	size_t i;

	srv->resume_ev = evtimer_new(srv->base, on_resume, srv);
	if (srv->resume_ev == NULL)
		return -ENOMEM;
	for (i = 0; i < srv->listeners.n; i++) {
		srv->accept_ev[i] = event_new(srv->base, srv->listeners.fd[i], EV_READ | EV_PERSIST, on_accept, srv);
		if (srv->accept_ev[i] == NULL)
			return -ENOMEM;
	}
	accepting_set(srv, true);
	return 0;
}

int
rpc_server_new(struct event_base *base, const struct conf_rpc_server *conf, const char *own_name, rpc_serve_cb serve,
    void *arg, struct rpc_server **ret, char err[RPC_SERVER_ERR_MAX])
{
	struct rpc_server *srv = calloc(1, sizeof(*srv));
	int rc = -ENOMEM;

	snprintf(err, RPC_SERVER_ERR_MAX, "out of memory");
	if (srv == NULL)
		return -ENOMEM;
	BUG_ON(conf->max_connections == 0 || conf->request_timeout_ms <= 0);
	srv->base = base;
	srv->conf = conf;
	srv->serve = serve;
	srv->serve_arg = arg;
	TAILQ_INIT(&srv->idle);
	TAILQ_INIT(&srv->busy);
	srv->response = evbuffer_new();
	srv->rates = ratelimit_new(&conf->tcp_rate_limits, RATE_ADDRESSES);
	if (own_name != NULL)
		srv->own_name = strdup(own_name);
	if (srv->response == NULL || srv->rates == NULL || (own_name != NULL && srv->own_name == NULL))
		goto out;
	rc = conf->tls != NULL ? tls_ctx_new(conf->tls, TLS_SERVER, TLS_ALPN_NONE, &srv->tls, err) : 0;
	if (rc == 0 && conf->cors != NULL)
		rc = cors_new(conf->cors, &srv->cors, err);
	if (rc == 0)
		rc = listeners_open(conf->bind_address, &srv->listeners, err);
	for (size_t i = 0; rc == 0 && i < srv->listeners.n; i++)
		fd_notice_vanished(srv->listeners.fd[i]); /* for all that is accepted */
	if (rc == 0) {
		rc = arm(srv);
		if (rc != 0)
			snprintf(err, RPC_SERVER_ERR_MAX, "out of memory");
	}
out:
	if (rc != 0) {
		rpc_server_free(srv);
		return rc;
	}
	err[0] = '\0';
	*ret = srv;
	return 0;
}

/* --- reload --- */

struct rpc_server_next {
	const struct conf_rpc_server *conf;
	SSL_CTX *tls;
	struct cors *cors;
	struct ratelimit *rates;
};

void
rpc_server_next_free(struct rpc_server_next *n)
{
	if (n == NULL)
		return;
	ratelimit_free(n->rates);
	cors_free(n->cors);
	SSL_CTX_free(n->tls);
	free(n);
}

int
rpc_server_prepare(const struct conf_rpc_server *conf, struct rpc_server_next **ret, char err[RPC_SERVER_ERR_MAX])
{
	struct rpc_server_next *n = calloc(1, sizeof(*n));
	int rc = -ENOMEM;

	snprintf(err, RPC_SERVER_ERR_MAX, "out of memory");
	if (n != NULL) {
		n->conf = conf;
		n->rates = ratelimit_new(&conf->tcp_rate_limits, RATE_ADDRESSES);
		rc = n->rates != NULL ? 0 : -ENOMEM;
	}
	if (rc == 0 && conf->tls != NULL)
		rc = tls_ctx_new(conf->tls, TLS_SERVER, TLS_ALPN_NONE, &n->tls, err);
	if (rc == 0 && conf->cors != NULL)
		rc = cors_new(conf->cors, &n->cors, err);
	if (rc != 0) {
		rpc_server_next_free(n);
		return rc;
	}
	err[0] = '\0';
	*ret = n;
	return 0;
}

void
rpc_server_apply(struct rpc_server *srv, struct rpc_server_next *n)
{
	struct rpc_server_next old = { .tls = srv->tls, .cors = srv->cors, .rates = n->rates };

	/* the same limits go on with what they have counted */
	if (!rates_equal(&srv->conf->tcp_rate_limits, &n->conf->tcp_rate_limits)) {
		old.rates = srv->rates;
		srv->rates = n->rates;
	}
	srv->conf = n->conf;
	srv->tls = n->tls;
	srv->cors = n->cors;
	*n = old;
	rpc_server_next_free(n);
	rpc_server_on_room(srv); /* max_connections may have grown */
}

void
rpc_server_remember_clients(struct rpc_server *srv)
{
	json_memo_free(srv->clients);
	srv->clients = json_memo_new("params", "_client");
}

void
rpc_server_free(struct rpc_server *srv)
{
	size_t i;

	if (srv == NULL)
		return;
	for (i = 0; i < ARRAY_LEN(srv->accept_ev); i++)
		if (srv->accept_ev[i] != NULL)
			event_free(srv->accept_ev[i]);
	if (srv->resume_ev != NULL)
		event_free(srv->resume_ev);
	srv->resume_ev = NULL; /* rpc_server_on_room(): not again */
	listeners_close(&srv->listeners);
	while (!TAILQ_EMPTY(&srv->idle))
		rpc_conn_free(TAILQ_FIRST(&srv->idle), "server stopped");
	while (!TAILQ_EMPTY(&srv->busy))
		rpc_conn_free(TAILQ_FIRST(&srv->busy), "server stopped");
	if (srv->response != NULL)
		evbuffer_free(srv->response);
	json_memo_free(srv->clients);
	ratelimit_free(srv->rates);
	cors_free(srv->cors);
	SSL_CTX_free(srv->tls);
	free(srv->own_name);
	free(srv);
}

void
rpc_server_hold(struct rpc_server *srv, bool on)
{
	srv->is_held = on;
	accepting_set(srv, !on);
}

bool
rpc_server_is_quiet(const struct rpc_server *srv)
{
	return TAILQ_EMPTY(&srv->busy) && !rpc_conn_is_any_fresh(srv, FRESH_MS);
}

uint16_t
rpc_server_port(const struct rpc_server *srv)
{
	return srv->listeners.port;
}
