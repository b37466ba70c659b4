/* pending.h - which requests are on their way, keyed by (client, id) */
#ifndef SERVER_PENDING_H
#define SERVER_PENDING_H

#include <stddef.h>

#include "hyper/base/attr.h"
#include "hyper/wire/address.h"

struct pending;
struct pending_key;

/* NULL when out of memory; taken. */
struct pending *pending_new(size_t max);

/* From now on; those there are stay. */
void pending_set_max(struct pending *, size_t max);

/* All keys must have been removed. NULL is fine. */
void pending_free(struct pending *);

/* 0 with *ret to give to pending_remove(); -EEXIST, -ENOSPC (`max` reached),
 * -ENOMEM with *ret untouched. Texts are copied. */
int pending_add(struct pending *, const char *client, const char *id, struct pending_key **ret) ATTR_MUST_USE;

/* The same at the edge, where users choose ids freely: while (client, id) is in
 * flight, `~N` is added to the inner id (protocol.md "In-flight ids"). *id and
 * addr->id are replaced by what is on the wire then. As above, never -EEXIST. */
int pending_add_edge(
    struct pending *, const char *client, char **id, struct address *addr, struct pending_key **ret) ATTR_MUST_USE;

/* NULL is fine. */
void pending_remove(struct pending *, struct pending_key *);

size_t pending_count(const struct pending *);

#endif
