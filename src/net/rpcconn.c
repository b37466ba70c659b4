/* rpcconn.c - one HTTP connection of the JSON-RPC server, from its handshake to its end
 *
 *   HANDSHAKE --tls--> IDLE --byte--> HEAD --> BODY --> SERVING --answer--> WRITING --keep-alive--> IDLE
 *       `-refused-> LINGER              `--------`------- refusal ----------->'  `--close--> LINGER --> GONE
 *   every state --error, deadline, stop--> GONE
 *
 * Always true between two events:
 *  1. Every state but SERVING has a deadline that bytes do not move: HEAD and BODY
 *     share one that begins with the first byte, so dripping gains nothing.
 *     In SERVING the handler owes its answer within its own deadline.
 *  2. At most one request is being served; bytes behind it wait in the input
 *     buffer (at most READ_AHEAD and a TLS record) and in the kernel.
 *  3. c->call != NULL exactly in SERVING. A connection that goes takes nothing
 *     from its call: the call is detached and its answer goes nowhere.
 *  4. The serve callback is the last thing done with a connection in an event:
 *     it may answer, or free the server.
 *  5. A response that closes, and a TLS alert, is followed by LINGER: what the peer is
 *     still sending is read and dropped, or the reset would eat the response.
 *
 * Not here: accepting and its limits (rpcserver.c), reading HTTP (http.c), JSON-RPC (src/wire).
 *
 * Size: one state diagram, and every callback of libevent moves along it.
 */
#include "net/rpcconn.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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
#include "hyper/wire/json.h"
#include "net/http.h"

#define HANDSHAKE_MS  5000
#define KEEPALIVE_MS  75000
#define LINGER_MS     2000
#define LINGER_MAX    ((size_t)16 * 1024 * 1024)
#define READ_AHEAD    ((size_t)64 * 1024)
#define RESPONSE_HEAD ((size_t)2048) /* more than any: a head that lost a line for want of memory is another answer */

#define BIT(s) (1u << (s))

/* X(state, where it may go) */
#define CONN_STATES(X)                                                   \
	X(HANDSHAKE, BIT(CONN_IDLE) | BIT(CONN_LINGER) | BIT(CONN_GONE)) \
	X(IDLE, BIT(CONN_HEAD) | BIT(CONN_GONE))                         \
	X(HEAD, BIT(CONN_BODY) | BIT(CONN_WRITING) | BIT(CONN_GONE))     \
	X(BODY, BIT(CONN_SERVING) | BIT(CONN_WRITING) | BIT(CONN_GONE))  \
	X(SERVING, BIT(CONN_WRITING) | BIT(CONN_GONE))                   \
	X(WRITING, BIT(CONN_IDLE) | BIT(CONN_LINGER) | BIT(CONN_GONE))   \
	X(LINGER, BIT(CONN_GONE))                                        \
	X(GONE, 0)

enum conn_state {
#define X(n, to) CONN_##n,
	CONN_STATES(X)
#undef X
};

static const struct {
	const char *name;
	unsigned to;
} conn_tab[] = {
#define X(n, to) { #n, to },
	CONN_STATES(X)
#undef X
};

struct rpc_conn {
	struct rpc_server *srv;
	uint64_t id;
	enum conn_state state;
	struct bufferevent *bev; /* owns the socket and `ssl` */
	SSL *ssl;                /* borrowed; NULL on plain HTTP */
	struct event *deadline;
	struct event *drain;   /* in LINGER after a failed handshake, when `bev` reads no more */
	struct tls_peer *peer; /* NULL without a certificate */
	struct http_head head; /* points into head_text */
	char *head_text;
	size_t scanned;
	struct http_chunks chunks;
	struct http_body body;
	struct rpc_call *call;
	int64_t idle_since_ms; /* of the monotonic clock, in IDLE */
	bool keep;             /* after this response another request may come */
	bool eof;              /* the peer has sent all it had */
	bool heard;            /* a byte of HTTP has come */
	bool served;           /* has answered at least once */
	size_t drained;        /* in LINGER */
	TAILQ_ENTRY(rpc_conn) link;
};

struct rpc_call {
	struct rpc_conn *conn; /* NULL: gone */
	struct rpc_request req;
	struct tls_peer *peer; /* the connection's, ours when that is gone */
	int64_t since_ms;
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

/* The only place that writes c->state. */
static void
conn_enter(struct rpc_conn *c, enum conn_state to, const char *why)
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

static void
peer_free(struct tls_peer *peer)
{
	if (peer != NULL)
		tls_peer_fini(peer);
	free(peer);
}

/* Forgets the request that was read. */
static void
request_reset(struct rpc_conn *c)
{
	c->srv->bodies -= c->body.cap;
	http_body_fini(&c->body);
	free(c->head_text);
	c->head_text = NULL;
	c->scanned = 0;
	memset(&c->head, 0, sizeof(c->head));
	memset(&c->chunks, 0, sizeof(c->chunks));
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
	conn_enter(c, CONN_GONE, why);
	request_reset(c);
	if (c->call != NULL) {
		c->call->conn = NULL;
		c->peer = NULL; /* given to the call */
	}
	peer_free(c->peer);
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
static void
conn_go_on(struct rpc_conn *c)
{
	request_reset(c);
	c->served = true;
	conn_enter(c, CONN_IDLE, "keep-alive");
	if (evbuffer_get_length(bufferevent_get_input(c->bev)) > 0)
		bufferevent_trigger(c->bev, EV_READ, BEV_TRIG_IGNORE_WATERMARKS | BEV_TRIG_DEFER_CALLBACKS);
	rpc_server_on_room(c->srv);
}

/* Sends one response; `body` NULL is an empty one. The connection may be gone afterwards.
 * It is written at once as far as the kernel takes it: libevent's bufferevent would first wait for the socket
 * to be writable. That of a TLS connection writes at once, and a record for each piece that it is given. */
static void
conn_respond(struct rpc_conn *c, int status, const char *body)
{
	struct evbuffer *out = bufferevent_get_output(c->bev), *response = c->srv->response;
	size_t len = body != NULL ? strlen(body) : 0;
	bool ok = evbuffer_expand(response, RESPONSE_HEAD + len) == 0; /* in one piece */

	if (c->srv->is_held)
		c->keep = false;
	rpc_response_head(c->srv, &c->head, status, len, c->keep, response);
	conn_enter(c, CONN_WRITING, http_status_text(status));
	ok = ok && (len == 0 || evbuffer_add(response, body, len) == 0);
	if (ok && c->ssl == NULL && evbuffer_get_length(out) == 0)
		(void)evbuffer_write(response, bufferevent_getfd(c->bev)); /* the bufferevent hears of an error */
	ok = ok && evbuffer_add_buffer(out, response) == 0;
	evbuffer_drain(response, evbuffer_get_length(response)); /* nothing, but when it failed */
	if (!ok)
		rpc_conn_free(c, "out of memory");
	else if (evbuffer_get_length(out) > 0)
		return; /* on_written() follows */
	else if (c->keep)
		conn_go_on(c);
	else
		bufferevent_trigger(c->bev, EV_WRITE, BEV_TRIG_IGNORE_WATERMARKS | BEV_TRIG_DEFER_CALLBACKS);
}

static const char no_memory[] = "{\"jsonrpc\":\"2.0\",\"error\":{\"code\":-32603,\"message\":\"internal error: out of "
				"memory, try again later\"},\"id\":null}";

/* Answers with an error instead of calling a handler. The rest of the request is not read, so the connection ends. */
static void
conn_refuse(struct rpc_conn *c, const struct rpc_verdict *v)
{
	static struct log_limit limit;
	struct rpc_answer a;
	char *text;

	log_limited(&limit, LOG_LVL_INFO, "refused", "conn=%llu err=%d why=\"%s\"", (unsigned long long)c->id,
	    v->status, v->why);
	a = rpc_fail(v->code, NULL, "%s", v->why);
	text = rpc_answer_text(&a, NULL);
	rpc_answer_fini(&a);
	c->keep = false;
	conn_respond(c, v->status, text != NULL ? text : no_memory);
	free(text);
}

static void ATTR_PRINTF(4, 5) conn_refuse_because(struct rpc_conn *c, int status, int code, const char *fmt, ...)
{
	struct rpc_verdict v = { .status = status, .code = code };
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(v.why, sizeof(v.why), fmt, ap);
	va_end(ap);
	conn_refuse(c, &v);
}

/* All that the head alone decides. False: it was answered (or the connection is gone). */
static bool
conn_judge(struct rpc_conn *c)
{
	struct rpc_verdict v;

	switch (rpc_judge(c->srv, &c->head, c->peer, &v)) {
	case RPC_JUDGE_SERVE: return true;
	case RPC_JUDGE_REFUSE: conn_refuse(c, &v); return false;
	case RPC_JUDGE_PREFLIGHT:
	case RPC_JUDGE_NOT_FOUND: break;
	}
	/* a body that nobody reads must not be taken for the next request */
	if (c->head.length > 0 || c->head.chunked)
		c->keep = false;
	conn_respond(c, v.status, v.status == 404 ? "{\"message\":\"not found\"}" : NULL);
	return false;
}

/* HEAD: true when the request's body is what comes next. */
static bool
conn_read_head(struct rpc_conn *c)
{
	struct evbuffer *in = bufferevent_get_input(c->bev);
	size_t len = evbuffer_get_length(in);
	const char *data, *why = NULL;
	ssize_t end;
	int status;

	if (len > HTTP_HEAD_MAX)
		len = HTTP_HEAD_MAX;
	data = (const char *)evbuffer_pullup(in, (ev_ssize_t)len);
	if (data == NULL) {
		if (len > 0)
			rpc_conn_free(c, "out of memory");
		return false;
	}
	/* RFC 9112 2.2: an empty line before a request is the trace of an old client */
	while (c->scanned == 0 && len >= 2 && data[0] == '\r' && data[1] == '\n') {
		evbuffer_drain(in, 2);
		data += 2;
		len -= 2;
	}
	if (len == 0)
		return false;
	end = http_head_scan(data, len, &c->scanned);
	if (end == 0)
		return false;
	if (end == -EMSGSIZE)
		conn_refuse_because(
		    c, 431, RPC_PARSE, "the head of the request is over the limit of %zu bytes", HTTP_HEAD_MAX);
	else if (end < 0)
		conn_refuse_because(c, 400, RPC_PARSE, "this is not HTTP: %s expected",
		    c->ssl == NULL ? "plain HTTP/1.1, no TLS, is" : "HTTP/1.1 over TLS is");
	if (end < 0)
		return false;
	c->head_text = malloc((size_t)end + 1);
	if (c->head_text == NULL) {
		rpc_conn_free(c, "out of memory");
		return false;
	}
	evbuffer_remove(in, c->head_text, (size_t)end);
	status = http_head_parse(c->head_text, (size_t)end, &c->head, &why);
	c->keep = status == 0 && c->head.keep;
	if (status != 0) {
		conn_refuse_because(c, status, RPC_PARSE, "%s", why);
		return false;
	}
	if (!conn_judge(c))
		return false;
	conn_enter(c, CONN_BODY, "head complete");
	if (c->head.expect_continue && evbuffer_get_length(in) == 0)
		bufferevent_write(c->bev, "HTTP/1.1 100 Continue\r\n\r\n", 25);
	return true;
}

/* BODY complete: parse, and hand it over as the last thing. */
static void
conn_serve(struct rpc_conn *c)
{
	struct rpc_server *srv = c->srv;
	struct rpc_call *call = calloc(1, sizeof(*call));
	char *refusal = NULL;
	int code = RPC_INTERNAL;

	if (call != NULL)
		code = rpc_request_parse_known(
		    srv->clients, c->body.data != NULL ? c->body.data : "", c->body.len, &call->req, &refusal);
	/* the head is still needed for CORS headers, the body is not */
	srv->bodies -= c->body.cap;
	http_body_fini(&c->body);
	if (code != 0) {
		free(call);
		conn_respond(
		    c, code == RPC_INTERNAL || refusal == NULL ? 500 : 400, refusal != NULL ? refusal : no_memory);
		free(refusal);
		return;
	}
	call->conn = c;
	call->peer = c->peer;
	call->since_ms = clock_now_ms();
	c->call = call;
	conn_enter(c, CONN_SERVING, call->req.method);
	srv->serve(call, srv->serve_arg);
}

/* 1: the body is complete, 0: more is needed, -errno */
static int
conn_take_body(struct rpc_conn *c)
{
	struct evbuffer *in = bufferevent_get_input(c->bev);
	size_t cap = c->body.cap;
	int rc;

	if (c->head.chunked) {
		rc = http_chunks_step(&c->chunks, in, &c->body, JSON_MAX_BYTES);
	} else {
		size_t want = c->head.length > 0 ? (size_t)c->head.length : 0;

		rc = http_body_append(&c->body, in, want - c->body.len);
		if (rc == 0)
			rc = c->body.len == want;
	}
	c->srv->bodies += c->body.cap - cap;
	if (rc == 0 && c->srv->bodies > RPC_BODIES_MAX)
		return -ENOBUFS;
	return rc;
}

static void
conn_read_body(struct rpc_conn *c)
{
	int rc = conn_take_body(c);

	switch (rc) {
	case 0: break;
	case 1: conn_serve(c); break;
	case -EMSGSIZE:
		conn_refuse_because(c, 413, RPC_PARSE, "the body is over the limit of %zu bytes", JSON_MAX_BYTES);
		break;
	case -EINVAL: conn_refuse_because(c, 400, RPC_PARSE, "the chunked body is malformed"); break;
	case -ENOBUFS: conn_refuse_because(c, 503, RPC_BUSY, "too many large requests at once: try again later"); break;
	default: rpc_conn_free(c, "out of memory"); break;
	}
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
		conn_enter(c, CONN_HEAD, "first byte");
	if (c->state == CONN_HEAD && !conn_read_head(c))
		return;
	if (c->state == CONN_BODY)
		conn_read_body(c);
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
		conn_go_on(c);
		return;
	}
	request_reset(c);
	tls_say_end(c);
	if (c->eof || shutdown(bufferevent_getfd(bev), SHUT_WR) != 0) {
		conn_enter(c, CONN_LINGER, "answered");
		rpc_conn_free(c, "answered and ended");
		return;
	}
	conn_enter(c, CONN_LINGER, "answered");
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
	conn_enter(c, CONN_IDLE, "tls done");
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
	conn_enter(c, CONN_LINGER, "handshake failed");
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

	(void)fd;
	(void)what;
	if (c->state == CONN_HEAD || c->state == CONN_BODY) {
		c->keep = false;
		conn_refuse_because(c, 408, RPC_DEADLINE, "the request was not complete within %lld ms",
		    (long long)c->srv->conf->request_timeout_ms);
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
		conn_enter(c, CONN_IDLE, "plain");
	} else {
		struct timeval tv = { .tv_sec = HANDSHAKE_MS / 1000 };

		event_add(c->deadline, &tv);
	}
	return 0;
out:
	rpc_conn_free(c, "out of memory");
	return -ENOMEM;
}

const struct rpc_request *
rpc_call_request(const struct rpc_call *call)
{
	return &call->req;
}

const struct tls_peer *
rpc_call_peer(const struct rpc_call *call)
{
	return call->peer;
}

int64_t
rpc_call_since_ms(const struct rpc_call *call)
{
	return call->since_ms;
}

void
rpc_call_answer(struct rpc_call *call, struct rpc_answer answer)
{
	struct rpc_conn *c = call->conn;

	if (c != NULL) {
		char *text = rpc_answer_text(&answer, call->req.id);

		c->call = NULL;
		if (text == NULL)
			conn_respond(c, 500, no_memory);
		else
			conn_respond(c, answer.code == 0 ? 200 : 400, text);
		free(text);
	} else {
		peer_free(call->peer);
	}
	rpc_answer_fini(&answer);
	rpc_request_fini(&call->req);
	free(call);
}
