/* logjson.h - private to base: a log line as one JSON object */
#ifndef BASE_LOGJSON_H
#define BASE_LOGJSON_H

#include <stdarg.h>
#include <stddef.h>

#include "hyper/base/attr.h"

struct logjson_head {
	const char *time; /* RFC 3339 */
	size_t time_len;
	const char *program, *level, *event;
	int pid;
	unsigned long long suppressed; /* 0: no such member */
};

/* Writes the object, without a newline, to `buf`; what does not fit in `cap` is left out. Returns its bytes. */
size_t logjson_make(char *buf, size_t cap, const struct logjson_head *, const char *fmt, va_list ap) ATTR_PRINTF(4, 0);

#endif
