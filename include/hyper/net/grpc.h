/* grpc.h - gRPC over HTTP/2 over TLS (nghttp2, OpenSSL): connections, streams, messages
 *
 *   TCP --tls--> SECURED --h2--> streams: HEADERS, 5-byte framed messages, trailers
 *
 * Knows HTTP/2 and frames, not what a message means and not who may call
 * (src/server does). Rules: protocol.md 3.2, 3.3, grpc's PROTOCOL-HTTP2.md.
 *
 * Ownership: a connection is owned by whoever created it or got it from
 * on_conn; it lives until grpc_conn_free(), also after on_closed. A stream is
 * owned by its connection and dead after on_end returned or the connection was
 * freed. No callback runs inside a call of this interface: all come from the loop.
 */
#ifndef HYPER_NET_GRPC_H
#define HYPER_NET_GRPC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <openssl/ssl.h>

#include "hyper/base/attr.h"
#include "hyper/net/tls.h"
#include "hyper/settings/conf.h"
#include "hyper/wire/grpcmsg.h"

struct event_base;
struct grpc_conn;
struct grpc_stream;
struct grpc_listener;

#define GRPC_ERR_MAX 256

struct grpc_stream_ops {
	/* One whole message without its frame head; borrowed until return. */
	void (*on_message)(struct grpc_stream *, const uint8_t *msg, size_t len, void *arg);
	/* The peer sends no more messages (END_STREAM on a server's stream). May be NULL. */
	void (*on_half_close)(struct grpc_stream *, void *arg);
	/* The last callback of a stream: trailers came, it was reset, refused, or
	 * the connection ended. `status` is grpc's; `message` is never NULL, borrowed. */
	void (*on_end)(struct grpc_stream *, int status, const char *message, void *arg);
};

struct grpc_conn_ops {
	/* TLS and ALPN h2 are done, `peer` is the verified leaf (borrowed until
	 * return). Return false to close the connection (pinning failed). */
	bool (*on_secured)(struct grpc_conn *, const struct tls_peer *peer, void *arg);
	/* Server role: a new stream for `path`. Set ops with grpc_stream_set() and
	 * return true; false answers UNIMPLEMENTED in the words of protocol.md 3.2.
	 * NULL in the client role. */
	bool (*on_stream)(struct grpc_conn *, struct grpc_stream *, const char *path, void *arg);
	/* The last callback: the connection could not be made or has ended, every
	 * stream's on_end was called before. `why` names the step that failed and
	 * is borrowed. `reason`: unreachable, tls, deadline, reset, closed, internal. */
	void (*on_closed)(struct grpc_conn *, enum end_reason reason, const char *why, void *arg);
};

/* Dials `address` (host:port) and speaks TLS as `server_name`. `ctx` is
 * borrowed until grpc_conn_free() (a reference is held). connect_timeout_ms
 * covers resolving, TCP, TLS and ALPN. 0 with *ret taken, or -errno untouched:
 * -EINVAL (no host:port), -ENOMEM, -EBUSY (too many look-ups of names under way). */
int grpc_conn_dial(struct event_base *, SSL_CTX *ctx, const char *address, const char *server_name,
    int64_t connect_timeout_ms, const struct grpc_conn_ops *, void *arg, struct grpc_conn **ret) ATTR_MUST_USE;

/* The same over a connected socket (`fd` is given, also on failure): the
 * client role after the token was sent, or with server_name NULL the server role. */
int grpc_conn_adopt(struct event_base *, SSL_CTX *ctx, int fd, const char *server_name, int64_t handshake_timeout_ms,
    const struct grpc_conn_ops *, void *arg, struct grpc_conn **ret) ATTR_MUST_USE;

/* Ends it now; streams get on_end(UNAVAILABLE) from the loop (or, when it does not
 * run again, from event_base_free()), on_closed is not called any more. Legal
 * in every callback. NULL is fine. */
void grpc_conn_free(struct grpc_conn *);

/* True from on_secured until it ends or the peer sent GOAWAY: a new stream may be opened. */
bool grpc_conn_is_ready(const struct grpc_conn *);
size_t grpc_conn_streams(const struct grpc_conn *);

/* Monotonic milliseconds: when the peer's first handshake byte came (a brokered
 * connection is paired by then, step 7) and when TLS was done (step 8); 0 not yet. */
bool grpc_conn_was_mute(const struct grpc_conn *); /* in on_closed: not one byte came from the peer */
int64_t grpc_conn_heard_ms(const struct grpc_conn *);
int64_t grpc_conn_secured_ms(const struct grpc_conn *);

/* Client role. `authority` is the peer's operator name (protocol.md 3.2). 0
 * with *ret borrowed until its on_end, or -errno (-ENOTCONN, -ENOMEM, -EBUSY: 1024
 * streams are open) untouched. */
int grpc_stream_open(struct grpc_conn *, const char *path, const char *authority, const struct grpc_stream_ops *,
    void *arg, struct grpc_stream **ret) ATTR_MUST_USE;

/* Server role, inside on_stream. `ops` is borrowed for ever. */
void grpc_stream_set(struct grpc_stream *, const struct grpc_stream_ops *ops, void *arg);

/* Queues one framed message (as the pack functions of grpcmsg.h make it;
 * given, also on failure). The server's response headers go out with its first
 * message or its trailers. 0, -ENOBUFS when over 8 MiB are queued on the stream
 * (32 MiB on the connection), -ENOMEM, or -ENOTCONN. */
int grpc_stream_send(struct grpc_stream *, uint8_t *frame, size_t len) ATTR_MUST_USE;

/* Client: no more messages from us. */
void grpc_stream_half_close(struct grpc_stream *);

/* Server: trailers after what is queued. Client: RST_STREAM(CANCEL). on_end follows from the loop. */
void grpc_stream_finish(struct grpc_stream *, int status, const char *message);

struct grpc_conn *grpc_stream_conn(struct grpc_stream *);

/* In on_end of a client: the peer has certainly not looked at the request (RFC 9113 sections
 * 6.8, 8.7: GOAWAY with a lower stream id, REFUSED_STREAM, or it never left), so sending it
 * once more cannot do anything twice. */
bool grpc_stream_was_untouched(const struct grpc_stream *);

/* Bytes of HTTP/2 that all connections have received [0] and sent [1] since the start. */
const uint64_t *grpc_bytes(void);

/* Listening server: rate limits, cap on connections, handshake deadline 5 s.
 * `on_conn` gets each accepted connection (given to it) before its handshake
 * and returns the `arg` for `ops`. `conf` is borrowed until grpc_listener_free(). */
typedef void *(*grpc_on_conn)(struct grpc_conn *, void *listener_arg);
int grpc_listener_new(struct event_base *, const struct conf_grpc_server *conf, const struct grpc_conn_ops *ops,
    grpc_on_conn, void *listener_arg, struct grpc_listener **ret, char err[GRPC_ERR_MAX]) ATTR_MUST_USE;
void grpc_listener_free(struct grpc_listener *);

/* A reload in two steps: here all that can fail. 0 with *ret taken, or -errno untouched with `err`. `conf` is borrowed. */
struct grpc_listener_next;
int grpc_listener_prepare(
    const struct conf_grpc_server *conf, struct grpc_listener_next **ret, char err[GRPC_ERR_MAX]) ATTR_MUST_USE;
/* Everything but bind_address. The second one is given, its `conf` borrowed from now on, the one before no more.
 * Connections keep the TLS that they began with. */
void grpc_listener_apply(struct grpc_listener *, struct grpc_listener_next *);
void grpc_listener_next_free(struct grpc_listener_next *); /* NULL is fine */

/* The TLS of new connections, for sockets that are adopted in the server role. Borrowed until the next apply. */
SSL_CTX *grpc_listener_ctx(const struct grpc_listener *);
uint16_t grpc_listener_port(const struct grpc_listener *);

#endif
