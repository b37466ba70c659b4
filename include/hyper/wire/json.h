/* json.h - JSON from strangers, with its limits; JSON for the wire */
#ifndef HYPER_WIRE_JSON_H
#define HYPER_WIRE_JSON_H

#include <stddef.h>

#include <jansson.h>

#include "hyper/base/attr.h"

#define JSON_MAX_BYTES  ((size_t)4 * 1024 * 1024) /* protocol.md "HTTP" */
#define JSON_MAX_DEPTH  64
#define JSON_MAX_VALUES ((size_t)262144) /* bounds memory: 4 MB of `{},` cost 302 MB (faults.md) */
#define JSON_ERR_MAX    192

/* Parses exactly one JSON value of any type, white space around it. Scans size,
 * depth and number of values before jansson sees a byte; refuses duplicate
 * keys, NUL in strings, invalid UTF-8. 0 with *ret taken, or -EMSGSIZE, -EINVAL,
 * -ENOMEM with *ret untouched and `err` saying what and where. */
int json_parse(const char *text, size_t len, json_t **ret, char err[JSON_ERR_MAX]) ATTR_MUST_USE;

/* Compact text, keys in insertion order, integral reals below 2^53 as integers
 * (protocol.md "Numbers"). NULL when out of memory; else free(). */
char *json_text(const json_t *);

/* Borrowed string member, or NULL when it is missing or not a string. */
const char *json_str(const json_t *object, const char *key);

#endif
