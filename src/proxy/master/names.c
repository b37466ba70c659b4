/* names.c - the names of operators that others keep for long, counted
 *
 * Always true: a name is in the table exactly while somebody has it.
 */
#include "proxy/master/names.h"

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define HASH_NONFATAL_OOM 1
#include <uthash.h>

#include "hyper/base/bug.h"

struct name {
	size_t takers;
	UT_hash_handle hh;
	char text[];
};

static struct name *names; /* one table for the process, as the log is */

const char *
names_take(const char *text)
{
	size_t len = strlen(text);
	struct name *n;

	HASH_FIND(hh, names, text, len, n);
	if (!n) {
		n = calloc(1, sizeof(*n) + len + 1);
		if (!n)
			return NULL;
		memcpy(n->text, text, len);
		HASH_ADD_KEYPTR(hh, names, n->text, len, n);
		if (!n->hh.tbl) { /* HASH_NONFATAL_OOM */
			free(n);
			return NULL;
		}
	}
	n->takers++;
	return n->text;
}

void
names_give(const char *text)
{
	struct name *n = text ? (struct name *)((uintptr_t)text - offsetof(struct name, text)) : NULL;

	if (!n)
		return;
	BUG_ON(n->takers == 0);
	if (--n->takers > 0)
		return;
	HASH_DEL(names, n);
	free(n);
}
