/* rpcclient.c - JSON-RPC calls to one endpoint, each answered once
 *
 *   rpc_client_call --> a lane, else libcurl --> done, or deadline --call->ev--> cb, exactly once
 *
 * Always true:
 *  1. A callback runs from call->ev and nowhere else, so from the loop and never
 *     before rpc_client_call() has returned; the one exception is rpc_client_free(),
 *     which answers what is still in flight itself. It is the last thing done with
 *     a call: it may call again, or free the client.
 *  2. call->ev is pending from the beginning, with the deadline; it fires earlier
 *     when an answer is there. So nothing that libcurl or a lane does or forgets can lose a call.
 *  3. A call is with a lane, or with libcurl, or done; what a lane does not know goes on to libcurl.
 *
 * Not here: libcurl (rpccurl.c), kept connections (rpclane.c), the endpoint (rpcendpoint.c), what an answer means and
 * whether to call again (callers).
 */
#include "hyper/net/rpcclient.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include <curl/curl.h>
#include <event2/event.h>

#include "hyper/base/bug.h"
#include "hyper/wire/json.h"
#include "net/rpccurl.h"
#include "net/rpcendpoint.h"
#include "net/rpclane.h"

#define WHY_MAX 512

struct client_call {
	struct rpc_client *client; /* NULL: it was being freed when the call came */
	struct event *ev;          /* deadline, or the answer is there */
	struct curl_xfer xfer;     /* under way unless it goes by a lane */
	struct lane *lane;         /* NULL unless it goes that way */
	char *request;
	bool done; /* `answer` is filled */
	struct rpc_answer answer;
	rpc_reply_cb cb;
	void *arg;
	TAILQ_ENTRY(client_call) link;
};

struct rpc_client {
	struct event_base *base; /* borrowed */
	struct rpc_endpoint at;
	struct rpc_curl *curl;
	struct lanes *lanes; /* NULL: none */
	bool curl_ready;     /* curl_global_init() was done */
	bool stopping;
	LIST_HEAD(, rpc_client) olds; /* which this one replaced and which have calls under way */
	LIST_ENTRY(rpc_client) old;   /* while was_replaced */
	bool was_replaced;
	TAILQ_HEAD(, client_call) calls;
};

static struct rpc_answer
fail(const struct rpc_client *cl, enum end_reason reason, const char *why)
{
	struct rpc_answer a = rpc_fail_step(RPC_INTERNAL, reason, STEP_NONE, NULL, 0, "%s: %s", cl->at.shown, why);

	a.is_local = true;
	return a;
}

/* Takes the call away from libcurl, or from its lane. */
static void
call_detach(struct client_call *call)
{
	lane_cancel(call->lane);
	call->lane = NULL;
	curl_xfer_cancel(&call->xfer);
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
	free(call);
}

static void
on_call(evutil_socket_t fd, short what, void *arg)
{
	struct client_call *call = arg;

	(void)fd;
	(void)what;
	if (!call->done) {
		bool connecting = curl_xfer_is_connecting(&call->xfer);

		call_detach(call);
		call->answer =
		    fail(call->client, END_DEADLINE, connecting ? "no connection in time" : "no answer in time");
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

static void
on_curl(const struct curl_end *end, void *arg)
{
	struct client_call *call = arg;
	struct rpc_client *cl = call->client;

	if (cl->lanes != NULL && end->seen != CONN_UNSURE)
		lanes_may_open(cl->lanes, end->seen == CONN_KEPT);
	switch (end->how) {
	case CURL_END_BODY: call_done(call, answer_of_body(cl, end->body, end->len, end->status)); break;
	case CURL_END_TOO_BIG: call_done(call, answer_too_big(cl)); break;
	case CURL_END_FAILED: call_done(call, fail(cl, end->reason, end->why)); break;
	}
}

/* Hands the call to libcurl, or marks it done with an error. */
static void
call_curl(struct rpc_client *cl, struct client_call *call)
{
	if (call->request == NULL || rpc_curl_start(cl->curl, call->request, on_curl, call, &call->xfer) < 0)
		call_done(call, fail(cl, END_INTERNAL, "libcurl takes no more calls (memory?)"));
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

int
rpc_client_new(
    struct event_base *base, const struct conf_rpc_client *conf, struct rpc_client **ret, char err[RPC_CLIENT_ERR_MAX])
{
	struct rpc_client *cl = calloc(1, sizeof(*cl));
	int rc = -ENOMEM;

	snprintf(err, RPC_CLIENT_ERR_MAX, "jsonrpc_client: out of memory");
	if (cl == NULL)
		return rc;
	cl->base = base;
	TAILQ_INIT(&cl->calls);
	LIST_INIT(&cl->olds);
	cl->curl_ready = curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK;
	if (cl->curl_ready)
		rc = rpc_curl_new(base, &cl->at, &cl->curl);
	if (rc == 0)
		rc = rpc_endpoint_init(conf, &cl->at, err);
	if (rc != 0) {
		rpc_client_free(cl);
		return rc;
	}
	*ret = cl;
	return 0;
}

void
rpc_client_use_lanes(struct rpc_client *cl, unsigned calls_per_s)
{
	const struct lanes_conf conf = { .base = cl->base,
		.hostport = cl->at.hostport,
		.host_header = cl->at.host_header,
		.path = cl->at.path,
		.load = calls_per_s,
		.tls = cl->at.tls,
		.server_name = cl->at.host };

	if (cl->at.hostport[0] != '\0' && cl->lanes == NULL && lanes_new(&conf, &cl->lanes) < 0)
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

		call_detach(call);
		if (!call->done)
			call->answer = fail(cl, END_STOPPED, "stopped while the call was in flight");
		call->done = true;
		call_deliver(call);
	}
	rpc_curl_free(cl->curl);
	lanes_free(cl->lanes);
	rpc_endpoint_fini(&cl->at);
	if (cl->curl_ready)
		curl_global_cleanup();
	free(cl);
}
