/* show.h - what the proxy shows of itself: metrics and status page */
#ifndef HYPER_PROXY_MASTER_SHOW_H
#define HYPER_PROXY_MASTER_SHOW_H

#include "hyper/base/attr.h"
#include "hyper/net/status.h"
#include "proxy/master/view.h"

/* `view` is borrowed until status_free(). As status_new(). */
int show_new(struct event_base *, const char *bind_address, const struct view *, struct status **ret,
    char err[STATUS_ERR_MAX]) ATTR_MUST_USE;

#endif
