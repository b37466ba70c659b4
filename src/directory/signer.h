/* signer.h - who signed a record, and whether that may be believed; for src/directory only */
#ifndef DIRECTORY_SIGNER_H
#define DIRECTORY_SIGNER_H

#include <stdbool.h>
#include <stdint.h>

#include <jansson.h>

#include "hyper/base/attr.h"
#include "hyper/directory/record.h"

#define SIGNER_NAME_MAX 254 /* protocol.md "Records": a name and its NUL */

/* A copy of what a checked certificate says. */
struct signer_identity {
	char name[SIGNER_NAME_MAX]; /* of the SAN URI iris-name://NAME */
	char fingerprint[65];       /* lower-case hex SHA-256 of the DER */
};

/* Checks one signature {r, s, c} over `digest`, the signer judged at `at_utc_ns`
 * (protocol.md 6.4 steps 2, 3, 5, 6). 0 with *ret filled; -EINVAL (form,
 * certificate, signature), -EACCES (not sd-admin), -ENOMEM; then *ret is untouched. */
int signer_check(struct record_trust *, const json_t *signature, const uint8_t digest[32], int64_t at_utc_ns,
    struct signer_identity *ret, char err[RECORD_ERR_MAX]) ATTR_MUST_USE;

#endif
