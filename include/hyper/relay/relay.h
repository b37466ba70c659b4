/* relay.h - the splice engine: two connected sockets in, bytes moved, one end reason out
 *
 * Needs base only; it is tested without the proxy. It has no loop of its own:
 * it arms its sockets in the caller's epoll set, the caller calls back.
 */
#ifndef HYPER_RELAY_RELAY_H
#define HYPER_RELAY_RELAY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "hyper/base/attr.h"
#include "hyper/base/words.h"

struct relay; /* pool of pipes, limits, mode; one per worker */
struct relay_pair;

struct relay_conf {
	int epoll_fd;     /* borrowed until relay_free() */
	size_t pipe_size; /* bytes asked for with F_SETPIPE_SZ; falls back when not permitted */
	size_t max_pipes; /* pool: idle pipes kept */
	bool copy_mode;   /* read and write through a buffer instead of splice */
};

/* Exactly one for each pair, after which the pair is gone and both descriptors
 * are closed. bytes_ab: delivered from a to b. Called from relay_on_event()
 * and relay_run(), never from relay_pair_new(). */
struct relay_end {
	uint64_t id;
	enum end_reason reason; /* CLOSED, RESET, STOPPED, INTERNAL */
	uint64_t bytes_ab, bytes_ba;
	int64_t ms;
};
typedef void (*relay_on_end)(const struct relay_end *, void *arg);

/* NULL when out of memory; taken. */
struct relay *relay_new(const struct relay_conf *, relay_on_end, void *arg);

/* Pairs that still live are closed (END_STOPPED, reported). NULL is fine. */
void relay_free(struct relay *);

/* Joins two connected, non-blocking sockets; both are given, also on failure.
 * 0 or -errno. */
int relay_pair_new(struct relay *, uint64_t id, int a_fd, int b_fd) ATTR_MUST_USE;

/* Every epoll_event.data.ptr that the relay armed starts with this tag, so
 * that the caller's loop can tell its own items from ours. */
struct relay_item {
	uint32_t tag; /* RELAY_TAG */
};
#define RELAY_TAG 0x524c4159u

/* An event of one of our sockets. */
void relay_on_event(struct relay *, struct relay_item *, uint32_t events);

/* Pairs whose turn budget was used up go on here; call once per turn of the
 * loop, before waiting. True: call again without waiting. */
bool relay_run(struct relay *);

/* Ends one pair, or all, with a reason; reported. */
void relay_close_all(struct relay *, enum end_reason);

struct relay_counts {
	size_t pairs;
	size_t pipes_used, pipes_idle; /* a pair without bytes in flight holds none */
	uint64_t bytes;                /* delivered since the start */
};
struct relay_counts relay_counts(const struct relay *);

#endif
