/* pbscan.c - refuses protobuf bytes that protobuf-c must not see (faults.md, "protobuf recursion")
 *
 *      message = { tag, value } ...     tag = number << 3 | wire type
 *      0 varint   1 eight bytes   2 length and bytes   5 four bytes   (3, 4 groups: refused)
 *
 * Always true of a message that passed:
 *  1. Lists and maps are nested at most JSON_MAX_DEPTH deep, so protobuf-c's
 *     recursion and ours end; 34 kB of nested Struct overflow its stack otherwise.
 *  2. It has at most JSON_MAX_VALUES values and UNKNOWN_MAX unknown fields, so
 *     its memory is bounded as that of a JSON text is.
 *  3. Each known string is clean UTF-8 without NUL, at which protobuf-c would cut it.
 *  4. A field that may come once comes once: nothing is merged or replaced.
 *     Keys of a map may repeat, the last one wins (pbvalue.c).
 *
 * Unknown fields are stepped over and never looked into, whatever they hold.
 */
#include "wire/pbscan.h"

#include <errno.h>
#include <stdbool.h>

#include "hyper/base/bytes.h"
#include "hyper/wire/json.h"

#define UNKNOWN_MAX    1024
#define FIELD_MAX      UINT32_C(536870911) /* 2^29 - 1, protobuf's highest field number */
#define VARINT_MAX_LEN 10

enum wire { WIRE_VARINT = 0, WIRE_64 = 1, WIRE_BYTES = 2, WIRE_32 = 5 };
enum content { PLAIN, STRING, MESSAGE };

/* The fields of protocol.md 3.1 and of google/protobuf/struct.proto */
static const struct rule {
	enum pb_type in;
	uint32_t number;
	enum wire wire;
	enum content content;
	enum pb_type sub; /* of a MESSAGE */
	bool repeated;
} rules[] = {
	{ PB_REQUEST, 1, WIRE_BYTES, STRING, 0, false },
	{ PB_REQUEST, 2, WIRE_BYTES, MESSAGE, PB_STRUCT, false },
	{ PB_REQUEST, 3, WIRE_BYTES, STRING, 0, false },
	{ PB_REQUEST, 4, WIRE_BYTES, STRING, 0, false },
	{ PB_RESPONSE, 1, WIRE_BYTES, STRING, 0, false },
	{ PB_RESPONSE, 2, WIRE_BYTES, MESSAGE, PB_STRUCT, false },
	{ PB_RESPONSE, 3, WIRE_BYTES, MESSAGE, PB_ERROR, false },
	{ PB_ERROR, 1, WIRE_VARINT, PLAIN, 0, false },
	{ PB_ERROR, 2, WIRE_BYTES, STRING, 0, false },
	{ PB_ERROR, 3, WIRE_BYTES, MESSAGE, PB_STRUCT, false },
	{ PB_STRUCT, 1, WIRE_BYTES, MESSAGE, PB_ENTRY, true },
	{ PB_ENTRY, 1, WIRE_BYTES, STRING, 0, false },
	{ PB_ENTRY, 2, WIRE_BYTES, MESSAGE, PB_VALUE, false },
	{ PB_VALUE, 1, WIRE_VARINT, PLAIN, 0, false },
	{ PB_VALUE, 2, WIRE_64, PLAIN, 0, false },
	{ PB_VALUE, 3, WIRE_BYTES, STRING, 0, false },
	{ PB_VALUE, 4, WIRE_VARINT, PLAIN, 0, false },
	{ PB_VALUE, 5, WIRE_BYTES, MESSAGE, PB_STRUCT, false },
	{ PB_VALUE, 6, WIRE_BYTES, MESSAGE, PB_LIST, false },
	{ PB_LIST, 1, WIRE_BYTES, MESSAGE, PB_VALUE, true },
};

struct cursor {
	const uint8_t *at;
	size_t left;
};

/* What is counted over the whole message. */
struct tally {
	size_t values;
	size_t unknown;
};

/* One field: its tag and what follows. */
struct field {
	uint32_t number;
	uint32_t wire;
	const uint8_t *body; /* of WIRE_BYTES */
	size_t len;
};

static bool
take_varint(struct cursor *c, uint64_t *ret)
{
	uint64_t value = 0;

	for (unsigned i = 0; i < VARINT_MAX_LEN && c->left > 0; i++) {
		uint8_t b = *c->at++;

		c->left--;
		value |= (uint64_t)(b & 0x7f) << (7 * i);
		if (b < 0x80) {
			*ret = value;
			return true;
		}
	}
	return false;
}

static bool
take_bytes(struct cursor *c, uint64_t len, struct field *f)
{
	if (len > c->left)
		return false;
	f->body = c->at;
	f->len = (size_t)len;
	c->at += len;
	c->left -= (size_t)len;
	return true;
}

static bool
take_field(struct cursor *c, struct field *f)
{
	uint64_t tag, value;

	if (!take_varint(c, &tag) || tag >> 3 == 0 || tag >> 3 > FIELD_MAX)
		return false;
	f->number = (uint32_t)(tag >> 3);
	f->wire = (uint32_t)(tag & 7);
	switch (f->wire) {
	case WIRE_VARINT: return take_varint(c, &value);
	case WIRE_64: return take_bytes(c, 8, f);
	case WIRE_32: return take_bytes(c, 4, f);
	case WIRE_BYTES: return take_varint(c, &value) && take_bytes(c, value, f);
	default: return false;
	}
}

static const struct rule *
rule_of(enum pb_type type, uint32_t number)
{
	for (size_t i = 0; i < ARRAY_LEN(rules); i++)
		if (rules[i].in == type && rules[i].number == number)
			return &rules[i];
	return NULL;
}

static bool scan_message(enum pb_type, struct cursor, int depth, struct tally *);

/* `seen`: numbers that may come once and have come. The fields of a Value
 * share one bit, since they are one oneof. */
static bool
scan_field(const struct field *f, const struct rule *rule, uint32_t *seen, int depth, struct tally *t)
{
	uint32_t bit = 1u << (rule->in == PB_VALUE ? 1 : rule->number);
	struct cursor body = { f->body, f->len };

	if (f->wire != rule->wire || (!rule->repeated && (*seen & bit) != 0))
		return false;
	*seen |= bit;
	switch (rule->content) {
	case PLAIN: return true;
	case STRING: return utf8_is_clean(f->body, f->len);
	case MESSAGE: return scan_message(rule->sub, body, depth, t);
	}
	return false;
}

/* Recursive, but only JSON_MAX_DEPTH lists and maps deep. */
static bool
scan_message(enum pb_type type, struct cursor c, int depth, struct tally *t)
{
	uint32_t seen = 0;
	struct field f = { 0 };

	if (type == PB_STRUCT || type == PB_LIST)
		depth++;
	if (type == PB_VALUE || type == PB_ENTRY)
		t->values++; /* a map's entry counts twice: it costs protobuf-c two messages and a key */
	if (depth > JSON_MAX_DEPTH || t->values > 2 * JSON_MAX_VALUES)
		return false;
	while (c.left > 0) {
		const struct rule *rule;

		if (!take_field(&c, &f))
			return false;
		rule = rule_of(type, f.number);
		if (rule == NULL && ++t->unknown > UNKNOWN_MAX)
			return false;
		if (rule != NULL && !scan_field(&f, rule, &seen, depth, t))
			return false;
	}
	return true;
}

int
pb_scan(enum pb_type type, const uint8_t *msg, size_t len)
{
	struct tally t = { 0, 0 };
	struct cursor c = { msg, len };

	return scan_message(type, c, 0, &t) ? 0 : -EINVAL;
}
