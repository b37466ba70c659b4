/* park.h - watching the sockets that wait for their other party, without reading from them */
#ifndef HYPER_PROXY_MASTER_PARK_H
#define HYPER_PROXY_MASTER_PARK_H

#include <stdint.h>

#include "hyper/base/attr.h"

struct event_base;
struct park;

/* The socket parked under `key` ended: reset, timed out, or closed without a
 * byte to deliver. park_remove() is permitted in it. */
typedef void (*park_on_gone)(uint32_t key, int fd, void *arg);

/* 0 with *ret taken, or -errno untouched. */
int park_new(struct event_base *, park_on_gone, void *arg, struct park **ret) ATTR_MUST_USE;
void park_free(struct park *);

/* `fd` is borrowed until park_remove(); keepalive is set on it. 0 or -errno. */
int park_add(struct park *, int fd, uint32_t key) ATTR_MUST_USE;

/* Before the descriptor is closed or passed on: another process may hold a
 * duplicate, and then closing ours would not end the watch. */
void park_remove(struct park *, int fd);

#endif
