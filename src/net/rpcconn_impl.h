/* rpcconn_impl.h - one connection of the JSON-RPC server, shared by rpcconn.c (its life) and rpcexchange.c (what is asked
 * and answered over it), and by nobody else
 *
 *   HANDSHAKE --tls--> IDLE --byte--> HEAD --> BODY --> SERVING --answer--> WRITING --keep-alive--> IDLE
 *       `-refused-> LINGER              `--------`------- refusal ----------->'  `--close--> LINGER --> GONE
 *   every state --error, deadline, stop--> GONE
 */
#ifndef NET_RPCCONN_IMPL_H
#define NET_RPCCONN_IMPL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include <event2/bufferevent.h>

#include "hyper/net/tls.h"
#include "net/rpcconn.h"
#include "net/rpcread.h"

#define BIT(s) (1u << (s))

/* X(state, where it may go) */
#define CONN_STATES(X)                                                   \
	X(HANDSHAKE, BIT(CONN_IDLE) | BIT(CONN_LINGER) | BIT(CONN_GONE)) \
	X(IDLE, BIT(CONN_HEAD) | BIT(CONN_GONE))                         \
	X(HEAD, BIT(CONN_BODY) | BIT(CONN_WRITING) | BIT(CONN_GONE))     \
	X(BODY, BIT(CONN_SERVING) | BIT(CONN_WRITING) | BIT(CONN_GONE))  \
	X(SERVING, BIT(CONN_WRITING) | BIT(CONN_GONE))                   \
	X(WRITING, BIT(CONN_IDLE) | BIT(CONN_LINGER) | BIT(CONN_GONE))   \
	X(LINGER, BIT(CONN_GONE))                                        \
	X(GONE, 0)

enum conn_state {
#define X(n, to) CONN_##n,
	CONN_STATES(X)
#undef X
};

struct rpc_conn {
	struct rpc_server *srv;
	uint64_t id;
	enum conn_state state;
	struct bufferevent *bev; /* owns the socket and `ssl` */
	SSL *ssl;                /* borrowed; NULL on plain HTTP */
	struct event *deadline;
	struct event *drain;   /* in LINGER after a failed handshake, when `bev` reads no more */
	struct tls_peer *peer; /* NULL without a certificate */
	struct rpc_reading reading;
	struct rpc_call *call; /* not NULL exactly in SERVING */
	int64_t idle_since_ms; /* of the monotonic clock, in IDLE; in HANDSHAKE and after a failed one: accepted */
	bool keep;             /* after this response another request may come */
	bool eof;              /* the peer has sent all it had */
	bool heard;            /* a byte of HTTP has come */
	bool served;           /* has answered at least once */
	size_t drained;        /* bytes, in LINGER */
	TAILQ_ENTRY(rpc_conn) link;
};

/* rpcconn.c: the only place that writes c->state. */
void rpc_conn_enter(struct rpc_conn *, enum conn_state to, const char *why);

/* rpcconn.c: a response has left whole, the next request may come. */
void rpc_conn_go_on(struct rpc_conn *);

/* rpcconn.c: what was malloc'ed for a connection and given to its call. NULL is fine. */
void rpc_conn_peer_free(struct tls_peer *);

/* rpcexchange.c: in HEAD or BODY, goes as far as the bytes that are there allow. The connection may be gone afterwards. */
void rpc_exchange_read(struct rpc_conn *);

/* rpcexchange.c: answers with an error instead of serving. The rest of the request is not read, so the connection ends;
 * it may be gone afterwards. */
void rpc_exchange_refuse(struct rpc_conn *, const struct rpc_verdict *);

/* rpcexchange.c: the connection goes. Its call, which takes the peer along, lives until it is answered. */
void rpc_exchange_detach(struct rpc_conn *);

#endif
