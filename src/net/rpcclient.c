/* rpcclient.c - JSON-RPC calls over libcurl's multi interface, driven by libevent
 *
 *   rpc_client_call --> curl --socket and timer events--> done, or deadline --call->ev--> cb, exactly once
 *
 * Always true:
 *  1. A callback runs from call->ev and nowhere else, so from the loop and never
 *     before rpc_client_call() has returned; the one exception is rpc_client_free(),
 *     which answers what is still in flight itself. It is the last thing done with
 *     a call: it may call again, or free the client.
 *  2. call->ev is pending from the beginning, with the deadline; it fires earlier
 *     when curl is done. So nothing that curl does or forgets can lose a call.
 *  3. No request leaves but to conf->endpoint or conf->proxy_url: no redirects, no
 *     proxies from the environment, no other scheme.
 *  4. TLS obeys tls.c's rules: curl's context is overwritten with ours, and the files
 *     are read once, at the start.
 *
 * Not here: what an answer means (callers), whether to call again (callers).
 *
 * Size: what calls libcurl and what libcurl calls back share the structs, which nobody else shall see.
 */
#include "hyper/net/rpcclient.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/queue.h>

#include <curl/curl.h>
#include <event2/event.h>

#include "hyper/base/bug.h"
#include "hyper/base/log.h"
#include "hyper/net/tls.h"
#include "hyper/wire/json.h"
#include "net/rpclane.h"

#define CONNECT_MS      10000L
#define CONN_MAX        256L     /* calls beyond wait inside curl, under their deadlines */
#define CONN_IDLE_MAX   CONN_MAX /* closing one that 64 calls at a time want again costs two handshakes */
#define CONN_IDLE_S     60L      /* our servers end idle connections after 75 s: be first */
#define SPARE_MAX       64       /* handles kept for the next calls */
#define CLIENT_TEXT_MAX 300
#define WHY_MAX         512

struct client_call {
	struct rpc_client *client; /* NULL: it was being freed when the call came */
	struct event *ev;          /* deadline, or the answer is there */
	CURL *easy;                /* NULL when curl has nothing to do with it (any more) */
	struct lane *lane;         /* NULL unless it goes that way */
	char *request;
	char *response;
	size_t len, cap;
	bool too_big;
	bool done; /* `answer` is filled */
	struct rpc_answer answer;
	rpc_reply_cb cb;
	void *arg;
	char why[CURL_ERROR_SIZE];
	TAILQ_ENTRY(client_call) link;
};

/* One event for each socket of curl's. */
struct client_sock {
	struct event *ev;
	LIST_ENTRY(client_sock) link;
};

struct rpc_client {
	struct event_base *base;            /* borrowed */
	const struct conf_rpc_client *conf; /* borrowed, in rpc_client_new() only */
	char *proxy_url;                    /* "" none */
	CURLM *multi;
	struct event *timer;
	SSL_CTX *tls;                  /* NULL: plain HTTP */
	char *url;                     /* host replaced by the name to be verified */
	char host[CLIENT_TEXT_MAX];    /* without brackets: what the certificate must say */
	char shown[CLIENT_TEXT_MAX];   /* the endpoint without user and password, for messages */
	struct curl_slist *headers;    /* of every request */
	struct curl_slist *connect_to; /* where url's host really is; may be NULL */
	bool curl_ready;               /* curl_global_init() was done */
	bool stopping;
	LIST_HEAD(, rpc_client) olds; /* which this one replaced and which have calls under way */
	LIST_ENTRY(rpc_client) old;   /* while was_replaced */
	bool was_replaced;
	bool is_dead;                   /* curl was told that a callback failed: it does nothing more */
	LIST_HEAD(, client_sock) socks; /* what curl watches */
	TAILQ_HEAD(, client_call) calls;
	CURL *spare[SPARE_MAX]; /* all set but for the call */
	size_t n_spare;
	struct lanes *lanes;                /* NULL: none */
	char hostport[2 * CLIENT_TEXT_MAX]; /* for lanes, with the two below; "" where only libcurl knows the way */
	char host_header[2 * CLIENT_TEXT_MAX];
	char path[2 * CLIENT_TEXT_MAX];
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

static struct rpc_answer
fail(const struct rpc_client *cl, enum end_reason reason, const char *why)
{
	struct rpc_answer a = rpc_fail_step(RPC_INTERNAL, reason, STEP_NONE, NULL, 0, "%s: %s", cl->shown, why);

	a.is_local = true;
	return a;
}

/* Takes the call away from curl, or from its lane. A handle whose transfer is over can be used again. */
static void
call_detach(struct client_call *call, bool is_over)
{
	struct rpc_client *cl = call->client;
	CURL *e = call->easy;

	lane_cancel(call->lane);
	call->lane = NULL;
	if (e == NULL)
		return;
	curl_multi_remove_handle(cl->multi, e);
	call->easy = NULL;
	/* nothing of this call may be left in it */
	if (is_over && cl->n_spare < SPARE_MAX && curl_easy_setopt(e, CURLOPT_ERRORBUFFER, NULL) == CURLE_OK &&
	    curl_easy_setopt(e, CURLOPT_POSTFIELDS, NULL) == CURLE_OK)
		cl->spare[cl->n_spare++] = e;
	else
		curl_easy_cleanup(e);
}

/* `answer` is given. The callback follows from the loop. */
static void
call_done(struct client_call *call, struct rpc_answer answer)
{
	BUG_ON(call->done);
	call->answer = answer;
	call->done = true;
	event_del(call->ev);
	event_active(call->ev, EV_TIMEOUT, 0);
}

/* The end of a call; the client may be gone afterwards. */
static void
call_deliver(struct client_call *call)
{
	struct rpc_client *cl = call->client;

	if (cl != NULL)
		TAILQ_REMOVE(&cl->calls, call, link);
	if (cl != NULL && cl->was_replaced && !cl->stopping && TAILQ_EMPTY(&cl->calls))
		rpc_client_free(cl);
	call->cb(&call->answer, call->arg);
	rpc_answer_fini(&call->answer);
	event_free(call->ev);
	free(call->request);
	free(call->response);
	free(call);
}

static void
on_call(evutil_socket_t fd, short what, void *arg)
{
	struct client_call *call = arg;

	(void)fd;
	(void)what;
	if (!call->done) {
		const char *at = "no answer in time";
		curl_off_t connected = 0;

		if (call->easy)
			curl_easy_getinfo(call->easy, CURLINFO_PRETRANSFER_TIME_T, &connected);
		if (call->easy && connected == 0)
			at = "no connection in time";
		call_detach(call, false);
		call->answer = fail(call->client, END_DEADLINE, at);
		call->done = true;
	}
	call_deliver(call);
}

static struct rpc_answer
answer_too_big(const struct rpc_client *cl)
{
	char why[WHY_MAX];

	snprintf(why, sizeof(why), "the answer is over the limit of %zu bytes", JSON_MAX_BYTES);
	return fail(cl, END_INTERNAL, why);
}

/* What came, as an answer; HTTP's status does not matter where the body is clear (protocol.md 4.4). */
static struct rpc_answer
answer_of_body(const struct rpc_client *cl, const char *body, size_t len, long status)
{
	struct rpc_answer answer;
	char why[WHY_MAX];
	int rc = rpc_answer_parse(body, len, &answer);

	/* no result means `{}`, but `{"message":"not found"}` with a 404 means a wrong path */
	if (rc == 0 && (answer.code != 0 || answer.result != NULL || status == 200))
		return answer;
	if (rc == 0)
		rpc_answer_fini(&answer);
	snprintf(why, sizeof(why), "HTTP status %ld, and %s: is this the right endpoint?", status,
	    rc == -ENOMEM ? "no memory to read the answer" : "what came is no JSON-RPC answer");
	return fail(cl, END_INTERNAL, why);
}

static struct rpc_answer
answer_of(struct client_call *call, CURLcode code, long status)
{
	const char *text = call->why[0] != '\0' ? call->why : curl_easy_strerror(code);

	if (call->too_big)
		return answer_too_big(call->client);
	if (code != CURLE_OK)
		return fail(call->client, reason_of(code, text), text);
	return answer_of_body(call->client, call->response != NULL ? call->response : "", call->len, status);
}

/* Collects what curl has finished. Callbacks come later, so the client stays. */
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
collect(struct rpc_client *cl)
{
	struct CURLMsg *msg;
	int left;

	while ((msg = curl_multi_info_read(cl->multi, &left)) != NULL) {
		struct client_call *call = NULL;
		CURLcode code = msg->data.result;
		long status = 0, connects = 1;

		if (msg->msg != CURLMSG_DONE)
			continue;
		curl_easy_getinfo(msg->easy_handle, CURLINFO_PRIVATE, &call);
		curl_easy_getinfo(msg->easy_handle, CURLINFO_RESPONSE_CODE, &status);
		curl_easy_getinfo(msg->easy_handle, CURLINFO_NUM_CONNECTS, &connects);
		if (cl->lanes != NULL && code == CURLE_OK && says_close(msg->easy_handle))
			lanes_may_open(cl->lanes, false);
		else if (cl->lanes != NULL && code == CURLE_OK && connects == 0)
			lanes_may_open(cl->lanes, true);
		call_detach(call, code == CURLE_OK);
		call_done(call, answer_of(call, code, status));
	}
}

static void
sock_free(struct client_sock *sock)
{
	LIST_REMOVE(sock, link);
	if (sock->ev != NULL)
		event_free(sock->ev);
	free(sock);
}

/* A handle that is dead closes its sockets without a word: an event left on such a number would hide the next one's. */
static void
free_multi(struct rpc_client *cl)
{
	curl_multi_cleanup(cl->multi);
	cl->multi = NULL;
	cl->is_dead = false;
	while (!LIST_EMPTY(&cl->socks))
		sock_free(LIST_FIRST(&cl->socks));
}

/* libcurl failed as a whole: no memory, or a callback of ours had none. It must not be used again: one such
 * handle fails every later call, another one divides by zero (both seen with 7.88). */
static void
renew_multi(struct rpc_client *cl, CURLMcode code)
{
	struct client_call *call;

	log_warn(
	    "rpcclient", "err=\"%s\" why=\"calls under way fail, libcurl begins anew\"", curl_multi_strerror(code));
	TAILQ_FOREACH (call, &cl->calls, link) {
		if (call->done)
			continue;
		call_detach(call, false);
		call_done(call, fail(cl, END_INTERNAL, curl_multi_strerror(code)));
	}
	free_multi(cl);
}

/* Lets curl work on a socket, or on its time-outs. */
static void
act(struct rpc_client *cl, curl_socket_t fd, int action)
{
	int running;
	CURLMcode code = curl_multi_socket_action(cl->multi, fd, action, &running);

	collect(cl);
	if (cl->is_dead || (code != CURLM_OK && code != CURLM_BAD_SOCKET))
		renew_multi(cl, cl->is_dead ? CURLM_OUT_OF_MEMORY : code);
}

static void
on_socket(evutil_socket_t fd, short what, void *arg)
{
	act(arg, (curl_socket_t)fd, (what & EV_READ ? CURL_CSELECT_IN : 0) | (what & EV_WRITE ? CURL_CSELECT_OUT : 0));
}

static void
on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct rpc_client *cl = arg;

	(void)fd;
	(void)what;
	if (cl->multi != NULL)
		act(cl, CURL_SOCKET_TIMEOUT, 0);
}

static int
curl_wants_timer(CURLM *multi, long ms, void *arg)
{
	struct rpc_client *cl = arg;
	struct timeval tv = { .tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000 };

	(void)multi;
	if (ms < 0)
		event_del(cl->timer);
	else
		event_add(cl->timer, &tv);
	return 0;
}

static int
curl_wants_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *sockp)
{
	struct rpc_client *cl = arg;
	struct client_sock *sock = sockp;
	short events = EV_PERSIST;

	(void)easy;
	if (what == CURL_POLL_REMOVE) {
		curl_multi_assign(cl->multi, fd, NULL);
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
		if (sock == NULL || curl_multi_assign(cl->multi, fd, sock) != CURLM_OK) {
			free(sock);
			cl->is_dead = true;
			return -1;
		}
		LIST_INSERT_HEAD(&cl->socks, sock, link);
	}
	events |= what & CURL_POLL_IN ? EV_READ : 0;
	events |= what & CURL_POLL_OUT ? EV_WRITE : 0;
	sock->ev = event_new(cl->base, fd, events, on_socket, cl);
	if (sock->ev != NULL && event_add(sock->ev, NULL) == 0)
		return 0;
	cl->is_dead = true;
	return -1;
}

static size_t
on_data(char *data, size_t size, size_t n, void *arg)
{
	struct client_call *call = arg;
	size_t cap = call->cap != 0 ? call->cap : 4096;

	n *= size;
	if (n > JSON_MAX_BYTES - call->len) {
		call->too_big = true;
		return 0;
	}
	while (cap - call->len < n)
		cap *= 2;
	if (cap != call->cap) {
		char *more = realloc(call->response, cap);

		if (more == NULL)
			return 0;
		call->response = more;
		call->cap = cap;
	}
	memcpy(call->response + call->len, data, n);
	call->len += n;
	return n;
}

static CURLcode
on_ssl_ctx(CURL *easy, void *ssl_ctx, void *arg)
{
	struct rpc_client *cl = arg;

	(void)easy;
	return tls_ctx_copy(ssl_ctx, cl->tls, cl->host) ? CURLE_OK : CURLE_SSL_CERTPROBLEM;
}

/* Every option is checked: one that this libcurl refuses must not be silently absent. */
static bool
easy_set_transport(CURL *e, const struct rpc_client *cl)
{
	bool ok = true;

#define SET(option, value) ok = ok && curl_easy_setopt(e, option, value) == CURLE_OK
	SET(CURLOPT_URL, cl->url);
	SET(CURLOPT_NOSIGNAL, 1L);
	SET(CURLOPT_FOLLOWLOCATION, 0L);
	SET(CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	SET(CURLOPT_CONNECTTIMEOUT_MS, CONNECT_MS);
	SET(CURLOPT_TCP_KEEPALIVE, 1L);
	SET(CURLOPT_MAXAGE_CONN, CONN_IDLE_S);
	SET(CURLOPT_PROXY, cl->proxy_url); /* "": not the environment's either */
	SET(CURLOPT_NOPROXY, "");
	SET(CURLOPT_HTTPHEADER, cl->headers);
	SET(CURLOPT_USERAGENT, PACKAGE_NAME "/" PACKAGE_VERSION);
	SET(CURLOPT_POST, 1L);
	SET(CURLOPT_WRITEFUNCTION, on_data);
	SET(CURLOPT_CONNECT_TO, cl->connect_to);
#if LIBCURL_VERSION_NUM >= 0x075500
	SET(CURLOPT_PROTOCOLS_STR, "http,https");
#else
	SET(CURLOPT_PROTOCOLS, (long)(CURLPROTO_HTTP | CURLPROTO_HTTPS));
#endif
#if LIBCURL_VERSION_NUM >= 0x075700
	/* or removing a call would wait for its resolver thread */
	SET(CURLOPT_QUICK_EXIT, 1L);
#endif
	if (cl->tls != NULL) {
		SET(CURLOPT_CAINFO, NULL);
		SET(CURLOPT_CAPATH, NULL);
		SET(CURLOPT_SSL_VERIFYPEER, 1L);
		SET(CURLOPT_SSL_VERIFYHOST, 2L);
		SET(CURLOPT_SSL_SESSIONID_CACHE, 0L);
		SET(CURLOPT_SSL_ENABLE_ALPN, 0L);
		SET(CURLOPT_SSL_CTX_FUNCTION, on_ssl_ctx);
		SET(CURLOPT_SSL_CTX_DATA, (void *)(uintptr_t)cl);
#if LIBCURL_VERSION_NUM >= 0x075700
		SET(CURLOPT_CA_CACHE_TIMEOUT, 0L);
#endif
	}
	return ok;
}

static bool
easy_set_call(CURL *e, struct client_call *call)
{
	bool ok = true;

	SET(CURLOPT_PRIVATE, call);
	SET(CURLOPT_ERRORBUFFER, call->why);
	SET(CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)strlen(call->request));
	SET(CURLOPT_POSTFIELDS, call->request);
	SET(CURLOPT_WRITEDATA, call);
#undef SET
	return ok;
}

/* A handle with all set but for the call. NULL: this libcurl does not take our options, or no memory. */
static CURL *
easy_get(struct rpc_client *cl)
{
	CURL *e;

	if (cl->n_spare > 0)
		return cl->spare[--cl->n_spare];
	e = curl_easy_init();
	if (e != NULL && easy_set_transport(e, cl))
		return e;
	curl_easy_cleanup(e);
	return NULL;
}

static bool
set_multi(struct rpc_client *cl)
{
	CURLM *m = curl_multi_init();
	bool ok = m != NULL;

#define SET(option, value) ok = ok && curl_multi_setopt(m, option, value) == CURLM_OK
	SET(CURLMOPT_SOCKETFUNCTION, curl_wants_socket);
	SET(CURLMOPT_SOCKETDATA, cl);
	SET(CURLMOPT_TIMERFUNCTION, curl_wants_timer);
	SET(CURLMOPT_TIMERDATA, cl);
	SET(CURLMOPT_MAX_TOTAL_CONNECTIONS, CONN_MAX);
	SET(CURLMOPT_MAXCONNECTS, CONN_IDLE_MAX);
	SET(CURLMOPT_PIPELINING, (long)CURLPIPE_NOTHING);
#undef SET
	if (ok)
		cl->multi = m;
	else
		curl_multi_cleanup(m);
	return ok;
}

/* Hands the call to curl, or marks it done with an error. */
static void
call_curl(struct rpc_client *cl, struct client_call *call)
{
	CURL *e = call->request != NULL ? easy_get(cl) : NULL;

	if (e == NULL || !easy_set_call(e, call) || (cl->multi == NULL && !set_multi(cl)) ||
	    curl_multi_add_handle(cl->multi, e) != CURLM_OK) {
		curl_easy_cleanup(e);
		call_done(call, fail(cl, END_INTERNAL, "libcurl takes no more calls (memory?)"));
		return;
	}
	call->easy = e;
}

static void
on_lane(int status, const char *body, size_t len, void *arg)
{
	struct client_call *call = arg;

	call->lane = NULL;
	if (status == -EAGAIN)
		call_curl(call->client, call);
	else if (status == -EMSGSIZE)
		call_done(call, answer_too_big(call->client));
	else if (status < 0)
		call_done(call, fail(call->client, END_UNREACHABLE, "the connection ended in the middle of an answer"));
	else
		call_done(call, answer_of_body(call->client, body, len, status));
}

static void
call_start(struct rpc_client *cl, struct client_call *call)
{
	if (cl->lanes != NULL && call->request != NULL)
		call->lane = lanes_call(cl->lanes, call->request, strlen(call->request), on_lane, call);
	if (call->lane == NULL)
		call_curl(cl, call);
}

/* `request` is given; NULL: there was no memory for it. */
static void
client_call(struct rpc_client *cl, char *request, int64_t timeout_ms, rpc_reply_cb cb, void *arg)
{
	struct client_call *call = calloc(1, sizeof(*call));
	struct timeval tv = { .tv_sec = timeout_ms / 1000, .tv_usec = timeout_ms % 1000 * 1000 };

	if (call != NULL)
		call->ev = evtimer_new(cl->base, on_call, call);
	if (timeout_ms < 0)
		memset(&tv, 0, sizeof(tv));
	if (call == NULL || call->ev == NULL || event_add(call->ev, &tv) < 0) {
		struct rpc_answer a = fail(cl, END_INTERNAL, "out of memory");

		/* with no memory for an event this is the only way left to answer at all */
		if (call != NULL && call->ev != NULL)
			event_free(call->ev);
		free(request);
		free(call);
		cb(&a, arg);
		rpc_answer_fini(&a);
		return;
	}
	call->request = request;
	call->cb = cb;
	call->arg = arg;
	if (cl->stopping) {
		call_done(call, fail(cl, END_STOPPED, "stopped"));
		return;
	}
	call->client = cl;
	TAILQ_INSERT_TAIL(&cl->calls, call, link);
	call_start(cl, call);
}

void
rpc_client_call(struct rpc_client *cl, const char *method, const json_t *params, const char *id, int64_t timeout_ms,
    rpc_reply_cb cb, void *arg)
{
	client_call(cl, rpc_request_text(method, params, id), timeout_ms, cb, arg);
}

void
rpc_client_call_text(struct rpc_client *cl, const char *method, const char *params_text, const char *id,
    int64_t timeout_ms, rpc_reply_cb cb, void *arg)
{
	client_call(cl, rpc_request_text_of(method, params_text, id), timeout_ms, cb, arg);
}

static int
refuse(char err[RPC_CLIENT_ERR_MAX], const struct conf_rpc_client *conf, const char *why)
{
	snprintf(err, RPC_CLIENT_ERR_MAX, "jsonrpc_client: endpoint '%.100s': %s", conf->endpoint, why);
	return -EINVAL;
}

/* One part of a URL into `ret`, which holds CLIENT_TEXT_MAX bytes. */
static bool
url_part(CURLU *u, CURLUPart part, unsigned flags, char *ret)
{
	char *text = NULL;
	bool ok = curl_url_get(u, part, &text, flags) == CURLUE_OK && strlen(text) < CLIENT_TEXT_MAX;

	if (ok)
		snprintf(ret, CLIENT_TEXT_MAX, "%s", text);
	curl_free(text);
	return ok;
}

static bool
add_header(struct rpc_client *cl, const char *line)
{
	struct curl_slist *list = curl_slist_append(cl->headers, line);

	if (list != NULL)
		cl->headers = list;
	return list != NULL;
}

/* The URL names whom the certificate must name; CONNECT_TO and Host say what the endpoint says. */
static int
set_server_name(struct rpc_client *cl, CURLU *u, const char *real, char err[RPC_CLIENT_ERR_MAX])
{
	const char *name = cl->conf->tls->server_name;
	char port[CLIENT_TEXT_MAX], shown_port[CLIENT_TEXT_MAX], line[2 * CLIENT_TEXT_MAX + 16];
	bool explicit_port = url_part(u, CURLUPART_PORT, 0, shown_port);

	if (!url_part(u, CURLUPART_PORT, CURLU_DEFAULT_PORT, port) ||
	    curl_url_set(u, CURLUPART_HOST, name, 0) != CURLUE_OK || strlen(name) >= sizeof(cl->host))
		return refuse(err, cl->conf, "tls.server_name is no host name");
	snprintf(line, sizeof(line), "::%s:%s", real, port);
	cl->connect_to = curl_slist_append(NULL, line);
	snprintf(line, sizeof(line), "Host: %s%s%s", real, explicit_port ? ":" : "", explicit_port ? shown_port : "");
	snprintf(cl->host, sizeof(cl->host), "%s", name);
	return cl->connect_to != NULL && add_header(cl, line) ? 0 : -ENOMEM;
}

/* What lanes need. Nothing for a proxy, a password, or what is too long. */
static void
set_direct(struct rpc_client *cl, CURLU *u, const char *real)
{
	char port[CLIENT_TEXT_MAX], path[CLIENT_TEXT_MAX], query[CLIENT_TEXT_MAX], part[CLIENT_TEXT_MAX];
	bool has_port = url_part(u, CURLUPART_PORT, 0, port), has_query = url_part(u, CURLUPART_QUERY, 0, query);

	if (cl->proxy_url[0] != '\0' || url_part(u, CURLUPART_USER, 0, part) ||
	    url_part(u, CURLUPART_OPTIONS, 0, part) || url_part(u, CURLUPART_ZONEID, 0, part) ||
	    !url_part(u, CURLUPART_PATH, 0, path) || strlen(cl->conf->endpoint) >= CLIENT_TEXT_MAX)
		return;
	snprintf(cl->host_header, sizeof(cl->host_header), "%s%s%s", real, has_port ? ":" : "", has_port ? port : "");
	snprintf(cl->path, sizeof(cl->path), "%s%s%s", path, has_query ? "?" : "", has_query ? query : "");
	if (url_part(u, CURLUPART_PORT, CURLU_DEFAULT_PORT, port))
		snprintf(cl->hostport, sizeof(cl->hostport), "%s:%s", real, port);
}

static int
set_endpoint(struct rpc_client *cl, CURLU *u, char err[RPC_CLIENT_ERR_MAX])
{
	const struct conf_rpc_client *conf = cl->conf;
	char scheme[CLIENT_TEXT_MAX], real[CLIENT_TEXT_MAX], *url = NULL;
	bool https;
	size_t len;
	int rc = 0;

	if (curl_url_set(u, CURLUPART_URL, conf->endpoint, 0) != CURLUE_OK ||
	    !url_part(u, CURLUPART_SCHEME, 0, scheme) || !url_part(u, CURLUPART_HOST, 0, real))
		return refuse(err, conf, "http://host:port/path or https://... is expected");
	https = strcmp(scheme, "https") == 0;
	if (!https && strcmp(scheme, "http") != 0)
		return refuse(err, conf, "only http:// and https:// are spoken");
	if (https && conf->tls == NULL)
		return refuse(err, conf, "https:// needs the settings group tls");
	if (!https && conf->tls != NULL)
		log_warn("rpcclient", "why=\"endpoint %s is http://: the settings group tls is not used\"", real);
	len = strlen(real);
	if (real[0] == '[') /* certificates name addresses without brackets */
		snprintf(cl->host, sizeof(cl->host), "%.*s", (int)len - 2, real + 1);
	else
		snprintf(cl->host, sizeof(cl->host), "%s", real);
	set_direct(cl, u, real);
	if (https) {
		rc = tls_ctx_new(conf->tls, TLS_CLIENT, TLS_ALPN_NONE, &cl->tls, err);
		if (rc == 0 && conf->tls->server_name != NULL && strcasecmp(conf->tls->server_name, cl->host) != 0)
			rc = set_server_name(cl, u, real, err);
	}
	if (rc == 0 && curl_url_get(u, CURLUPART_URL, &url, 0) == CURLUE_OK)
		cl->url = strdup(url);
	curl_free(url);
	return rc != 0 || cl->url != NULL ? rc : -ENOMEM;
}

/* For messages: no user, no password, no query. */
static void
set_shown(struct rpc_client *cl, CURLU *u)
{
	if (curl_url_set(u, CURLUPART_URL, cl->conf->endpoint, 0) != CURLUE_OK ||
	    curl_url_set(u, CURLUPART_USER, NULL, 0) != CURLUE_OK ||
	    curl_url_set(u, CURLUPART_PASSWORD, NULL, 0) != CURLUE_OK ||
	    curl_url_set(u, CURLUPART_QUERY, NULL, 0) != CURLUE_OK || !url_part(u, CURLUPART_URL, 0, cl->shown))
		snprintf(cl->shown, sizeof(cl->shown), "endpoint");
}

int
rpc_client_new(
    struct event_base *base, const struct conf_rpc_client *conf, struct rpc_client **ret, char err[RPC_CLIENT_ERR_MAX])
{
	struct rpc_client *cl = calloc(1, sizeof(*cl));
	CURLU *u = curl_url();
	int rc = -ENOMEM;

	snprintf(err, RPC_CLIENT_ERR_MAX, "jsonrpc_client: out of memory");
	if (cl == NULL || u == NULL)
		goto out;
	cl->base = base;
	cl->conf = conf;
	TAILQ_INIT(&cl->calls);
	LIST_INIT(&cl->socks);
	LIST_INIT(&cl->olds);
	cl->proxy_url = strdup(conf->proxy_url != NULL ? conf->proxy_url : "");
	if (cl->proxy_url == NULL)
		goto out;
	if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
		goto out;
	cl->curl_ready = true;
	cl->timer = evtimer_new(base, on_timer, cl);
	if (cl->timer == NULL || !set_multi(cl) || !add_header(cl, "Content-Type: application/json") ||
	    !add_header(cl, "Accept: application/json") || !add_header(cl, "Expect:"))
		goto out;
	if (conf->proxy_url != NULL && strncasecmp(conf->proxy_url, "http://", 7) != 0) {
		snprintf(err, RPC_CLIENT_ERR_MAX, "jsonrpc_client: proxy_url '%.100s': http://host:port is expected",
		    conf->proxy_url);
		rc = -EINVAL;
		goto out;
	}
	rc = set_endpoint(cl, u, err);
	if (rc == 0)
		set_shown(cl, u);
out:
	curl_url_cleanup(u);
	if (rc != 0) {
		rpc_client_free(cl);
		return rc;
	}
	err[0] = '\0';
	cl->conf = NULL;
	*ret = cl;
	return 0;
}

void
rpc_client_use_lanes(struct rpc_client *cl, unsigned calls_per_s)
{
	const struct lanes_conf conf = { .base = cl->base,
		.hostport = cl->hostport,
		.host_header = cl->host_header,
		.path = cl->path,
		.load = calls_per_s,
		.tls = cl->tls,
		.server_name = cl->host };

	if (cl->hostport[0] != '\0' && cl->lanes == NULL && lanes_new(&conf, &cl->lanes) < 0)
		cl->lanes = NULL; /* libcurl does it */
}

void
rpc_client_replace(struct rpc_client *cl, struct rpc_client *old)
{
	struct rpc_client *older;

	while ((older = LIST_FIRST(&old->olds)) != NULL) {
		LIST_REMOVE(older, old);
		LIST_INSERT_HEAD(&cl->olds, older, old);
	}
	LIST_INSERT_HEAD(&cl->olds, old, old);
	old->was_replaced = true;
	if (TAILQ_EMPTY(&old->calls))
		rpc_client_free(old);
}

void
rpc_client_free(struct rpc_client *cl)
{
	if (cl == NULL)
		return;
	cl->stopping = true;
	while (!LIST_EMPTY(&cl->olds))
		rpc_client_free(LIST_FIRST(&cl->olds));
	if (cl->was_replaced)
		LIST_REMOVE(cl, old);
	while (!TAILQ_EMPTY(&cl->calls)) {
		struct client_call *call = TAILQ_FIRST(&cl->calls);

		call_detach(call, false);
		if (!call->done)
			call->answer = fail(cl, END_STOPPED, "stopped while the call was in flight");
		call->done = true;
		call_deliver(call);
	}
	while (cl->n_spare > 0)
		curl_easy_cleanup(cl->spare[--cl->n_spare]);
	free_multi(cl);
	lanes_free(cl->lanes);
	if (cl->timer != NULL)
		event_free(cl->timer);
	curl_slist_free_all(cl->headers);
	curl_slist_free_all(cl->connect_to);
	SSL_CTX_free(cl->tls);
	free(cl->url);
	free(cl->proxy_url);
	if (cl->curl_ready)
		curl_global_cleanup();
	free(cl);
}
