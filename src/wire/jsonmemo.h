/* jsonmemo.h - what json.c and jsonmemo.c share; private to src/wire */
#ifndef WIRE_JSONMEMO_H
#define WIRE_JSONMEMO_H

#include <stddef.h>
#include <stdint.h>

#include "hyper/wire/json.h"

/* An object that may be worth remembering: of these sizes, at this depth (a member of a member of the whole). */
#define MEMO_DEPTH      3
#define MEMO_MIN        ((size_t)256)
#define MEMO_MAX        ((size_t)16 * 1024)
#define MEMO_MAX_VALUES ((size_t)1024)

struct json_span {
	size_t from, len; /* of the text; len 0: there is none */
};

/* Parses `text`, which has passed the scan, with the object at `span` taken from the
 * memo or remembered there. 0 with *ret taken and *ret_known not 0; or -EAGAIN:
 * parse it without a memo, which also finds the words for what is wrong with it. */
int json_memo_parse(struct json_memo *, const char *text, size_t len, const struct json_span *, json_t **ret,
    uint64_t *ret_known) ATTR_MUST_USE;

#endif
