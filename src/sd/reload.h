/* reload.h - new settings into a running service directory: all of them, or nothing */
#ifndef SD_RELOAD_H
#define SD_RELOAD_H

#include <stdbool.h>

#include <jansson.h>

#include "hyper/net/rpcserver.h"
#include "hyper/settings/conf.h"

/* Reads SD_SETTINGS again and applies them to the server and the book. `conf` are those in use; on success *ret_conf is taken by the
 * caller, and those of before are borrowed by nobody but him. The report as of the admin verb `reload`, taken; NULL when
 * out of memory. `dry`: nothing is changed or logged, *ret_conf is untouched. */
struct book;
json_t *sd_reload(const struct conf_sd *conf, struct rpc_server *, struct book *, bool dry, struct conf_sd **ret_conf);

#endif
