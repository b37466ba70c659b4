/* grpc_conn.c - life of a connection: dial, TLS, bytes to and from nghttp2, end
 *
 *   socket --tlsio--> nghttp2_session_mem_recv
 *   socket <--tlsio-- output <-- nghttp2_session_mem_send, while output is small
 *
 * Always true:
 *  1. Callbacks of the owner run from events of this file only. Calls of the
 *     interface note what is to be done and activate ev_work.
 *  2. Output holds at most GRPC_OUT_HIGH and one frame: what a slow reader does
 *     not take waits in the streams' capped queues.
 *  3. Memory of a freed connection goes in a finalizer, which runs in the next turn
 *     of the loop or in event_base_free(); until then every pointer of a
 *     callback up the stack stays valid.
 *  4. fd and SSL belong to the connection, not to the tlsio: the
 *     descriptor is back when on_closed runs.
 *
 * A missing close_notify is no error: HTTP/2 framing tells whether a stream was complete.
 *
 * Not here: deadlines (grpc_timer.c), who the peer may be (on_secured decides), reconnecting
 * (the owner).
 */
#include "net/grpc_impl.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <event2/event.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/x509_vfy.h>

#include "hyper/base/bug.h"
#include "hyper/base/clock.h"
#include "hyper/base/fd.h"
#include "hyper/base/log.h"
#include "hyper/net/dial.h"
#include "hyper/net/linger.h"
#include "net/tlsio.h"

static const struct {
	const char *name;
	unsigned to;
} conn_tab[] = {
#define X(n, to) { #n, to },
	GRPC_CONN_STATES(X)
#undef X
};

void
grpc_conn_enter(struct grpc_conn *c, enum conn_state to, const char *why)
{
	BUG_ON((conn_tab[c->state].to & GRPC_BIT(to)) == 0);
	log_debug("grpc", "conn=%llu why=\"%s>%s %s\"", (unsigned long long)c->nr, conn_tab[c->state].name,
	    conn_tab[to].name, why);
	c->state = to;
	if (c->is_shaking)
		grpc_listener_shaken(c);
}

void
grpc_conn_kick(struct grpc_conn *c)
{
	if (c->state != CONN_FREED)
		event_active(c->ev_work, EV_TIMEOUT, 0);
}

void
grpc_conn_fail(struct grpc_conn *c, enum end_reason reason, const char *fmt, ...)
{
	va_list ap;

	if (c->state >= CONN_ENDING)
		return;
	c->reason = reason;
	va_start(ap, fmt);
	vsnprintf(c->why, sizeof c->why, fmt, ap);
	va_end(ap);
	grpc_conn_enter(c, CONN_ENDING, c->why);
	grpc_conn_kick(c);
}

/* --- the end --- */

/* Best effort, without waiting: GOAWAY and close_notify, when nothing else waits to be written. */
static void
say_goodbye(struct grpc_conn *c)
{
	size_t sent = 0;

	if (c->h2 == NULL || tlsio_waiting(c->io) > 0)
		return;
	nghttp2_session_terminate_session(c->h2, NGHTTP2_NO_ERROR);
	while (sent < 16384) {
		const uint8_t *data;
		ssize_t n = nghttp2_session_mem_send(c->h2, &data);

		if (n <= 0 || SSL_write(c->ssl, data, (int)n) != n)
			break;
		sent += (size_t)n;
	}
	SSL_shutdown(c->ssl);
	ERR_clear_error();
}

/* Gives everything back but the memory of the connection. */
static void
conn_teardown(struct grpc_conn *c)
{
	dial_free(c->dial);
	c->dial = NULL;
	if (c->io != NULL) {
		say_goodbye(c);
		tlsio_free(c->io);
		c->io = NULL;
	}
	nghttp2_session_del(c->h2);
	c->h2 = NULL;
	if (c->ssl != NULL && SSL_get_rbio(c->ssl) != NULL && BIO_number_read(SSL_get_rbio(c->ssl)) > 0)
		c->was_heard = true;
	SSL_free(c->ssl);
	c->ssl = NULL;
	SSL_CTX_free(c->ctx);
	c->ctx = NULL;
	/* the lingering copy reads to the peer's end */
	if (c->is_polite && c->fd >= 0)
		shutdown(c->fd, SHUT_WR);
	fd_close(&c->fd);
	grpc_listener_unref(c->listener);
	c->listener = NULL;
	if (c->ev_timer != NULL)
		event_free(c->ev_timer);
	c->ev_timer = NULL;
}

static void
streams_end(struct grpc_conn *c, const char *why)
{
	struct grpc_stream *s;

	while ((s = TAILQ_FIRST(&c->streams)) != NULL)
		grpc_stream_over(s, GRPC_UNAVAILABLE, why);
}

/* From ENDING to CLOSED, in the loop. */
static void
conn_close(struct grpc_conn *c)
{
	streams_end(c, c->why);
	if (!grpc_streams_settle(c))
		return;
	/* what is under way to us would turn our close() into a reset of what we said last */
	c->is_polite = c->reason == END_CLOSED && c->fd >= 0 && linger_copy(c->base, c->fd);
	conn_teardown(c);
	grpc_conn_enter(c, CONN_CLOSED, end_reason_word(c->reason));
	c->ops->on_closed(c, c->reason, c->why, c->arg);
}

/* Memory that is in no event any more. */
static void
conn_memory_free(struct grpc_conn *c)
{
	conn_teardown(c);
	free(c->server_name);
	free(c->peer);
	free(c);
}

static void
on_reap(struct event *ev, void *arg)
{
	struct grpc_conn *c = arg;

	(void)ev;
	streams_end(c, c->why[0] != '\0' ? c->why : "the connection was closed on this side");
	while (!TAILQ_EMPTY(&c->over))
		(void)grpc_streams_settle(c);
	conn_memory_free(c);
}

void
grpc_conn_free(struct grpc_conn *c)
{
	if (c == NULL)
		return;
	/* The peer did nothing wrong: it gets an end, not a reset. The copy of the
	 * socket is made now, since conn_teardown() may run inside event_base_free(). */
	c->is_polite = c->state == CONN_OPEN && linger_copy(c->base, c->fd);
	/* now, not in the finalizer: connect() may have ended in this very turn of the loop */
	dial_free(c->dial);
	c->dial = NULL;
	grpc_conn_enter(c, CONN_FREED, "free");
	if (event_free_finalize(0, c->ev_work, on_reap) != 0)
		BUG_ON(true);
}

/* --- bytes --- */

/* Why the TLS connection ended, in OpenSSL's words where it has some. */
static void
conn_lost(struct grpc_conn *c)
{
	const struct tlsio_end *ended = tlsio_ended(c->io);
	const bool handshake = c->state == CONN_HANDSHAKE;
	const long verify = SSL_get_verify_result(c->ssl);
	const char *reason = ended->code != 0 ? ERR_reason_error_string(ended->code) : NULL;
	enum end_reason end = END_RESET;

	if (handshake && verify != X509_V_OK) {
		/* OpenSSL's reason would only say "certificate verify failed" */
		reason = X509_verify_cert_error_string(verify);
		end = END_TLS;
	} else if (reason != NULL) {
		end = END_TLS;
	} else if (ended->is_eof || ended->err == 0) {
		reason = "the peer closed the connection";
		end = handshake || c->n_streams > 0 ? END_RESET : END_CLOSED;
	} else {
		reason = strerror(ended->err);
	}
	if (end == END_CLOSED && c->h2_why[0] != '\0')
		reason = c->h2_why;
	if (handshake)
		grpc_conn_fail(c, end, "TLS handshake with %s: %s", c->peer, reason);
	else
		grpc_conn_fail(c, end, "%s: %s", c->peer, reason);
}

void
grpc_conn_run_down(struct grpc_conn *c)
{
	grpc_conn_fail(c, c->h2_reason, "%s: %s", c->peer, c->h2_why[0] != '\0' ? c->h2_why : "HTTP/2 session ended");
}

/* Has the session nothing to say and nothing to hear any more? A peer that broke
 * the rules may never take our GOAWAY, so the wait for that has an end. */
static void
check_run_down(struct grpc_conn *c)
{
	if (!grpc_conn_is_alive(c) || nghttp2_session_want_read(c->h2) || c->linger_ms != 0)
		return;
	if (!nghttp2_session_want_write(c->h2) && tlsio_waiting(c->io) == 0)
		grpc_conn_run_down(c);
	else if (c->give_up_ms == 0)
		c->give_up_ms = clock_now_ms() + GRPC_LINGER_MS;
}

/* Takes frames from nghttp2 while little waits. True: there may be more. */
static bool
conn_fill(struct grpc_conn *c)
{
	const uint8_t *data;
	ssize_t n = 1;

	while (n > 0 && grpc_conn_is_alive(c) && tlsio_waiting(c->io) < GRPC_OUT_HIGH) {
		n = nghttp2_session_mem_send(c->h2, &data);
		if (n < 0)
			grpc_conn_fail(c, END_INTERNAL, "%s: HTTP/2: %s", c->peer, nghttp2_strerror((int)n));
		else if (n > 0 && tlsio_put(c->io, data, (size_t)n) != 0)
			grpc_conn_fail(c, END_INTERNAL, "%s: out of memory", c->peer);
	}
	return n > 0;
}

/* Sends what is due, as much as the socket takes. */
static void
conn_pump(struct grpc_conn *c)
{
	bool more = true;

	while (more && grpc_conn_is_alive(c)) {
		more = conn_fill(c);
		if (grpc_conn_is_alive(c) && tlsio_flush(c->io) != 0)
			conn_lost(c);
		else if (tlsio_waiting(c->io) > 0)
			more = false;
	}
	check_run_down(c);
}

/* What is due after anything happened. Nothing may be done with `c` afterwards. */
static void
conn_step(struct grpc_conn *c)
{
	if (grpc_conn_is_alive(c))
		conn_pump(c);
	if (c->state == CONN_FREED)
		return;
	if (c->state == CONN_ENDING)
		conn_close(c);
	else if (grpc_streams_settle(c) && grpc_conn_is_alive(c))
		grpc_timer_rearm(c);
}

static void
on_work(evutil_socket_t sock, short what, void *arg)
{
	(void)sock;
	(void)what;
	conn_step(arg);
}

/* Hands what came to nghttp2. */
static void
conn_read(struct grpc_conn *c)
{
	static uint8_t buf[16384]; /* one at a time: nothing in here waits */
	ssize_t n = 1;
	int i = 0;

	for (; i < GRPC_READS && grpc_conn_is_alive(c); i++) {
		n = tlsio_read(c->io, buf, sizeof buf);
		if (n <= 0)
			break;
		n = nghttp2_session_mem_recv(c->h2, buf, (size_t)n);
		if (n < 0)
			grpc_conn_fail(c, n == NGHTTP2_ERR_NOMEM ? END_INTERNAL : END_RESET, "%s: HTTP/2: %s", c->peer,
			    nghttp2_strerror((int)n));
		else if (!tlsio_has_more(c->io))
			break;
	}
	if (i > 0 || n > 0)
		c->last_rx_ms = clock_now_ms();
	if (n < 0 && grpc_conn_is_alive(c))
		conn_lost(c);
	else if (i == GRPC_READS && grpc_conn_is_alive(c))
		tlsio_again(c->io);
}

/* --- TLS --- */

/* ALPN, the peer's certificate, HTTP/2, and the owner's word. */
static void
conn_secured(struct grpc_conn *c)
{
	const unsigned char *alpn = NULL;
	struct tls_peer peer = { 0 };
	unsigned len = 0;
	bool ok;
	int rc;

	SSL_get0_alpn_selected(c->ssl, &alpn, &len);
	if (len != 2 || memcmp(alpn, "h2", 2) != 0) {
		grpc_conn_fail(c, END_TLS, "TLS handshake with %s: the peer does not offer ALPN h2", c->peer);
		return;
	}
	rc = tls_peer_get(c->ssl, &peer);
	if (rc != 0 && (rc != -ENOENT || c->role == TLS_CLIENT)) {
		grpc_conn_fail(c, rc == -ENOMEM ? END_INTERNAL : END_TLS,
		    "TLS handshake with %s: the names in its certificate are unusable", c->peer);
		return;
	}
	rc = grpc_h2_new(c);
	c->secured_ms = c->last_rx_ms = c->idle_since_ms = clock_now_ms();
	if (rc != 0) {
		grpc_conn_fail(c, END_INTERNAL, "%s: out of memory", c->peer);
	} else {
		grpc_conn_enter(c, CONN_OPEN, SSL_get_version(c->ssl));
		ok = c->ops->on_secured(c, &peer, c->arg);
		if (!ok && c->state != CONN_FREED) /* nothing was sent yet: not even our SETTINGS */
			grpc_conn_fail(c, END_TLS, "%s: its certificate (%.100s) is not accepted", c->peer,
			    peer.n_names > 0 ? peer.names[0] : "without a name");
	}
	tls_peer_fini(&peer);
}

/* Something may be possible on the socket. */
static void
on_ready(void *arg)
{
	struct grpc_conn *c = arg;
	int rc = 0;

	if (c->state == CONN_HANDSHAKE) {
		rc = tlsio_handshake(c->io);
		if (rc < 0)
			conn_lost(c);
		else if (rc > 0)
			conn_secured(c);
	}
	if (rc > 0 && grpc_conn_is_alive(c) && !tlsio_has_more(c->io)) {
		grpc_conn_kick(c); /* after the owner, who may have a request for the first record */
		return;
	}
	if (grpc_conn_is_alive(c))
		conn_read(c);
	conn_step(c);
}

/* Notes the first record of the peer: on a brokered connection, the pair is made by then. */
static void
on_tls_message(int out, int version, int type, const void *buf, size_t len, SSL *ssl, void *arg)
{
	struct grpc_conn *c = arg;

	(void)version;
	(void)type;
	(void)buf;
	(void)len;
	(void)ssl;
	if (out == 0 && c->heard_ms == 0)
		c->heard_ms = clock_now_ms();
}

/* Over c->fd. 0 or -ENOMEM. */
static int
conn_start_tls(struct grpc_conn *c)
{
	c->ssl = tls_ssl_new(c->ctx, c->role, c->server_name);
	if (c->ssl == NULL)
		return -ENOMEM;
	SSL_CTX_free(c->ctx);
	c->ctx = NULL;
	SSL_set_options(c->ssl, SSL_OP_IGNORE_UNEXPECTED_EOF);
	SSL_set_msg_callback(c->ssl, on_tls_message);
	SSL_set_msg_callback_arg(c->ssl, c);
	if (tlsio_new(c->base, c->fd, c->ssl, on_ready, c, &c->io) != 0)
		return -ENOMEM;
	grpc_timer_rearm(c);
	return 0;
}

static void
on_dialled(int fd, const char *why, void *arg)
{
	struct grpc_conn *c = arg;

	c->dial = NULL;
	if (fd < 0) {
		grpc_conn_fail(c, fd == -ETIMEDOUT ? END_DEADLINE : END_UNREACHABLE, "%s", why);
		return;
	}
	c->fd = fd;
	grpc_conn_enter(c, CONN_HANDSHAKE, "tcp");
	if (conn_start_tls(c) != 0)
		grpc_conn_fail(c, END_INTERNAL, "TLS handshake with %s: out of memory", c->peer);
}

/* --- new --- */

static struct grpc_conn *
conn_new(struct event_base *base, SSL_CTX *ctx, const char *server_name, int64_t timeout_ms,
    const struct grpc_conn_ops *ops, void *arg)
{
	static uint64_t last_nr;
	struct grpc_conn *c = calloc(1, sizeof *c);

	if (c == NULL)
		return NULL;
	c->nr = ++last_nr;
	c->role = server_name != NULL ? TLS_CLIENT : TLS_SERVER;
	c->base = base;
	c->ops = ops;
	c->arg = arg;
	c->fd = -1;
	c->timer_ms = INT64_MAX;
	c->timeout_ms = timeout_ms;
	c->connect_ms = clock_now_ms() + timeout_ms;
	c->h2_reason = END_CLOSED;
	TAILQ_INIT(&c->streams);
	TAILQ_INIT(&c->over);
	if (SSL_CTX_up_ref(ctx) == 1)
		c->ctx = ctx;
	if (server_name != NULL)
		c->server_name = strdup(server_name);
	c->ev_work = event_new(base, -1, 0, on_work, c);
	c->ev_timer = grpc_timer_new(c);
	return c;
}

/* Nobody has seen it yet. */
static void
conn_discard(struct grpc_conn *c)
{
	if (c == NULL)
		return;
	if (c->ev_work != NULL)
		event_free(c->ev_work);
	conn_memory_free(c);
}

/* "address as name", bounded. 0 or -ENOMEM. */
static int
conn_name(struct grpc_conn *c, const char *address)
{
	const size_t len = 400;

	c->peer = malloc(len);
	if (c->peer == NULL)
		return -ENOMEM;
	snprintf(c->peer, len, "%.120s%s%.60s", address, c->server_name != NULL ? " as " : "",
	    c->server_name != NULL ? c->server_name : "");
	return c->ctx != NULL && c->ev_work != NULL && c->ev_timer != NULL &&
		       (c->role == TLS_SERVER || c->server_name != NULL)
		   ? 0
		   : -ENOMEM;
}

int
grpc_conn_dial(struct event_base *base, SSL_CTX *ctx, const char *address, const char *server_name,
    int64_t connect_timeout_ms, const struct grpc_conn_ops *ops, void *arg, struct grpc_conn **ret)
{
	struct grpc_conn *c = conn_new(base, ctx, server_name, connect_timeout_ms, ops, arg);
	int rc = c != NULL ? conn_name(c, address) : -ENOMEM;

	if (rc == 0)
		rc = dial_start(base, address, connect_timeout_ms, on_dialled, c, &c->dial);
	if (rc != 0) {
		conn_discard(c);
		return rc;
	}
	*ret = c;
	return 0;
}

/* The common part of grpc_conn_adopt() and grpc_conn_accept(). */
static int
conn_over_fd(struct grpc_conn *c, int fd)
{
	struct sockaddr_storage sa = { 0 };
	char address[LOG_ADDR_MAX] = "?";
	socklen_t len = sizeof sa;
	const int one = 1;
	int rc;

	c->fd = fd;
	if (getpeername(fd, (struct sockaddr *)&sa, &len) == 0)
		log_addr(&sa, true, address);
	rc = conn_name(c, address);
	if (rc == 0)
		rc = fd_set_nonblock(fd);
	if (rc != 0)
		return rc;
	if (fd_is_tcp(fd) && setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) != 0)
		return -errno;
	grpc_conn_enter(c, CONN_HANDSHAKE, "adopted");
	return conn_start_tls(c);
}

int
grpc_conn_adopt(struct event_base *base, SSL_CTX *ctx, int fd, const char *server_name, int64_t handshake_timeout_ms,
    const struct grpc_conn_ops *ops, void *arg, struct grpc_conn **ret)
{
	struct grpc_conn *c = conn_new(base, ctx, server_name, handshake_timeout_ms, ops, arg);
	int rc;

	if (c == NULL) {
		fd_close(&fd);
		return -ENOMEM;
	}
	rc = conn_over_fd(c, fd);
	if (rc != 0) {
		conn_discard(c);
		return rc;
	}
	*ret = c;
	return 0;
}

int
grpc_conn_accept(struct event_base *base, SSL_CTX *ctx, int fd, int64_t handshake_timeout_ms,
    const struct grpc_conn_ops *ops, struct grpc_listener *listener, struct grpc_conn **ret)
{
	struct grpc_conn *c;
	int rc = grpc_conn_adopt(base, ctx, fd, NULL, handshake_timeout_ms, ops, NULL, &c);

	if (rc != 0)
		return rc;
	c->listener = listener;
	*ret = c;
	return 0;
}

void
grpc_conn_set_arg(struct grpc_conn *c, void *arg)
{
	c->arg = arg;
}

bool
grpc_conn_is_ready(const struct grpc_conn *c)
{
	return c->state == CONN_OPEN;
}

size_t
grpc_conn_streams(const struct grpc_conn *c)
{
	return c->n_streams;
}

bool
grpc_conn_was_mute(const struct grpc_conn *c)
{
	return !c->was_heard;
}

int64_t
grpc_conn_heard_ms(const struct grpc_conn *c)
{
	return c->heard_ms;
}

int64_t
grpc_conn_secured_ms(const struct grpc_conn *c)
{
	return c->secured_ms;
}

const uint64_t *
grpc_bytes(void)
{
	return tlsio_moved();
}
