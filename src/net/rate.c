/* rate.c - see the header */
#include "net/rate.h"

double
rate_of(struct rate *r, uint64_t total, int64_t now_ms)
{
	int64_t ms = now_ms - r->last_ms;

	if (ms < RATE_STEP_MS)
		return r->per_second;
	r->per_second = 0;
	if (total > r->last) {
		r->per_second = (double)(total - r->last) * 1e3 / (double)ms;
		r->last = total;
	}
	r->last_ms = now_ms;
	return r->per_second;
}
