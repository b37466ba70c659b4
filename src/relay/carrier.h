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
#include <stdint.h>
#include <sys/types.h>

#include "hyper/base/attr.h"

#define CARRIER_BUF 65536 /* bytes of a buffer */

struct carrier;

struct carrier_pool {
	struct carrier *idle;                    /* pipes, all empty */
	size_t n_idle, n_used;                   /* pipes; buffers are not counted */
	size_t n_kept;                           /* of the idle ones: promised to somebody, others do not get them */
	size_t max_idle;                         /* pipes kept for good */
	size_t low;                              /* fewest idle ones since the last trim */
	size_t pipe_size;                        /* wanted; 0 the kernel's default */
	bool copy_mode;                          /* never a pipe */
	bool makes_pipes;                        /* an empty pool makes a new one */
	uint64_t *journal;                       /* [n_pipes] of pipes that have a number; see relay.h */
	bool *here;                              /* [n_pipes] */
	uint32_t n_pipes;                        /* numbers are below */
	unsigned long small, none;               /* pipes that could not be made as large, or not at all */
	void (*on_gone)(uint32_t no, void *arg); /* a pipe with a number was closed; may be NULL */
	void *arg;
};

/* Closes the idle pipes. Carriers in use must have been put back. */
void carrier_pool_fini(struct carrier_pool *);

/* Closes the idle pipes beyond max_idle that nobody needed since the last call. */
void carrier_pool_trim(struct carrier_pool *);

/* A pipe is at hand: the next carrier_get() that wants one makes none and asks nobody. */
bool carrier_pool_has(const struct carrier_pool *);

/* A pipe, journaled under `owner`, or a buffer in copy mode and where the caller
 * must copy. 0 and *ret, taken; -EAGAIN: there is no pipe; -ENOMEM. */
int carrier_get(struct carrier_pool *, uint64_t owner, bool must_copy, struct carrier **ret) ATTR_MUST_USE;

/* A pipe that came from elsewhere, with the bytes that it holds; the descriptor is given, also on failure.
 * An empty one goes to the pool and *ret is NULL, one with bytes stays journaled under `owner`.
 * 0, -EINVAL (number out of range, or here already), -errno. */
int carrier_adopt(struct carrier_pool *, uint32_t no, int fd, uint64_t owner, struct carrier **ret) ATTR_MUST_USE;

/* Given. An empty pipe goes to the pool; one with bytes in it is closed: they
 * are somebody's, and nobody else may ever read them. NULL is fine. */
void carrier_put(struct carrier_pool *, struct carrier *);

/* Given: our descriptor of a pipe with bytes is closed, its journal entry stays. Returns its number. */
uint32_t carrier_release(struct carrier_pool *, struct carrier *);

size_t carrier_bytes(const struct carrier *);
/* A fill of fewer bytes, and fewer than were asked for, left nothing in the socket but for urgent data. */
size_t carrier_slots(const struct carrier *);

bool carrier_is_buffer(const struct carrier *);

/* A pipe that only this process knows. */
bool carrier_is_private(const struct carrier *);

/* Reads once from the socket into an empty carrier, at most `max` bytes: number of bytes, 0 at the
 * end of the stream, -EAGAIN (the socket is empty: the carrier was), -errno. */
ssize_t carrier_fill(struct carrier *, int fd, size_t max) ATTR_MUST_USE;

/* Puts bytes into an empty carrier: 0, or -errno (a pipe may take fewer than its size: -EAGAIN, it is then empty). */
int carrier_load(struct carrier *, const void *data, size_t len) ATTR_MUST_USE;

/* Writes once from a carrier with bytes to the socket: number of bytes, -EAGAIN, -errno. */
ssize_t carrier_drain(struct carrier *, int fd) ATTR_MUST_USE;

#endif
