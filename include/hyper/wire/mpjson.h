/* mpjson.h - JSON values as msgpack and back: the bytes of the admin socket */
#ifndef HYPER_WIRE_MPJSON_H
#define HYPER_WIRE_MPJSON_H

#include <stddef.h>
#include <stdint.h>

#include <jansson.h>

#include "hyper/base/attr.h"

#define MPJSON_DEPTH_MAX  16
#define MPJSON_VALUES_MAX ((size_t)1024 * 1024)

/* 0 with *ret (malloc'd) and *ret_len taken; -EINVAL (deeper than MPJSON_DEPTH_MAX), -ENOMEM with both untouched. */
int mpjson_pack(const json_t *value, uint8_t **ret, size_t *ret_len) ATTR_MUST_USE;

/* Exactly one value: nil, bool, integer, float, str (UTF-8), array, map with str
 * keys. Its bytes are walked to the last one before msgpack-c sees them. 0 with
 * *ret taken; -EPROTO, -ENOMEM with *ret untouched. */
int mpjson_unpack(const uint8_t *data, size_t len, json_t **ret) ATTR_MUST_USE;

#endif
