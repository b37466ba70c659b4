/* keep.h - the accepted chain on disk, for src/directory only */
#ifndef DIRECTORY_KEEP_H
#define DIRECTORY_KEEP_H

#include <stdint.h>

#include "hyper/base/attr.h"
#include "hyper/directory/record.h"

/* Reads the kept chain into the empty `c`, verifying each record; stops at the
 * first that is unreadable or does not verify and keeps those before it. 0 when
 * all of it (or nothing, there is no file) was read; else -errno with `err`.
 * *ret_utc_ns is when it was last known to be current (0: never). */
int keep_load(const char *path, struct chain *c, struct record_trust *, int64_t *ret_utc_ns,
    char err[RECORD_ERR_MAX]) ATTR_MUST_USE;

/* Replaces the file: written beside it, fsynced, renamed, folder fsynced. 0 or -errno. */
int keep_save(const char *path, const struct chain *c) ATTR_MUST_USE;

/* Notes that the kept chain is current now. Best effort. */
void keep_touch(const char *path);

#endif
