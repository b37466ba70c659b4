/* carrier.h - what holds the bytes of one direction while they are in flight: a pipe, or a buffer
 *
 *      socket --fill--> [carrier] --drain--> socket
 *
 * Private to src/relay. A direction has one only between a fill and the drain
 * that empties it; pipes wait in a pool for the next fill of anybody.
 */
#ifndef HYPER_RELAY_CARRIER_H
#define HYPER_RELAY_CARRIER_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "hyper/base/attr.h"

#define CARRIER_BUF 65536 /* bytes of a buffer */

struct carrier;

struct carrier_pool {
	struct carrier *idle;      /* pipes, all empty */
	size_t n_idle, n_used;     /* pipes; buffers are not counted */
	size_t max_idle;           /* pipes kept */
	size_t pipe_size;          /* wanted; 0 the kernel's default */
	bool copy_mode;            /* never a pipe */
	unsigned long small, none; /* pipes that could not be made as large, or not at all */
};

/* Closes the idle pipes. Carriers in use must have been put back. */
void carrier_pool_fini(struct carrier_pool *);

/* A pipe, or a buffer in copy mode, when the caller must copy, and when there
 * is no pipe to be had (descriptors or pipe pages used up: the pair lives on).
 * NULL when out of memory; taken. */
struct carrier *carrier_get(struct carrier_pool *, bool must_copy);

/* Given. An empty pipe goes to the pool; one with bytes in it is closed: they
 * are somebody's, and nobody else may ever read them. NULL is fine. */
void carrier_put(struct carrier_pool *, struct carrier *);

size_t carrier_bytes(const struct carrier *);

/* Reads once from the socket into an empty carrier: number of bytes, 0 at the
 * end of the stream, -EAGAIN (the socket is empty: the carrier was), -errno. */
ssize_t carrier_fill(struct carrier *, int fd) ATTR_MUST_USE;

/* Writes once from a carrier with bytes to the socket: number of bytes, -EAGAIN, -errno. */
ssize_t carrier_drain(struct carrier *, int fd) ATTR_MUST_USE;

#endif
