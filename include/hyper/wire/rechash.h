/* rechash.h - the structured hash of records (protocol.md 6.3) and what we refuse to hash */
#ifndef HYPER_WIRE_RECHASH_H
#define HYPER_WIRE_RECHASH_H

#include <stddef.h>
#include <stdint.h>

#include <jansson.h>

#include "hyper/base/attr.h"

/* SHA-256 of emit(value), protocol.md 6.3. 0 or -ENOMEM. */
int rechash(const json_t *value, uint8_t ret[32]) ATTR_MUST_USE;

/* The bytes of emit(value) themselves, for tests and `hyper sd sign`-like tools. 0 (taken, free()) or -ENOMEM. */
int rechash_stream(const json_t *value, uint8_t **ret, size_t *ret_len) ATTR_MUST_USE;

/* protocol.md "Records": the hash is ambiguous, so refuse what could collide:
 * `string` inside any key or value, tag words, decimal and empty keys; in lists:
 * elements that write nothing (null, false, 0, ""), lists, maps beside other values;
 * integers that no double holds. Maps inside free-form settings are the directory's
 * rule. NULL when fine, else a static text that says what is not permitted. */
const char *rechash_ambiguity(const json_t *value);

#endif
