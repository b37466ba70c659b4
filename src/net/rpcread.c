/* rpcread.c - reads the head and the body of one HTTP request from a connection's input
 *
 * Always true:
 *  1. What is refused says so in words for the one who sent it; nothing of it is read any further.
 *  2. A body reserves no more than has come, and what it reserves is counted in *bodies until it is dropped.
 *  3. Nothing behind the request is taken from the input.
 *
 * Not here: the connection and its deadlines (rpcconn.c), who may ask and for what (rpcjudge.c), the grammar (http.c).
 */
#include "net/rpcread.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <event2/buffer.h>

#include "hyper/wire/json.h"
#include "hyper/wire/rpc.h"

void
rpc_verdict_set(struct rpc_verdict *ret, int status, int code, const char *fmt, ...)
{
	va_list ap;

	ret->status = status;
	ret->code = code;
	va_start(ap, fmt);
	vsnprintf(ret->why, sizeof(ret->why), fmt, ap);
	va_end(ap);
}

/* The head's bytes are all there: out of `in` and cut up. */
static enum rpc_read
take_head(struct rpc_reading *r, struct evbuffer *in, size_t len, struct rpc_verdict *ret)
{
	const char *why = NULL;
	int status;

	r->head_text = malloc(len + 1);
	if (r->head_text == NULL)
		return RPC_READ_NO_MEMORY;
	evbuffer_remove(in, r->head_text, len);
	status = http_head_parse(r->head_text, len, &r->head, &why);
	if (status == 0)
		return RPC_READ_DONE;
	rpc_verdict_set(ret, status, RPC_PARSE, "%s", why);
	return RPC_READ_REFUSE;
}

enum rpc_read
rpc_read_head(struct rpc_reading *r, struct evbuffer *in, bool is_tls, struct rpc_verdict *ret)
{
	size_t len = evbuffer_get_length(in);
	const char *data;
	ssize_t end;

	if (len > HTTP_HEAD_MAX)
		len = HTTP_HEAD_MAX;
	data = (const char *)evbuffer_pullup(in, (ev_ssize_t)len);
	if (data == NULL)
		return len > 0 ? RPC_READ_NO_MEMORY : RPC_READ_MORE;
	/* RFC 9112 2.2: an empty line before a request is the trace of an old client */
	while (r->scanned == 0 && len >= 2 && data[0] == '\r' && data[1] == '\n') {
		evbuffer_drain(in, 2);
		data += 2;
		len -= 2;
	}
	if (len == 0)
		return RPC_READ_MORE;
	end = http_head_scan(data, len, &r->scanned);
	if (end == 0)
		return RPC_READ_MORE;
	if (end > 0)
		return take_head(r, in, (size_t)end, ret);
	if (end == -EMSGSIZE)
		rpc_verdict_set(
		    ret, 431, RPC_PARSE, "the head of the request is over the limit of %zu bytes", HTTP_HEAD_MAX);
	else
		rpc_verdict_set(ret, 400, RPC_PARSE, "this is not HTTP: %s expected",
		    is_tls ? "HTTP/1.1 over TLS is" : "plain HTTP/1.1, no TLS, is");
	return RPC_READ_REFUSE;
}

/* 1: the body is complete, 0: more is needed, -errno */
static int
take_body(struct rpc_reading *r, struct evbuffer *in)
{
	size_t want = r->head.length > 0 ? (size_t)r->head.length : 0;
	int rc;

	if (r->head.chunked)
		return http_chunks_step(&r->chunks, in, &r->body, JSON_MAX_BYTES);
	rc = http_body_append(&r->body, in, want - r->body.len);
	return rc == 0 ? r->body.len == want : rc;
}

enum rpc_read
rpc_read_body(struct rpc_reading *r, struct evbuffer *in, size_t *bodies, size_t max_bodies, struct rpc_verdict *ret)
{
	size_t cap = r->body.cap;
	int rc = take_body(r, in);

	r->bodies = bodies;
	*bodies += r->body.cap - cap;
	if (rc == 0 && *bodies > max_bodies)
		rc = -ENOBUFS;
	switch (rc) {
	case 0: return RPC_READ_MORE;
	case 1: return RPC_READ_DONE;
	case -EMSGSIZE:
		rpc_verdict_set(ret, 413, RPC_PARSE, "the body is over the limit of %zu bytes", JSON_MAX_BYTES);
		return RPC_READ_REFUSE;
	case -EINVAL: rpc_verdict_set(ret, 400, RPC_PARSE, "the chunked body is malformed"); return RPC_READ_REFUSE;
	case -ENOBUFS:
		rpc_verdict_set(ret, 503, RPC_BUSY, "too many large requests at once: try again later");
		return RPC_READ_REFUSE;
	default: return RPC_READ_NO_MEMORY;
	}
}

void
rpc_reading_drop_body(struct rpc_reading *r)
{
	if (r->bodies != NULL)
		*r->bodies -= r->body.cap;
	r->bodies = NULL;
	http_body_fini(&r->body);
}

void
rpc_reading_reset(struct rpc_reading *r)
{
	rpc_reading_drop_body(r);
	free(r->head_text);
	*r = (struct rpc_reading){ 0 };
}
