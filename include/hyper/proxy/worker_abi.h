/* worker_abi.h - what a worker finds when it is exec'ed: descriptors, arguments, its stats page, its ledger
 *
 * `proxy worker SLOT GENERATION` with exactly these descriptors open besides 0, 1, 2.
 */
#ifndef HYPER_PROXY_WORKER_ABI_H
#define HYPER_PROXY_WORKER_ABI_H

#include <stddef.h>
#include <stdint.h>

#include "hyper/relay/relay.h"

enum worker_fd {
	WORKER_FD_CHANNEL = 3,  /* SOCK_SEQPACKET to the master */
	WORKER_FD_TABLE = 4,    /* token table memfd */
	WORKER_FD_STATS = 5,    /* stats memfd, written by the worker only */
	WORKER_FD_LEDGER = 6,   /* ledger memfd, written by the worker only */
	WORKER_FD_LISTENER = 7, /* first shared listener; more follow: 8, 9, ... */
	WORKER_FD_LISTENER_MAX = 14
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
	uint64_t bytes;         /* delivered, both directions */
	uint64_t refused[32];   /* by enum end_reason */
	uint64_t pipes;         /* pipes open, idle ones included */
	uint64_t accept_errors; /* accept failed for want of descriptors or memory, or for the connection */
	uint64_t reserved[15];
};
_Static_assert(offsetof(struct worker_stats, heartbeat_ns) == 16, "docs/shm.md");
_Static_assert(offsetof(struct worker_stats, refused) == 72, "docs/shm.md");
_Static_assert(sizeof(struct worker_stats) == 464, "docs/shm.md");

#define WORKER_LEDGER_MAGIC   0x48504c31u /* "HPL1" */
#define WORKER_LEDGER_VERSION 2u

/* docs/shm.md. What the worker's relay engine is doing, for who goes on with its pairs after its death. The master
 * fills in the head and never writes again; `turn` and all that follows is the worker's, in plain 64-bit stores. */
struct worker_ledger {
	uint32_t magic;
	uint32_t version;    /* WORKER_LEDGER_VERSION */
	uint32_t n_pipes;    /* pipe numbers are below this */
	uint32_t n_seats;    /* seats, for most pairs at once */
	uint64_t turn;       /* the pair whose turn is in progress; 0 between turns */
	uint64_t used_seats; /* seats from this one on were never taken */
	uint64_t reserved[4];
	struct relay_copy copy; /* the one small message that is in user memory now */
				/* uint64_t pipes[n_pipes], then struct relay_seat seats[n_seats] */
};
_Static_assert(offsetof(struct worker_ledger, turn) == 16, "docs/shm.md");
_Static_assert(offsetof(struct worker_ledger, copy) == 64, "docs/shm.md");
_Static_assert(sizeof(struct worker_ledger) == 4176, "docs/shm.md");
_Static_assert(sizeof(struct relay_seat) == 32 && offsetof(struct relay_seat, flags) == 24, "docs/shm.md");

/* The limits of both numbers keep sums of sizes from overflowing. */
#define WORKER_LEDGER_PIPES_MAX (1u << 20)
#define WORKER_LEDGER_SEATS_MAX (1u << 21)

static inline size_t
worker_ledger_size(uint32_t n_pipes, uint32_t n_seats)
{
	return sizeof(struct worker_ledger) + (size_t)n_pipes * sizeof(uint64_t) +
	       (size_t)n_seats * sizeof(struct relay_seat);
}

/* Where the arrays of a mapped ledger are. Its head was checked by who mapped it. */
static inline uint64_t *
worker_ledger_pipes(struct worker_ledger *l)
{
	return (uint64_t *)(l + 1);
}

static inline struct relay_seat *
worker_ledger_seats(struct worker_ledger *l, uint32_t n_pipes)
{
	return (struct relay_seat *)(worker_ledger_pipes(l) + n_pipes);
}

#endif
