/* rechash.c - the structured hash of records (protocol.md 6.3)
 *
 *      emit("abc")        stringabc
 *      emit(2.5)          stringfloat <8 bytes, little endian> 00 00
 *      emit(true)         stringbool 02 00 00 00 00 00 00 00 00 00
 *      emit(["a","b"])    stringlist string0 stringa string1 stringb
 *      emit({"k":"v"})    stringmap stringv stringk              keys in byte order
 *      null, false, 0, "", []   nothing at all
 *
 * Always true: the stream is the reference's, byte for byte (t/vectors/).
 *
 * The stream has no lengths and no ends of lists and maps, so different values
 * can share one. rechash_ambiguity() refuses what makes it unreadable:
 *  - what can not be told from a tag: `string` inside a text, texts that are tag words;
 *  - what can not be told from an index: decimal keys, elements that write
 *    nothing, lists in lists, maps beside other values in one list;
 *  - what is not written at all: empty keys, digits that a double can not hold.
 * What is left is where a map ends inside a map, which the closed forms of the
 * sections settle (directory).
 *
 * Not here: which record may have which form, signatures (src/directory).
 */
#include "hyper/wire/rechash.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hyper/base/bytes.h"
#include "wire/textbuf.h"

#define HASH_MAX_DEPTH 256 /* parsed values are at most 64 deep; a guard against ones built in a loop */
#define NUMBER_LEN     10
#define EXACT_INTEGERS INT64_C(9007199254740992) /* 2^53 */

static void emit(struct textbuf *, const json_t *, int depth);

static void
emit_string(struct textbuf *tb, const char *text, size_t len)
{
	if (len == 0)
		return;
	textbuf_puts(tb, "string");
	textbuf_put(tb, text, len);
}

static void
emit_word(struct textbuf *tb, const char *word)
{
	emit_string(tb, word, strlen(word));
}

static void
emit_number(struct textbuf *tb, double d)
{
	uint8_t bytes[NUMBER_LEN] = { 0 };
	uint64_t bits;

	if (d == 0)
		return;
	memcpy(&bits, &d, sizeof bits);
	for (size_t i = 0; i < sizeof bits; i++)
		bytes[i] = (uint8_t)(bits >> (8 * i));
	emit_word(tb, "float");
	textbuf_put(tb, bytes, sizeof bytes);
}

static void
emit_true(struct textbuf *tb)
{
	static const uint8_t one[NUMBER_LEN] = { 2 }; /* zig-zag of 1 */

	emit_word(tb, "bool");
	textbuf_put(tb, one, sizeof one);
}

static void
emit_list(struct textbuf *tb, const json_t *list, int depth)
{
	size_t n = json_array_size(list);
	char index[24];

	if (n == 0)
		return;
	emit_word(tb, "list");
	for (size_t i = 0; i < n; i++) {
		snprintf(index, sizeof index, "%zu", i);
		emit_word(tb, index);
		emit(tb, json_array_get(list, i), depth);
	}
}

static int
by_bytes(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static void
emit_map(struct textbuf *tb, const json_t *object, int depth)
{
	json_t *map = (json_t *)object; /* jansson's iterators are not const */
	size_t n = json_object_size(map), i = 0;
	const char **keys = calloc(n + 1, sizeof *keys);

	if (keys == NULL) {
		tb->failed = true;
		return;
	}
	for (void *iter = json_object_iter(map); iter != NULL; iter = json_object_iter_next(map, iter))
		keys[i++] = json_object_iter_key(iter);
	qsort(keys, n, sizeof *keys, by_bytes);
	emit_word(tb, "map");
	for (i = 0; i < n; i++) {
		size_t before = tb->len;

		emit(tb, json_object_get(map, keys[i]), depth);
		if (tb->len > before)
			emit_word(tb, keys[i]);
	}
	free(keys);
}

static void
emit(struct textbuf *tb, const json_t *value, int depth)
{
	if (value == NULL || depth > HASH_MAX_DEPTH)
		tb->failed = true;
	if (tb->failed)
		return;
	switch (json_typeof(value)) {
	case JSON_OBJECT: emit_map(tb, value, depth + 1); break;
	case JSON_ARRAY: emit_list(tb, value, depth + 1); break;
	case JSON_STRING: emit_string(tb, json_string_value(value), json_string_length(value)); break;
	case JSON_INTEGER:
	case JSON_REAL: emit_number(tb, json_number_value(value)); break;
	case JSON_TRUE: emit_true(tb); break;
	case JSON_FALSE:
	case JSON_NULL: break;
	}
}

int
rechash_stream(const json_t *value, uint8_t **ret, size_t *ret_len)
{
	struct textbuf tb = { 0 };
	size_t len;
	char *stream;

	emit(&tb, value, 0);
	len = tb.len;
	stream = textbuf_take(&tb);
	if (stream == NULL)
		return -ENOMEM;
	*ret = (uint8_t *)stream;
	*ret_len = len;
	return 0;
}

int
rechash(const json_t *value, uint8_t ret[32])
{
	uint8_t *stream;
	size_t len;
	int r = rechash_stream(value, &stream, &len);

	if (r < 0)
		return r;
	sha256(stream, len, ret);
	free(stream);
	return 0;
}

static bool
is_tag_word(const char *text)
{
	static const char *const words[] = { "list", "map", "float", "bool", "bytes", "int" };

	for (size_t i = 0; i < ARRAY_LEN(words); i++)
		if (strcmp(text, words[i]) == 0)
			return true;
	return false;
}

static const char *
text_ambiguity(const char *text)
{
	if (strstr(text, "string") != NULL)
		return "`string` inside a key or value";
	if (is_tag_word(text))
		return "a key or value that is one of list, map, float, bool, bytes, int";
	return NULL;
}

static const char *
key_ambiguity(const char *key)
{
	if (key[0] == '\0')
		return "an empty key";
	if (key[strspn(key, "0123456789")] == '\0')
		return "a key of digits only";
	return text_ambiguity(key);
}

/* Does emit() write nothing for it? */
static bool
is_silent(const json_t *v)
{
	return json_is_null(v) || json_is_false(v) || (json_is_number(v) && json_number_value(v) == 0) ||
	       (json_is_string(v) && json_string_length(v) == 0) || (json_is_array(v) && json_array_size(v) == 0);
}

static const char *ambiguity(const json_t *, int depth);

static const char *
list_ambiguity(const json_t *list, int depth)
{
	size_t n = json_array_size(list), maps = 0;
	const char *what = NULL;

	for (size_t i = 0; i < n && what == NULL; i++) {
		const json_t *v = json_array_get(list, i);

		maps += json_is_object(v);
		if (json_is_array(v))
			what = "a list inside a list";
		else if (is_silent(v))
			what = "null, false, 0 or an empty text as element of a list";
		else
			what = ambiguity(v, depth);
	}
	if (what == NULL && maps > 0 && maps < n)
		what = "maps and other values in one list";
	return what;
}

static const char *
map_ambiguity(const json_t *object, int depth)
{
	json_t *map = (json_t *)object;
	const char *what = NULL;

	for (void *iter = json_object_iter(map); iter != NULL && what == NULL;
	     iter = json_object_iter_next(map, iter)) {
		what = key_ambiguity(json_object_iter_key(iter));
		if (what == NULL)
			what = ambiguity(json_object_iter_value(iter), depth);
	}
	return what;
}

static const char *
ambiguity(const json_t *value, int depth)
{
	json_int_t n;

	if (depth > HASH_MAX_DEPTH)
		return "nesting deeper than 256";
	switch (json_typeof(value)) {
	case JSON_OBJECT: return map_ambiguity(value, depth + 1);
	case JSON_ARRAY: return list_ambiguity(value, depth + 1);
	case JSON_STRING: return text_ambiguity(json_string_value(value));
	case JSON_INTEGER:
		n = json_integer_value(value);
		return n > EXACT_INTEGERS || n < -EXACT_INTEGERS ? "an integer beyond 2^53" : NULL;
	case JSON_REAL:
	case JSON_TRUE:
	case JSON_FALSE:
	case JSON_NULL: break;
	}
	return NULL;
}

const char *
rechash_ambiguity(const json_t *value)
{
	return ambiguity(value, 0);
}
