/* broker.h - requestConnection: a token for A, word to B, the answer */
#ifndef HYPER_PROXY_MASTER_BROKER_H
#define HYPER_PROXY_MASTER_BROKER_H

#include <stdint.h>

#include "hyper/base/attr.h"
#include "hyper/net/rpcclient.h"
#include "hyper/net/rpcserver.h"
#include "proxy/master/session.h"

struct broker;

struct broker_conf {
	const char *name;     /* own operator; all texts borrowed until broker_free() */
	const char *endpoint; /* told to both sides */
	int64_t token_timeout_ms;
	int64_t call_timeout_ms;
	struct rpc_client *client; /* to our own hyper, borrowed until broker_free() */
	struct sessions *sessions; /* borrowed likewise */
};

/* NULL when out of memory; taken. */
struct broker *broker_new(const struct broker_conf *);
/* Only after rpc_client_free(): calls in flight point here. NULL is fine. */
void broker_free(struct broker *);

/* rpc_serve_cb: any request that came in. */
void broker_on_call(struct rpc_call *, void *broker);

/* sessions_on_end: A waits for an answer whose session is over. */
void broker_on_session_end(struct session *, enum end_reason, void *broker);

/* From now on every request is answered -32004. */
void broker_drain(struct broker *);

#endif
