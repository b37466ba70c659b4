/* brokering.h - requestConnection: a token for A, word to B, the answer */
#ifndef HYPER_PROXY_MASTER_BROKERING_H
#define HYPER_PROXY_MASTER_BROKERING_H

#include <stdbool.h>
#include <stdint.h>

#include "hyper/base/attr.h"
#include "hyper/net/rpcclient.h"
#include "hyper/net/rpcserver.h"
#include "proxy/master/session.h"

struct event_base;
struct brokering;

struct brokering_conf {
	struct event_base *base; /* borrowed until brokering_free() */
	const char *name;        /* own operator; all texts borrowed until brokering_free() */
	const char *endpoint;    /* told to both sides */
	int64_t token_timeout_ms;
	int64_t call_timeout_ms;
	struct rpc_client *client; /* to our own hyper, borrowed until brokering_free() */
	struct sessions *sessions; /* borrowed likewise */
};

/* A reload: times, and the client for the calls to come. What is under way keeps its time. */
void brokering_apply(struct brokering *, int64_t token_timeout_ms, int64_t call_timeout_ms, struct rpc_client *client);

/* NULL when out of memory; taken. */
struct brokering *brokering_new(const struct brokering_conf *);
/* Only after rpc_client_free(): calls in flight point here; sessions must still be there. NULL is fine. */
void brokering_free(struct brokering *);

/* rpc_serve_cb: any request that came in. */
void brokering_on_call(struct rpc_call *, void *broker);

/* sessions_on_end: A waits for an answer whose session is over. */
void brokering_on_session_end(struct session *, enum end_reason, void *broker);

/* sessions_on_parked: the first socket of a session whose A still waits. */
void brokering_on_session_parked(struct session *, void *broker);

/* While on every request is answered -32004. */
void brokering_drain(struct brokering *, bool on);

#endif
