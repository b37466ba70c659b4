/* record.h - signed change records: forms, hash, signature, chain (protocol.md 6.2 to 6.5) */
#ifndef HYPER_DIRECTORY_RECORD_H
#define HYPER_DIRECTORY_RECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <jansson.h>
#include <openssl/evp.h>

#include "hyper/base/attr.h"
#include "hyper/settings/conf.h"

#define RECORD_ERR_MAX 512

/* Text of one normalised signed record; longer ones are refused. */
#define RECORD_MAX_BYTES ((size_t)256 * 1024)

/* Trust for signatures: roots and intermediates, loaded once. It remembers the
 * last signers it checked, so whoever verifies with it needs it writable. */
struct record_trust;
int record_trust_new(const struct conf_strings *roots, const struct conf_strings *intermediates,
    struct record_trust **ret, char err[RECORD_ERR_MAX]) ATTR_MUST_USE;
void record_trust_free(struct record_trust *);
/* The same certificates, in the same order. */
bool record_trust_equals(const struct record_trust *, const struct record_trust *);

/* Which forms count: ours for what is let in (submit), the reference's for what
 * another directory has let in. The hash of a record that only the open forms
 * take may be read in two ways; that is its admin's risk, and no reason to have
 * no directory at all. */
enum record_forms {
	RECORD_STRICT, /* ambiguity refused, names checked */
	RECORD_OPEN
};

/* Brings {name, section, data, created_at} into the closed form of protocol.md
 * 6.2a: unknown keys dropped, defaults filled in. 0 with *ret taken (a new
 * object), or -EINVAL with *ret untouched and `err`. */
int record_normalise(const json_t *record, enum record_forms, json_t **ret, char err[RECORD_ERR_MAX]) ATTR_MUST_USE;

/* Verified records in order, from a root to the tip. Copying is not possible; one owner. */
struct chain;
struct chain *chain_new(enum record_forms); /* empty; NULL when out of memory */
void chain_free(struct chain *);
size_t chain_length(const struct chain *);
/* Borrowed until the chain changes; i < chain_length(). */
const json_t *chain_record(const struct chain *, size_t i);
/* 64 hex digits of the last record, "" when empty. Borrowed until the chain changes. */
const char *chain_tip(const struct chain *);
/* created_at of the root in ns since 1970; INT64_MIN when empty. */
int64_t chain_root_utc_ns(const struct chain *);
/* Index of the record with that hash, or -1. */
ssize_t chain_index(const struct chain *, const char *hash);

/* Verifies one signed record {parent_hash, hash, signature, record} as the next
 * one (protocol.md 6.4, "Time of validity": the signer is judged at created_at)
 * and appends it (copied). On an empty chain it must be a root, else its parent
 * must be the tip. 0, or -EINVAL (form, hash, signature, signer), -ESTALE (parent
 * is not the tip), -EACCES (not sd-admin, or not the signer pinned for that name), -ENOMEM;
 * on failure the chain is as before. */
int chain_append(
    struct chain *, struct record_trust *, const json_t *signed_record, char err[RECORD_ERR_MAX]) ATTR_MUST_USE;

/* Would each record have been appended with that trust? 0, or -errno as above with `err` naming the first that would not. */
int chain_holds_with(const struct chain *, struct record_trust *, char err[RECORD_ERR_MAX]) ATTR_MUST_USE;

/* {parent_hash, hash, signature {r, s, c}, record} in its closed form, nothing
 * verified. 0 with *ret taken, or -EINVAL, -ENOMEM with *ret untouched and `err`. */
int record_normalise_signed(
    const json_t *signed_record, enum record_forms, json_t **ret, char err[RECORD_ERR_MAX]) ATTR_MUST_USE;

/* created_at of a normalised record or signed record, ns since 1970. */
int64_t record_created_utc_ns(const json_t *record);

/* Drops the last records until `length` are left (undo of a batch). */
void chain_truncate(struct chain *, size_t length);

/* Entries merged from the chain: an object name -> entry (protocol.md 6.1).
 * Without names that no operator can have. Shares parts with the records: read only. Taken; NULL when out of memory. */
json_t *chain_entries(const struct chain *);

/* Reads a file {"records": [change record, ...]} ("-": standard input): an
 * array of normalised records (taken). A record may be bare or the `record` of a
 * signed one; without created_at it gets the start of 1970. 0, or -errno, -EINVAL with *ret untouched and `err` naming the
 * file and the record. */
int record_file_load(const char *path, enum record_forms, json_t **ret, char err[RECORD_ERR_MAX]) ATTR_MUST_USE;

/* Signs: links, hashes and signs `record` (already normalised, created_at set)
 * with an EC P-256 key. *ret is the signed record (taken). 0 or -EINVAL, -ENOMEM with `err`. */
int record_sign(const json_t *record, const char *parent_hash, EVP_PKEY *key, const char *cert_pem, json_t **ret,
    char err[RECORD_ERR_MAX]) ATTR_MUST_USE;

/* Signs any JSON: digest -> {r, s, c} (protocol.md 6.3, `hyper sd sign`). */
int record_sign_digest(const uint8_t digest[32], EVP_PKEY *key, const char *cert_pem, json_t **ret) ATTR_MUST_USE;

#endif
