/* grpc_h2.c - the nghttp2 session: its limits, and what its callbacks mean for streams
 *
 * Always true:
 *  1. Callbacks run inside nghttp2_session_mem_recv() and mem_send(), which only
 *     grpc_conn.c calls, from the loop. They may submit frames; they never
 *     send, free a stream or free the session.
 *  2. Every limit that faults.md asks for is set in options_new() or
 *     grpc_h2_new(), also where nghttp2's default would do today.
 *  3. A server's response headers leave with its first message or with its trailers,
 *     never before (protocol.md 3.2).
 *  4. After a callback of the owner the connection may be freed (state FREED, memory
 *     still valid): then NGHTTP2_ERR_CALLBACK_FAILURE stops the session.
 *
 * Not here: frames of gRPC (grpc_stream.c), sockets (grpc_conn.c).
 */
#include "net/grpc_impl.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hyper/base/bug.h"
#include "hyper/base/clock.h"
#include "hyper/base/log.h"

#define USER_AGENT "hyper/" PACKAGE_VERSION

/* Resets by a client: a burst, then so many a second (rapid reset). */
#define RESET_BURST 200
#define RESET_RATE  20

/* nghttp2 keeps at most so many acknowledgements for a peer that does not read. */
#define OUTBOUND_ACKS 100
#define SETTINGS_MAX  16
#define CONTINUATIONS 8

/* See chatter(). grpc-go sends a PING and up to two WINDOW_UPDATE for each DATA
 * frame of ours, and up to 256 of those may wait in the socket's buffer after
 * the last one was sent: 256 * (4 + 2) must fit. */
#define CHATTER_MAX      4000u
#define CHATTER_WINDOW   10000
#define CHATTER_PING     4
#define CHATTER_SETTINGS 40
#define CHATTER_RESET    40

#define NV(n, v, len)                                                                                        \
	{                                                                                                    \
		(uint8_t *)(uintptr_t)(n), (uint8_t *)(uintptr_t)(v), strlen(n), (len), NGHTTP2_NV_FLAG_NONE \
	}
#define NV_TEXT(n, v) NV(n, v, strlen(v))

static void
note(struct grpc_conn *c, enum end_reason reason, const char *text)
{
	if (c->h2_why[0] != '\0')
		return;
	c->h2_reason = reason;
	snprintf(c->h2_why, sizeof c->h2_why, "%s", text);
}

/* Frames that carry nothing (PING, SETTINGS, empty DATA, resets that we owe to
 * the peer's faults) cost the peer little and us much. They are counted until we
 * send something of worth or ten seconds have passed; too many end the
 * connection. Sending DATA must clear
 * the count, since it is what makes a peer send them. */
static void
chatter(struct grpc_conn *c, unsigned weight)
{
	int64_t now = clock_now_ms();

	if (now - c->chatter_since_ms > CHATTER_WINDOW) {
		c->chatter = 0;
		c->chatter_since_ms = now;
	}
	c->chatter += weight;
	if (c->chatter <= CHATTER_MAX || c->is_cut_off)
		return;
	c->is_cut_off = true;
	c->h2_why[0] = '\0'; /* whatever was noted before, this is why it ends */
	note(c, END_RESET, "too many frames that carry nothing");
	nghttp2_session_terminate_session(c->h2, NGHTTP2_ENHANCE_YOUR_CALM);
}

static struct grpc_stream *
stream_of(nghttp2_session *h2, int32_t id)
{
	return nghttp2_session_get_stream_user_data(h2, id);
}

/* --- headers in --- */

static int
on_begin_headers(nghttp2_session *h2, const nghttp2_frame *frame, void *arg)
{
	struct grpc_conn *c = arg;
	struct grpc_stream *s = stream_of(h2, frame->hd.stream_id);

	if (frame->hd.type != NGHTTP2_HEADERS)
		return 0;
	if (frame->headers.cat == NGHTTP2_HCAT_REQUEST) {
		s = grpc_stream_new(c);
		if (s == NULL)
			return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
		s->id = frame->hd.stream_id;
		nghttp2_session_set_stream_user_data(h2, s->id, s);
	}
	if (s != NULL)
		s->header_bytes = 0;
	return 0;
}

/* Decimal without sign, at most three digits; -1 otherwise. */
static int
small_number(const char *text, size_t len)
{
	int n = 0;

	if (len == 0 || len > 3)
		return -1;
	for (; len > 0; len--, text++) {
		if (*text < '0' || *text > '9')
			return -1;
		n = n * 10 + (*text - '0');
	}
	return n;
}

/* "application/grpc", alone or followed by "+proto", ";charset" and the like */
static bool
is_grpc_type(const char *value, size_t len)
{
	static const char type[] = "application/grpc";
	const size_t n = sizeof type - 1;

	return len >= n && strncasecmp(value, type, n) == 0 && (len == n || value[n] == '+' || value[n] == ';');
}

static int
header_take(struct grpc_stream *s, const char *name, size_t name_len, const char *value, size_t len)
{
	const bool server = s->conn->role == TLS_SERVER;
	char **text = NULL;

#define IS(t) (name_len == sizeof(t) - 1 && memcmp(name, t, sizeof(t) - 1) == 0)
	if (IS("content-type"))
		s->is_grpc = is_grpc_type(value, len);
	else if (server && IS(":method"))
		s->is_post = len == 4 && memcmp(value, "POST", 4) == 0;
	else if (server && IS(":path"))
		text = &s->path;
	else if (!server && IS(":status"))
		s->http_status = small_number(value, len);
	else if (!server && IS("grpc-status"))
		s->grpc_status = small_number(value, len) >= 0 ? small_number(value, len) : GRPC_UNKNOWN;
	else if (!server && IS("grpc-message"))
		text = &s->grpc_message;
#undef IS
	if (text == NULL)
		return 0;
	free(*text);
	*text = server ? strndup(value, len) : grpc_message_decode(value, len);
	return *text != NULL ? 0 : -ENOMEM;
}

static int
on_header(nghttp2_session *h2, const nghttp2_frame *frame, const uint8_t *name, size_t name_len, const uint8_t *value,
    size_t len, uint8_t flags, void *arg)
{
	struct grpc_stream *s = stream_of(h2, frame->hd.stream_id);

	(void)flags;
	if (s == NULL || frame->hd.type != NGHTTP2_HEADERS)
		return 0;
	s->header_bytes += name_len + len + 32;
	if (s->header_bytes <= GRPC_HEADER_LIST_MAX &&
	    header_take(s, (const char *)name, name_len, (const char *)value, len) == 0)
		return 0;
	/* the stream is reset; the rest of the block is only decoded to keep HPACK's state */
	chatter(arg, CHATTER_RESET);
	return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
}

static void
refuse_unknown(struct grpc_stream *s)
{
	const char *service = s->path[0] == '/' ? s->path + 1 : "";
	const char *slash = strrchr(service, '/');

	if (slash == NULL || slash == service)
		grpc_stream_refuse(s, GRPC_UNIMPLEMENTED, "malformed method name: %.100s", s->path);
	else
		grpc_stream_refuse(s, GRPC_UNIMPLEMENTED, "unknown method %.100s for service %.*s", slash + 1,
		    slash - service < 100 ? (int)(slash - service) : 100, service);
}

static void
request_ready(struct grpc_stream *s)
{
	struct grpc_conn *c = s->conn;

	/* PROTOCOL-HTTP2.md "Requests", HTTP's own words for what is no gRPC */
	if (!s->is_post || !s->is_grpc || s->path == NULL)
		grpc_stream_refuse_http(s, s->is_post ? 415 : 405);
	else if (!c->ops->on_stream(c, s, s->path, c->arg) && grpc_conn_is_alive(c))
		refuse_unknown(s);
	else
		BUG_ON(grpc_conn_is_alive(c) && s->ops == NULL && s->state < STREAM_LAST);
}

/* What an HTTP answer without gRPC means: grpc's http-grpc-status-mapping.md */
static int
status_of_http(int http)
{
	switch (http) {
	case 400: return GRPC_INTERNAL;
	case 401: return 16; /* UNAUTHENTICATED */
	case 403: return 7;  /* PERMISSION_DENIED */
	case 404: return GRPC_UNIMPLEMENTED;
	case 429:
	case 502:
	case 503:
	case 504: return GRPC_UNAVAILABLE;
	default: return GRPC_UNKNOWN;
	}
}

static void
response_ready(struct grpc_stream *s, bool last)
{
	if (s->http_status / 100 == 1) { /* an interim answer; the real one follows */
		s->http_status = 0;
		return;
	}
	if (s->grpc_status < 0 && (s->http_status != 200 || !s->is_grpc))
		grpc_stream_refuse(s, status_of_http(s->http_status), "the peer answered HTTP status %d%s",
		    s->http_status, s->is_grpc ? "" : " without content-type application/grpc");
	else if (last)
		grpc_stream_remote_end(s);
}

static void
on_headers(struct grpc_conn *c, struct grpc_stream *s, const nghttp2_frame *frame)
{
	const bool last = (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0;

	if (c->role == TLS_CLIENT) {
		response_ready(s, last);
		return;
	}
	if (frame->headers.cat == NGHTTP2_HCAT_REQUEST)
		request_ready(s);
	if (last && grpc_conn_is_alive(c))
		grpc_stream_remote_end(s);
}

/* --- frames in --- */

static void
on_goaway(struct grpc_conn *c, const nghttp2_goaway *goaway)
{
	struct grpc_stream *s, *next;
	char text[sizeof c->h2_why];

	snprintf(text, sizeof text, "the peer said GOAWAY (%s) %.*s", nghttp2_http2_strerror(goaway->error_code),
	    (int)(goaway->opaque_data_len < 64 ? goaway->opaque_data_len : 64),
	    goaway->opaque_data_len > 0 ? (const char *)goaway->opaque_data : "");
	note(c, goaway->error_code == NGHTTP2_NO_ERROR ? END_CLOSED : END_RESET, text);
	if (c->state == CONN_OPEN)
		grpc_conn_enter(c, CONN_DRAIN, "goaway");
	if (c->role == TLS_SERVER)
		return;
	for (s = TAILQ_FIRST(&c->streams); s != NULL; s = next) { /* those the peer will not look at */
		next = TAILQ_NEXT(s, link);
		if (s->id > goaway->last_stream_id)
			grpc_stream_untouched(s, text);
	}
}

static int
on_frame_recv(nghttp2_session *h2, const nghttp2_frame *frame, void *arg)
{
	struct grpc_conn *c = arg;
	struct grpc_stream *s = stream_of(h2, frame->hd.stream_id);
	const bool ack = (frame->hd.flags & NGHTTP2_FLAG_ACK) != 0;

	switch (frame->hd.type) {
	case NGHTTP2_HEADERS:
		if (s != NULL)
			on_headers(c, s, frame);
		break;
	case NGHTTP2_DATA:
		if ((frame->hd.flags & NGHTTP2_FLAG_END_STREAM) == 0)
			chatter(c, frame->hd.length == 0 ? 1 : 0);
		else if (s != NULL)
			grpc_stream_remote_end(s);
		break;
	case NGHTTP2_PING:
		if (ack)
			c->ping_ms = 0;
		else
			chatter(c, CHATTER_PING);
		break;
	case NGHTTP2_SETTINGS: chatter(c, ack ? 1 : CHATTER_SETTINGS); break;
	case NGHTTP2_GOAWAY: on_goaway(c, &frame->goaway); break;
	case NGHTTP2_PRIORITY:
	case NGHTTP2_WINDOW_UPDATE: chatter(c, 1); break;
	default: break;
	}
	return grpc_conn_is_alive(c) ? 0 : NGHTTP2_ERR_CALLBACK_FAILURE;
}

static int
on_data(nghttp2_session *h2, uint8_t flags, int32_t id, const uint8_t *data, size_t len, void *arg)
{
	struct grpc_stream *s = stream_of(h2, id);

	(void)flags;
	(void)arg;
	if (s == NULL)
		return 0; /* ended on our side already */
	return grpc_stream_feed(s, data, len) == 0 ? 0 : NGHTTP2_ERR_CALLBACK_FAILURE;
}

/* PROTOCOL-HTTP2.md "Errors" */
static int
status_of_reset(uint32_t code)
{
	switch (code) {
	case NGHTTP2_REFUSED_STREAM: return GRPC_UNAVAILABLE;
	case NGHTTP2_CANCEL: return GRPC_CANCELLED;
	case NGHTTP2_ENHANCE_YOUR_CALM: return GRPC_RESOURCE_EXHAUSTED;
	case NGHTTP2_INADEQUATE_SECURITY: return 7; /* PERMISSION_DENIED */
	default: return GRPC_INTERNAL;
	}
}

static int
on_stream_close(nghttp2_session *h2, int32_t id, uint32_t code, void *arg)
{
	struct grpc_stream *s = stream_of(h2, id);
	struct grpc_conn *c = arg;
	char text[96];

	if (s == NULL)
		return 0;
	if (c->role == TLS_SERVER && s->state == STREAM_LAST && code == NGHTTP2_NO_ERROR) {
		grpc_stream_over(s, s->end_status, s->end_message != NULL ? s->end_message : "");
		return 0;
	}
	snprintf(text, sizeof text, "the stream was reset (%s)", nghttp2_http2_strerror(code));
	if (c->role == TLS_CLIENT && code == NGHTTP2_REFUSED_STREAM)
		grpc_stream_untouched(s, text);
	else
		grpc_stream_over(s, c->role == TLS_SERVER ? GRPC_CANCELLED : status_of_reset(code), text);
	return 0;
}

/* --- frames out --- */

static int
on_frame_send(nghttp2_session *h2, const nghttp2_frame *frame, void *arg)
{
	struct grpc_conn *c = arg;
	char text[sizeof c->h2_why];

	if (frame->hd.type == NGHTTP2_GOAWAY && frame->goaway.error_code != NGHTTP2_NO_ERROR) {
		/* nghttp2's verdict on the peer; its words ride along as debug data */
		snprintf(text, sizeof text, "HTTP/2 %s: %.*s", nghttp2_http2_strerror(frame->goaway.error_code),
		    (int)(frame->goaway.opaque_data_len < 80 ? frame->goaway.opaque_data_len : 80),
		    frame->goaway.opaque_data_len > 0 ? (const char *)frame->goaway.opaque_data : "");
		note(c, END_RESET, text);
	}
	if (frame->hd.type != NGHTTP2_HEADERS && frame->hd.type != NGHTTP2_DATA)
		return 0;
	c->chatter = 0;
	if (c->role != TLS_SERVER || (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) == 0)
		return 0;
	/* RFC 9113 section 8.1: answered before the request was complete */
	if (nghttp2_session_get_stream_remote_close(h2, frame->hd.stream_id) == 0 &&
	    nghttp2_submit_rst_stream(h2, NGHTTP2_FLAG_NONE, frame->hd.stream_id, NGHTTP2_NO_ERROR) != 0)
		return NGHTTP2_ERR_CALLBACK_FAILURE;
	return 0;
}

/* A request that never left: the peer said GOAWAY, or ids are used up. */
static int
on_frame_not_send(nghttp2_session *h2, const nghttp2_frame *frame, int error, void *arg)
{
	struct grpc_conn *c = arg;
	struct grpc_stream *s;

	(void)h2;
	if (c->role != TLS_CLIENT || frame->hd.type != NGHTTP2_HEADERS)
		return 0;
	TAILQ_FOREACH (s, &c->streams, link)
		if (s->id == frame->hd.stream_id)
			break;
	if (s != NULL)
		grpc_stream_untouched(s, nghttp2_strerror(error));
	return 0;
}

/* Also about faults that cost one stream, or a header field that is ignored: no
 * reason for the end of a connection. GOAWAY has words of its own. */
static int
on_error(nghttp2_session *h2, int code, const char *text, size_t len, void *arg)
{
	const struct grpc_conn *c = arg;

	(void)h2;
	log_debug(
	    "h2", "conn=%llu err=%d why=\"%.*s\"", (unsigned long long)c->nr, code, (int)(len < 200 ? len : 200), text);
	return 0;
}

static ssize_t
on_read(
    nghttp2_session *h2, int32_t id, uint8_t *buf, size_t cap, uint32_t *flags, nghttp2_data_source *source, void *arg)
{
	struct grpc_stream *s = stream_of(h2, id);
	bool last;
	size_t n;

	(void)source;
	(void)arg;
	if (s == NULL)
		return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE; /* over: it is being reset */
	n = grpc_stream_take(s, buf, cap, &last);
	if (last) {
		*flags |= NGHTTP2_DATA_FLAG_EOF;
		if (s->conn->role == TLS_SERVER) {
			*flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
			if (grpc_h2_trailers(s, false) != 0)
				return NGHTTP2_ERR_CALLBACK_FAILURE;
		}
	} else if (n == 0) {
		return NGHTTP2_ERR_DEFERRED;
	}
	return (ssize_t)n;
}

static const nghttp2_data_provider body = { .read_callback = on_read };

int32_t
grpc_h2_request(struct grpc_stream *s, const char *path, const char *authority)
{
	const nghttp2_nv nv[] = { NV_TEXT(":method", "POST"), NV_TEXT(":scheme", "https"), NV_TEXT(":path", path),
		NV_TEXT(":authority", authority), NV_TEXT("content-type", "application/grpc"),
		NV_TEXT("user-agent", USER_AGENT), NV_TEXT("te", "trailers") };
	int32_t id = nghttp2_submit_request(s->conn->h2, NULL, nv, ARRAY_LEN(nv), &body, s);

	if (id >= 0)
		return id;
	return id == NGHTTP2_ERR_NOMEM ? -ENOMEM : -ENOTCONN;
}

int
grpc_h2_respond(struct grpc_stream *s)
{
	const nghttp2_nv nv[] = { NV_TEXT(":status", "200"), NV_TEXT("content-type", "application/grpc") };

	return nghttp2_submit_response(s->conn->h2, s->id, nv, ARRAY_LEN(nv), &body) == 0 ? 0 : -ENOMEM;
}

int
grpc_h2_respond_http(struct grpc_stream *s, int http_status)
{
	char status[16];

	snprintf(status, sizeof status, "%d", http_status);
	const nghttp2_nv nv[] = { NV_TEXT(":status", status) };

	return nghttp2_submit_response(s->conn->h2, s->id, nv, ARRAY_LEN(nv), NULL) == 0 ? 0 : -ENOMEM;
}

int
grpc_h2_trailers(struct grpc_stream *s, bool only)
{
	char *message = grpc_message_encode(s->end_message != NULL ? s->end_message : "");
	const char *text = message != NULL ? message : ""; /* the status matters more */
	char status[16];
	int rc;

	snprintf(status, sizeof status, "%d", s->end_status);
	const nghttp2_nv nv[] = { NV_TEXT(":status", "200"), NV_TEXT("content-type", "application/grpc"),
		NV_TEXT("grpc-status", status), NV_TEXT("grpc-message", text) };

	if (only)
		rc = nghttp2_submit_response(s->conn->h2, s->id, nv, ARRAY_LEN(nv), NULL);
	else
		rc = nghttp2_submit_trailer(s->conn->h2, s->id, nv + 2, ARRAY_LEN(nv) - 2);
	free(message);
	return rc == 0 ? 0 : -ENOMEM;
}

/* --- the session --- */

static int
options_new(nghttp2_option **ret)
{
	nghttp2_option *o;

	if (nghttp2_option_new(&o) != 0)
		return -ENOMEM;
	nghttp2_option_set_peer_max_concurrent_streams(o, GRPC_STREAMS_SERVER); /* until its SETTINGS say */
	nghttp2_option_set_max_reserved_remote_streams(o, 0);                   /* no push */
	nghttp2_option_set_no_closed_streams(o, 1);
	nghttp2_option_set_max_outbound_ack(o, OUTBOUND_ACKS);
	nghttp2_option_set_max_settings(o, SETTINGS_MAX);
	nghttp2_option_set_stream_reset_rate_limit(o, RESET_BURST, RESET_RATE);
	nghttp2_option_set_max_continuations(o, CONTINUATIONS);
	*ret = o;
	return 0;
}

static int
callbacks_new(nghttp2_session_callbacks **ret)
{
	nghttp2_session_callbacks *cb;

	if (nghttp2_session_callbacks_new(&cb) != 0)
		return -ENOMEM;
	nghttp2_session_callbacks_set_on_begin_headers_callback(cb, on_begin_headers);
	nghttp2_session_callbacks_set_on_header_callback(cb, on_header);
	nghttp2_session_callbacks_set_on_frame_recv_callback(cb, on_frame_recv);
	nghttp2_session_callbacks_set_on_data_chunk_recv_callback(cb, on_data);
	nghttp2_session_callbacks_set_on_stream_close_callback(cb, on_stream_close);
	nghttp2_session_callbacks_set_on_frame_send_callback(cb, on_frame_send);
	nghttp2_session_callbacks_set_on_frame_not_send_callback(cb, on_frame_not_send);
	nghttp2_session_callbacks_set_error_callback2(cb, on_error);
	*ret = cb;
	return 0;
}

static int
settings_submit(struct grpc_conn *c)
{
	const bool server = c->role == TLS_SERVER;
	const nghttp2_settings_entry iv[] = {
		{ NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, server ? GRPC_STREAMS_SERVER : 0 },
		{ NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, GRPC_STREAM_WINDOW },
		{ NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, GRPC_HEADER_LIST_MAX },
		{ NGHTTP2_SETTINGS_ENABLE_PUSH, 0 }, /* a client's to say */
	};

	if (nghttp2_submit_settings(c->h2, NGHTTP2_FLAG_NONE, iv, ARRAY_LEN(iv) - (server ? 1 : 0)) != 0 ||
	    nghttp2_session_set_local_window_size(c->h2, NGHTTP2_FLAG_NONE, 0, GRPC_CONN_WINDOW) != 0)
		return -ENOMEM;
	return 0;
}

int
grpc_h2_new(struct grpc_conn *c)
{
	nghttp2_session_callbacks *cb = NULL;
	nghttp2_option *option = NULL;
	int rc = options_new(&option);

	if (rc == 0)
		rc = callbacks_new(&cb);
	if (rc != 0)
		goto out;
	if (c->role == TLS_SERVER)
		rc = nghttp2_session_server_new2(&c->h2, cb, c, option);
	else
		rc = nghttp2_session_client_new2(&c->h2, cb, c, option);
	rc = rc == 0 ? settings_submit(c) : -ENOMEM;
out:
	nghttp2_session_callbacks_del(cb);
	nghttp2_option_del(option);
	return rc;
}
