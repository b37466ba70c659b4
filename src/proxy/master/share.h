/* share.h - one operator's bytes a second, divided over the workers that move its pairs */
#ifndef HYPER_PROXY_MASTER_SHARE_H
#define HYPER_PROXY_MASTER_SHARE_H

#include <stddef.h>
#include <stdint.h>

#include "proxy/master/pairing.h"

struct share;

/* What one worker does for an operator. */
struct share_part {
	size_t pairs, busy; /* of its pairs; those over which something went lately */
	uint64_t used;      /* bytes a second lately */
	uint64_t rate;      /* what it may use; 0: it has none of the operator's pairs */
	uint64_t told;      /* what it was told last */
};

/* Sets each part's rate: their sum is `rate`, more only where that has not a byte for each. */
void share_divide(uint64_t rate, struct share_part *, size_t n);

/* `rate`: bytes a second of each operator, both directions of all its pairs; 0: no limit. NULL when out of memory; taken. */
struct share *share_new(uint64_t rate, unsigned workers);
/* A reload: another rate, which pairs that live are told by the next ticks; so many slots may have workers now, never
 * fewer than before. */
void share_apply(struct share *, uint64_t rate, unsigned workers);
/* NULL is fine. */
void share_free(struct share *);

/* The pair is about to be given to `s`: completes PAIR or RESUME. `sh` NULL is fine. */
void share_fill(struct share *sh, const struct pair *, const struct slot *s, struct chan_msg *);

/* Twice a second: RATE to the workers whose part has changed. `sh` NULL is fine. */
void share_tick(struct share *sh, struct pairs *, int64_t now_ms);

#endif
