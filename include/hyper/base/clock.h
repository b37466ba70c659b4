/* clock.h - the monotonic clock for every deadline, wall time for logs and documents only */
#ifndef HYPER_BASE_CLOCK_H
#define HYPER_BASE_CLOCK_H

#include <stddef.h>
#include <stdint.h>

/* "2026-11-22T13:34:00.097926479Z" and its NUL */
#define CLOCK_RFC3339_MAX 32

/* CLOCK_MONOTONIC. Never fails. */
int64_t clock_now_ns(void);
int64_t clock_now_ms(void);

/* Wall clock as nanoseconds since 1970; for log lines and created_at only. */
int64_t clock_wall_utc_ns(void);

/* RFC 3339 in UTC, nanoseconds with the fraction's trailing zeros removed
 * (protocol.md 6.3, "time"). `ret` always gets a NUL-terminated text. */
void clock_rfc3339(int64_t utc_ns, char ret[CLOCK_RFC3339_MAX]);

/* RFC 3339 with any offset -> nanoseconds since 1970. 0, or -EINVAL with
 * *ret_utc_ns untouched. */
int clock_parse_rfc3339(const char *text, int64_t *ret_utc_ns);

#endif
