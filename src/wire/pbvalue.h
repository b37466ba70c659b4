/* pbvalue.h - JSON -> google.protobuf.Struct; private to src/wire */
#ifndef WIRE_PBVALUE_H
#define WIRE_PBVALUE_H

#include <stddef.h>

#include <jansson.h>

#include "hyper/base/attr.h"
#include "wire/google/protobuf/struct.pb-c.h"

/* Memory for the messages of one packing, freed at once. Starts zeroed. */
struct pb_arena {
	struct pb_chunk *chunks; /* owned */
	size_t used;             /* of the newest chunk */
	size_t cap;
};
/* Zeroed bytes, borrowed until pb_arena_fini(). NULL when out of memory. */
void *pb_arena_take(struct pb_arena *, size_t size);
void pb_arena_fini(struct pb_arena *);

/* JSON -> Struct; what is no map travels as {"_": value}. 0 with *ret borrowed
 * until pb_arena_fini() (and strings until `value` is freed), or -ENOMEM,
 * -EINVAL: a string with NUL, nested too deep. */
int pb_struct_make(struct pb_arena *, const json_t *value, Google__Protobuf__Struct **ret) ATTR_MUST_USE;

#endif
