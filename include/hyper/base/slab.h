/* slab.h - many items of one size without malloc's head each, and apart from what lives shortly */
#ifndef HYPER_BASE_SLAB_H
#define HYPER_BASE_SLAB_H

#include <stddef.h>

/* All zero but `size` (of an item; at least a pointer's, a multiple of its alignment). */
struct slab {
	size_t size;
	void *free_items;       /* each begins with a pointer to the next */
	struct slab_part *part; /* the newest first */
	size_t left;            /* items of it that were never used */
};
#define SLAB_OF(type)                \
	{                            \
		.size = sizeof(type) \
	}

/* An item, all zero; NULL when out of memory. Taken. */
void *slab_get(struct slab *);

/* Given; NULL is fine. It waits for the next slab_get(): memory does not go back before slab_fini(). */
void slab_put(struct slab *, void *item);

/* The memory of all items, also of those that were not put back. */
void slab_fini(struct slab *);

#endif
