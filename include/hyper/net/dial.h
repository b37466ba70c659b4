/* dial.h - a TCP connection to host:port that never blocks the loop */
#ifndef HYPER_NET_DIAL_H
#define HYPER_NET_DIAL_H

#include <stdint.h>

#include "hyper/base/attr.h"

struct event_base;
struct dial;

#define DIAL_WHY_MAX 256

/* The end of a dial, once, from the loop; the dial is dead by then. `fd` is a
 * connected non-blocking socket with TCP_NODELAY (given), or -errno: -ETIMEDOUT
 * after `timeout_ms`, -EHOSTUNREACH for an unknown name, or what the last
 * address said. `why` is "" or "dial localhost:8889: Connection refused", borrowed until return. */
typedef void (*dial_cb)(int fd, const char *why, void *arg);

/* Resolves and connects; `localhost` is ::1 then 127.0.0.1 whatever the
 * resolver says, other names are looked up in a thread of their own. Several
 * addresses are tried in order, the next one after a failure or 250 ms. 0 with
 * *ret borrowed until `cb` is called or dial_free(), or -ENOMEM, -EINVAL (no
 * host:port), -EBUSY (too many look-ups under way) with *ret untouched. */
int dial_start(struct event_base *, const char *hostport, int64_t timeout_ms, dial_cb cb, void *arg,
    struct dial **ret) ATTR_MUST_USE;

/* Gives up: `cb` is not called any more. NULL is fine. */
void dial_free(struct dial *);

#endif
