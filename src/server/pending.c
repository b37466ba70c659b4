/* pending.c - the set of requests that wait for an answer, so that a delivery loop ends at its second turn
 *
 * Always true:
 *  1. At most `max` keys; a key is "client\nid" and operator names hold no
 *     line feed, so two pairs never share one.
 *  2. `~N` counts up over the life of the process: an N is used again only
 *     after 2^64 requests, so a late answer is never taken for a newer one.
 *
 * Not here: deadlines and what waits (broker.c).
 */
#include "server/pending.h"

#include <errno.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HASH_NONFATAL_OOM 1
#include <uthash.h>

#include "hyper/base/bug.h"

struct pending_key {
	char *text;
	UT_hash_handle hh;
};

struct pending {
	struct pending_key *keys;
	size_t max;
	uint64_t next; /* N of the next `~N` */
};

struct pending *
pending_new(size_t max)
{
	struct pending *set = calloc(1, sizeof(*set));

	if (!set)
		return NULL;
	set->max = max;
	set->next = 2;
	return set;
}

void
pending_set_max(struct pending *set, size_t max)
{
	set->max = max;
}

void
pending_free(struct pending *set)
{
	BUG_ON(set && set->keys);
	free(set);
}

static char *
key_text(const char *client, const char *id)
{
	char *text;

	return asprintf(&text, "%s\n%s", client, id) < 0 ? NULL : text;
}

int
pending_add(struct pending *set, const char *client, const char *id, struct pending_key **ret)
{
	struct pending_key *key = NULL;
	char *text = key_text(client, id);
	int rc = -ENOMEM;

	if (!text)
		return -ENOMEM;
	HASH_FIND_STR(set->keys, text, key);
	if (key) {
		free(text);
		return -EEXIST;
	}
	if (HASH_COUNT(set->keys) >= set->max)
		rc = -ENOSPC;
	else
		key = calloc(1, sizeof(*key));
	if (key) {
		key->text = text;
		HASH_ADD_KEYPTR(hh, set->keys, text, strlen(text), key);
		if (key->hh.tbl) {
			*ret = key;
			return 0;
		}
	}
	free(key);
	free(text);
	return rc;
}

/* Sets *ret_inner and *ret_id to the variant with the next free N. 0 or -ENOMEM, then they are untouched. */
static int
next_variant(struct pending *set, const struct address *addr, char **ret_inner, char **ret_id)
{
	char *inner, *id;

	if (asprintf(&inner, "%s~%" PRIu64, addr->id, set->next) < 0)
		return -ENOMEM;
	id = address_text(addr->operator, addr->method, inner);
	if (!id) {
		free(inner);
		return -ENOMEM;
	}
	set->next++;
	*ret_inner = inner;
	*ret_id = id;
	return 0;
}

int
pending_add_edge(struct pending *set, const char *client, char **id, struct address *addr, struct pending_key **ret)
{
	int rc = pending_add(set, client, *id, ret);

	/* a user may have chosen an id of that form: then the next N is tried, at most once for each key */
	while (rc == -EEXIST) {
		char *inner, *text;

		if (next_variant(set, addr, &inner, &text) < 0)
			return -ENOMEM;
		rc = pending_add(set, client, text, ret);
		if (rc == 0) {
			free(addr->id);
			addr->id = inner;
			free(*id);
			*id = text;
			return 0;
		}
		free(inner);
		free(text);
	}
	return rc;
}

void
pending_remove(struct pending *set, struct pending_key *key)
{
	if (!key)
		return;
	HASH_DEL(set->keys, key);
	free(key->text);
	free(key);
}

size_t
pending_count(const struct pending *set)
{
	return HASH_COUNT(set->keys);
}
