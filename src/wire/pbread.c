/* pbread.c - google.protobuf.Struct -> JSON in one pass over its bytes (protocol.md 3.1 "Struct rules")
 *
 *      Struct = { 1: Entry } ...    Entry = 1: key, 2: Value    ListValue = { 1: Value } ...
 *      Value  = one of 1: null, 2: double, 3: string, 4: bool, 5: Struct, 6: ListValue
 *
 * Always true of what was read:
 *  1. Lists and maps are nested at most JSON_MAX_DEPTH deep, so recursion ends; 34 kB of
 *     nested Struct overflow the stack otherwise (faults.md "protobuf recursion").
 *  2. There are at most JSON_MAX_VALUES values, so memory is bounded as that of a JSON text is.
 *  3. Each string is clean UTF-8 without NUL.
 *  4. A field that may come once comes once. Keys of a map may repeat, the last one wins.
 *  5. An integral number below 2^53 is a JSON integer, any other finite one a real.
 *  6. A Value without a kind, and an entry without a Value, are null.
 *
 * There are two ways out: values of jansson for whoever looks into them, and text for
 * whoever only passes them on (a quarter of the cost of a call otherwise).
 *
 * Not here: the messages around a Struct (grpcmsg.c), JSON -> Struct (pbvalue.c).
 */
#include "wire/pbread.h"

#include <errno.h>
#include <math.h>
#include <string.h>

#include "hyper/base/bytes.h"
#include "hyper/wire/json.h"

#define EXACT_INTEGERS 9007199254740992.0 /* 2^53 */
#define KEYS_COMPARED  64                 /* of one map, when it becomes text */

enum value_kind { KIND_NULL = 1, KIND_NUMBER = 2, KIND_STRING = 3, KIND_BOOL = 4, KIND_STRUCT = 5, KIND_LIST = 6 };

struct value {
	enum value_kind kind;
	double number;
	bool is_true;
	struct pb_cursor body; /* of a string, Struct or list */
};

struct entry {
	struct pb_cursor key;
	bool has_value;
	struct pb_cursor value;
};

static int
count_value(struct pb_tally *t)
{
	/* a map's entry counts twice: as itself and as its value */
	return ++t->values > 2 * JSON_MAX_VALUES ? -EINVAL : 0;
}

static double
double_of(const uint8_t b[8])
{
	uint64_t bits = 0;
	double d;

	for (int i = 7; i >= 0; i--)
		bits = bits << 8 | b[i];
	memcpy(&d, &bits, sizeof(d));
	return d;
}

/* A known field of a Value. */
static int
value_take(const struct pb_field *f, struct value *v)
{
	static const enum pb_wire wires[] = { 0, PB_WIRE_VARINT, PB_WIRE_64, PB_WIRE_BYTES, PB_WIRE_VARINT,
		PB_WIRE_BYTES, PB_WIRE_BYTES };

	if (f->wire != wires[f->number])
		return -EINVAL;
	v->kind = (enum value_kind)f->number;
	v->body = f->body;
	if (v->kind == KIND_NUMBER)
		v->number = double_of(f->body.at);
	else if (v->kind == KIND_BOOL)
		v->is_true = f->value != 0;
	if (v->kind == KIND_NUMBER && !isfinite(v->number))
		return -EINVAL;
	if (v->kind == KIND_STRING && !utf8_is_clean(f->body.at, f->body.left))
		return -EINVAL;
	return 0;
}

static int
value_read(struct pb_cursor c, struct pb_tally *t, struct value *ret)
{
	struct pb_field f = { 0 };
	bool has_kind = false;

	*ret = (struct value){ .kind = KIND_NULL };
	if (count_value(t) < 0)
		return -EINVAL;
	while (c.left > 0) {
		int r = pb_field_next(&c, &f);

		if (r == 0 && f.number > KIND_LIST) {
			r = pb_unknown(t);
		} else if (r == 0) {
			r = has_kind ? -EINVAL : value_take(&f, ret); /* they are one oneof */
			has_kind = true;
		}
		if (r < 0)
			return r;
	}
	return 0;
}

static int
entry_read(struct pb_cursor c, struct pb_tally *t, struct entry *ret)
{
	struct pb_field f = { 0 };
	bool has_key = false;

	*ret = (struct entry){ .key = { (const uint8_t *)"", 0 } };
	if (count_value(t) < 0)
		return -EINVAL;
	while (c.left > 0) {
		if (pb_field_next(&c, &f) < 0)
			return -EINVAL;
		if (f.number > 2) {
			if (pb_unknown(t) < 0)
				return -EINVAL;
			continue;
		}
		if (f.wire != PB_WIRE_BYTES || (f.number == 1 ? has_key : ret->has_value))
			return -EINVAL;
		if (f.number == 2) {
			ret->has_value = true;
			ret->value = f.body;
			continue;
		}
		has_key = true;
		ret->key = f.body;
		if (!utf8_is_clean(f.body.at, f.body.left))
			return -EINVAL;
	}
	return 0;
}

/* The next item of a list or entry of a Struct: both are field 1, any number of times.
 * 1 with *ret its bytes, 0 at the end, -EINVAL. */
static int
item_next(struct pb_cursor *c, struct pb_tally *t, struct pb_cursor *ret)
{
	struct pb_field f = { 0 };

	while (c->left > 0) {
		if (pb_field_next(c, &f) < 0)
			return -EINVAL;
		if (f.number == 1) {
			*ret = f.body;
			return f.wire == PB_WIRE_BYTES ? 1 : -EINVAL;
		}
		if (pb_unknown(t) < 0)
			return -EINVAL;
	}
	return 0;
}

/* Is it a map of the one key `_`? Then *ret is that entry's value. What is wrong is found later. */
static bool
is_wrapped(struct pb_cursor c, struct entry *ret)
{
	struct pb_tally t = { 0 };
	struct pb_cursor item;

	return item_next(&c, &t, &item) == 1 && entry_read(item, &t, ret) == 0 && ret->key.left == 1 &&
	       *ret->key.at == '_' && item_next(&c, &t, &item) == 0;
}

/* --- as a value --- */

static int read_value(struct pb_cursor, int depth, struct pb_tally *, json_t **ret);

/* json_*() results come as NULL only when out of memory. */
static int
taken(json_t *made, json_t **ret)
{
	if (made == NULL)
		return -ENOMEM;
	*ret = made;
	return 0;
}

static int
read_number(double d, json_t **ret)
{
	if (fabs(d) < EXACT_INTEGERS && d == (double)(json_int_t)d)
		return taken(json_integer((json_int_t)d), ret);
	return taken(json_real(d), ret);
}

static int
read_entry(struct pb_cursor item, int depth, struct pb_tally *t, json_t *map)
{
	struct entry e;
	json_t *value = NULL;
	int r = entry_read(item, t, &e);

	if (r == 0)
		r = e.has_value ? read_value(e.value, depth, t, &value) : taken(json_null(), &value);
	if (r == 0 && json_object_setn_new_nocheck(map, (const char *)e.key.at, e.key.left, value) < 0)
		r = -ENOMEM;
	return r;
}

/* Recursive, but only JSON_MAX_DEPTH lists and maps deep. */
static int
read_items(struct pb_cursor c, bool is_map, int depth, struct pb_tally *t, json_t **ret)
{
	json_t *all = is_map ? json_object() : json_array(), *value;
	struct pb_cursor item;
	int r = all != NULL ? 1 : -ENOMEM;

	if (depth > JSON_MAX_DEPTH)
		r = -EINVAL;
	while (r > 0 && (r = item_next(&c, t, &item)) > 0) {
		int e = is_map ? read_entry(item, depth, t, all) : read_value(item, depth, t, &value);

		if (e == 0 && !is_map && json_array_append_new(all, value) < 0)
			e = -ENOMEM;
		if (e < 0)
			r = e;
	}
	if (r < 0)
		json_decref(all);
	else
		*ret = all;
	return r;
}

static int
read_value(struct pb_cursor c, int depth, struct pb_tally *t, json_t **ret)
{
	struct value v;
	int r = value_read(c, t, &v);

	if (r < 0)
		return r;
	switch (v.kind) {
	case KIND_NUMBER: return read_number(v.number, ret);
	case KIND_STRING: return taken(json_stringn_nocheck((const char *)v.body.at, v.body.left), ret);
	case KIND_BOOL: return taken(json_boolean(v.is_true), ret);
	case KIND_STRUCT: return read_items(v.body, true, depth + 1, t, ret);
	case KIND_LIST: return read_items(v.body, false, depth + 1, t, ret);
	case KIND_NULL: break;
	}
	return taken(json_null(), ret);
}

int
pb_struct_read(struct pb_cursor c, bool unwrap, struct pb_tally *t, json_t **ret)
{
	json_t *map, *value;
	int r = read_items(c, true, 1, t, &map);

	if (r < 0)
		return r;
	value = unwrap && json_object_size(map) == 1 ? json_object_get(map, "_") : NULL;
	if (value == NULL) {
		*ret = map;
		return 0;
	}
	*ret = json_incref(value);
	json_decref(map);
	return 0;
}

/* --- as text --- */

/* The keys of one map so far, by a hash: two that are equal, or only have the same
 * hash, send the whole message the other way. */
struct keys {
	size_t n;
	uint32_t hash[KEYS_COMPARED];
};

static int
keys_add(struct keys *k, struct pb_cursor key)
{
	uint32_t hash = UINT32_C(2166136261);

	for (size_t i = 0; i < key.left; i++)
		hash = (hash ^ key.at[i]) * UINT32_C(16777619);
	for (size_t i = 0; i < k->n; i++)
		if (k->hash[i] == hash)
			return -EAGAIN;
	if (k->n == KEYS_COMPARED)
		return -EAGAIN;
	k->hash[k->n++] = hash;
	return 0;
}

static int print_value(struct pb_cursor, int depth, struct pb_tally *, struct textbuf *);

static int
print_entry(struct pb_cursor item, int depth, struct pb_tally *t, struct textbuf *tb, struct keys *keys)
{
	struct entry e;
	int r = entry_read(item, t, &e);

	if (r == 0)
		r = keys_add(keys, e.key);
	if (r < 0)
		return r;
	textbuf_clean_string(tb, (const char *)e.key.at, e.key.left);
	textbuf_put(tb, ":", 1);
	if (e.has_value)
		return print_value(e.value, depth, t, tb);
	textbuf_put(tb, "null", 4);
	return 0;
}

static int
print_map(struct pb_cursor c, int depth, struct pb_tally *t, struct textbuf *tb)
{
	struct keys keys = { .n = 0 };
	struct pb_cursor item;
	int r;

	if (depth > JSON_MAX_DEPTH)
		return -EINVAL;
	textbuf_put(tb, "{", 1);
	while ((r = item_next(&c, t, &item)) > 0) {
		if (keys.n > 0)
			textbuf_put(tb, ",", 1);
		r = print_entry(item, depth, t, tb, &keys);
		if (r < 0)
			return r;
	}
	textbuf_put(tb, "}", 1);
	return r;
}

static int
print_list(struct pb_cursor c, int depth, struct pb_tally *t, struct textbuf *tb)
{
	struct pb_cursor item;
	const char *between = "[";
	int r;

	if (depth > JSON_MAX_DEPTH)
		return -EINVAL;
	while ((r = item_next(&c, t, &item)) > 0) {
		textbuf_put(tb, between, 1);
		between = ",";
		r = print_value(item, depth, t, tb);
		if (r < 0)
			return r;
	}
	textbuf_put(tb, *between == '[' ? "[]" : "]", *between == '[' ? 2 : 1);
	return r;
}

static int
print_value(struct pb_cursor c, int depth, struct pb_tally *t, struct textbuf *tb)
{
	struct value v;
	int r = value_read(c, t, &v);

	if (r < 0)
		return r;
	switch (v.kind) {
	case KIND_NUMBER: textbuf_number(tb, v.number); break;
	case KIND_STRING: textbuf_clean_string(tb, (const char *)v.body.at, v.body.left); break;
	case KIND_BOOL: textbuf_put(tb, v.is_true ? "true" : "false", v.is_true ? 4 : 5); break;
	case KIND_STRUCT: return print_map(v.body, depth + 1, t, tb);
	case KIND_LIST: return print_list(v.body, depth + 1, t, tb);
	case KIND_NULL: textbuf_put(tb, "null", 4); break;
	}
	return tb->failed ? -ENOMEM : 0;
}

int
pb_struct_print(struct pb_cursor c, bool unwrap, struct pb_tally *t, struct textbuf *tb)
{
	struct pb_cursor copy = c, item;
	struct entry only;
	int r;

	if (!unwrap || !is_wrapped(copy, &only)) {
		r = print_map(c, 1, t, tb);
	} else {
		/* once more, for the tally and the fields around it */
		r = item_next(&c, t, &item) == 1 ? entry_read(item, t, &only) : -EINVAL;
		if (r == 0 && only.has_value)
			r = print_value(only.value, 1, t, tb);
		else if (r == 0)
			textbuf_put(tb, "null", 4);
		if (r == 0)
			r = item_next(&c, t, &item);
	}
	return r == 0 && tb->failed ? -ENOMEM : r;
}
