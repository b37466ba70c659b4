/* hash.h - the two digests of a record (protocol.md 6.2, 6.3), for src/directory only */
#ifndef DIRECTORY_HASH_H
#define DIRECTORY_HASH_H

#include <stdint.h>

#include <jansson.h>

#include "hyper/base/attr.h"
#include "hyper/base/bytes.h"

/* The `hash` of a normalised record. 0, or -ENOMEM with `ret` undefined. */
int record_hash_text(const json_t *record, char ret[SHA256_HEX_LEN + 1]) ATTR_MUST_USE;

/* What is signed: the digest of {hash, parent_hash, record}. 0 or -ENOMEM. */
int record_signed_digest(
    const char *hash, const char *parent_hash, const json_t *record, uint8_t ret[SHA256_LEN]) ATTR_MUST_USE;

#endif
