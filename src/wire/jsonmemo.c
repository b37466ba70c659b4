/* jsonmemo.c - parses an object once that comes again and again with the same bytes
 *
 *   {"params":{"_client":{ ... 1,100 bytes ... },"to":...}}     what came
 *   {"params":{"_client":"<place>","to":...}}                   what jansson reads
 *
 * A message server adds the caller's directory entry to each request, ten times
 * longer than the rest of it, and the same until the directory changes.
 *
 * Always true:
 *  1. What comes out equals what jansson makes of the whole text. Bytes that were
 *     seen before are compared, not only hashed; `<place>` is random, so no text
 *     can hold it; and where it is not the value of the key that we wait for, or
 *     anything fails, the caller parses the whole text.
 *  2. At most MEMO_SLOTS objects of MEMO_MAX bytes and MEMO_MAX_VALUES values are kept; a new
 *     one takes the place of the one whose hash ends alike.
 *  3. A number (`known`) stands for one sequence of bytes as long as the memo lives.
 *
 * Not here: finding the object (json.c), what is done with the number (its users).
 */
#include "wire/jsonmemo.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "hyper/base/bytes.h"

#define MEMO_SLOTS  256 /* a power of two */
#define PLACE_BYTES 16
#define PLACE_LEN   ((size_t)2 * PLACE_BYTES)

struct memo_slot {
	uint64_t hash, known; /* known 0: empty */
	char *text;
	size_t len;
	json_t *value;
};

struct json_memo {
	char place[PLACE_LEN + 1];
	uint64_t last_known;
	struct memo_slot slot[MEMO_SLOTS];
	const char *outer, *key;
};

struct json_memo *
json_memo_new(const char *outer, const char *key)
{
	struct json_memo *m = calloc(1, sizeof(*m));

	if (m == NULL)
		return NULL;
	m->outer = outer;
	m->key = key;
	random_hex(PLACE_BYTES, m->place);
	return m;
}

static void
slot_clear(struct memo_slot *s)
{
	json_decref(s->value);
	free(s->text);
	memset(s, 0, sizeof(*s));
}

void
json_memo_free(struct json_memo *m)
{
	if (m == NULL)
		return;
	for (size_t i = 0; i < MEMO_SLOTS; i++)
		slot_clear(&m->slot[i]);
	free(m);
}

/* Only chooses the slot: a stranger that finds two texts with one hash makes them be parsed, as all others are. */
static uint64_t
hash_of(const char *text, size_t len)
{
	uint64_t h = len * UINT64_C(0x9e3779b97f4a7c15), word;

	for (; len > 0; text += sizeof(word)) {
		size_t n = len < sizeof(word) ? len : sizeof(word);

		word = 0;
		memcpy(&word, text, n);
		h = (h ^ word) * UINT64_C(0xff51afd7ed558ccd);
		h ^= h >> 32;
		len -= n;
	}
	return h;
}

/* The slot that holds exactly this text, filled now if need be. NULL: it cannot. */
static const struct memo_slot *
slot_for(struct json_memo *m, const char *text, size_t len)
{
	uint64_t hash = hash_of(text, len);
	struct memo_slot *s = &m->slot[hash % MEMO_SLOTS], new = { .hash = hash, .len = len };

	if (s->known != 0 && s->hash == hash && s->len == len && memcmp(s->text, text, len) == 0)
		return s;
	new.value = json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL);
	new.text = malloc(len);
	if (new.value == NULL || new.text == NULL) {
		slot_clear(&new);
		return NULL;
	}
	memcpy(new.text, text, len);
	new.known = ++m->last_known;
	slot_clear(s);
	*s = new;
	return s;
}

/* The text with a string in place of the object. NULL when out of memory. */
static char *
text_with_place(const struct json_memo *m, const char *text, size_t len, const struct json_span *span, size_t *ret_len)
{
	size_t after = span->from + span->len;
	char *copy = malloc(len - span->len + PLACE_LEN + 2), *p = copy;

	if (copy == NULL)
		return NULL;
	p = (char *)mempcpy(p, text, span->from);
	*p++ = '"';
	p = (char *)mempcpy(p, m->place, PLACE_LEN);
	*p++ = '"';
	p = (char *)mempcpy(p, text + after, len - after);
	*ret_len = (size_t)(p - copy);
	return copy;
}

/* Puts the object where it belongs. False: the place is elsewhere, where nobody waits for it. */
static bool
put_back(const struct json_memo *m, const json_t *root, json_t *value)
{
	json_t *outer = json_object_get(root, m->outer);
	const json_t *at = json_object_get(outer, m->key);

	return json_is_string(at) && strcmp(json_string_value(at), m->place) == 0 &&
	       json_object_set(outer, m->key, value) == 0;
}

int
json_memo_parse(
    struct json_memo *m, const char *text, size_t len, const struct json_span *span, json_t **ret, uint64_t *ret_known)
{
	const struct memo_slot *s = slot_for(m, text + span->from, span->len);
	char *copy = NULL;
	json_t *root = NULL;
	size_t copy_len = 0;
	int rc = -EAGAIN;

	if (s != NULL)
		copy = text_with_place(m, text, len, span, &copy_len);
	if (copy != NULL)
		root = json_loadb(copy, copy_len, JSON_REJECT_DUPLICATES, NULL);
	if (root != NULL && put_back(m, root, s->value)) {
		*ret = json_incref(root);
		*ret_known = s->known;
		rc = 0;
	}
	json_decref(root);
	free(copy);
	return rc;
}
