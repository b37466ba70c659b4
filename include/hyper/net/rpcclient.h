/* rpcclient.h - JSON-RPC calls over libcurl, connections kept alive */
#ifndef HYPER_NET_RPCCLIENT_H
#define HYPER_NET_RPCCLIENT_H

#include <stdint.h>

#include "hyper/base/attr.h"
#include "hyper/settings/conf.h"
#include "hyper/wire/rpc.h"

struct event_base;
struct rpc_client;

#define RPC_CLIENT_ERR_MAX 256

/* `conf` is borrowed until this returns. Files are read now. 0 with
 * *ret taken, or -errno untouched with `err`. */
int rpc_client_new(struct event_base *, const struct conf_rpc_client *conf, struct rpc_client **ret,
    char err[RPC_CLIENT_ERR_MAX]) ATTR_MUST_USE;

/* Calls in flight are answered with END_STOPPED from the loop before this returns. NULL is fine. */
void rpc_client_free(struct rpc_client *);

/* `cl` takes the place of `old`, whose calls under way end as they would have; after the last one it is
 * freed, by rpc_client_free(cl) at the latest. `old` is given: whoever borrows it gets `cl` instead. From the loop. */
void rpc_client_replace(struct rpc_client *cl, struct rpc_client *old);

/* For calls by the thousand: from so many in a second on they go over kept connections of our own, besides libcurl's,
 * once the server was seen to keep one (docs/decisions/033). 0: from the first call on. */
#define RPC_CLIENT_LOAD 32
void rpc_client_use_lanes(struct rpc_client *, unsigned calls_per_s);

/* One call; `params` and texts are copied. `cb` gets what the other side
 * answered, or an error of ours (is_local): RPC_INTERNAL with data.reason "unreachable",
 * "tls", "deadline", or "internal"; the message names the endpoint and libcurl's reason. An
 * answer over JSON_MAX_BYTES is an error. Contract: rpc_reply_cb. */
void rpc_client_call(struct rpc_client *, const char *method, const json_t *params, const char *id, int64_t timeout_ms,
    rpc_reply_cb cb, void *arg);

/* The same with params that are JSON text. */
void rpc_client_call_text(struct rpc_client *, const char *method, const char *params_text, const char *id,
    int64_t timeout_ms, rpc_reply_cb cb, void *arg);

#endif
