/* errors.h - private to settings: all faults of a settings path, each with its place */
#ifndef SETTINGS_ERRORS_H
#define SETTINGS_ERRORS_H

#include <stdbool.h>
#include <stddef.h>

#include "hyper/base/attr.h"

struct settings_errors;

/* Where something stands. `file` is borrowed from the struct cfg_files of the load. */
struct cfg_place {
	const char *file;
	unsigned order; /* of the file among those read, for sorting */
	unsigned line;  /* 0: the file as a whole */
};

struct cfg_error {
	char *text;
	struct cfg_place at;
	size_t seq;
};

/* More would help nobody, and a file can be a megabyte of nonsense. */
#define CFG_ERRORS_MAX 100

struct cfg_errors {
	struct cfg_error *v;
	size_t n;
	size_t unsaid;   /* beyond CFG_ERRORS_MAX */
	bool is_partial; /* some file could not be read: what is missing may stand there */
	bool is_oom;
};

/* Adds "file:line: " and the formatted text. */
void cfg_errors_add(struct cfg_errors *, const struct cfg_place *, const char *fmt, ...) ATTR_PRINTF(3, 4);

/* Sorts by file and line and moves all texts to *ret. Leaves an empty list. */
void cfg_errors_give(struct cfg_errors *, struct settings_errors *ret);

#endif
