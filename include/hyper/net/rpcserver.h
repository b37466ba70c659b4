/* rpcserver.h - JSON-RPC over HTTP/1.1, with or without TLS: protocol.md 4.1 and "HTTP" */
#ifndef HYPER_NET_RPCSERVER_H
#define HYPER_NET_RPCSERVER_H

#include <stdbool.h>
#include <stdint.h>

#include "hyper/base/attr.h"
#include "hyper/net/tls.h"
#include "hyper/settings/conf.h"
#include "hyper/wire/rpc.h"

struct event_base;
struct rpc_server;
struct rpc_call; /* one request that waits for its answer */

#define RPC_SERVER_ERR_MAX 256

/* A well-formed request came. Answer it exactly once with rpc_call_answer(),
 * now or later. */
typedef void (*rpc_serve_cb)(struct rpc_call *, void *arg);

/* Binds and serves. Refusals that need no callback (405, 404, -32700, -32600,
 * 413, client certificate not in allowed_clients -> 403) are answered inside.
 * `own_name` is the one permitted client name when conf->allowed_clients is empty; NULL
 * permits any certificate of the CA (sd). `conf` is borrowed until
 * rpc_server_apply() or rpc_server_free(). 0 with *ret taken, or -errno untouched with `err`. */
int rpc_server_new(struct event_base *, const struct conf_rpc_server *conf, const char *own_name, rpc_serve_cb,
    void *arg, struct rpc_server **ret, char err[RPC_SERVER_ERR_MAX]) ATTR_MUST_USE;

/* From now on a caller's `_client` that came before is not parsed again; rpc_request.known
 * tells. For servers behind a message server, which adds the same one to each request of a
 * caller. Out of memory: nothing is remembered. */
void rpc_server_remember_clients(struct rpc_server *);

/* A reload in two steps, so that nothing changes unless everything can. Here all that `conf` asks for is
 * made: 0 with *ret taken, or -errno untouched with `err`. `conf` is borrowed. */
struct rpc_server_next;
int rpc_server_prepare(
    const struct conf_rpc_server *conf, struct rpc_server_next **ret, char err[RPC_SERVER_ERR_MAX]) ATTR_MUST_USE;
/* Everything but bind_address. The second argument is given; its `conf` is borrowed from now on, the one before
 * no more. Open connections keep the TLS that they began with. */
void rpc_server_apply(struct rpc_server *, struct rpc_server_next *);
/* One that shall not be applied. NULL is fine. */
void rpc_server_next_free(struct rpc_server_next *);

/* Closes listeners and connections. Calls not yet answered stay valid and must
 * still be answered (the answer goes nowhere). NULL is fine. */
void rpc_server_free(struct rpc_server *);

/* While on no connection is accepted: new ones wait in the kernel's queue. Requests of open ones are served, and each
 * answer says that its connection ends with it: a server that is about to be replaced comes to rest without a refusal. */
void rpc_server_hold(struct rpc_server *, bool on);
/* Is no request under way, no answer, and no connection so young that its first request may be? */
bool rpc_server_is_quiet(const struct rpc_server *);

uint16_t rpc_server_port(const struct rpc_server *);

/* Borrowed until rpc_call_answer(). */
const struct rpc_request *rpc_call_request(const struct rpc_call *);

/* The client's certificate; NULL on plain HTTP or without one. Borrowed until rpc_call_answer(). */
const struct tls_peer *rpc_call_peer(const struct rpc_call *);

/* Milliseconds (monotonic) at which the request was complete. */
int64_t rpc_call_since_ms(const struct rpc_call *);

/* Sends the answer (its members are given) under the request's id and frees
 * the call. HTTP 200, or 400 with an error (protocol.md 4.1 "response"). */
void rpc_call_answer(struct rpc_call *, struct rpc_answer);

#endif
