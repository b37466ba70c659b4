/* rpccurl.c - what calls libcurl's multi interface, and what libcurl calls back
 *
 *   rpc_curl_start --> curl --socket and timer events--> collect --xfer->cb--> the call (rpcclient.c)
 *
 * Always true:
 *  1. No request leaves but to endpoint->url or endpoint->proxy_url: no redirects, no proxies from the environment,
 *     no other scheme.
 *  2. TLS obeys tls.c's rules: curl's context is overwritten with ours, and the files are read once, at the start.
 *  3. A multi handle that failed once (a callback of ours had no memory, or libcurl said so) is never used again: all
 *     that was under way ends, and the next transfer begins with a new handle.
 *  4. An easy handle in `spare` knows nothing of the transfer that it served.
 *
 * Not here: deadlines of calls, what a body means (rpcclient.c), where the endpoint is (rpcendpoint.c).
 */
#include "net/rpccurl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <event2/event.h>

#include "hyper/base/log.h"
#include "hyper/net/tls.h"
#include "hyper/wire/json.h"
#include "net/rpcendpoint.h"

#define CONNECT_MS    10000L
#define CONN_MAX      256L     /* calls beyond wait inside curl, under their deadlines */
#define CONN_IDLE_MAX CONN_MAX /* closing one that 64 calls at a time want again costs two handshakes */
#define CONN_IDLE_S   60L      /* our servers end idle connections after 75 s: be first */
#define SPARE_MAX     64       /* handles kept for the next calls */
#define BODY_CAP      4096     /* bytes, of the first buffer for an answer */

/* One event for each socket of curl's. */
struct curl_sock {
	struct event *ev;
	LIST_ENTRY(curl_sock) link;
};

struct rpc_curl {
	struct event_base *base;           /* borrowed */
	const struct rpc_endpoint *at;     /* borrowed */
	CURLM *multi;                      /* NULL: the last one failed, the next transfer makes another */
	struct event *timer;               /* curl's */
	bool is_dead;                      /* curl was told that a callback failed: it does nothing more */
	LIST_HEAD(, curl_sock) socks;      /* what curl watches */
	TAILQ_HEAD(, curl_xfer) under_way; /* each with an easy handle in `multi` */
	CURL *spare[SPARE_MAX];            /* all set but for the transfer */
	size_t n_spare;
};

static enum end_reason
reason_of(CURLcode code, const char *why)
{
	switch (code) {
	case CURLE_OPERATION_TIMEDOUT: return END_DEADLINE;
	case CURLE_PEER_FAILED_VERIFICATION:
	case CURLE_SSL_CONNECT_ERROR:
	case CURLE_SSL_CERTPROBLEM:
	case CURLE_SSL_CIPHER:
	case CURLE_SSL_CACERT_BADFILE:
	case CURLE_SSL_ISSUER_ERROR: return END_TLS;
	case CURLE_OUT_OF_MEMORY:
	case CURLE_WRITE_ERROR:
	case CURLE_FAILED_INIT: return END_INTERNAL;
	default: break;
	}
	/* TLS 1.3: a server refuses the client's certificate after the client's handshake is done */
	return strstr(why, " alert ") != NULL ? END_TLS : END_UNREACHABLE;
}

/* Takes the transfer away from curl. A handle whose transfer is over can be used again. */
static void
xfer_detach(struct curl_xfer *x, bool is_over)
{
	struct rpc_curl *rc = x->rc;
	CURL *e = x->easy;

	TAILQ_REMOVE(&rc->under_way, x, link);
	curl_multi_remove_handle(rc->multi, e);
	x->easy = NULL;
	/* nothing of this transfer may be left in it */
	if (is_over && rc->n_spare < SPARE_MAX && curl_easy_setopt(e, CURLOPT_ERRORBUFFER, NULL) == CURLE_OK &&
	    curl_easy_setopt(e, CURLOPT_POSTFIELDS, NULL) == CURLE_OK)
		rc->spare[rc->n_spare++] = e;
	else
		curl_easy_cleanup(e);
}

/* What has come is kept out of *x, which is as new: the callback may use it again. */
static void
xfer_end(struct curl_xfer *x, bool is_over, const struct curl_end *end)
{
	curl_xfer_cb cb = x->cb;
	void *arg = x->arg;
	char *body = x->body;

	xfer_detach(x, is_over);
	*x = (struct curl_xfer){ 0 };
	cb(end, arg);
	free(body);
}

/* Does the answer end its connection (RFC 9112 9.6)? libcurl counts no connection for a request that it sent again, so
 * its count alone would not tell. */
static bool
says_close(CURL *easy)
{
	struct curl_header *h;

	return curl_easy_header(easy, "Connection", 0, CURLH_HEADER, -1, &h) == CURLHE_OK &&
	       strcasestr(h->value, "close") != NULL;
}

static void
on_finished(struct curl_xfer *x, CURLcode code)
{
	char why[CURL_ERROR_SIZE];
	struct curl_end end = { .how = CURL_END_BODY, .body = x->body != NULL ? x->body : "", .len = x->len };
	long connects = 1;

	curl_easy_getinfo(x->easy, CURLINFO_RESPONSE_CODE, &end.status);
	curl_easy_getinfo(x->easy, CURLINFO_NUM_CONNECTS, &connects);
	if (x->too_big) {
		end.how = CURL_END_TOO_BIG;
	} else if (code != CURLE_OK) {
		memcpy(why, x->why, sizeof(why)); /* *x is emptied before the callback */
		end.how = CURL_END_FAILED;
		end.why = why[0] != '\0' ? why : curl_easy_strerror(code);
		end.reason = reason_of(code, end.why);
	} else if (says_close(x->easy)) {
		end.seen = CONN_ENDS;
	} else if (connects == 0) {
		end.seen = CONN_KEPT;
	}
	xfer_end(x, code == CURLE_OK, &end);
}

/* What curl has finished. */
static void
collect(struct rpc_curl *rc)
{
	struct CURLMsg *msg;
	int left;

	while ((msg = curl_multi_info_read(rc->multi, &left)) != NULL) {
		struct curl_xfer *x = NULL;
		CURLcode code = msg->data.result;

		if (msg->msg != CURLMSG_DONE)
			continue;
		curl_easy_getinfo(msg->easy_handle, CURLINFO_PRIVATE, &x);
		on_finished(x, code);
	}
}

static void
sock_free(struct curl_sock *sock)
{
	LIST_REMOVE(sock, link);
	if (sock->ev != NULL)
		event_free(sock->ev);
	free(sock);
}

/* A handle that is dead closes its sockets without a word: an event left on such a number would hide the next one's. */
static void
free_multi(struct rpc_curl *rc)
{
	curl_multi_cleanup(rc->multi);
	rc->multi = NULL;
	rc->is_dead = false;
	while (!LIST_EMPTY(&rc->socks))
		sock_free(LIST_FIRST(&rc->socks));
}

/* libcurl failed as a whole: no memory, or a callback of ours had none. It must not be used again: one such
 * handle fails every later call, another one divides by zero (both seen with 7.88). */
static void
give_up_multi(struct rpc_curl *rc, CURLMcode code)
{
	const struct curl_end end = {
		.how = CURL_END_FAILED, .reason = END_INTERNAL, .why = curl_multi_strerror(code)
	};

	log_warn("rpcclient", "err=\"%s\" why=\"calls under way fail, libcurl begins anew\"", end.why);
	while (!TAILQ_EMPTY(&rc->under_way))
		xfer_end(TAILQ_FIRST(&rc->under_way), false, &end);
	free_multi(rc);
}

/* Lets curl work on a socket, or on its time-outs. */
static void
act(struct rpc_curl *rc, curl_socket_t fd, int action)
{
	int running;
	CURLMcode code = curl_multi_socket_action(rc->multi, fd, action, &running);

	collect(rc);
	if (rc->is_dead || (code != CURLM_OK && code != CURLM_BAD_SOCKET))
		give_up_multi(rc, rc->is_dead ? CURLM_OUT_OF_MEMORY : code);
}

static void
on_socket(evutil_socket_t fd, short what, void *arg)
{
	act(arg, (curl_socket_t)fd, (what & EV_READ ? CURL_CSELECT_IN : 0) | (what & EV_WRITE ? CURL_CSELECT_OUT : 0));
}

static void
on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct rpc_curl *rc = arg;

	(void)fd;
	(void)what;
	if (rc->multi != NULL)
		act(rc, CURL_SOCKET_TIMEOUT, 0);
}

static int
curl_wants_timer(CURLM *multi, long ms, void *arg)
{
	struct rpc_curl *rc = arg;
	struct timeval tv = { .tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000 };

	(void)multi;
	if (ms < 0)
		event_del(rc->timer);
	else
		event_add(rc->timer, &tv);
	return 0;
}

static int
curl_wants_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *sockp)
{
	struct rpc_curl *rc = arg;
	struct curl_sock *sock = sockp;
	short events = EV_PERSIST;

	(void)easy;
	if (what == CURL_POLL_REMOVE) {
		curl_multi_assign(rc->multi, fd, NULL);
		if (sock != NULL)
			sock_free(sock);
		return 0;
	}
	if (sock != NULL && sock->ev != NULL) {
		event_free(sock->ev);
		sock->ev = NULL;
	}
	if (sock == NULL) {
		sock = calloc(1, sizeof(*sock));
		if (sock == NULL || curl_multi_assign(rc->multi, fd, sock) != CURLM_OK) {
			free(sock);
			rc->is_dead = true;
			return -1;
		}
		LIST_INSERT_HEAD(&rc->socks, sock, link);
	}
	events |= what & CURL_POLL_IN ? EV_READ : 0;
	events |= what & CURL_POLL_OUT ? EV_WRITE : 0;
	sock->ev = event_new(rc->base, fd, events, on_socket, rc);
	if (sock->ev != NULL && event_add(sock->ev, NULL) == 0)
		return 0;
	rc->is_dead = true;
	return -1;
}

static size_t
on_data(char *data, size_t size, size_t n, void *arg)
{
	struct curl_xfer *x = arg;
	size_t cap = x->cap != 0 ? x->cap : BODY_CAP;

	n *= size;
	if (n > JSON_MAX_BYTES - x->len) {
		x->too_big = true;
		return 0;
	}
	while (cap - x->len < n)
		cap *= 2;
	if (cap != x->cap) {
		char *more = realloc(x->body, cap);

		if (more == NULL)
			return 0;
		x->body = more;
		x->cap = cap;
	}
	memcpy(x->body + x->len, data, n);
	x->len += n;
	return n;
}

static CURLcode
on_ssl_ctx(CURL *easy, void *ssl_ctx, void *arg)
{
	const struct rpc_endpoint *at = arg;

	(void)easy;
	return tls_ctx_copy(ssl_ctx, at->tls, at->host) ? CURLE_OK : CURLE_SSL_CERTPROBLEM;
}

/* Every option is checked: one that this libcurl refuses must not be silently absent. */
static bool
easy_set_transport(CURL *e, const struct rpc_endpoint *at)
{
	bool ok = true;

#define SET(option, value) ok = ok && curl_easy_setopt(e, option, value) == CURLE_OK
	SET(CURLOPT_URL, at->url);
	SET(CURLOPT_NOSIGNAL, 1L);
	SET(CURLOPT_FOLLOWLOCATION, 0L);
	SET(CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	SET(CURLOPT_CONNECTTIMEOUT_MS, CONNECT_MS);
	SET(CURLOPT_TCP_KEEPALIVE, 1L);
	SET(CURLOPT_MAXAGE_CONN, CONN_IDLE_S);
	SET(CURLOPT_PROXY, at->proxy_url); /* "": not the environment's either */
	SET(CURLOPT_NOPROXY, "");
	SET(CURLOPT_HTTPHEADER, at->headers);
	SET(CURLOPT_USERAGENT, PACKAGE_NAME "/" PACKAGE_VERSION);
	SET(CURLOPT_POST, 1L);
	SET(CURLOPT_WRITEFUNCTION, on_data);
	SET(CURLOPT_CONNECT_TO, at->connect_to);
#if LIBCURL_VERSION_NUM >= 0x075500
	SET(CURLOPT_PROTOCOLS_STR, "http,https");
#else
	SET(CURLOPT_PROTOCOLS, (long)(CURLPROTO_HTTP | CURLPROTO_HTTPS));
#endif
#if LIBCURL_VERSION_NUM >= 0x075700
	/* or removing a call would wait for its resolver thread */
	SET(CURLOPT_QUICK_EXIT, 1L);
#endif
	if (at->tls != NULL) {
		SET(CURLOPT_CAINFO, NULL);
		SET(CURLOPT_CAPATH, NULL);
		SET(CURLOPT_SSL_VERIFYPEER, 1L);
		SET(CURLOPT_SSL_VERIFYHOST, 2L);
		SET(CURLOPT_SSL_SESSIONID_CACHE, 0L);
		SET(CURLOPT_SSL_ENABLE_ALPN, 0L);
		SET(CURLOPT_SSL_CTX_FUNCTION, on_ssl_ctx);
		SET(CURLOPT_SSL_CTX_DATA, (void *)(uintptr_t)at);
#if LIBCURL_VERSION_NUM >= 0x075700
		SET(CURLOPT_CA_CACHE_TIMEOUT, 0L);
#endif
	}
	return ok;
}

static bool
easy_set_xfer(CURL *e, const char *request, struct curl_xfer *x)
{
	bool ok = true;

	SET(CURLOPT_PRIVATE, x);
	SET(CURLOPT_ERRORBUFFER, x->why);
	SET(CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)strlen(request));
	SET(CURLOPT_POSTFIELDS, request);
	SET(CURLOPT_WRITEDATA, x);
#undef SET
	return ok;
}

/* A handle with all set but for the transfer. NULL: this libcurl does not take our options, or no memory. */
static CURL *
easy_get(struct rpc_curl *rc)
{
	CURL *e;

	if (rc->n_spare > 0)
		return rc->spare[--rc->n_spare];
	e = curl_easy_init();
	if (e != NULL && easy_set_transport(e, rc->at))
		return e;
	curl_easy_cleanup(e);
	return NULL;
}

static bool
set_multi(struct rpc_curl *rc)
{
	CURLM *m = curl_multi_init();
	bool ok = m != NULL;

#define SET(option, value) ok = ok && curl_multi_setopt(m, option, value) == CURLM_OK
	SET(CURLMOPT_SOCKETFUNCTION, curl_wants_socket);
	SET(CURLMOPT_SOCKETDATA, rc);
	SET(CURLMOPT_TIMERFUNCTION, curl_wants_timer);
	SET(CURLMOPT_TIMERDATA, rc);
	SET(CURLMOPT_MAX_TOTAL_CONNECTIONS, CONN_MAX);
	SET(CURLMOPT_MAXCONNECTS, CONN_IDLE_MAX);
	SET(CURLMOPT_PIPELINING, (long)CURLPIPE_NOTHING);
#undef SET
	if (ok)
		rc->multi = m;
	else
		curl_multi_cleanup(m);
	return ok;
}

int
rpc_curl_start(struct rpc_curl *rc, const char *request, curl_xfer_cb cb, void *arg, struct curl_xfer *x)
{
	CURL *e = easy_get(rc);

	if (e == NULL || !easy_set_xfer(e, request, x) || (rc->multi == NULL && !set_multi(rc)) ||
	    curl_multi_add_handle(rc->multi, e) != CURLM_OK) {
		curl_easy_cleanup(e);
		return -ENOMEM;
	}
	x->rc = rc;
	x->easy = e;
	x->cb = cb;
	x->arg = arg;
	TAILQ_INSERT_TAIL(&rc->under_way, x, link);
	return 0;
}

void
curl_xfer_cancel(struct curl_xfer *x)
{
	if (x->rc == NULL)
		return;
	xfer_detach(x, false);
	free(x->body);
	*x = (struct curl_xfer){ 0 };
}

bool
curl_xfer_is_connecting(const struct curl_xfer *x)
{
	curl_off_t connected = 0;

	if (x->easy == NULL)
		return false;
	curl_easy_getinfo(x->easy, CURLINFO_PRETRANSFER_TIME_T, &connected);
	return connected == 0;
}

int
rpc_curl_new(struct event_base *base, const struct rpc_endpoint *at, struct rpc_curl **ret)
{
	struct rpc_curl *rc = calloc(1, sizeof(*rc));

	if (rc == NULL)
		return -ENOMEM;
	rc->base = base;
	rc->at = at;
	LIST_INIT(&rc->socks);
	TAILQ_INIT(&rc->under_way);
	rc->timer = evtimer_new(base, on_timer, rc);
	if (rc->timer == NULL || !set_multi(rc)) {
		rpc_curl_free(rc);
		return -ENOMEM;
	}
	*ret = rc;
	return 0;
}

void
rpc_curl_free(struct rpc_curl *rc)
{
	if (rc == NULL)
		return;
	while (rc->n_spare > 0)
		curl_easy_cleanup(rc->spare[--rc->n_spare]);
	free_multi(rc);
	if (rc->timer != NULL)
		event_free(rc->timer);
	free(rc);
}
