/* idmap.h - items by number: eight to sixteen bytes each and a link inside of the item */
#ifndef HYPER_BASE_IDMAP_H
#define HYPER_BASE_IDMAP_H

#include <stddef.h>
#include <stdint.h>

#include "hyper/base/attr.h"

/* First member of an item. The id stays while it is in a map. */
struct idmap_item {
	uint64_t id;
	struct idmap_item *next; /* the map's */
};

struct idmap {
	size_t n;         /* items */
	size_t n_buckets; /* a power of two */
	struct idmap_item **bucket;
};

/* 0 with *ret ready, or -ENOMEM. */
int idmap_init(struct idmap *ret) ATTR_MUST_USE;
/* The items are their owners'. All zero is fine. */
void idmap_fini(struct idmap *);

/* Never fails: without memory to grow, look-ups take longer. Its id must be in no item of the map. */
void idmap_add(struct idmap *, struct idmap_item *);
/* It must be in the map. */
void idmap_remove(struct idmap *, struct idmap_item *);

/* NULL when there is none. */
void *idmap_find(const struct idmap *, uint64_t id);

/* The one after `item`, NULL after the last; the first for NULL. In no order. To remove items on the way, take the
 * next one before. */
void *idmap_next(const struct idmap *, const void *item);

#endif
