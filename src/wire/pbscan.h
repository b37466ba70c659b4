/* pbscan.h - protobuf bytes of a stranger, field by field; private to src/wire */
#ifndef WIRE_PBSCAN_H
#define WIRE_PBSCAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "hyper/base/attr.h"

enum pb_wire { PB_WIRE_VARINT = 0, PB_WIRE_64 = 1, PB_WIRE_BYTES = 2, PB_WIRE_32 = 5 };

/* What is left of a message. */
struct pb_cursor {
	const uint8_t *at;
	size_t left;
};

/* One field. */
struct pb_field {
	uint32_t number;
	enum pb_wire wire;
	uint64_t value;        /* of PB_WIRE_VARINT */
	struct pb_cursor body; /* of all others */
};

/* What is counted over a whole message, whatever it is nested in. */
struct pb_tally {
	size_t values;
	size_t unknown;
};

/* Takes the next field; `c` must not be at its end. 0 or -EINVAL: truncated, a group, a number out of range. */
int pb_field_next(struct pb_cursor *, struct pb_field *ret) ATTR_MUST_USE;

/* A field that nobody knows is stepped over. 0, or -EINVAL: there are too many. */
int pb_unknown(struct pb_tally *) ATTR_MUST_USE;

/* What a message of the form may hold; the fields 1, 2, ... of the array. */
enum pb_kind { PB_NONE, PB_VARINT, PB_STRING, PB_MESSAGE };
#define PB_FORM_FIELDS 4

struct pb_part {
	bool is_set;
	struct pb_field field;
};

/* A whole message whose fields come at most once each, texts clean. 0 with
 * ret[number - 1] filled (borrowed from the message), or -EINVAL. */
int pb_form_read(const enum pb_kind form[PB_FORM_FIELDS], struct pb_cursor, struct pb_tally *,
    struct pb_part ret[PB_FORM_FIELDS]) ATTR_MUST_USE;

#endif
