/* store.h - the records on disk: SQLite, acknowledged only when durable; for src/sd only */
#ifndef SD_STORE_H
#define SD_STORE_H

#include <stdbool.h>
#include <stddef.h>

#include "hyper/base/attr.h"

#define STORE_ERR_MAX 512

struct store;

/* Opens or creates it, alone: a second process is refused. Recovers what a
 * crash left and makes it durable before anything is read. 0 with *ret taken,
 * or -EBUSY (another process has it), -EINVAL (no store of ours), -EIO, -ENOMEM, ...
 * with `err` saying which file and what to do. */
int store_open(const char *path, struct store **ret, char err[STORE_ERR_MAX]) ATTR_MUST_USE;

/* A poisoned store is left as it is. NULL is fine. */
void store_close(struct store *);

/* The records of the newest chain from its root on, in order. `each` gets a text
 * that is borrowed until it returns; what it returns when not 0 ends the walk
 * and is returned. -EIO, -ENOMEM with `err`. */
int store_walk(struct store *, int (*each)(const char *text, size_t len, void *arg), void *arg,
    char err[STORE_ERR_MAX]) ATTR_MUST_USE;

/* The stored text of a record of any chain, old ones too: taken, free(). 0, or
 * -ENOENT, -EIO, -ENOMEM with *ret untouched. */
int store_find(struct store *, const char *hash, char **ret) ATTR_MUST_USE;

struct store_record {
	const char *hash, *parent_hash;
	char *text;
};

/* Stores all or none. 0: on the disk. -ENOSPC, -ENOMEM: nothing was stored, try
 * again later. Anything else: nobody knows, and asking again would not tell
 * (faults.md: a failed fsync is never retried): the store is poisoned. */
int store_append(struct store *, const struct store_record *, size_t n, char err[STORE_ERR_MAX]) ATTR_MUST_USE;

/* Poisoned: every later store_append() fails; end the process, a new one verifies what is there. */
bool store_is_poisoned(const struct store *);

#endif
