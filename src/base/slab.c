/* slab.c - items of one size, cut from larger parts
 *
 * What lives long between things that live shortly tears holes into the heap that nothing fits into: a record of
 * 200 bytes cost 360 in a program that had been busy while it was made.
 *
 * Always true:
 *  1. An item that is not in use is in free_items, or among the `left` last ones of the newest part.
 *  2. With a sanitizer each item is an allocation of its own, so that a use after slab_put() is seen.
 *
 * Not here: which items are in use (their owner's lists).
 */
#include "hyper/base/slab.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "hyper/base/bug.h"

#define PART_SIZE ((size_t)16 * 1024)

#if defined(__SANITIZE_ADDRESS__)
#define IS_WATCHED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define IS_WATCHED 1
#endif
#endif
#ifndef IS_WATCHED
#define IS_WATCHED 0
#endif

struct slab_part {
	struct slab_part *next;
	max_align_t items[];
};

static void *
item_new(struct slab *s)
{
	size_t n = (PART_SIZE - sizeof(struct slab_part)) / s->size;
	struct slab_part *part;

	if (s->left == 0) {
		if (n == 0)
			n = 1;
		part = calloc(1, sizeof(*part) + n * s->size);
		if (!part)
			return NULL;
		part->next = s->part;
		s->part = part;
		s->left = n;
	}
	return (char *)s->part->items + --s->left * s->size;
}

void *
slab_get(struct slab *s)
{
	void *item = s->free_items;

	BUG_ON(s->size < sizeof(void *) || s->size % sizeof(void *) != 0);
	if (IS_WATCHED)
		return calloc(1, s->size);
	if (!item)
		return item_new(s);
	memcpy(&s->free_items, item, sizeof(void *));
	return memset(item, 0, s->size);
}

void
slab_put(struct slab *s, void *item)
{
	if (!item)
		return;
	if (IS_WATCHED) {
		free(item);
		return;
	}
	memcpy(item, &s->free_items, sizeof(void *));
	s->free_items = item;
}

void
slab_fini(struct slab *s)
{
	struct slab_part *part;

	while ((part = s->part)) {
		s->part = part->next;
		free(part);
	}
	s->free_items = NULL;
	s->left = 0;
}
