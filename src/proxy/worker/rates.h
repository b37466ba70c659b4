/* rates.h - how many connections each remote address may make: public.tcp_rate_limits, in each worker for itself */
#ifndef HYPER_PROXY_WORKER_RATES_H
#define HYPER_PROXY_WORKER_RATES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RATES_ADDRESSES 4096 /* remembered at most; the one that was silent longest is forgotten first */

enum rates_window { RATES_SECOND, RATES_MINUTE, RATES_HOUR, RATES_WINDOWS };

struct sockaddr;
struct rates_addr;

/* A remote address as tables know it. */
struct rates_key {
	uint8_t salt[8]; /* of the table, so that nobody can choose addresses that share a bucket */
	uint8_t net[16]; /* IPv4 mapped, or the /64 of IPv6 */
};
_Static_assert(sizeof(struct rates_key) == 24, "hashed as bytes: no padding");

void rates_key_set(const uint8_t salt[8], const struct sockaddr *, struct rates_key *ret);

struct rates {                         /* zeroed: no limits */
	uint64_t limit[RATES_WINDOWS]; /* connections in one window; 0 none */
	struct rates_addr *table;
	uint8_t salt[8]; /* of this process */
};

/* The limits from now on; what was counted stays. */
void rates_set(struct rates *, const uint64_t limit[RATES_WINDOWS]);

bool rates_has_limit(const struct rates *);

/* Counts one connection; false: over a limit (or out of memory), close it.
 * IPv6 counts by /64. Windows begin with the calendar's: now_utc_ms is wall time. */
bool rates_permit(struct rates *, const struct sockaddr *, int64_t now_utc_ms);

void rates_fini(struct rates *);

#endif
