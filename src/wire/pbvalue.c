/* pbvalue.c - JSON -> google.protobuf.Struct (protocol.md 3.1 "Struct rules")
 *
 * Always true:
 *  1. A number is a double on the wire.
 *  2. Recursion is bounded by JSON_MAX_DEPTH.
 *
 * Not here: the way back (pbread.c).
 */
#include "wire/pbvalue.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "hyper/wire/json.h"

#define CHUNK_SIZE ((size_t)65536)

struct pb_chunk {
	struct pb_chunk *next;
	max_align_t data[];
};

void *
pb_arena_take(struct pb_arena *a, size_t size)
{
	size_t need = (size + sizeof(max_align_t) - 1) / sizeof(max_align_t) * sizeof(max_align_t);
	struct pb_chunk *chunk;
	void *at;

	if (size > SIZE_MAX / 2)
		return NULL;
	if (a->chunks == NULL || need > a->cap - a->used) {
		size_t cap = need > CHUNK_SIZE ? need : CHUNK_SIZE;

		chunk = calloc(1, sizeof *chunk + cap);
		if (chunk == NULL)
			return NULL;
		chunk->next = a->chunks;
		*a = (struct pb_arena){ .chunks = chunk, .cap = cap };
	}
	at = (char *)a->chunks->data + a->used;
	a->used += need;
	return at;
}

void
pb_arena_fini(struct pb_arena *a)
{
	while (a->chunks != NULL) {
		struct pb_chunk *next = a->chunks->next;

		free(a->chunks);
		a->chunks = next;
	}
	*a = (struct pb_arena){ 0 };
}

static int make_value(struct pb_arena *, const json_t *, int depth, Google__Protobuf__Value **ret);

static int
make_string(const json_t *string, Google__Protobuf__Value *v)
{
	const char *text = json_string_value(string);

	if (strlen(text) != json_string_length(string))
		return -EINVAL;
	v->kind_case = GOOGLE__PROTOBUF__VALUE__KIND_STRING_VALUE;
	v->string_value = (char *)text; /* protobuf-c packs without writing */
	return 0;
}

static int
make_entry(
    struct pb_arena *a, const char *key, const json_t *value, int depth, Google__Protobuf__Struct__FieldsEntry **ret)
{
	Google__Protobuf__Struct__FieldsEntry *e = pb_arena_take(a, sizeof *e);

	if (e == NULL)
		return -ENOMEM;
	google__protobuf__struct__fields_entry__init(e);
	e->key = (char *)key;
	*ret = e;
	return make_value(a, value, depth, &e->value);
}

static int
make_struct(struct pb_arena *a, const json_t *object, int depth, Google__Protobuf__Struct **ret)
{
	json_t *map = (json_t *)object; /* jansson's iterators are not const */
	Google__Protobuf__Struct *s = pb_arena_take(a, sizeof *s);
	size_t n = json_object_size(object);
	int r = 0;

	if (depth > JSON_MAX_DEPTH)
		return -EINVAL;
	if (s == NULL)
		return -ENOMEM;
	google__protobuf__struct__init(s);
	s->fields = pb_arena_take(a, n * sizeof(*s->fields));
	if (s->fields == NULL)
		return -ENOMEM;
	for (void *iter = json_object_iter(map); iter != NULL && r == 0; iter = json_object_iter_next(map, iter))
		r = make_entry(
		    a, json_object_iter_key(iter), json_object_iter_value(iter), depth, &s->fields[s->n_fields++]);
	*ret = s;
	return r;
}

static int
make_list(struct pb_arena *a, const json_t *list, int depth, Google__Protobuf__ListValue **ret)
{
	Google__Protobuf__ListValue *l = pb_arena_take(a, sizeof *l);
	size_t n = json_array_size(list);
	int r = 0;

	if (depth > JSON_MAX_DEPTH)
		return -EINVAL;
	if (l == NULL)
		return -ENOMEM;
	google__protobuf__list_value__init(l);
	l->values = pb_arena_take(a, n * sizeof(*l->values));
	if (l->values == NULL)
		return -ENOMEM;
	for (size_t i = 0; i < n && r == 0; i++)
		r = make_value(a, json_array_get(list, i), depth, &l->values[l->n_values++]);
	*ret = l;
	return r;
}

static int
make_value(struct pb_arena *a, const json_t *value, int depth, Google__Protobuf__Value **ret)
{
	Google__Protobuf__Value *v = pb_arena_take(a, sizeof *v);

	if (v == NULL)
		return -ENOMEM;
	google__protobuf__value__init(v);
	*ret = v;
	switch (json_typeof(value)) {
	case JSON_OBJECT:
		v->kind_case = GOOGLE__PROTOBUF__VALUE__KIND_STRUCT_VALUE;
		return make_struct(a, value, depth + 1, &v->struct_value);
	case JSON_ARRAY:
		v->kind_case = GOOGLE__PROTOBUF__VALUE__KIND_LIST_VALUE;
		return make_list(a, value, depth + 1, &v->list_value);
	case JSON_STRING: return make_string(value, v);
	case JSON_INTEGER:
	case JSON_REAL:
		v->kind_case = GOOGLE__PROTOBUF__VALUE__KIND_NUMBER_VALUE;
		v->number_value = json_number_value(value);
		break;
	case JSON_TRUE:
	case JSON_FALSE:
		v->kind_case = GOOGLE__PROTOBUF__VALUE__KIND_BOOL_VALUE;
		v->bool_value = json_is_true(value);
		break;
	case JSON_NULL: v->kind_case = GOOGLE__PROTOBUF__VALUE__KIND_NULL_VALUE; break;
	}
	return 0;
}

int
pb_struct_make(struct pb_arena *a, const json_t *value, Google__Protobuf__Struct **ret)
{
	Google__Protobuf__Struct *s;

	if (json_is_object(value))
		return make_struct(a, value, 1, ret);
	s = pb_arena_take(a, sizeof *s);
	if (s == NULL)
		return -ENOMEM;
	google__protobuf__struct__init(s);
	s->fields = pb_arena_take(a, sizeof(*s->fields));
	if (s->fields == NULL)
		return -ENOMEM;
	s->n_fields = 1;
	*ret = s;
	return make_entry(a, "_", value, 1, &s->fields[0]);
}
