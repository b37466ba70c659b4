/* refusal.h - a requestConnection that gets no token: what A is told and what is noted of it */
#ifndef HYPER_PROXY_MASTER_REFUSAL_H
#define HYPER_PROXY_MASTER_REFUSAL_H

#include <stdint.h>

#include "hyper/wire/rpc.h"
#include "proxy/master/quota.h"

struct refusal {
	const char *own;       /* the proxy's operator */
	const char *session;   /* of the token that would have been */
	const char *from, *to; /* "" not known */
	int64_t retry_ms;      /* when a token ends at the latest */
};

/* Why session_issue() failed: `rc` is its -errno, `no` what it filled with -EDQUOT and -EBUSY. Taken. */
struct rpc_answer refusal_no_token(const struct refusal *, int rc, const struct quota_no *no);

/* The proxy is shutting down. Taken. */
struct rpc_answer refusal_draining(const struct refusal *);

#endif
