/* cors.h - protocol.md 4.1 "CORS": which origins may read answers, and the headers that say so */
#ifndef NET_CORS_H
#define NET_CORS_H

#include "hyper/base/attr.h"
#include "hyper/settings/conf.h"

struct cors;
struct evbuffer;

#define CORS_ERR_MAX 256

/* `conf` is borrowed until cors_free(). 0 with *ret taken, or -EINVAL, -ENOMEM with `err`. */
int cors_new(const struct conf_cors *conf, struct cors **ret, char err[CORS_ERR_MAX]) ATTR_MUST_USE;
void cors_free(struct cors *);

/* `cors` and `origin` may be NULL: false. */
bool cors_permits(const struct cors *, const char *origin);

/* Header lines for a permitted origin; `requested` (may be NULL) is Access-Control-Request-Headers. */
void cors_add_headers(const struct cors *, const char *origin, const char *requested, struct evbuffer *out);

#endif
