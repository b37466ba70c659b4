/* clock.c - monotonic time for deadlines, RFC 3339 for logs and documents
 *
 * The calendar is computed here instead of with gmtime() and timegm(): the
 * range is that of 64-bit nanoseconds (1677 to 2262), no locale, no time zone
 * file and no errno takes part, and each refused text is refused on purpose.
 *
 * Not here: leap seconds. ":60" is refused; no such instant exists in the wall
 * clock that we compare with.
 */
#include "hyper/base/clock.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <time.h>

#include "hyper/base/bug.h"

#define NS_PER_S  INT64_C(1000000000)
#define S_PER_DAY INT64_C(86400)

static int64_t
clock_read_ns(clockid_t id)
{
	struct timespec ts;
	int rc = clock_gettime(id, &ts);

	BUG_ON(rc != 0);
	return (int64_t)ts.tv_sec * NS_PER_S + ts.tv_nsec;
}

int64_t
clock_now_ns(void)
{
	return clock_read_ns(CLOCK_MONOTONIC);
}

int64_t
clock_now_ms(void)
{
	return clock_now_ns() / 1000000;
}

int64_t
clock_wall_utc_ns(void)
{
	return clock_read_ns(CLOCK_REALTIME);
}

/* Days since 1970-01-01 of a date in the Gregorian calendar. Years begin in
 * March here, so that the leap day is the last day of its year. */
static int64_t
date_to_days(int64_t year, int month, int day)
{
	int64_t y = month <= 2 ? year - 1 : year;
	int64_t era = (y >= 0 ? y : y - 399) / 400;
	int64_t yoe = y - era * 400;
	int64_t doy = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1;

	return era * 146097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719468;
}

static void
days_to_date(int64_t days, int *ret_year, int *ret_month, int *ret_day)
{
	int64_t z = days + 719468;
	int64_t era = (z >= 0 ? z : z - 146096) / 146097;
	int64_t doe = z - era * 146097;
	int64_t yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
	int64_t doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
	int64_t mp = (5 * doy + 2) / 153;

	*ret_day = (int)(doy - (153 * mp + 2) / 5 + 1);
	*ret_month = (int)(mp < 10 ? mp + 3 : mp - 9);
	*ret_year = (int)(yoe + era * 400 + (*ret_month <= 2));
}

void
clock_rfc3339(int64_t utc_ns, char ret[CLOCK_RFC3339_MAX])
{
	int64_t ns = utc_ns % NS_PER_S, s, days;
	int year, month, day, n, digits = 9;

	if (ns < 0)
		ns += NS_PER_S;
	s = utc_ns / NS_PER_S - (utc_ns % NS_PER_S < 0);
	days = s / S_PER_DAY - (s % S_PER_DAY < 0);
	s -= days * S_PER_DAY;
	days_to_date(days, &year, &month, &day);
	n = snprintf(ret, CLOCK_RFC3339_MAX, "%04d-%02d-%02dT%02d:%02d:%02d", year, month, day, (int)(s / 3600),
	    (int)(s / 60 % 60), (int)(s % 60));
	while (ns && ns % 10 == 0) {
		ns /= 10;
		digits--;
	}
	if (ns)
		n += snprintf(ret + n, CLOCK_RFC3339_MAX - (size_t)n, ".%0*lld", digits, (long long)ns);
	snprintf(ret + n, CLOCK_RFC3339_MAX - (size_t)n, "Z");
}

/* Exactly `width` digits at *p with a value in min..max; moves *p behind them. */
static bool
take_number(const char **p, int width, int min, int max, int *ret)
{
	int v = 0;

	for (; width > 0; width--, (*p)++) {
		if (**p < '0' || **p > '9')
			return false;
		v = v * 10 + (**p - '0');
	}
	*ret = v;
	return v >= min && v <= max;
}

static bool
take_char(const char **p, char upper, char lower)
{
	if (**p != upper && **p != lower)
		return false;
	(*p)++;
	return true;
}

/* ".123": digits beyond nanoseconds are read and dropped. */
static bool
take_fraction(const char **p, int64_t *ret_ns)
{
	int64_t unit = NS_PER_S / 10, ns = 0;
	const char *start;

	*ret_ns = 0;
	if (**p != '.')
		return true;
	start = ++(*p);
	for (; **p >= '0' && **p <= '9'; (*p)++, unit /= 10)
		ns += (**p - '0') * unit;
	*ret_ns = ns;
	return *p > start;
}

/* "Z" or "+02:00" -> seconds to subtract. */
static bool
take_offset(const char **p, int *ret_s)
{
	int sign = **p == '-' ? -1 : 1, h, m;

	*ret_s = 0;
	if (take_char(p, 'Z', 'z'))
		return true;
	if (!take_char(p, '+', '-') || !take_number(p, 2, 0, 23, &h) || !take_char(p, ':', ':') ||
	    !take_number(p, 2, 0, 59, &m))
		return false;
	*ret_s = sign * (h * 3600 + m * 60);
	return true;
}

static int
month_days(int year, int month)
{
	static const int days[] = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };
	bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;

	return days[month - 1] + (month == 2 && leap);
}

int
clock_parse_rfc3339(const char *text, int64_t *ret_utc_ns)
{
	int year, month, day, h, m, s, offset;
	int64_t frac, total;

	if (!take_number(&text, 4, 0, 9999, &year) || !take_char(&text, '-', '-') ||
	    !take_number(&text, 2, 1, 12, &month) || !take_char(&text, '-', '-') ||
	    !take_number(&text, 2, 1, month_days(year, month), &day) || !take_char(&text, 'T', 't') ||
	    !take_number(&text, 2, 0, 23, &h) || !take_char(&text, ':', ':') || !take_number(&text, 2, 0, 59, &m) ||
	    !take_char(&text, ':', ':') || !take_number(&text, 2, 0, 59, &s) || !take_fraction(&text, &frac) ||
	    !take_offset(&text, &offset) || *text)
		return -EINVAL;
	total = date_to_days(year, month, day) * S_PER_DAY + h * 3600 + m * 60 + s - offset;
	if (__builtin_mul_overflow(total, NS_PER_S, &total) || __builtin_add_overflow(total, frac, &total))
		return -EINVAL;
	*ret_utc_ns = total;
	return 0;
}
