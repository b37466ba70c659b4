/* pbscan.c - reads protobuf's fields from bytes that nobody has judged yet
 *
 *      message = { tag, value } ...     tag = number << 3 | wire type
 *      0 varint   1 eight bytes   2 length and bytes   5 four bytes   (3, 4 groups: refused)
 *
 * Always true:
 *  1. A field's body lies within its message.
 *  2. A message has at most UNKNOWN_MAX unknown fields, its parts' included. They are
 *     stepped over and never looked into, whatever they hold.
 *  3. Of a form, each text is clean UTF-8 without NUL, and a field that may come once
 *     comes once: nothing is merged or replaced.
 *
 * Not here: Struct and its depth (pbread.c).
 */
#include "wire/pbscan.h"

#include <errno.h>

#include "hyper/base/bytes.h"

#define UNKNOWN_MAX    1024
#define FIELD_MAX      UINT32_C(536870911) /* 2^29 - 1, protobuf's highest field number */
#define VARINT_MAX_LEN 10

static int
take_long_varint(struct pb_cursor *c, uint64_t *ret)
{
	uint64_t value = 0;

	for (unsigned i = 0; i < VARINT_MAX_LEN && c->left > 0; i++) {
		uint8_t b = *c->at++;

		c->left--;
		value |= (uint64_t)(b & 0x7f) << (7 * i);
		if (b < 0x80) {
			*ret = value;
			return 0;
		}
	}
	return -EINVAL;
}

static inline int
take_varint(struct pb_cursor *c, uint64_t *ret)
{
	if (c->left == 0 || *c->at >= 0x80)
		return take_long_varint(c, ret);
	*ret = *c->at++;
	c->left--;
	return 0;
}

static int
take_bytes(struct pb_cursor *c, uint64_t len, struct pb_cursor *ret)
{
	if (len > c->left)
		return -EINVAL;
	*ret = (struct pb_cursor){ c->at, (size_t)len };
	c->at += len;
	c->left -= (size_t)len;
	return 0;
}

int
pb_field_next(struct pb_cursor *c, struct pb_field *f)
{
	uint64_t tag, len = 0;

	if (take_varint(c, &tag) < 0 || tag >> 3 == 0 || tag >> 3 > FIELD_MAX)
		return -EINVAL;
	f->number = (uint32_t)(tag >> 3);
	f->wire = (enum pb_wire)(tag & 7);
	switch (f->wire) {
	case PB_WIRE_VARINT: return take_varint(c, &f->value);
	case PB_WIRE_64: return take_bytes(c, 8, &f->body);
	case PB_WIRE_32: return take_bytes(c, 4, &f->body);
	case PB_WIRE_BYTES: return take_varint(c, &len) < 0 ? -EINVAL : take_bytes(c, len, &f->body);
	default: return -EINVAL;
	}
}

int
pb_unknown(struct pb_tally *t)
{
	return ++t->unknown > UNKNOWN_MAX ? -EINVAL : 0;
}

/* Is it what the form expects under this number? */
static bool
field_fits(const struct pb_field *f, enum pb_kind kind)
{
	switch (kind) {
	case PB_VARINT: return f->wire == PB_WIRE_VARINT;
	case PB_STRING: return f->wire == PB_WIRE_BYTES && utf8_is_clean(f->body.at, f->body.left);
	case PB_MESSAGE: return f->wire == PB_WIRE_BYTES;
	case PB_NONE: break;
	}
	return false;
}

int
pb_form_read(
    const enum pb_kind form[PB_FORM_FIELDS], struct pb_cursor c, struct pb_tally *t, struct pb_part ret[PB_FORM_FIELDS])
{
	struct pb_field f = { 0 };

	for (size_t i = 0; i < PB_FORM_FIELDS; i++)
		ret[i] = (struct pb_part){ 0 };
	while (c.left > 0) {
		struct pb_part *part;

		if (pb_field_next(&c, &f) < 0)
			return -EINVAL;
		if (f.number > PB_FORM_FIELDS || form[f.number - 1] == PB_NONE) {
			if (pb_unknown(t) < 0)
				return -EINVAL;
			continue;
		}
		part = &ret[f.number - 1];
		if (part->is_set || !field_fits(&f, form[f.number - 1]))
			return -EINVAL;
		*part = (struct pb_part){ true, f };
	}
	return 0;
}
