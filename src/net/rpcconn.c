/* rpcconn.c - one HTTP connection of the JSON-RPC server, from its handshake to its end
 *
 * The states are drawn in rpcconn_impl.h. Always true between two events:
 *  1. Every state but SERVING has a deadline that bytes do not move: HEAD and BODY
 *     share one that begins with the first byte, so dripping gains nothing.
 *     In SERVING the handler owes its answer within its own deadline.
 *  2. Bytes behind the request that is being served wait in the input
 *     buffer (at most READ_AHEAD and a TLS record) and in the kernel.
 *  3. c->call != NULL exactly in SERVING. A connection that goes takes nothing
 *     from its call: the call is detached and its answer goes nowhere.
 *  4. A response that closes, and a TLS alert, is followed by LINGER: what the peer is
 *     still sending is read and dropped, or the reset would eat the response.
 *
 * Not here: accepting and its limits (rpcserver.c), requests and answers (rpcexchange.c), reading HTTP (rpcread.c, http.c).
 */
#include "net/rpcconn.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/bufferevent_ssl.h>
#include <openssl/bio.h>
#include <openssl/err.h>

#include "hyper/base/bug.h"
#include "hyper/base/clock.h"
#include "hyper/base/fd.h"
#include "hyper/base/log.h"
#include "hyper/net/metrics.h"
#include "net/rpcconn_impl.h"

#define HANDSHAKE_MS 5000
#define KEEPALIVE_MS 75000
#define LINGER_MS    2000
#define STALL_LOOKS  16 /* so one that drips is no shield for those behind it, and a full server costs no more */
#define LINGER_MAX   ((size_t)16 * 1024 * 1024)
#define READ_AHEAD   ((size_t)64 * 1024)

static const struct {
	const char *name;
	unsigned to;
} conn_tab[] = {
#define X(n, to) { #n, to },
	CONN_STATES(X)
#undef X
};

/* Milliseconds a state may last, 0 for as long as it takes; -1: what is left of the state before. */
static int64_t
state_ms(const struct rpc_conn *c, enum conn_state state)
{
	switch (state) {
	case CONN_HANDSHAKE: return HANDSHAKE_MS;
	case CONN_IDLE: return c->served ? KEEPALIVE_MS : c->srv->conf->request_timeout_ms;
	case CONN_HEAD:
	case CONN_WRITING: return c->srv->conf->request_timeout_ms;
	case CONN_BODY: return -1;
	case CONN_LINGER: return LINGER_MS;
	case CONN_SERVING:
	case CONN_GONE: break;
	}
	return 0;
}

void
rpc_conn_enter(struct rpc_conn *c, enum conn_state to, const char *why)
{
	struct rpc_server *srv = c->srv;
	int64_t ms = state_ms(c, to);

	BUG_ON(!(conn_tab[c->state].to & BIT(to)));
	log_debug("http", "conn=%llu %s>%s why=\"%s\"", (unsigned long long)c->id, conn_tab[c->state].name,
	    conn_tab[to].name, why);
	if (c->state == CONN_IDLE)
		TAILQ_REMOVE(&srv->idle, c, link);
	else
		TAILQ_REMOVE(&srv->busy, c, link);
	c->state = to;
	if (to == CONN_IDLE) {
		TAILQ_INSERT_TAIL(&srv->idle, c, link);
		c->idle_since_ms = clock_now_ms();
	} else if (to != CONN_GONE)
		TAILQ_INSERT_TAIL(&srv->busy, c, link);
	if (ms > 0) {
		struct timeval tv = { .tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000 };

		if (event_add(c->deadline, &tv) < 0) /* no memory to wait: now is better than never */
			event_active(c->deadline, EV_TIMEOUT, 0);
	} else if (ms == 0 && c->deadline != NULL) {
		event_del(c->deadline);
	}
}

int64_t
rpc_conn_idle_ms(const struct rpc_conn *c)
{
	return clock_now_ms() - c->idle_since_ms;
}

struct rpc_conn *
rpc_conn_stalled(const struct rpc_server *srv)
{
	struct rpc_conn *c;
	int looks = STALL_LOOKS;

	TAILQ_FOREACH (c, &srv->busy, link) { /* those in their handshake are in the order of their coming */
		if (c->state != CONN_HANDSHAKE && c->drain == NULL)
			continue;
		if (tls_is_stalled(bufferevent_getfd(c->bev), rpc_conn_idle_ms(c)))
			return c;
		if (--looks == 0)
			break;
	}
	return NULL;
}

bool
rpc_conn_is_any_fresh(const struct rpc_server *srv, int64_t ms)
{
	const struct rpc_conn *c;

	TAILQ_FOREACH_REVERSE(c, &srv->idle, rpc_conn_list, link)
	{
		if (rpc_conn_idle_ms(c) >= ms)
			return false; /* those before are silent for longer */
		if (!c->served)
			return true;
	}
	return false;
}

void
rpc_conn_peer_free(struct tls_peer *peer)
{
	if (peer != NULL)
		tls_peer_fini(peer);
	free(peer);
}

/* close_notify, so that the peer can tell an end from a cut */
static void
tls_say_end(struct rpc_conn *c)
{
	if (c->ssl == NULL || !SSL_is_init_finished(c->ssl))
		return;
	SSL_shutdown(c->ssl);
	ERR_clear_error();
}

void
rpc_conn_free(struct rpc_conn *c, const char *why)
{
	struct rpc_server *srv = c->srv;

	if (c->state != CONN_LINGER)
		tls_say_end(c);
	rpc_conn_enter(c, CONN_GONE, why);
	rpc_reading_reset(&c->reading);
	rpc_exchange_detach(c);
	rpc_conn_peer_free(c->peer);
	if (c->deadline != NULL)
		event_free(c->deadline);
	if (c->drain != NULL)
		event_free(c->drain);
	bufferevent_free(c->bev);
	free(c);
	srv->n_conns--;
	rpc_server_on_room(srv);
}

/* A response has left whole, and the connection goes on: what is there of the next
 * request is looked at from the loop, so that requests in a row do not nest. */
void
rpc_conn_go_on(struct rpc_conn *c)
{
	rpc_reading_reset(&c->reading);
	c->served = true;
	rpc_conn_enter(c, CONN_IDLE, "keep-alive");
	if (evbuffer_get_length(bufferevent_get_input(c->bev)) > 0)
		bufferevent_trigger(c->bev, EV_READ, BEV_TRIG_IGNORE_WATERMARKS | BEV_TRIG_DEFER_CALLBACKS);
	rpc_server_on_room(c->srv);
}

/* Goes as far as the bytes that are there allow. The connection may be gone afterwards. */
static void
conn_step(struct rpc_conn *c)
{
	struct evbuffer *in = bufferevent_get_input(c->bev);
	size_t len = evbuffer_get_length(in);

	if (c->state == CONN_LINGER) {
		c->drained += len;
		evbuffer_drain(in, len);
		if (c->drained > LINGER_MAX)
			rpc_conn_free(c, "sends on after the answer");
		return;
	}
	if (c->state == CONN_IDLE && len > 0)
		rpc_conn_enter(c, CONN_HEAD, "first byte");
	rpc_exchange_read(c);
}

static void
on_read(struct bufferevent *bev, void *arg)
{
	struct rpc_conn *c = arg;

	(void)bev;
	c->heard = true;
	conn_step(c);
}

/* All that was queued has been handed to the kernel. */
static void
on_written(struct bufferevent *bev, void *arg)
{
	struct rpc_conn *c = arg;

	if (c->state != CONN_WRITING || evbuffer_get_length(bufferevent_get_output(bev)) > 0)
		return; /* a 100 Continue, or bytes queued since */
	if (c->keep) {
		rpc_conn_go_on(c);
		return;
	}
	rpc_reading_reset(&c->reading);
	tls_say_end(c);
	if (c->eof || shutdown(bufferevent_getfd(bev), SHUT_WR) != 0) {
		rpc_conn_enter(c, CONN_LINGER, "answered");
		rpc_conn_free(c, "answered and ended");
		return;
	}
	rpc_conn_enter(c, CONN_LINGER, "answered");
	conn_step(c);
}

static void
on_secured(struct rpc_conn *c)
{
	struct tls_peer peer;
	int rc = tls_peer_get(c->ssl, &peer);

	if (rc == 0) {
		c->peer = malloc(sizeof(*c->peer));
		if (c->peer != NULL)
			*c->peer = peer;
		else
			tls_peer_fini(&peer);
	}
	/* -ENOENT: no certificate was asked for, the handshake sees to it otherwise */
	if (rc != -ENOENT && c->peer == NULL) {
		rpc_conn_free(c, "the client certificate has names that cannot be read");
		return;
	}
	rpc_conn_enter(c, CONN_IDLE, "tls done");
	conn_step(c);
}

static void
log_tls_failure(struct rpc_conn *c)
{
	static struct log_limit limit;
	unsigned long code = bufferevent_get_openssl_error(c->bev);
	const char *why = code != 0 ? ERR_reason_error_string(code) : NULL;
	long verify = SSL_get_verify_result(c->ssl);

	log_limited(&limit, LOG_LVL_INFO, "tls", "conn=%llu err=handshake why=\"%s%s%s\"", (unsigned long long)c->id,
	    why != NULL ? why : "connection lost", verify != X509_V_OK ? ": " : "",
	    verify != X509_V_OK ? X509_verify_cert_error_string(verify) : "");
}

static void
on_drain(evutil_socket_t fd, short what, void *arg)
{
	struct rpc_conn *c = arg;
	char junk[4096];
	ssize_t n = recv(fd, junk, sizeof(junk), MSG_DONTWAIT);

	(void)what;
	if (n > 0)
		c->drained += (size_t)n;
	if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR) || c->drained > LINGER_MAX)
		rpc_conn_free(c, "handshake failed");
}

/* A TLS 1.3 client is done before we judge its certificate and sends its request at once: closing on
 * those bytes would be a reset, and the client never see the alert that says why. */
static void
linger_after_handshake(struct rpc_conn *c)
{
	evutil_socket_t fd = bufferevent_getfd(c->bev);

	bufferevent_disable(c->bev, EV_READ | EV_WRITE);
	c->drain = event_new(c->srv->base, fd, EV_READ | EV_PERSIST, on_drain, c);
	if (c->drain == NULL || shutdown(fd, SHUT_WR) != 0 || event_add(c->drain, NULL) != 0) {
		rpc_conn_free(c, "handshake failed");
		return;
	}
	rpc_conn_enter(c, CONN_LINGER, "handshake failed");
}

/* It ends, and no byte came: somebody looked whether the port is open. */
static bool
is_probe(const struct rpc_conn *c)
{
	return !c->heard && (c->ssl == NULL || BIO_number_read(SSL_get_rbio(c->ssl)) == 0);
}

static void
on_event(struct bufferevent *bev, short what, void *arg)
{
	struct rpc_conn *c = arg;

	(void)bev;
	if (what & BEV_EVENT_CONNECTED) {
		on_secured(c);
		return;
	}
	if (is_probe(c)) {
		metrics_note_probe();
		rpc_conn_free(c, "closed before its first byte");
		return;
	}
	if (c->state == CONN_HANDSHAKE) {
		log_tls_failure(c);
		linger_after_handshake(c);
		return;
	}
	/* deferred, an end and a failed write can come as one */
	if (!(what & BEV_EVENT_EOF) || (what & BEV_EVENT_ERROR)) {
		rpc_conn_free(c, "connection lost");
		return;
	}
	/* `nc -N` and shutdown(SHUT_WR) still wait for their answer. libevent stops
	 * writing too after the end of a TLS stream, so there it is the end. */
	if (c->ssl == NULL && (c->state == CONN_SERVING || c->state == CONN_WRITING)) {
		c->eof = true;
		c->keep = false;
		return;
	}
	rpc_conn_free(c, "peer closed");
}

static void
on_deadline(evutil_socket_t fd, short what, void *arg)
{
	struct rpc_conn *c = arg;
	struct rpc_verdict v;

	(void)fd;
	(void)what;
	if (c->state == CONN_HEAD || c->state == CONN_BODY) {
		rpc_verdict_set(&v, 408, RPC_DEADLINE, "the request was not complete within %lld ms",
		    (long long)c->srv->conf->request_timeout_ms);
		rpc_exchange_refuse(c, &v);
		return;
	}
	if (c->state == CONN_HANDSHAKE)
		log_tls_failure(c);
	rpc_conn_free(c, "deadline");
}

/* The bufferevent that owns fd. NULL when out of memory, then fd is closed. */
static struct bufferevent *
bev_new(struct rpc_server *srv, int fd, SSL **ret_ssl)
{
	int options = BEV_OPT_CLOSE_ON_FREE | BEV_OPT_DEFER_CALLBACKS;
	struct bufferevent *bev = NULL;
	SSL *ssl = NULL;

	if (srv->tls == NULL)
		bev = bufferevent_socket_new(srv->base, fd, options);
	else if ((ssl = tls_ssl_new(srv->tls, TLS_SERVER, NULL)) != NULL && SSL_set_fd(ssl, fd) != 1) {
		/* libevent would not look whether it could, and the client would wait for the handshake's deadline */
		SSL_free(ssl);
		ssl = NULL;
	} else if (ssl != NULL)
		bev = bufferevent_openssl_socket_new(srv->base, fd, ssl, BUFFEREVENT_SSL_ACCEPTING, options);
	if (bev == NULL)
		fd_close(&fd); /* `ssl` was freed with it */
	*ret_ssl = ssl;
	return bev;
}

int
rpc_conn_new(struct rpc_server *srv, int fd, const struct sockaddr *peer)
{
	struct rpc_conn *c = calloc(1, sizeof(*c));
	char text[LOG_ADDR_MAX];

	if (c == NULL) {
		fd_close(&fd);
		return -ENOMEM;
	}
	c->bev = bev_new(srv, fd, &c->ssl);
	if (c->bev == NULL) {
		free(c);
		return -ENOMEM;
	}
	c->srv = srv;
	c->id = ++srv->last_id;
	srv->n_conns++;
	c->state = CONN_HANDSHAKE;
	c->idle_since_ms = clock_now_ms();
	TAILQ_INSERT_TAIL(&srv->busy, c, link);
	log_addr(peer, true, text);
	log_debug("http", "conn=%llu peer=%s", (unsigned long long)c->id, text);
	c->deadline = evtimer_new(srv->base, on_deadline, c);
	if (c->deadline == NULL)
		goto out;
	bufferevent_setcb(c->bev, on_read, on_written, on_event, c);
	bufferevent_setwatermark(c->bev, EV_READ, 0, READ_AHEAD);
	if (bufferevent_enable(c->bev, EV_READ | EV_WRITE) != 0)
		goto out;
	if (c->ssl == NULL) {
		rpc_conn_enter(c, CONN_IDLE, "plain");
	} else {
		struct timeval tv = { .tv_sec = HANDSHAKE_MS / 1000 };

		event_add(c->deadline, &tv);
	}
	return 0;
out:
	rpc_conn_free(c, "out of memory");
	return -ENOMEM;
}
