/* rate.h - what a counter grows by in a second, for status.c
 *
 * What the counter holds at the first look counts as growth of the first second.
 */
#ifndef NET_RATE_H
#define NET_RATE_H

#include <stdint.h>

#define RATE_STEP_MS 1000

struct rate {
	uint64_t last; /* the most that it was ever seen to hold */
	int64_t last_ms;
	double per_second;
};

/* Of the last RATE_STEP_MS or more, however often it is asked for. A total that is less than before is no
 * growth, and what it regains afterwards is none either. */
double rate_of(struct rate *, uint64_t total, int64_t now_ms);

#endif
