/* unit_tmp.h - a unit test's place for files: in TMPDIR, as the tests of programs have theirs, else in /tmp */
#ifndef T_UNIT_TMP_H
#define T_UNIT_TMP_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define UNIT_TMP_MAX 96 /* so that a UNIX socket in it has a name that fits */

/* A template for mkdtemp() and mkstemp() into `ret`, which is returned. A folder whose name is too long is not used. */
static inline char *
unit_tmp(char ret[UNIT_TMP_MAX], const char *name)
{
	const char *folder = getenv("TMPDIR");

	if (folder == NULL || folder[0] != '/' ||
	    strlen(folder) + strlen(name) + sizeof("/.XXXXXX") > UNIT_TMP_MAX - 36)
		folder = "/tmp";
	snprintf(ret, UNIT_TMP_MAX, "%s/%s.XXXXXX", folder, name);
	return ret;
}

#endif
