/* show.h - what the service directory shows of itself: metrics and status page; for src/sd only */
#ifndef SD_SHOW_H
#define SD_SHOW_H

#include <stdint.h>

#include "hyper/base/attr.h"
#include "hyper/net/status.h"
#include "hyper/settings/conf.h"
#include "sd/api.h"

/* `conf` (with metrics), `book` and `calls` are borrowed until status_free(). As status_new(). */
int sd_show_new(struct event_base *, const struct conf_sd *conf, struct book *book, const uint64_t calls[API_METHODS],
    struct status **ret, char err[STATUS_ERR_MAX]) ATTR_MUST_USE;
/* A reload: `conf` is borrowed instead. NULL is fine. */
void sd_show_apply(struct status *, const struct conf_sd *conf);

#endif
