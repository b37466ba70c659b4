/* grpc_stream.c - life of a stream: frames queued out, messages put together in, one end
 *
 *   grpc_stream_send --> queue --> DATA as the peer's window allows      (grpc_h2.c asks for bytes)
 *   DATA --> 5-byte head, message --> on_message                          (grpc_h2.c feeds bytes)
 *
 * Always true:
 *  1. on_end comes exactly once for a stream that has ops, from
 *     grpc_streams_settle(), and nothing comes after it.
 *  2. A message is collected as its bytes come: what a head announces is never
 *     allocated in advance, and all unfinished messages of a connection
 *     together stay under GRPC_CONN_PARTIAL, of all under GRPC_ALL_PARTIAL.
 *     What a client sends to us is whole within GRPC_MESSAGE_MS, or refused.
 *  3. s->queued, c->queued and all_queued are the bytes in the queues, c->partial
 *     and all_partial those in s->msg: given back when the stream is dropped.
 *  4. nghttp2's stream points at ours until the stream is over, then at nothing:
 *     a late frame finds NULL.
 *
 * Not here: headers and their meaning (grpc_h2.c).
 */
#include "net/grpc_impl.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hyper/base/bug.h"
#include "hyper/base/clock.h"
#include "hyper/base/log.h"

static const struct {
	const char *name;
	unsigned to;
} stream_tab[] = {
#define X(n, to) { #n, to },
	GRPC_STREAM_STATES(X)
#undef X
};

static size_t all_queued, all_partial;

/* The only place that writes s->due_ms. */
static void
due_set(struct grpc_stream *s, bool is_due)
{
	if (s->conn->role != TLS_SERVER || is_due == (s->due_ms != 0))
		return;
	s->due_ms = is_due ? clock_now_ms() + GRPC_MESSAGE_MS : 0;
	s->conn->n_due += is_due ? 1 : (size_t)-1;
}

/* The only place that writes s->state; OVER is a list. */
static void
stream_enter(struct grpc_stream *s, enum stream_state to, const char *why)
{
	struct grpc_conn *c = s->conn;

	BUG_ON((stream_tab[s->state].to & GRPC_BIT(to)) == 0);
	log_debug("stream", "conn=%llu svc=%d why=\"%s>%s %s\"", (unsigned long long)c->nr, (int)s->id,
	    stream_tab[s->state].name, stream_tab[to].name, why);
	s->state = to;
	if (to >= STREAM_LAST)
		due_set(s, false);
	if (to == STREAM_LAST && c->role == TLS_SERVER) {
		s->deadline_ms = clock_now_ms() + GRPC_FINISH_MS;
		c->n_finishing++;
	}
	if (to != STREAM_OVER)
		return;
	if (s->deadline_ms != 0)
		c->n_finishing--;
	TAILQ_REMOVE(&c->streams, s, link);
	TAILQ_INSERT_TAIL(&c->over, s, link);
	if (--c->n_streams == 0)
		c->idle_since_ms = clock_now_ms();
}

struct grpc_stream *
grpc_stream_new(struct grpc_conn *c)
{
	struct grpc_stream *s = calloc(1, sizeof *s);

	if (s == NULL)
		return NULL;
	s->conn = c;
	s->state = c->role == TLS_SERVER ? STREAM_QUIET : STREAM_SENDING;
	s->grpc_status = -1;
	STAILQ_INIT(&s->queue);
	TAILQ_INSERT_TAIL(&c->streams, s, link);
	c->n_streams++;
	due_set(s, true);
	return s;
}

static void
queue_clear(struct grpc_stream *s)
{
	struct grpc_chunk *q;

	while ((q = STAILQ_FIRST(&s->queue)) != NULL) {
		STAILQ_REMOVE_HEAD(&s->queue, link);
		free(q->buf);
		free(q);
	}
	s->conn->queued -= s->queued;
	all_queued -= s->queued;
	s->queued = 0;
}

static void
partial_clear(struct grpc_stream *s)
{
	free(s->msg);
	s->conn->partial -= s->cap;
	all_partial -= s->cap;
	s->msg = NULL;
	s->want = s->got = s->cap = s->head_len = 0;
}

void
grpc_stream_drop(struct grpc_stream *s)
{
	queue_clear(s);
	partial_clear(s);
	free(s->path);
	free(s->grpc_message);
	free(s->end_message);
	free(s);
}

static void
end_set(struct grpc_stream *s, int status, const char *message)
{
	char *copy = strdup(message); /* first: `message` may be the old one; NULL reads as "" */

	s->end_status = status;
	free(s->end_message);
	s->end_message = copy;
}

void
grpc_stream_untouched(struct grpc_stream *s, const char *message)
{
	/* an answer that had begun says otherwise */
	if (s->state != STREAM_OVER)
		s->was_untouched = s->http_status == 0;
	grpc_stream_over(s, GRPC_UNAVAILABLE, message);
}

void
grpc_stream_over(struct grpc_stream *s, int status, const char *message)
{
	if (s->state == STREAM_OVER)
		return;
	end_set(s, status, message);
	stream_enter(s, STREAM_OVER, "end");
	if (s->conn->h2 != NULL)
		nghttp2_session_set_stream_user_data(s->conn->h2, s->id, NULL);
	queue_clear(s);
	partial_clear(s);
	grpc_conn_kick(s->conn);
}

bool
grpc_streams_settle(struct grpc_conn *c)
{
	struct grpc_stream *s;

	while ((s = TAILQ_FIRST(&c->over)) != NULL) {
		TAILQ_REMOVE(&c->over, s, link);
		if (s->ops != NULL)
			s->ops->on_end(s, s->end_status, s->end_message != NULL ? s->end_message : "", s->arg);
		grpc_stream_drop(s);
		if (c->state == CONN_FREED)
			return false;
	}
	return true;
}

/* Client: tells the peer to stop. The stream is over for us at once. */
static void
stream_cancel(struct grpc_stream *s, uint32_t error, int status, const char *message)
{
	int id = s->id;

	grpc_stream_over(s, status, message);
	if (nghttp2_submit_rst_stream(s->conn->h2, NGHTTP2_FLAG_NONE, id, error) != 0)
		grpc_conn_fail(s->conn, END_INTERNAL, "%s: out of memory", s->conn->peer);
}

/* Server: trailers after what is queued. */
static void
stream_finish(struct grpc_stream *s, int status, const char *message)
{
	const bool quiet = s->state == STREAM_QUIET;
	int rc;

	if (s->state >= STREAM_LAST)
		return;
	end_set(s, status, message);
	stream_enter(s, STREAM_LAST, "finish");
	partial_clear(s); /* nothing is delivered any more */
	if (quiet)
		rc = grpc_h2_trailers(s, true);
	else /* not deferred: then the trailers follow the last bytes anyway */
		rc = nghttp2_session_resume_data(s->conn->h2, s->id) == NGHTTP2_ERR_NOMEM ? -ENOMEM : 0;
	if (rc != 0)
		grpc_conn_fail(s->conn, END_INTERNAL, "%s: out of memory", s->conn->peer);
	grpc_conn_kick(s->conn);
}

void
grpc_stream_refuse(struct grpc_stream *s, int status, const char *fmt, ...)
{
	char text[GRPC_ERR_MAX];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	if (s->conn->role == TLS_SERVER)
		stream_finish(s, status, text);
	else
		stream_cancel(s, NGHTTP2_CANCEL, status, text);
}

void
grpc_stream_refuse_http(struct grpc_stream *s, int http_status)
{
	end_set(s, GRPC_INTERNAL, "not a gRPC request");
	stream_enter(s, STREAM_LAST, "not gRPC");
	if (grpc_h2_respond_http(s, http_status) != 0)
		grpc_conn_fail(s->conn, END_INTERNAL, "%s: out of memory", s->conn->peer);
}

/* --- in --- */

/* Are more messages delivered? After finish a server's owner hears nothing but the end. */
static bool
stream_listens(const struct grpc_stream *s)
{
	return s->conn->role == TLS_SERVER ? s->state < STREAM_LAST : s->state != STREAM_OVER;
}

/* The message's 5-byte head is complete. False: refused. */
static bool
head_take(struct grpc_stream *s)
{
	const uint8_t *h = s->head;
	size_t len = (size_t)h[1] << 24 | (size_t)h[2] << 16 | (size_t)h[3] << 8 | h[4];

	if (h[0] != 0) {
		grpc_stream_refuse(s, h[0] == 1 ? GRPC_UNIMPLEMENTED : GRPC_INTERNAL,
		    h[0] == 1 ? "grpc: compressed messages are not supported, send identity"
			      : "grpc: invalid message flag %u",
		    h[0]);
		return false;
	}
	if (len > GRPC_MAX_MESSAGE) {
		grpc_stream_refuse(s, GRPC_RESOURCE_EXHAUSTED, "grpc: received message larger than max (%zu vs. %zu)",
		    len, GRPC_MAX_MESSAGE);
		return false;
	}
	s->want = len;
	return true;
}

/* Room for `len` more bytes of the message. False: refused. */
static bool
partial_grow(struct grpc_stream *s, size_t len)
{
	size_t cap = s->cap != 0 ? s->cap : 4096;
	uint8_t *msg;

	if (s->got + len <= s->cap)
		return true;
	while (cap < s->got + len)
		cap *= 2;
	if (cap > s->want)
		cap = s->want;
	msg = s->conn->partial - s->cap + cap <= GRPC_CONN_PARTIAL && all_partial - s->cap + cap <= GRPC_ALL_PARTIAL
		  ? realloc(s->msg, cap)
		  : NULL;
	if (msg == NULL) {
		grpc_stream_refuse(
		    s, GRPC_RESOURCE_EXHAUSTED, "grpc: too many bytes in unfinished messages, try again later");
		return false;
	}
	s->conn->partial += cap - s->cap;
	all_partial += cap - s->cap;
	s->msg = msg;
	s->cap = cap;
	return true;
}

/* Delivers. The stream keeps nothing of the message: the owner may end the
 * stream or free the connection while it reads it. */
static void
message_deliver(struct grpc_stream *s, const uint8_t *data)
{
	uint8_t *msg = s->msg;
	const size_t len = s->want;

	s->conn->partial -= s->cap;
	all_partial -= s->cap;
	s->msg = NULL;
	s->want = s->got = s->cap = s->head_len = 0;
	due_set(s, false);
	s->ops->on_message(s, msg != NULL ? msg : data, len, s->arg);
	free(msg);
}

/* Takes bytes of the message; delivers it when it is whole. Bytes used. */
static size_t
body_take(struct grpc_stream *s, const uint8_t *data, size_t len)
{
	const size_t n = len < s->want - s->got ? len : s->want - s->got;

	if (s->got > 0 || n < s->want) { /* else it is here in one piece and needs no copy */
		if (!partial_grow(s, n))
			return len;
		memcpy(s->msg + s->got, data, n);
		s->got += n;
		if (s->got < s->want)
			return n;
	}
	message_deliver(s, data);
	return n;
}

int
grpc_stream_feed(struct grpc_stream *s, const uint8_t *data, size_t len)
{
	struct grpc_conn *c = s->conn;

	do {
		size_t n = GRPC_FRAME_HEAD - s->head_len;

		if (!stream_listens(s))
			return 0;
		n = n < len ? n : len;
		memcpy(s->head + s->head_len, data, n);
		s->head_len += n;
		due_set(s, s->head_len > 0);
		data += n;
		len -= n;
		if (s->head_len < GRPC_FRAME_HEAD || (n > 0 && !head_take(s)))
			return 0;
		if (len == 0 && s->want > s->got)
			return 0;
		n = body_take(s, data, len);
		data += n;
		len -= n;
		if (!grpc_conn_is_alive(c))
			return -1;
	} while (len > 0);
	return 0;
}

/* The peer of a client has said its last: what does on_end say? */
static void
client_remote_end(struct grpc_stream *s)
{
	const bool open = s->state != STREAM_LAST || s->queued > 0;
	const char *text = s->grpc_message != NULL ? s->grpc_message : "";
	int status = s->grpc_status, id = s->id;
	struct grpc_conn *c = s->conn;

	if (status < 0) {
		status = GRPC_INTERNAL;
		text = "the server closed the stream without a grpc-status";
	} else if (status == GRPC_OK && s->head_len > 0) {
		status = GRPC_INTERNAL;
		text = "the stream ended within a message";
	}
	grpc_stream_over(s, status, text);
	/* RFC 9113 section 8.1: the answer is complete, so our side ends without an error */
	if (open && nghttp2_submit_rst_stream(c->h2, NGHTTP2_FLAG_NONE, id, NGHTTP2_NO_ERROR) != 0)
		grpc_conn_fail(c, END_INTERNAL, "%s: out of memory", c->peer);
}

void
grpc_stream_remote_end(struct grpc_stream *s)
{
	if (s->conn->role == TLS_CLIENT) {
		client_remote_end(s);
		return;
	}
	if (!stream_listens(s))
		return;
	if (s->head_len > 0)
		grpc_stream_refuse(s, GRPC_INTERNAL, "the stream ended within a message");
	else if (s->ops->on_half_close != NULL)
		s->ops->on_half_close(s, s->arg);
}

/* --- out --- */

size_t
grpc_stream_take(struct grpc_stream *s, uint8_t *buf, size_t cap, bool *ret_last)
{
	struct grpc_chunk *q;
	size_t n = 0;

	while (n < cap && (q = STAILQ_FIRST(&s->queue)) != NULL) {
		size_t part = q->len - q->off < cap - n ? q->len - q->off : cap - n;

		memcpy(buf + n, q->buf + q->off, part);
		n += part;
		q->off += part;
		s->queued -= part;
		s->conn->queued -= part;
		all_queued -= part;
		if (q->off < q->len)
			continue;
		STAILQ_REMOVE_HEAD(&s->queue, link);
		free(q->buf);
		free(q);
	}
	*ret_last = STAILQ_EMPTY(&s->queue) && s->state == STREAM_LAST;
	return n;
}

/* Puts the frame at the end of the queue: given. */
static int
queue_put(struct grpc_stream *s, uint8_t *frame, size_t len)
{
	struct grpc_conn *c = s->conn;
	struct grpc_chunk *q;

	if (s->queued + len > GRPC_STREAM_QUEUE || c->queued + len > GRPC_CONN_QUEUE ||
	    all_queued + len > GRPC_ALL_QUEUE) {
		free(frame);
		return -ENOBUFS;
	}
	q = calloc(1, sizeof *q);
	if (q == NULL) {
		free(frame);
		return -ENOMEM;
	}
	q->buf = frame;
	q->len = len;
	STAILQ_INSERT_TAIL(&s->queue, q, link);
	s->queued += len;
	c->queued += len;
	all_queued += len;
	return 0;
}

int
grpc_stream_send(struct grpc_stream *s, uint8_t *frame, size_t len)
{
	struct grpc_conn *c = s->conn;
	int rc;

	if (!grpc_conn_is_alive(c) || s->state >= STREAM_LAST) {
		free(frame);
		return -ENOTCONN;
	}
	rc = queue_put(s, frame, len);
	if (rc != 0)
		return rc;
	if (s->state == STREAM_QUIET) {
		stream_enter(s, STREAM_SENDING, "first message");
		rc = grpc_h2_respond(s);
	} else if (nghttp2_session_resume_data(c->h2, s->id) == NGHTTP2_ERR_NOMEM) {
		rc = -ENOMEM; /* any other failure: it was not deferred, the bytes will be asked for */
	}
	if (rc != 0)
		grpc_conn_fail(c, END_INTERNAL, "%s: out of memory", c->peer);
	grpc_conn_kick(c);
	return rc;
}

int
grpc_stream_open(struct grpc_conn *c, const char *path, const char *authority, const struct grpc_stream_ops *ops,
    void *arg, struct grpc_stream **ret)
{
	struct grpc_stream *s;
	int32_t id;

	BUG_ON(c->role != TLS_CLIENT);
	if (!grpc_conn_is_ready(c))
		return -ENOTCONN;
	if (c->n_streams >= GRPC_STREAMS_CLIENT)
		return -EBUSY;
	s = grpc_stream_new(c);
	if (s == NULL)
		return -ENOMEM;
	id = grpc_h2_request(s, path, authority);
	if (id < 0) {
		/* also when the 2^30 stream ids of a connection are used up */
		TAILQ_REMOVE(&c->streams, s, link);
		c->n_streams--;
		grpc_stream_drop(s);
		return id;
	}
	s->id = id;
	s->ops = ops;
	s->arg = arg;
	grpc_conn_kick(c);
	*ret = s;
	return 0;
}

void
grpc_stream_set(struct grpc_stream *s, const struct grpc_stream_ops *ops, void *arg)
{
	s->ops = ops;
	s->arg = arg;
}

void
grpc_stream_half_close(struct grpc_stream *s)
{
	BUG_ON(s->conn->role != TLS_CLIENT);
	if (!grpc_conn_is_alive(s->conn) || s->state >= STREAM_LAST)
		return;
	stream_enter(s, STREAM_LAST, "half close");
	if (nghttp2_session_resume_data(s->conn->h2, s->id) == NGHTTP2_ERR_NOMEM)
		grpc_conn_fail(s->conn, END_INTERNAL, "%s: out of memory", s->conn->peer);
	grpc_conn_kick(s->conn);
}

void
grpc_stream_finish(struct grpc_stream *s, int status, const char *message)
{
	if (!grpc_conn_is_alive(s->conn) || s->state == STREAM_OVER)
		return; /* its end is on the way */
	if (s->conn->role == TLS_SERVER)
		stream_finish(s, status, message);
	else
		stream_cancel(s, NGHTTP2_CANCEL, status, message);
}

bool
grpc_stream_was_untouched(const struct grpc_stream *s)
{
	return s->was_untouched;
}

struct grpc_conn *
grpc_stream_conn(struct grpc_stream *s)
{
	return s->conn;
}
