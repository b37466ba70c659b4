/* rpcexchange.c - one request and its answer on a connection of the JSON-RPC server
 *
 *   bytes --rpcread.c--> head --rpcjudge.c--> body --> call --srv->serve--> ... --rpc_call_answer--> response
 *
 * Always true:
 *  1. At most one request of a connection is being served; bytes behind it wait.
 *  2. The serve callback is the last thing done with a connection in an event: it may answer, or free the server.
 *  3. A call outlives its connection and then holds the peer; its answer goes nowhere.
 *  4. A request that was not read to its end closes the connection: what is left of it is never taken for the next one.
 *
 * Not here: states and deadlines (rpcconn.c), reading (rpcread.c), JSON-RPC (src/wire).
 */
#include "net/rpcconn_impl.h"

#include <stdlib.h>
#include <string.h>

#include <event2/buffer.h>
#include <event2/bufferevent.h>

#include "hyper/base/clock.h"
#include "hyper/base/log.h"
#include "net/http.h"

#define RESPONSE_HEAD ((size_t)2048) /* more than any: a head that lost a line for want of memory is another answer */

struct rpc_call {
	struct rpc_conn *conn; /* NULL: gone */
	struct rpc_request req;
	struct tls_peer *peer; /* the connection's, ours when that is gone */
	int64_t since_ms;
};

static const char no_memory[] = "{\"jsonrpc\":\"2.0\",\"error\":{\"code\":-32603,\"message\":\"internal error: out of "
				"memory, try again later\"},\"id\":null}";

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
	rpc_response_head(c->srv, &c->reading.head, status, len, c->keep, response);
	rpc_conn_enter(c, CONN_WRITING, http_status_text(status));
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
		rpc_conn_go_on(c);
	else
		bufferevent_trigger(c->bev, EV_WRITE, BEV_TRIG_IGNORE_WATERMARKS | BEV_TRIG_DEFER_CALLBACKS);
}

void
rpc_exchange_refuse(struct rpc_conn *c, const struct rpc_verdict *v)
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

/* All that the head alone decides. False: it was answered (or the connection is gone). */
static bool
conn_judge(struct rpc_conn *c)
{
	struct rpc_verdict v;

	switch (rpc_judge(c->srv, &c->reading.head, c->peer, &v)) {
	case RPC_JUDGE_SERVE: return true;
	case RPC_JUDGE_REFUSE: rpc_exchange_refuse(c, &v); return false;
	case RPC_JUDGE_PREFLIGHT:
	case RPC_JUDGE_NOT_FOUND: break;
	}
	/* a body that nobody reads must not be taken for the next request */
	if (c->reading.head.length > 0 || c->reading.head.chunked)
		c->keep = false;
	conn_respond(c, v.status, v.status == 404 ? "{\"message\":\"not found\"}" : NULL);
	return false;
}

/* HEAD: true when the request's body is what comes next. */
static bool
conn_read_head(struct rpc_conn *c)
{
	struct evbuffer *in = bufferevent_get_input(c->bev);
	struct rpc_verdict v;

	switch (rpc_read_head(&c->reading, in, c->ssl != NULL, &v)) {
	case RPC_READ_DONE: break;
	case RPC_READ_MORE: return false;
	case RPC_READ_REFUSE: rpc_exchange_refuse(c, &v); return false;
	case RPC_READ_NO_MEMORY: rpc_conn_free(c, "out of memory"); return false;
	}
	c->keep = c->reading.head.keep;
	if (!conn_judge(c))
		return false;
	rpc_conn_enter(c, CONN_BODY, "head complete");
	if (c->reading.head.expect_continue && evbuffer_get_length(in) == 0)
		bufferevent_write(c->bev, "HTTP/1.1 100 Continue\r\n\r\n", 25);
	return true;
}

/* BODY complete: parse, and hand it over as the last thing. */
static void
conn_serve(struct rpc_conn *c)
{
	struct rpc_server *srv = c->srv;
	const struct http_body *body = &c->reading.body;
	struct rpc_call *call = calloc(1, sizeof(*call));
	char *refusal = NULL;
	int code = RPC_INTERNAL;

	if (call != NULL)
		code = rpc_request_parse_known(
		    srv->clients, body->data != NULL ? body->data : "", body->len, &call->req, &refusal);
	/* the head is still needed for CORS headers, the body is not */
	rpc_reading_drop_body(&c->reading);
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
	rpc_conn_enter(c, CONN_SERVING, call->req.method);
	srv->serve(call, srv->serve_arg);
}

static void
conn_read_body(struct rpc_conn *c)
{
	struct rpc_verdict v;

	switch (rpc_read_body(&c->reading, bufferevent_get_input(c->bev), &c->srv->bodies, RPC_BODIES_MAX, &v)) {
	case RPC_READ_DONE: conn_serve(c); break;
	case RPC_READ_MORE: break;
	case RPC_READ_REFUSE: rpc_exchange_refuse(c, &v); break;
	case RPC_READ_NO_MEMORY: rpc_conn_free(c, "out of memory"); break;
	}
}

void
rpc_exchange_read(struct rpc_conn *c)
{
	if (c->state == CONN_HEAD && !conn_read_head(c))
		return;
	if (c->state == CONN_BODY)
		conn_read_body(c);
}

void
rpc_exchange_detach(struct rpc_conn *c)
{
	if (c->call == NULL)
		return;
	c->call->conn = NULL;
	c->peer = NULL; /* given to the call */
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
		rpc_conn_peer_free(call->peer);
	}
	rpc_answer_fini(&answer);
	rpc_request_fini(&call->req);
	free(call);
}
