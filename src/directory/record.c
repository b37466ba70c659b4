/* record.c - change records: closed form, hash, signing (protocol.md 6.2, 6.3)
 *
 * Always true:
 *  1. A normalised record is the canonical text of what its hash says: the same
 *     four keys in the same order, created_at as the hash writes a time.
 *  2. The hash covers `record`; the signature covers {hash, parent_hash,
 *     record}. Nothing else of a signed record is believed.
 *  3. What could mean two things under one hash is refused before it is hashed.
 *
 * A known limit of the hash itself: null, false, 0, "" and a missing key of
 * free-form settings are the same to it, so who serves a record may drop such a
 * key. Settings must mean the same with and without it.
 *
 * Not here: section forms (form.c), signers (signer.c), order (chain.c).
 */
#include "hyper/directory/record.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/bn.h>
#include <openssl/ec.h>
#include <openssl/err.h>

#include "directory/form.h"
#include "directory/hash.h"
#include "hyper/base/bug.h"
#include "hyper/base/bytes.h"
#include "hyper/base/clock.h"
#include "hyper/wire/address.h"
#include "hyper/wire/json.h"
#include "hyper/wire/rechash.h"

#define TIME_MAX 40 /* "2026-11-22T13:34:00.097926479+01:00" */

static int
say(char *err, int code, const char *text)
{
	snprintf(err, RECORD_ERR_MAX, "%s", text);
	return code;
}

/* protocol.md 6.3 "time": the fraction without trailing zeros, an offset of zero as Z, other offsets as they are. */
static int
normalise_time(const char *text, char ret[TIME_MAX])
{
	size_t len = strlen(text), head = strlen("2026-11-22T13:34:00"), frac = 0, keep;
	int64_t ignored;
	const char *offset;

	if (len < head || len >= TIME_MAX || text[10] != 'T' || clock_parse_rfc3339(text, &ignored) < 0)
		return -EINVAL;
	if (text[head] == '.')
		frac = 1 + strspn(text + head + 1, "0123456789");
	offset = text + head + frac;
	keep = frac;
	while (keep > 1 && text[head + keep - 1] == '0')
		keep--;
	if (keep == 1)
		keep = 0;
	if (strcmp(offset, "+00:00") == 0 || strcmp(offset, "-00:00") == 0 || strcmp(offset, "z") == 0)
		offset = "Z";
	snprintf(ret, TIME_MAX, "%.*s%s", (int)(head + keep), text, offset);
	return 0;
}

/* The four keys in their order; `data` is given. */
static int
assemble(const char *name, const char *section, json_t *data, const char *created_at, enum record_forms forms,
    json_t **ret, char *err)
{
	json_t *out =
	    json_pack("{s:s, s:s, s:o, s:s}", "name", name, "section", section, "data", data, "created_at", created_at);
	const char *ambiguity;

	if (!out)
		return say(err, -ENOMEM, "out of memory");
	ambiguity = forms == RECORD_STRICT ? rechash_ambiguity(out) : NULL;
	if (ambiguity) {
		snprintf(err, RECORD_ERR_MAX, "the record's hash could mean something else too: %s", ambiguity);
		json_decref(out);
		return -EINVAL;
	}
	*ret = out;
	return 0;
}

int
record_normalise(const json_t *record, enum record_forms forms, json_t **ret, char err[RECORD_ERR_MAX])
{
	const char *name = json_str(record, "name"), *section = json_str(record, "section"),
		   *created_at = json_str(record, "created_at");
	enum record_section sec;
	char when[TIME_MAX];
	json_t *data = NULL;
	int r;

	if (!json_is_object(record))
		return say(err, -EINVAL, "record: expected an object");
	if (!name || (forms == RECORD_STRICT && !operator_name_is_valid(name)))
		return say(err, -EINVAL, "name: expected the name of an operator ([A-Za-z0-9._-], at most 253)");
	sec = section ? record_section_parse(section) : SECTION_MAX;
	if (sec == SECTION_MAX)
		return say(err, -EINVAL,
		    "section: expected channels, certificates, services, preferences, settings or groups");
	if (!created_at || normalise_time(created_at, when) < 0)
		return say(err, -EINVAL, "created_at: expected a time like 2026-11-22T13:34:00.5Z (RFC 3339)");
	r = form_data(sec, json_object_get(record, "data"), forms, &data, err);
	if (r < 0)
		return r;
	return assemble(name, section, data, when, forms, ret, err);
}

static bool
is_hash(const char *text, bool may_be_empty)
{
	if (!text)
		return false;
	if (!*text)
		return may_be_empty;
	return strlen(text) == SHA256_HEX_LEN && strspn(text, "0123456789abcdef") == SHA256_HEX_LEN;
}

int
record_normalise_signed(const json_t *signed_record, enum record_forms forms, json_t **ret, char err[RECORD_ERR_MAX])
{
	const char *hash = json_str(signed_record, "hash"), *parent = json_str(signed_record, "parent_hash"), *r_text,
		   *s_text, *c_text;
	const json_t *sig = json_object_get(signed_record, "signature"),
		     *given_parent = json_object_get(signed_record, "parent_hash");
	json_t *record = NULL, *out;
	char *text;
	int r;

	if (!json_is_object(signed_record))
		return say(err, -EINVAL, "expected an object {parent_hash, hash, signature, record}");
	if (!given_parent || json_is_null(given_parent))
		parent = "";
	if (!is_hash(hash, false))
		return say(err, -EINVAL, "hash: expected 64 lower-case hex digits");
	if (!is_hash(parent, true))
		return say(err, -EINVAL, "parent_hash: expected 64 lower-case hex digits, or \"\" for a root");
	r_text = json_str(sig, "r");
	s_text = json_str(sig, "s");
	c_text = json_str(sig, "c");
	if (!r_text || !s_text || !c_text)
		return say(err, -EINVAL, "signature: expected an object {r, s, c} of strings");
	r = record_normalise(json_object_get(signed_record, "record"), forms, &record, err);
	if (r < 0)
		return r;
	out = json_pack("{s:s, s:s, s:{s:s, s:s, s:s}, s:o}", "parent_hash", parent, "hash", hash, "signature", "r",
	    r_text, "s", s_text, "c", c_text, "record", record);
	text = out ? json_text(out) : NULL;
	if (!text) {
		json_decref(out);
		return say(err, -ENOMEM, "out of memory");
	}
	if (strlen(text) > RECORD_MAX_BYTES) {
		snprintf(err, RECORD_ERR_MAX,
		    "the record is larger than %zu bytes: split its section's data over operators", RECORD_MAX_BYTES);
		r = -EINVAL;
	}
	free(text);
	if (r < 0)
		json_decref(out);
	else
		*ret = out;
	return r;
}

int64_t
record_created_utc_ns(const json_t *record)
{
	const json_t *inner = json_object_get(record, "record");
	const char *text = json_str(inner ? inner : record, "created_at");
	int64_t ns;

	/* normalised, so it was parsed before */
	BUG_ON(!text || clock_parse_rfc3339(text, &ns) < 0);
	return ns;
}

static json_t *
bn_text(const BIGNUM *n)
{
	char *text = BN_bn2dec(n);
	json_t *v = text ? json_string(text) : NULL;

	OPENSSL_free(text);
	return v;
}

static int
sign_der(const uint8_t digest[32], EVP_PKEY *key, unsigned char **ret, size_t *ret_len)
{
	EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new(key, NULL);
	unsigned char *der = NULL;
	size_t len = 0;
	int r = -EINVAL;

	if (!ctx || EVP_PKEY_sign_init(ctx) != 1 || EVP_PKEY_sign(ctx, NULL, &len, digest, 32) != 1)
		goto out;
	der = OPENSSL_malloc(len);
	if (!der || EVP_PKEY_sign(ctx, der, &len, digest, 32) != 1)
		goto out;
	*ret = der;
	*ret_len = len;
	der = NULL;
	r = 0;
out:
	OPENSSL_free(der);
	EVP_PKEY_CTX_free(ctx);
	return r;
}

int
record_sign_digest(const uint8_t digest[32], EVP_PKEY *key, const char *cert_pem, json_t **ret)
{
	unsigned char *der = NULL;
	const unsigned char *p;
	ECDSA_SIG *sig = NULL;
	json_t *out = NULL;
	size_t len = 0;
	int r = -EINVAL;

	if (EVP_PKEY_get_base_id(key) != EVP_PKEY_EC || sign_der(digest, key, &der, &len) < 0)
		goto out;
	p = der;
	sig = d2i_ECDSA_SIG(NULL, &p, (long)len);
	r = -ENOMEM;
	if (!sig)
		goto out;
	out = json_pack(
	    "{s:o, s:o, s:s}", "r", bn_text(ECDSA_SIG_get0_r(sig)), "s", bn_text(ECDSA_SIG_get0_s(sig)), "c", cert_pem);
	if (!out)
		goto out;
	*ret = out;
	r = 0;
out:
	ECDSA_SIG_free(sig);
	OPENSSL_free(der);
	ERR_clear_error();
	return r;
}

int
record_hash_text(const json_t *record, char ret[SHA256_HEX_LEN + 1])
{
	uint8_t digest[SHA256_LEN];
	int r = rechash(record, digest);

	if (r == 0)
		hex_encode(digest, sizeof digest, ret);
	return r;
}

int
record_signed_digest(const char *hash, const char *parent_hash, const json_t *record, uint8_t ret[SHA256_LEN])
{
	json_t *object = json_pack("{s:s, s:s, s:O}", "hash", hash, "parent_hash", parent_hash, "record", record);
	int r = object ? rechash(object, ret) : -ENOMEM;

	json_decref(object);
	return r;
}

int
record_sign(const json_t *record, const char *parent_hash, EVP_PKEY *key, const char *cert_pem, json_t **ret,
    char err[RECORD_ERR_MAX])
{
	char hash[SHA256_HEX_LEN + 1];
	uint8_t digest[SHA256_LEN];
	json_t *sig = NULL, *out;
	int r;

	if (record_hash_text(record, hash) < 0 || record_signed_digest(hash, parent_hash, record, digest) < 0)
		return say(err, -ENOMEM, "out of memory");
	r = record_sign_digest(digest, key, cert_pem, &sig);
	if (r < 0)
		return say(err, r, "the key could not sign: an EC P-256 key is needed");
	out = json_pack(
	    "{s:s, s:s, s:o, s:O}", "parent_hash", parent_hash, "hash", hash, "signature", sig, "record", record);
	if (!out)
		return say(err, -ENOMEM, "out of memory");
	*ret = out;
	return 0;
}
