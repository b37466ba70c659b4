/* worker_abi.h - what a worker finds when it is exec'ed: descriptors, arguments, its stats page
 *
 * `proxy worker SLOT GENERATION` with exactly these descriptors open besides 0, 1, 2.
 */
#ifndef HYPER_PROXY_WORKER_ABI_H
#define HYPER_PROXY_WORKER_ABI_H

#include <stddef.h>
#include <stdint.h>

enum worker_fd {
	WORKER_FD_CHANNEL = 3,  /* SOCK_SEQPACKET to the master */
	WORKER_FD_TABLE = 4,    /* token table memfd */
	WORKER_FD_STATS = 5,    /* stats memfd, written by the worker only */
	WORKER_FD_LISTENER = 6, /* first shared listener; more follow: 7, 8, ... */
	WORKER_FD_LISTENER_MAX = 13
};

#define WORKER_STATS_MAGIC 0x48505731u /* "HPW1" */

/* docs/shm.md. One writer per field (the worker), plain 64-bit stores; the master only reads. */
struct worker_stats {
	uint32_t magic;
	uint32_t version; /* 1 */
	uint32_t slot;
	uint32_t gen;
	uint64_t heartbeat_ns;    /* CLOCK_MONOTONIC of the last turn of the loop, at least once a second */
	uint64_t accepted;        /* connections since the start */
	uint64_t unauthenticated; /* now: connections that have not sent a token */
	uint64_t waiting;         /* now: ARRIVED sent, not answered */
	uint64_t pairs;           /* now */
	uint64_t pairs_total;
	uint64_t bytes;       /* delivered, both directions */
	uint64_t refused[32]; /* by enum end_reason */
	uint64_t pipes;       /* pipes open, idle ones included */
	uint64_t reserved[16];
};
_Static_assert(offsetof(struct worker_stats, heartbeat_ns) == 16, "docs/shm.md");
_Static_assert(offsetof(struct worker_stats, refused) == 72, "docs/shm.md");
_Static_assert(sizeof(struct worker_stats) == 464, "docs/shm.md");

#endif
