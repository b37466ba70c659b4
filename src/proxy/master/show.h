/* show.h - what the proxy shows of itself: metrics and status page */
#ifndef HYPER_PROXY_MASTER_SHOW_H
#define HYPER_PROXY_MASTER_SHOW_H

#include "hyper/base/attr.h"
#include "hyper/net/status.h"
#include "proxy/master/view.h"

struct show;

/* `view` is borrowed until show_free(). As status_new(). */
int show_new(struct event_base *, const char *bind_address, const struct view *, struct show **ret,
    char err[STATUS_ERR_MAX]) ATTR_MUST_USE;
/* NULL is fine, here and below. */
void show_free(struct show *);
unsigned show_port(const struct show *); /* 0 without one */

#endif
