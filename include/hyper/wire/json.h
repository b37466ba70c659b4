/* json.h - JSON from strangers, with its limits; JSON for the wire */
#ifndef HYPER_WIRE_JSON_H
#define HYPER_WIRE_JSON_H

#include <stddef.h>
#include <stdint.h>

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

/* Remembers objects of 256 bytes to 16 KiB that are the member `key` of the member `outer` of the
 * whole (literals): the same bytes again cost a comparison. Bounded; NULL when out of memory. */
struct json_memo;
struct json_memo *json_memo_new(const char *outer, const char *key);
void json_memo_free(struct json_memo *);

/* json_parse() with a memo (NULL: none). *ret_known is 0, or a number that stands for the
 * bytes of that member as long as the memo lives; the member is shared then: read only. */
int json_parse_known(struct json_memo *, const char *text, size_t len, json_t **ret, uint64_t *ret_known,
    char err[JSON_ERR_MAX]) ATTR_MUST_USE;

/* Compact text, keys in insertion order, integral reals below 2^53 as integers
 * (protocol.md "Numbers"). NULL when out of memory; else free(). */
char *json_text(const json_t *);

/* About how many bytes of memory a value takes; nested no deeper than what json_parse() makes. NULL is 0. */
size_t json_weight(const json_t *);

/* Borrowed string member, or NULL when it is missing or not a string. */
const char *json_str(const json_t *object, const char *key);

#endif
