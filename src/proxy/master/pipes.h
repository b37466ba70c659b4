/* pipes.h - the pipes that one worker process has: the master's duplicates, by the numbers both sides use */
#ifndef HYPER_PROXY_MASTER_PIPES_H
#define HYPER_PROXY_MASTER_PIPES_H

#include <stddef.h>
#include <stdint.h>

#include "hyper/base/attr.h"

struct pipes;

/* Numbers 0 to cap - 1. NULL when out of memory; taken. */
struct pipes *pipes_new(uint32_t cap);
/* Closes those that are still in it. NULL is fine. */
void pipes_free(struct pipes *);

/* The descriptor is given. 0 with its number, or -ENOSPC: closed. */
int pipes_give(struct pipes *, int fd, uint32_t *ret_no) ATTR_MUST_USE;
/* The descriptor (taken), its number is free again; -1 when there is none of that number. */
int pipes_take(struct pipes *, uint32_t no);
/* Likewise, but it stays: borrowed. */
int pipes_get(const struct pipes *, uint32_t no);

uint32_t pipes_count(const struct pipes *);
uint32_t pipes_room(const struct pipes *);
/* Numbers from this one on were never given. */
uint32_t pipes_made(const struct pipes *);

#endif
