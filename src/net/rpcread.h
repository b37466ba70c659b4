/* rpcread.h - one HTTP request out of the bytes of a connection; private to src/net */
#ifndef NET_RPCREAD_H
#define NET_RPCREAD_H

#include <stdbool.h>
#include <stddef.h>

#include "hyper/base/attr.h"
#include "net/http.h"

struct evbuffer;

#define RPC_VERDICT_WHY_MAX 512

/* Why a request is refused, or what to answer instead of serving it. */
struct rpc_verdict {
	int status; /* of HTTP */
	int code;   /* of JSON-RPC */
	char why[RPC_VERDICT_WHY_MAX];
};

/* A request that is being read. All zero at first. */
struct rpc_reading {
	struct http_head head; /* points into head_text */
	char *head_text;
	size_t scanned;
	struct http_chunks chunks;
	struct http_body body;
	size_t *bodies; /* borrowed; NULL: nothing of the body is counted */
};

enum rpc_read {
	RPC_READ_MORE,   /* bytes are missing */
	RPC_READ_DONE,   /* the head, or the body, is there and was taken from `in` */
	RPC_READ_REFUSE, /* *ret is filled, the rest of the request is not read */
	RPC_READ_NO_MEMORY
};

/* The head. `is_tls`: for the message to somebody who speaks the wrong one. */
enum rpc_read
rpc_read_head(struct rpc_reading *, struct evbuffer *in, bool is_tls, struct rpc_verdict *ret) ATTR_MUST_USE;

/* The body, after the head. *bodies (borrowed until rpc_reading_reset()) is what all bodies of a server hold, at most
 * `max_bodies`; this one's part is counted in it. */
enum rpc_read rpc_read_body(struct rpc_reading *, struct evbuffer *in, size_t *bodies, size_t max_bodies,
    struct rpc_verdict *ret) ATTR_MUST_USE;

/* Forgets the body; the head stays. */
void rpc_reading_drop_body(struct rpc_reading *);

/* Forgets all of it: ready for the next one. */
void rpc_reading_reset(struct rpc_reading *);

/* Fills all of *ret. */
void rpc_verdict_set(struct rpc_verdict *ret, int status, int code, const char *fmt, ...) ATTR_PRINTF(4, 5);

#endif
