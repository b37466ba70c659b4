/* rpcid.h - the id rules of protocol.md 4.1, shared by rpc.c and rpcreq.c; private to src/wire */
#ifndef WIRE_RPCID_H
#define WIRE_RPCID_H

#include <stdbool.h>

#include <jansson.h>

#include "hyper/base/attr.h"

struct textbuf;

/* The id of a request (NULL: none) -> internal form. NULL: out of memory, or
 * no permitted id, then *ret_fault says what is expected. */
char *rpc_id_take(const json_t *id, const char **ret_fault);

/* Writes the internal form as the client gave it; NULL as null. */
void rpc_id_put(struct textbuf *, const char *id);

/* An integral number of 32 bits; 5.0 counts as 5. */
bool rpc_int32(const json_t *value, int *ret) ATTR_MUST_USE;

#endif
