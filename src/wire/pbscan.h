/* pbscan.h - looks over a protobuf message before protobuf-c does; private to src/wire */
#ifndef WIRE_PBSCAN_H
#define WIRE_PBSCAN_H

#include <stddef.h>
#include <stdint.h>

#include "hyper/base/attr.h"

enum pb_type { PB_REQUEST, PB_RESPONSE, PB_ERROR, PB_STRUCT, PB_ENTRY, PB_VALUE, PB_LIST };

/* 0, or -EINVAL: truncated, a field of the wrong kind or twice, nested too
 * deep, too many values, NUL or invalid UTF-8 in a string. */
int pb_scan(enum pb_type, const uint8_t *msg, size_t len) ATTR_MUST_USE;

#endif
