/* channel.h - a request on its way and the one contract of everything that can deliver it
 *
 * deliver() answers exactly once, from the loop, never before it returned and
 * always by the request's deadline (architecture.md "Asynchronous calls").
 */
#ifndef SERVER_CHANNEL_H
#define SERVER_CHANNEL_H

#include <stdbool.h>
#include <stdint.h>

#include <jansson.h>

#include "hyper/base/attr.h"
#include "hyper/wire/address.h"
#include "hyper/wire/rpc.h"

struct request {
	char *client;        /* the operator that is calling, as TLS and the directory know it */
	char *method;        /* "operator.method" */
	char *id;            /* "operator.method(inner id)" as it goes over the wire */
	struct address addr; /* `id`, parsed: the only thing that is authorised and dispatched */
	json_t *params;      /* an object; `_client` is the directory's word */
	bool as_text;        /* the answer's result may come as result_text */
	int64_t deadline_ms; /* monotonic; a little before the caller's own, so that the channel names the step */
};

/* What came of a delivery. `failed`: the message could not be delivered or the
 * answer not be fetched, so the answer is our own error. Otherwise it is what
 * the other side said. The answer is borrowed until return; its members may be
 * taken by setting them NULL. */
typedef void (*deliver_cb)(struct rpc_answer *, bool failed, void *arg);

struct channel_ops {
	const char *type;
	/* Asked after the recipient was found in the directory. NULL: never. */
	bool (*can_deliver)(void *channel, const struct request *);
	/* 0: `cb` comes later; -ENOMEM: it never comes. The request is borrowed
	 * until `cb`. */
	int (*deliver)(void *channel, const struct request *, deliver_cb cb, void *arg) ATTR_MUST_USE;
};

/* A copy of the parameters as they travel to another operator: with `_client`
 * (protocol.md 3.4, 3.5, 7.1), but to a program of ours without, which replaces it by
 * its own directory's word anyway. NULL when out of memory; taken. */
json_t *request_params_for_wire(const struct request *, bool to_ours);

/* One more reader for the same error; an allocation that fails leaves the text out. Taken. */
struct rpc_answer answer_copy(const struct rpc_answer *);

/* "reason" of an error's data, or `fallback`. Borrowed. */
const char *answer_reason(const struct rpc_answer *, const char *fallback);

#endif
