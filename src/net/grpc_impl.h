/* grpc_impl.h - what the files grpc_*.c share; nobody else includes it
 *
 *   grpc_conn.c    life of a connection: dial, TLS, bytes, end
 *   grpc_timer.c   its deadlines: handshake, keepalive, idle, slow readers
 *   grpc_h2.c      the nghttp2 session and what its callbacks do to streams
 *   grpc_stream.c  life of a stream: queue of frames out, messages put together in
 *   grpc_listen.c  accepted connections
 */
#ifndef NET_GRPC_IMPL_H
#define NET_GRPC_IMPL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include <nghttp2/nghttp2.h>

#include "hyper/net/grpc.h"
#include "hyper/net/listen.h"

struct dial;
struct event;
struct tlsio;

#define GRPC_BIT(s) (1u << (s))

/* Caps (faults.md "Attacks with a valid certificate"). */
#define GRPC_STREAMS_SERVER  100           /* a peer may have open with us */
#define GRPC_STREAMS_CLIENT  1024          /* we open; over the peer's limit they wait in nghttp2 */
#define GRPC_HEADER_LIST_MAX 16384         /* names, values and 32 each, as RFC 9113 counts */
#define GRPC_STREAM_WINDOW   (1024 * 1024) /* bulk: one message of 4 MiB needs 4 round trips */
#define GRPC_CONN_WINDOW     (4 * 1024 * 1024)
#define GRPC_STREAM_QUEUE    ((size_t)8 * 1024 * 1024)   /* frames waiting for a slow reader */
#define GRPC_CONN_QUEUE      ((size_t)32 * 1024 * 1024)  /* the same, all streams of a connection */
#define GRPC_CONN_PARTIAL    ((size_t)32 * 1024 * 1024)  /* messages that have not come whole yet */
#define GRPC_ALL_PARTIAL     ((size_t)256 * 1024 * 1024) /* the same, all connections together */
#define GRPC_ALL_QUEUE       ((size_t)256 * 1024 * 1024) /* frames waiting, all connections together */
#define GRPC_OUT_HIGH        ((size_t)64 * 1024)         /* nothing is taken from nghttp2 above this */
#define GRPC_READS           16                          /* records at most, then other connections get their turn */

/* Deadlines. The first four are protocol.md 3.2 "Keepalive". A connection that a
 * peer opened to us is closed after ten minutes without a stream (the reference: one): peers
 * of ours pool connections, and a brokered one costs four handshakes to replace. */
#ifndef GRPC_PING_CLIENT_MS /* t/unit/test_grpc_time.c has no minutes to wait */
#define GRPC_PING_CLIENT_MS     30000
#define GRPC_PING_CLIENT_ACK_MS 20000
#define GRPC_PING_SERVER_MS     60000
#define GRPC_PING_SERVER_ACK_MS 30000
#define GRPC_IDLE_MS            600000
#define GRPC_LINGER_MS          1000  /* between "going away" and the end, for requests and GOAWAY under way */
#define GRPC_FINISH_MS          30000 /* for the peer to take what was queued before the trailers */
#define GRPC_HANDSHAKE_MS       5000
#define GRPC_MESSAGE_MS         30000 /* for a client's first message, and from the first byte of each to its last */
#endif

/*   DIAL --tcp--> HANDSHAKE --tls, h2, on_secured--> OPEN --goaway--> DRAIN
 *     `---------------`---------------------------------`---------------`--> ENDING --loop--> CLOSED
 *   any --grpc_conn_free--> FREED: memory goes with the next turn of the loop            */
#define GRPC_CONN_STATES(X)                                                              \
	X(DIAL, GRPC_BIT(CONN_HANDSHAKE) | GRPC_BIT(CONN_ENDING) | GRPC_BIT(CONN_FREED)) \
	X(HANDSHAKE, GRPC_BIT(CONN_OPEN) | GRPC_BIT(CONN_ENDING) | GRPC_BIT(CONN_FREED)) \
	X(OPEN, GRPC_BIT(CONN_DRAIN) | GRPC_BIT(CONN_ENDING) | GRPC_BIT(CONN_FREED))     \
	X(DRAIN, GRPC_BIT(CONN_ENDING) | GRPC_BIT(CONN_FREED))                           \
	X(ENDING, GRPC_BIT(CONN_CLOSED) | GRPC_BIT(CONN_FREED))                          \
	X(CLOSED, GRPC_BIT(CONN_FREED))                                                  \
	X(FREED, 0)

enum conn_state {
#define X(n, to) CONN_##n,
	GRPC_CONN_STATES(X)
#undef X
	    CONN_STATE_MAX
};

/* What we send:   QUIET --first message--> SENDING --half_close, finish--> LAST
 * A server's response headers leave with the step out of QUIET; a client starts in SENDING.
 * OVER: on_end is due, nothing else happens to it; the list says so as well. */
#define GRPC_STREAM_STATES(X)                                                              \
	X(QUIET, GRPC_BIT(STREAM_SENDING) | GRPC_BIT(STREAM_LAST) | GRPC_BIT(STREAM_OVER)) \
	X(SENDING, GRPC_BIT(STREAM_LAST) | GRPC_BIT(STREAM_OVER))                          \
	X(LAST, GRPC_BIT(STREAM_OVER))                                                     \
	X(OVER, 0)

enum stream_state {
#define X(n, to) STREAM_##n,
	GRPC_STREAM_STATES(X)
#undef X
	    STREAM_STATE_MAX
};

struct grpc_chunk {
	STAILQ_ENTRY(grpc_chunk) link;
	uint8_t *buf; /* owned */
	size_t len, off;
};

struct grpc_stream {
	TAILQ_ENTRY(grpc_stream) link; /* conn->streams, or conn->over in state OVER */
	struct grpc_conn *conn;
	int32_t id;
	enum stream_state state;
	const struct grpc_stream_ops *ops; /* NULL: refused, nobody listens */
	void *arg;

	/* out */
	STAILQ_HEAD(, grpc_chunk) queue;
	size_t queued;       /* bytes in it */
	int64_t deadline_ms; /* in LAST on a server: the peer must have taken all by then */

	/* in: one message at a time */
	uint8_t head[GRPC_FRAME_HEAD];
	size_t head_len;
	uint8_t *msg; /* owned, grows as bytes come */
	size_t want, got, cap;
	int64_t due_ms; /* server: that message must be whole by then; 0: none is owed */

	/* in: headers */
	size_t header_bytes;
	char *path;         /* server role, owned */
	bool is_post;       /* server role */
	bool is_grpc;       /* content-type */
	int http_status;    /* client role; 0 not yet */
	int grpc_status;    /* client role; -1 not yet */
	char *grpc_message; /* decoded, owned, may be NULL */

	/* what on_end will say */
	bool was_untouched; /* the peer has not looked at it */
	int end_status;
	char *end_message; /* owned, may be NULL */
};
TAILQ_HEAD(grpc_streams, grpc_stream);

struct grpc_conn {
	uint64_t nr; /* `conn=` in log lines */
	enum conn_state state;
	enum tls_role role;
	struct event_base *base;
	const struct grpc_conn_ops *ops;
	void *arg;
	struct grpc_listener *listener; /* counts it; NULL when it was not accepted by one */
	TAILQ_ENTRY(grpc_conn) shaking; /* the listener's, in HANDSHAKE */
	bool is_shaking;                /* it is in that list */

	struct dial *dial;
	SSL_CTX *ctx;      /* a reference, until the SSL exists */
	char *server_name; /* client role */
	char *peer;        /* "localhost:8889 as hd-2", "127.0.0.1:4711": for texts */
	int fd;
	SSL *ssl;
	struct tlsio *io;
	nghttp2_session *h2;

	struct event *ev_work; /* send, deliver ends, end */
	struct event *ev_timer;
	int64_t timer_ms;   /* when it fires; INT64_MAX when it does not */
	int64_t connect_ms; /* deadline of DIAL and HANDSHAKE */
	int64_t timeout_ms; /* the same as a length, for texts */
	int64_t heard_ms, secured_ms;
	bool was_heard;        /* a byte of the peer had come when the connection was torn down */
	int64_t last_rx_ms;    /* last byte of the peer */
	int64_t ping_ms;       /* our PING is under way since; 0 none */
	int64_t idle_since_ms; /* no stream since; server role */
	int64_t linger_ms;     /* do not end before, although nothing is left to do */
	bool is_polite;        /* freed while all was well: the socket lingers */
	int64_t give_up_ms;    /* the session has ended: the peer has so long to take our last bytes */

	struct grpc_streams streams, over;
	size_t n_streams;       /* in `streams` */
	size_t n_finishing;     /* with a deadline_ms */
	size_t n_due;           /* with a due_ms */
	size_t queued, partial; /* bytes, all streams */

	unsigned chatter; /* frames of the peer that carried nothing, weighted; see chatter() */
	int64_t chatter_since_ms;
	bool is_cut_off; /* there were too many of them */

	enum end_reason reason; /* from ENDING on */
	char why[GRPC_ERR_MAX];
	enum end_reason h2_reason; /* what a session that has run down will be said to have ended by */
	char h2_why[128];          /* the peer's GOAWAY or what was wrong with its frames; "" none */
};

/* --- grpc_conn.c --- */

/* As grpc_conn_adopt() in the server role, counted by `listener` (a reference
 * that grpc_listener_unref() gives back). */
int grpc_conn_accept(struct event_base *, SSL_CTX *, int fd, int64_t handshake_timeout_ms, const struct grpc_conn_ops *,
    struct grpc_listener *listener, struct grpc_conn **ret) ATTR_MUST_USE;
void grpc_conn_set_arg(struct grpc_conn *, void *arg);

/* The only place that writes c->state. */
void grpc_conn_enter(struct grpc_conn *, enum conn_state, const char *why);

/* Ends the connection from the loop; the first reason wins. */
void grpc_conn_fail(struct grpc_conn *, enum end_reason, const char *fmt, ...) ATTR_PRINTF(3, 4);

/* The HTTP/2 session is over: ends the connection in its words. */
void grpc_conn_run_down(struct grpc_conn *);

/* Something is to be sent or delivered: do it in this turn of the loop. */
void grpc_conn_kick(struct grpc_conn *);

/* May frames be queued? */
static inline bool
grpc_conn_is_alive(const struct grpc_conn *c)
{
	return c->state == CONN_OPEN || c->state == CONN_DRAIN;
}

/* --- grpc_timer.c --- */

/* NULL when out of memory; taken. */
struct event *grpc_timer_new(struct grpc_conn *);
/* A deadline may have come nearer. */
void grpc_timer_rearm(struct grpc_conn *);

/* --- grpc_h2.c --- */

/* 0, or -ENOMEM. Sets c->h2 and queues our SETTINGS. */
int grpc_h2_new(struct grpc_conn *) ATTR_MUST_USE;

/* Our requests and responses. */
int32_t grpc_h2_request(struct grpc_stream *, const char *path, const char *authority) ATTR_MUST_USE;
int grpc_h2_respond(struct grpc_stream *) ATTR_MUST_USE;
int grpc_h2_respond_http(struct grpc_stream *, int http_status) ATTR_MUST_USE;
/* Trailers, or without response headers a Trailers-Only answer. */
int grpc_h2_trailers(struct grpc_stream *, bool only) ATTR_MUST_USE;

/* --- grpc_stream.c --- */

struct grpc_stream *grpc_stream_new(struct grpc_conn *);
/* Memory only; it is in no list any more. */
void grpc_stream_drop(struct grpc_stream *);

/* on_end is due. `message` is copied. Nothing happens when it is over already. */
void grpc_stream_over(struct grpc_stream *, int status, const char *message);

/* The same of a client's stream that the peer has not looked at. */
void grpc_stream_untouched(struct grpc_stream *, const char *message);

/* Our side refuses: a server answers with this status, a client cancels. */
void grpc_stream_refuse(struct grpc_stream *, int status, const char *fmt, ...) ATTR_PRINTF(3, 4);

/* Server, before anything was sent: an HTTP status for what is no gRPC request. */
void grpc_stream_refuse_http(struct grpc_stream *, int http_status);

/* DATA of the peer. -1: the connection is gone or ending, stop reading. */
int grpc_stream_feed(struct grpc_stream *, const uint8_t *data, size_t len) ATTR_MUST_USE;
/* END_STREAM of the peer. */
void grpc_stream_remote_end(struct grpc_stream *);

/* Fills `buf` from the queue. Bytes written; *ret_last when nothing follows any more. */
size_t grpc_stream_take(struct grpc_stream *, uint8_t *buf, size_t cap, bool *ret_last);

/* Delivers on_end of what is over, with detached h2 streams. False: a callback freed the connection. */
bool grpc_streams_settle(struct grpc_conn *);

/* --- grpc_listen.c --- */
/* It is in its handshake no more. */
void grpc_listener_shaken(struct grpc_conn *);
void grpc_listener_unref(struct grpc_listener *);

#endif
