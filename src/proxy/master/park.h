/* park.h - watching the sockets that wait for their other party, without reading from them */
#ifndef HYPER_PROXY_MASTER_PARK_H
#define HYPER_PROXY_MASTER_PARK_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "hyper/base/attr.h"

struct event_base;
struct park;

/* The socket parked under `key` ended: reset, timed out, or closed without a
 * byte to deliver. park_remove() is permitted in it. */
typedef void (*park_on_gone)(uint32_t key, int fd, void *arg);

/* 0 with *ret taken, or -errno untouched. */
int park_new(struct event_base *, park_on_gone, void *arg, struct park **ret) ATTR_MUST_USE;
void park_free(struct park *);

/* Part of what it is parked for; written by park.c only. */
struct park_item {
	TAILQ_ENTRY(park_item) link;
	int fd;
	uint32_t key;
	int64_t since_ms;
	bool is_young; /* in the list, not in epoll */
};

/* `item` and `fd` are borrowed until park_remove(). The socket has its keepalive from the listener. */
void park_add(struct park *, struct park_item *item, int fd, uint32_t key);

/* Before the descriptor is closed or passed on: another process may hold a
 * duplicate, and then closing ours would not end the watch. */
void park_remove(struct park *, struct park_item *);

#endif
