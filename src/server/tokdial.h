/* tokdial.h - dials a proxy's endpoint and sends the 32 token bytes, for either party of a brokering */
#ifndef SERVER_TOKDIAL_H
#define SERVER_TOKDIAL_H

#include <stdbool.h>
#include <stdint.h>

#include <jansson.h>

#include "hyper/base/attr.h"
#include "hyper/base/words.h"
#include "hyper/settings/conf.h"
#include "hyper/wire/token.h"

struct event_base;
struct tokdial;

/* The socket (given; the token is written), or -1 with `reason` unreachable or
 * deadline and `why`, which names the address (borrowed). Once, from the loop. */
typedef void (*tokdial_cb)(int fd, enum end_reason reason, const char *why, void *arg);

/* 0 with *ret borrowed until `cb`, or -EINVAL (no host:port), -EBUSY, -ENOMEM with *ret untouched. */
int tokdial_start(struct event_base *, const char *endpoint, const struct token *, int64_t deadline_ms, tokdial_cb cb,
    void *arg, struct tokdial **ret) ATTR_MUST_USE;

/* Before `cb`: it never comes. NULL is fine. */
void tokdial_cancel(struct tokdial *);

/* May a program of ours dial this endpoint on behalf of the proxy `name`? The
 * local setting endpoint_allow and, where the proxy's directory entry has
 * settings for service `proxy` with `endpoints`, that list must both name it
 * (protocol.md "How ours must behave", faults.md "SSRF"). */
bool endpoint_is_allowed(
    const struct conf_strings *allow, const json_t *proxy_entry, const char *name, const char *endpoint);

#endif
