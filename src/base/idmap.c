/* idmap.c - a hash table of numbered items, chained inside of them
 *
 * Always true: at most as many items as buckets, unless there was no memory to double them.
 *
 * Numbers are given out one after the other by ourselves, so nobody can choose those of one bucket.
 */
#include "hyper/base/idmap.h"

#include <errno.h>
#include <stdlib.h>

#include "hyper/base/bug.h"

#define BUCKETS_MIN 64

static struct idmap_item **
bucket_of(struct idmap_item **bucket, size_t n_buckets, uint64_t id)
{
	return &bucket[id & (n_buckets - 1)];
}

int
idmap_init(struct idmap *ret)
{
	struct idmap_item **bucket = calloc(BUCKETS_MIN, sizeof(struct idmap_item *));

	if (!bucket)
		return -ENOMEM;
	*ret = (struct idmap){ .n_buckets = BUCKETS_MIN, .bucket = bucket };
	return 0;
}

void
idmap_fini(struct idmap *m)
{
	free(m->bucket);
	*m = (struct idmap){ 0 };
}

static void
idmap_grow(struct idmap *m)
{
	size_t n = 2 * m->n_buckets;
	struct idmap_item **bucket = calloc(n, sizeof(struct idmap_item *)), **at, *item;

	if (!bucket)
		return;
	for (size_t i = 0; i < m->n_buckets; i++)
		while ((item = m->bucket[i])) {
			m->bucket[i] = item->next;
			at = bucket_of(bucket, n, item->id);
			item->next = *at;
			*at = item;
		}
	free(m->bucket);
	m->bucket = bucket;
	m->n_buckets = n;
}

void
idmap_add(struct idmap *m, struct idmap_item *item)
{
	struct idmap_item **at;

	if (m->n >= m->n_buckets)
		idmap_grow(m);
	at = bucket_of(m->bucket, m->n_buckets, item->id);
	item->next = *at;
	*at = item;
	m->n++;
}

void
idmap_remove(struct idmap *m, struct idmap_item *item)
{
	struct idmap_item **at = bucket_of(m->bucket, m->n_buckets, item->id);

	while (*at != item) {
		BUG_ON(!*at);
		at = &(*at)->next;
	}
	*at = item->next;
	item->next = NULL;
	m->n--;
}

void *
idmap_find(const struct idmap *m, uint64_t id)
{
	struct idmap_item *item = *bucket_of(m->bucket, m->n_buckets, id);

	while (item && item->id != id)
		item = item->next;
	return item;
}

void *
idmap_next(const struct idmap *m, const void *after)
{
	const struct idmap_item *item = after;
	size_t i = item ? (item->id & (m->n_buckets - 1)) + 1 : 0;

	if (item && item->next)
		return item->next;
	for (; i < m->n_buckets; i++)
		if (m->bucket[i])
			return m->bucket[i];
	return NULL;
}
