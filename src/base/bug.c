/* bug.c - the end of a process whose own memory cannot be right */
#include "hyper/base/bug.h"

#include <stdlib.h>
#include <string.h>

#include "hyper/base/log.h"

_Noreturn void
bug_abort(const char *file, int line, const char *cond)
{
	const char *base = strrchr(file, '/');

	log_line(LOG_LVL_BUG, "bug", "at=%s:%d cond=\"%s\"", base ? base + 1 : file, line, cond);
	abort();
}
