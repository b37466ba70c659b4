/* bug.h - the assertion that stays in every build: our own memory is wrong, stop now */
#ifndef HYPER_BASE_BUG_H
#define HYPER_BASE_BUG_H

/* Logs one `bug` line and aborts. Only for conditions that no input can cause. */
_Noreturn void bug_abort(const char *file, int line, const char *cond);

/* Cheap, without side effects, never about input (style.md, trust ladder). */
#define BUG_ON(cond)                                          \
	do {                                                  \
		if (cond)                                     \
			bug_abort(__FILE__, __LINE__, #cond); \
	} while (0)

#endif
