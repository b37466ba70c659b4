/* authority.h - a root of our own, signers it issues and records they sign; every failure fails the test */
#ifndef UNIT_AUTHORITY_H
#define UNIT_AUTHORITY_H

#include <stdint.h>

#include <jansson.h>
#include <openssl/evp.h>
#include <openssl/x509.h>

#include "hyper/directory/record.h"
#include "unit_tmp.h"

#define ADMIN "URI:iris-group://sd-admin,URI:iris-name://hd-1"

struct authority {
	EVP_PKEY *key;
	X509 *cert;
	char path[UNIT_TMP_MAX]; /* of its certificate */
	struct record_trust *trust;
};

void authority_init(struct authority *);
void authority_fini(struct authority *);

/* `intermediate` may be NULL. Taken. */
struct record_trust *trust_of(const char *root, const char *intermediate);

/* A leaf for `key`; `usage` and `eku` may be NULL. Taken. */
X509 *issue(struct authority *, const char *san, const char *usage, const char *eku, EVP_PKEY *key, int64_t from_utc_s,
    int64_t to_utc_s);

/* Taken, free(). */
char *pem_of(X509 *);

/* `data` is given. Taken. */
json_t *signed_record(const char *parent, const char *section, const char *name, json_t *data, int64_t at_utc_s,
    EVP_PKEY *key, const char *pem);

#endif
