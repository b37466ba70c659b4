/* pbread.h - bytes of a google.protobuf.Struct -> JSON; private to src/wire */
#ifndef WIRE_PBREAD_H
#define WIRE_PBREAD_H

#include <stdbool.h>

#include <jansson.h>

#include "hyper/base/attr.h"
#include "wire/pbscan.h"
#include "wire/textbuf.h"

/* A Struct that nobody has judged -> a value. {"_": value} is unwrapped when
 * `unwrap`. 0 with *ret taken, or -ENOMEM, -EINVAL: truncated, a field of the
 * wrong kind or twice, nested too deep, too many values, NUL or invalid UTF-8 in a
 * string, a number that JSON has no word for. */
int pb_struct_read(struct pb_cursor, bool unwrap, struct pb_tally *, json_t **ret) ATTR_MUST_USE;

/* The same as the text that textbuf_json() would write of that value, without
 * the value. Also -EAGAIN: a map has the same key twice, or more keys than are
 * compared here; read it with pb_struct_read() and `t` as it was. After a failure
 * `tb` holds rubbish. */
int pb_struct_print(struct pb_cursor, bool unwrap, struct pb_tally *t, struct textbuf *tb) ATTR_MUST_USE;

#endif
