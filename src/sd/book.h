/* book.h - the directory's one chain: in memory to be served, in the store to stay; for src/sd only */
#ifndef SD_BOOK_H
#define SD_BOOK_H

#include <stdbool.h>
#include <stddef.h>

#include <jansson.h>

#include "hyper/base/attr.h"
#include "hyper/settings/conf.h"

#define BOOK_ERR_MAX 700

struct book;

/* Opens the store and verifies the whole chain. 0 with *ret taken, or -errno
 * with `err` saying what is wrong and what to do. */
int book_open(const struct conf_sd *conf, struct book **ret, char err[BOOK_ERR_MAX]) ATTR_MUST_USE;
void book_close(struct book *);

/* A reload: the authorities of `conf`; where they differ, the whole chain is verified with them. 0 with *ret taken
 * (record_trust_free()), or -errno untouched with `err`. */
struct record_trust;
int book_prepare(
    const struct book *, const struct conf_sd *conf, struct record_trust **ret, char err[BOOK_ERR_MAX]) ATTR_MUST_USE;
/* From now on records are verified with them; given. */
void book_apply(struct book *, struct record_trust *);

/* Stores the records that are not stored yet, all or none. 0: they are on the
 * disk. -EBADMSG: a record is malformed; -EINVAL, -ESTALE, -EACCES: refused;
 * -EDQUOT: the directory is full; -ENOSPC, -ENOMEM, -EIO: could not be stored.
 * On failure `err` tells why and *ret_index which record it was (n: none of them). */
int book_submit(struct book *, const json_t *records, size_t *ret_index, char err[BOOK_ERR_MAX]) ATTR_MUST_USE;

/* A list of the records after that hash, all when it is unknown or "", as many as fit in one answer (at least one,
 * when there is one). Taken; NULL when out of memory. */
json_t *book_after(const struct book *, const char *hash);

size_t book_length(const struct book *);
size_t book_bytes(const struct book *);      /* text of all records */
const json_t *book_tip(const struct book *); /* NULL when empty; borrowed until the next submit */

/* All entries (name -> entry), borrowed until the next submit; NULL when out of memory. */
const json_t *book_entries(struct book *);

/* The store can no longer be trusted with writes: answer, then end the process. */
bool book_is_poisoned(const struct book *);

#endif
