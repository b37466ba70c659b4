/* toktab.h - the token table in a memfd: the master writes, workers look up
 *
 *      FREE --issue--> ISSUED --park--> PARKED --pair--> FREE
 *                         |                |
 *                         `--- free ------ '   deadline, refusal, peer gone, revoked
 *
 * Layout to the byte: docs/shm.md. Single writer, a sequence number per record.
 */
#ifndef HYPER_PROXY_TOKTAB_H
#define HYPER_PROXY_TOKTAB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "hyper/base/attr.h"

#define TOKTAB_NAME_MAX 64 /* operator names are cut to this in the table; the master keeps the whole */

enum toktab_state { TOKTAB_FREE, TOKTAB_ISSUED, TOKTAB_PARKED, TOKTAB_STATE_MAX };

struct toktab;

struct toktab_rec {       /* a copy; never points into the table */
	uint8_t hash[32]; /* SHA-256 of the token */
	uint32_t slot;    /* index in the table */
	uint32_t gen;     /* grows each time the slot is reused */
	enum toktab_state state;
	int32_t parked_fd;          /* means something in the master only; -1 none */
	int64_t issued_ns;          /* CLOCK_MONOTONIC */
	int64_t deadline_ns;        /* CLOCK_MONOTONIC; expired from then on */
	char from[TOKTAB_NAME_MAX]; /* operator A */
	char to[TOKTAB_NAME_MAX];   /* operator B */
	char channel[TOKTAB_NAME_MAX];
};

/* Creates the memfd for `slots` records, maps it writable, then seals it
 * (FUTURE_WRITE, GROW, SHRINK, SEAL). Master only. 0 with *ret taken or -errno untouched. */
int toktab_new(size_t slots, struct toktab **ret) ATTR_MUST_USE;

/* Maps a table read-only from its descriptor (borrowed; may be closed after)
 * and checks magic, version, size. Workers. 0, -EPROTO, or -errno untouched. */
int toktab_map(int fd, struct toktab **ret) ATTR_MUST_USE;

/* Unmaps; closes the memfd in the creator. NULL is fine. */
void toktab_free(struct toktab *);

/* The memfd, to be given to a worker at its exec; borrowed. -1 in a reader. */
int toktab_fd(const struct toktab *);

/* Writer. rec->hash, deadline_ns, issued_ns, from, to, channel are copied;
 * slot and gen are returned. 0, -EEXIST (live token of that hash), -ENOSPC (full). */
int toktab_issue(struct toktab *, const struct toktab_rec *rec, uint32_t *ret_slot, uint32_t *ret_gen) ATTR_MUST_USE;

/* Writer: ISSUED -> PARKED with the master's descriptor number. */
void toktab_park(struct toktab *, uint32_t slot, int parked_fd);

/* Writer: any live state -> FREE. The descriptor is not closed here. */
void toktab_release(struct toktab *, uint32_t slot);

/* Any process: 0 and *ret filled, or -ENOENT (no live record; expired at `now_ns`
 * counts as none), -EAGAIN (the writer is in the middle of it, after a few
 * tries) with *ret untouched. Comparison by CRYPTO_memcmp. */
int toktab_find(const struct toktab *, const uint8_t hash[32], int64_t now_ns, struct toktab_rec *ret) ATTR_MUST_USE;

/* Writer: the live record of a slot. */
void toktab_get(const struct toktab *, uint32_t slot, struct toktab_rec *ret);

/* Writer: first live record whose deadline is <= now_ns, earliest first; false
 * when none. O(log n). Also the next deadline, INT64_MAX when none. */
bool toktab_expired(struct toktab *, int64_t now_ns, struct toktab_rec *ret);
int64_t toktab_next_deadline_ns(const struct toktab *);

struct toktab_counts {
	size_t slots, issued, parked;
};
struct toktab_counts toktab_counts(const struct toktab *);

#endif
