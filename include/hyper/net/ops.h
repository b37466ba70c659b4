/* ops.h - the listener for monitoring and for people: /metrics, /healthz, /readyz, the status page
 *
 * Plain HTTP, GET and HEAD only, one answer a connection. It tells and never
 * changes anything, so it needs no TLS of its own; bind it to loopback, or put
 * it behind what the site uses for such pages.
 */
#ifndef HYPER_NET_OPS_H
#define HYPER_NET_OPS_H

#include <stddef.h>
#include <stdint.h>

#include "hyper/base/attr.h"

struct event_base;
struct evbuffer;
struct ops;

#define OPS_CONNS_MAX 64    /* at a time; the oldest makes room */
#define OPS_ANSWER_MS 10000 /* from accept to the last byte of the answer */
#define OPS_ERR_MAX   256

#define OPS_TEXT    "text/plain; charset=utf-8"
#define OPS_METRICS "text/plain; version=0.0.4; charset=utf-8"
#define OPS_JSON    "application/json"
#define OPS_HTML    "text/html; charset=utf-8"
#define OPS_CSS     "text/css; charset=utf-8"
#define OPS_SCRIPT  "text/javascript; charset=utf-8"

/* One path. render() appends the body and returns the HTTP status, from the loop, at once. */
struct ops_route {
	const char *path;
	const char *type; /* of OPS_... */
	int (*render)(struct evbuffer *out, void *arg);
};

/* `base` and `routes` are borrowed until ops_free(). 0 with *ret taken, or -errno with
 * *ret untouched and `err` saying what could not be had. */
int ops_new(struct event_base *base, const char *bind_address, const struct ops_route *routes, size_t n, void *arg,
    struct ops **ret, char err[OPS_ERR_MAX]) ATTR_MUST_USE;

/* Ends all connections. NULL is fine. */
void ops_free(struct ops *);

uint16_t ops_port(const struct ops *);

#endif
