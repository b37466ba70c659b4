/* reload.h - new settings into a running master: all of them, or nothing
 *
 *   read --> checked --> limits --> prepared (TLS, clients) --> applied
 *     `---------`----------`------------`--> faults, nothing changed
 */
#ifndef HYPER_PROXY_MASTER_RELOAD_H
#define HYPER_PROXY_MASTER_RELOAD_H

#include <stdbool.h>

#include <jansson.h>

#include "hyper/base/attr.h"

struct master;

/* Reads PROXY_SETTINGS again. With `dry` it changes and logs nothing. The report as of
 * net/reload.h, taken; NULL when out of memory. */
json_t *reload_settings(struct master *, bool dry);

/* The verb: args { "dry": bool }. The answer, taken. */
json_t *reload_on_admin(struct master *, const json_t *args);

#endif
