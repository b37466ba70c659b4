/* toktab_layout.h - the token table's bytes, drawn in docs/shm.md; for toktab.c and its test only
 *
 * Both sides run on the same machine from the same build, so numbers are in
 * host order. No pointers, no locks, no descriptor that a reader would use.
 */
#ifndef HYPER_PROXY_SHARED_TOKTAB_LAYOUT_H
#define HYPER_PROXY_SHARED_TOKTAB_LAYOUT_H

#include <stddef.h>
#include <stdint.h>

#include "hyper/proxy/toktab.h"

#define TOKTAB_MAGIC     0x48505431u /* "HPT1" */
#define TOKTAB_VERSION   1u
#define TOKTAB_SLOTS_MAX (1u << 20)

struct toktab_head {
	uint32_t magic;
	uint32_t version;
	uint64_t size; /* of the whole memfd in bytes */
	uint32_t slots;
	uint32_t buckets;     /* a power of two, at least 2 * slots */
	uint64_t buckets_off; /* from the start of the memfd */
	uint64_t records_off;
	uint8_t pad[24];
};
_Static_assert(offsetof(struct toktab_head, size) == 8, "docs/shm.md");
_Static_assert(offsetof(struct toktab_head, slots) == 16, "docs/shm.md");
_Static_assert(offsetof(struct toktab_head, buckets_off) == 24, "docs/shm.md");
_Static_assert(offsetof(struct toktab_head, records_off) == 32, "docs/shm.md");
_Static_assert(sizeof(struct toktab_head) == 64, "docs/shm.md");

/* Number of a bucket: first four bytes of the hash, little end first, & (buckets - 1). */
struct toktab_bucket {
	uint32_t seq;  /* odd: the writer is changing the chain */
	uint32_t head; /* slot + 1 of the first record, 0 none */
};
_Static_assert(sizeof(struct toktab_bucket) == 8, "docs/shm.md");

struct toktab_body { /* what a record's sequence number guards; moved as whole 64-bit words */
	uint8_t hash[32];
	int64_t issued_ns;
	int64_t deadline_ns;
	uint32_t state; /* enum toktab_state */
	uint32_t gen;
	int32_t parked_fd; /* the master's own number */
	uint32_t pad;
	char from[TOKTAB_NAME_MAX];
	char to[TOKTAB_NAME_MAX];
	char channel[TOKTAB_NAME_MAX];
};
_Static_assert(offsetof(struct toktab_body, issued_ns) == 32, "docs/shm.md");
_Static_assert(offsetof(struct toktab_body, deadline_ns) == 40, "docs/shm.md");
_Static_assert(offsetof(struct toktab_body, state) == 48, "docs/shm.md");
_Static_assert(offsetof(struct toktab_body, gen) == 52, "docs/shm.md");
_Static_assert(offsetof(struct toktab_body, parked_fd) == 56, "docs/shm.md");
_Static_assert(offsetof(struct toktab_body, from) == 64, "docs/shm.md");
_Static_assert(offsetof(struct toktab_body, to) == 128, "docs/shm.md");
_Static_assert(offsetof(struct toktab_body, channel) == 192, "docs/shm.md");
_Static_assert(sizeof(struct toktab_body) == 256, "docs/shm.md");

#define TOKTAB_BODY_WORDS (sizeof(struct toktab_body) / sizeof(uint64_t))

struct toktab_record {
	uint32_t seq;  /* odd: the writer is changing the body */
	uint32_t next; /* slot + 1 of the next record of the bucket, 0 none; guarded by the bucket's number */
	uint64_t body[TOKTAB_BODY_WORDS]; /* struct toktab_body */
	uint8_t pad[56];
};
_Static_assert(offsetof(struct toktab_record, body) == 8, "docs/shm.md");
_Static_assert(sizeof(struct toktab_record) == 320, "docs/shm.md");

#endif
