/* signer.c - certificates and ECDSA signatures of records (protocol.md 6.4, "Time of validity")
 *
 * Always true:
 *  1. A certificate is judged at the time its record was made, together with
 *     every certificate above it; later expiry does not undo a record.
 *  2. A signer in the cache stands for the exact PEM text that was checked, and
 *     for the span of time in which its whole path is valid. Any other text or
 *     time is checked anew.
 *  3. Only roots and intermediates named in the settings are trusted; nothing
 *     that comes with a record is.
 *
 * Not here: which name may sign what (chain.c), hashing (wire/rechash.h).
 */
#include "directory/signer.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/bio.h>
#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509_vfy.h>
#include <openssl/x509v3.h>

#include "hyper/base/bytes.h"
#include "hyper/wire/address.h"
#include "hyper/wire/json.h"

#define SIGNER_PEM_MAX ((size_t)16 * 1024)
#define SIGNER_CACHE   16 /* a directory has few admins; more only costs time */
#define NS_PER_S       ((int64_t)1000000000)

struct signer {
	char *pem; /* NULL: a free place */
	EVP_PKEY *key;
	struct signer_identity id;
	int64_t from_utc_s, to_utc_s; /* in which the whole path is valid; the end is outside, as libcrypto has it */
};

struct record_trust {
	X509_STORE *roots;
	STACK_OF(X509) * intermediates;
	struct signer cache[SIGNER_CACHE];
	size_t next;                /* the place that is used next */
	uint8_t digest[SHA256_LEN]; /* of all certificates, in order, with what they are */
};

static int
say(char *err, int code, const char *text)
{
	snprintf(err, RECORD_ERR_MAX, "%s", text);
	ERR_clear_error();
	return code;
}

static void
signer_fini(struct signer *s)
{
	free(s->pem);
	EVP_PKEY_free(s->key);
	*s = (struct signer){ 0 };
}

static int
add_digest(struct record_trust *t, const X509 *cert, bool is_root)
{
	uint8_t all[SHA256_LEN + 1 + EVP_MAX_MD_SIZE];
	unsigned len = 0;

	memcpy(all, t->digest, SHA256_LEN);
	all[SHA256_LEN] = is_root;
	if (X509_digest(cert, EVP_sha256(), all + SHA256_LEN + 1, &len) != 1)
		return -ENOMEM;
	sha256(all, SHA256_LEN + 1 + len, t->digest);
	return 0;
}

static int
load_file(struct record_trust *t, const char *path, bool is_root, char *err)
{
	BIO *bio = BIO_new_file(path, "r");
	X509 *cert;
	int n = 0, r = 0;

	if (!bio) {
		snprintf(err, RECORD_ERR_MAX, "%s: cannot be read: %s", path, strerror(errno ? errno : EIO));
		ERR_clear_error();
		return -ENOENT;
	}
	while (r == 0 && (cert = PEM_read_bio_X509(bio, NULL, NULL, NULL))) {
		r = add_digest(t, cert, is_root);
		if (r == 0 && is_root) {
			if (X509_STORE_add_cert(t->roots, cert) != 1)
				r = -ENOMEM;
		} else if (r == 0 && X509_add_cert(t->intermediates, cert, X509_ADD_FLAG_UP_REF) != 1)
			r = -ENOMEM;
		X509_free(cert);
		n++;
	}
	BIO_free(bio);
	ERR_clear_error();
	if (r == 0 && n == 0) {
		snprintf(err, RECORD_ERR_MAX, "%s: holds no PEM certificate", path);
		r = -EINVAL;
	} else if (r < 0)
		snprintf(err, RECORD_ERR_MAX, "%s: out of memory", path);
	return r;
}

int
record_trust_new(const struct conf_strings *roots, const struct conf_strings *intermediates, struct record_trust **ret,
    char err[RECORD_ERR_MAX])
{
	struct record_trust *t = calloc(1, sizeof *t);
	size_t i;
	int r = -ENOMEM;

	if (!t)
		return say(err, -ENOMEM, "out of memory");
	t->roots = X509_STORE_new();
	t->intermediates = sk_X509_new_null();
	if (!t->roots || !t->intermediates) {
		say(err, -ENOMEM, "out of memory");
		goto out;
	}
	r = 0;
	if (roots->n == 0)
		r = say(err, -EINVAL, "ca_certificate_files names no root: no signature could be checked");
	for (i = 0; r == 0 && i < roots->n; i++)
		r = load_file(t, roots->v[i], true, err);
	for (i = 0; r == 0 && i < intermediates->n; i++)
		r = load_file(t, intermediates->v[i], false, err);
out:
	if (r < 0)
		record_trust_free(t);
	else
		*ret = t;
	return r;
}

bool
record_trust_equals(const struct record_trust *a, const struct record_trust *b)
{
	return memcmp(a->digest, b->digest, SHA256_LEN) == 0;
}

void
record_trust_free(struct record_trust *t)
{
	size_t i;

	if (!t)
		return;
	for (i = 0; i < SIGNER_CACHE; i++)
		signer_fini(&t->cache[i]);
	X509_STORE_free(t->roots);
	sk_X509_pop_free(t->intermediates, X509_free);
	free(t);
}

/* Exactly one PEM certificate and white space. NULL with `err`. */
static X509 *
parse_pem(const char *pem, char *err)
{
	BIO *bio = BIO_new_mem_buf(pem, -1);
	X509 *cert;
	char *rest;
	long n;

	if (!bio)
		return NULL;
	cert = PEM_read_bio_X509(bio, NULL, NULL, NULL);
	n = BIO_get_mem_data(bio, &rest);
	if (!cert)
		say(err, -EINVAL, "signature.c: not a PEM certificate");
	else if ((size_t)n != strspn(rest, " \t\r\n")) {
		say(err, -EINVAL, "signature.c: more than one certificate (the leaf alone belongs there)");
		X509_free(cert);
		cert = NULL;
	}
	BIO_free(bio);
	ERR_clear_error();
	return cert;
}

/* protocol.md 6.4 step 2 and the EKU rule of step 5. */
static int
check_usage(X509 *cert, char *err)
{
	EVP_PKEY *key = X509_get0_pubkey(cert);
	char group[32] = "";
	uint32_t flags = X509_get_extension_flags(cert);

	if (!key || EVP_PKEY_get_base_id(key) != EVP_PKEY_EC ||
	    EVP_PKEY_get_group_name(key, group, sizeof group, NULL) != 1 || strcmp(group, SN_X9_62_prime256v1) != 0)
		return say(err, -EINVAL, "signer's certificate: the key is not ECDSA P-256");
	if (!(flags & EXFLAG_KUSAGE) || !(X509_get_key_usage(cert) & KU_DIGITAL_SIGNATURE))
		return say(err, -EINVAL, "signer's certificate: key usage lacks digitalSignature");
	if ((flags & EXFLAG_XKUSAGE) && !(X509_get_extended_key_usage(cert) & XKU_CODE_SIGN))
		return say(err, -EINVAL, "signer's certificate: extended key usage lacks codeSigning");
	return 0;
}

/* The text of a SAN URI behind `prefix`; NULL when it is another one or holds odd bytes. Borrowed from the name. */
static const char *
uri_after(const GENERAL_NAME *name, const char *prefix)
{
	const char *text;
	size_t len;

	if (name->type != GEN_URI)
		return NULL;
	text = (const char *)ASN1_STRING_get0_data(name->d.uniformResourceIdentifier);
	len = (size_t)ASN1_STRING_length(name->d.uniformResourceIdentifier);
	/* libcrypto ends the data of a parsed string with a NUL; one inside it would cut the name short */
	if (strlen(text) != len || strncmp(text, prefix, strlen(prefix)) != 0)
		return NULL;
	return text + strlen(prefix);
}

/* protocol.md 6.4 steps 3 and 4: group and name from the subject alternative names. */
static int
read_identity(X509 *cert, struct signer_identity *ret, char *err)
{
	GENERAL_NAMES *names = X509_get_ext_d2i(cert, NID_subject_alt_name, NULL, NULL);
	struct signer_identity id = { 0 };
	bool admin = false, twice = false;
	uint8_t digest[SHA256_LEN];
	const char *text;
	unsigned char *der = NULL;
	int i, len;

	for (i = 0; i < sk_GENERAL_NAME_num(names); i++) {
		const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);

		text = uri_after(name, "iris-group://");
		if (text && strcmp(text, "sd-admin") == 0)
			admin = true;
		text = uri_after(name, "iris-name://");
		if (text && operator_name_is_valid(text)) {
			twice = twice || *id.name;
			snprintf(id.name, sizeof id.name, "%s", text);
		}
	}
	GENERAL_NAMES_free(names);
	if (!admin)
		return say(err, -EACCES,
		    "signer may not change the directory: its certificate lacks the group sd-admin "
		    "(SAN URI iris-group://sd-admin)");
	if (!*id.name || twice)
		return say(err, -EINVAL, "signer's certificate: exactly one SAN URI iris-name://NAME is needed");
	len = i2d_X509(cert, &der);
	if (len < 0)
		return say(err, -ENOMEM, "out of memory");
	sha256(der, (size_t)len, digest);
	OPENSSL_free(der);
	hex_encode(digest, sizeof digest, id.fingerprint);
	*ret = id;
	return 0;
}

static int
asn1_utc_s(const ASN1_TIME *t, int64_t *ret)
{
	ASN1_TIME *epoch = ASN1_TIME_set(NULL, 0);
	int days, seconds;
	bool ok = epoch && ASN1_TIME_diff(&days, &seconds, epoch, t) == 1;

	ASN1_TIME_free(epoch);
	if (!ok)
		return -EINVAL;
	*ret = (int64_t)days * 86400 + seconds;
	return 0;
}

/* Narrows the span of `s` to the one in which each certificate of the path is valid. */
static int
read_span(X509_STORE_CTX *ctx, struct signer *s)
{
	STACK_OF(X509) *path = X509_STORE_CTX_get0_chain(ctx);
	int64_t from, to;
	int i;

	s->from_utc_s = INT64_MIN;
	s->to_utc_s = INT64_MAX;
	for (i = 0; i < sk_X509_num(path); i++) {
		const X509 *cert = sk_X509_value(path, i);

		if (asn1_utc_s(X509_get0_notBefore(cert), &from) < 0 || asn1_utc_s(X509_get0_notAfter(cert), &to) < 0)
			return -EINVAL;
		if (from > s->from_utc_s)
			s->from_utc_s = from;
		if (to < s->to_utc_s)
			s->to_utc_s = to;
	}
	return 0;
}

/* protocol.md 6.4 step 5 at the time of the record. */
static int
check_path(struct record_trust *t, X509 *cert, int64_t at_utc_s, struct signer *s, char *err)
{
	X509_STORE_CTX *ctx = X509_STORE_CTX_new();
	X509_VERIFY_PARAM *param;
	int r = 0, why;

	if (!ctx || X509_STORE_CTX_init(ctx, t->roots, cert, t->intermediates) != 1) {
		X509_STORE_CTX_free(ctx);
		return say(err, -ENOMEM, "out of memory");
	}
	param = X509_STORE_CTX_get0_param(ctx);
	X509_VERIFY_PARAM_set_time(param, (time_t)at_utc_s);
	X509_VERIFY_PARAM_set_depth(param, 8);
	if (X509_verify_cert(ctx) != 1) {
		why = X509_STORE_CTX_get_error(ctx);
		snprintf(err, RECORD_ERR_MAX, "signer's certificate was not valid when the record was made: %s",
		    X509_verify_cert_error_string(why));
		r = why == X509_V_ERR_OUT_OF_MEM ? -ENOMEM : -EINVAL;
	} else if (read_span(ctx, s) < 0)
		r = say(err, -EINVAL, "signer's certificate: unreadable time of validity");
	X509_STORE_CTX_free(ctx);
	ERR_clear_error();
	return r;
}

/* The checked signer of a PEM text, from the cache or anew; borrowed until the next call. */
static int
signer_find(struct record_trust *t, const char *pem, int64_t at_utc_s, const struct signer **ret, char *err)
{
	struct signer fresh = { 0 };
	X509 *cert;
	size_t i;
	int r;

	for (i = 0; i < SIGNER_CACHE; i++) {
		const struct signer *s = &t->cache[i];

		if (s->pem && strcmp(s->pem, pem) == 0 && s->from_utc_s <= at_utc_s && at_utc_s < s->to_utc_s) {
			*ret = s;
			return 0;
		}
	}
	say(err, -ENOMEM, "out of memory");
	cert = parse_pem(pem, err);
	if (!cert)
		return -EINVAL;
	r = check_usage(cert, err);
	if (r == 0)
		r = check_path(t, cert, at_utc_s, &fresh, err);
	if (r == 0)
		r = read_identity(cert, &fresh.id, err);
	if (r == 0) {
		fresh.key = X509_get_pubkey(cert);
		fresh.pem = strdup(pem);
		if (!fresh.key || !fresh.pem)
			r = say(err, -ENOMEM, "out of memory");
	}
	X509_free(cert);
	if (r < 0) {
		signer_fini(&fresh);
		return r;
	}
	signer_fini(&t->cache[t->next]);
	t->cache[t->next] = fresh;
	*ret = &t->cache[t->next];
	t->next = (t->next + 1) % SIGNER_CACHE;
	return 0;
}

/* protocol.md 6.2 "signature": ^\d{10,100}$ */
static BIGNUM *
parse_decimal(const json_t *signature, const char *key)
{
	const char *text = json_str(signature, key);
	BIGNUM *n = NULL;
	size_t len;

	if (!text)
		return NULL;
	len = strlen(text);
	if (len < 10 || len > 100 || strspn(text, "0123456789") != len || BN_dec2bn(&n, text) == 0)
		return NULL;
	return n;
}

/* {r, s} as DER; *ret is taken (OPENSSL_free()). */
static int
signature_der(const json_t *signature, unsigned char **ret, size_t *ret_len, char *err)
{
	BIGNUM *r = parse_decimal(signature, "r"), *s = parse_decimal(signature, "s");
	ECDSA_SIG *sig = ECDSA_SIG_new();
	unsigned char *der = NULL;
	int len;

	if (!r || !s || !sig || ECDSA_SIG_set0(sig, r, s) != 1) {
		BN_free(r);
		BN_free(s);
		ECDSA_SIG_free(sig);
		return say(err, -EINVAL, "signature: r and s must be decimal numbers of 10 to 100 digits, as texts");
	}
	len = i2d_ECDSA_SIG(sig, &der);
	ECDSA_SIG_free(sig);
	if (len < 0)
		return say(err, -ENOMEM, "out of memory");
	*ret = der;
	*ret_len = (size_t)len;
	return 0;
}

static int
check_signature(EVP_PKEY *key, const json_t *signature, const uint8_t digest[32], char *err)
{
	EVP_PKEY_CTX *ctx;
	unsigned char *der = NULL;
	size_t len = 0;
	int r = signature_der(signature, &der, &len, err);

	if (r < 0)
		return r;
	ctx = EVP_PKEY_CTX_new(key, NULL);
	if (!ctx || EVP_PKEY_verify_init(ctx) != 1)
		r = say(err, -ENOMEM, "out of memory");
	else if (EVP_PKEY_verify(ctx, der, len, digest, 32) != 1)
		r = say(err, -EINVAL,
		    "wrong signature: it does not fit hash, parent_hash and record, or another key made it");
	EVP_PKEY_CTX_free(ctx);
	OPENSSL_free(der);
	ERR_clear_error();
	return r;
}

int
signer_check(struct record_trust *t, const json_t *signature, const uint8_t digest[32], int64_t at_utc_ns,
    struct signer_identity *ret, char err[RECORD_ERR_MAX])
{
	const char *pem = json_str(signature, "c");
	const struct signer *s = NULL;
	int64_t at_utc_s = at_utc_ns / NS_PER_S - (at_utc_ns % NS_PER_S < 0);
	int r;

	if (!pem || strlen(pem) > SIGNER_PEM_MAX)
		return say(err, -EINVAL, "signature.c: expected the signer's certificate as PEM");
	r = signer_find(t, pem, at_utc_s, &s, err);
	if (r == 0)
		r = check_signature(s->key, signature, digest, err);
	if (r == 0)
		*ret = s->id;
	return r;
}
