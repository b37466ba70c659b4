/* authority.c - a root of our own and what it issues, to test what the reference's certificates cannot show */
#include "authority.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include "hyper/base/clock.h"

#define NS_PER_S ((int64_t)1000000000)

struct record_trust *
trust_of(const char *root, const char *intermediate)
{
	char *roots[] = { (char *)root }, *inters[] = { (char *)intermediate };
	struct conf_strings r = { roots, 1 }, i = { inters, intermediate ? 1 : 0 };
	struct record_trust *t = NULL;
	char err[RECORD_ERR_MAX] = "";

	if (record_trust_new(&r, &i, &t, err) < 0)
		fail_msg("%s", err);
	return t;
}

X509 *
issue(struct authority *a, const char *san, const char *usage, const char *eku, EVP_PKEY *key, int64_t from_utc_s,
    int64_t to_utc_s)
{
	static long serial;
	X509 *cert = X509_new();
	X509_NAME *name = X509_get_subject_name(cert);
	const struct {
		int nid;
		const char *value;
	} ext[] = { { NID_basic_constraints, san ? NULL : "critical,CA:TRUE" }, { NID_key_usage, usage },
		{ NID_ext_key_usage, eku }, { NID_subject_alt_name, san } };
	X509_EXTENSION *e;
	size_t i;

	X509_set_version(cert, 2);
	ASN1_INTEGER_set(X509_get_serialNumber(cert), ++serial);
	ASN1_TIME_set(X509_getm_notBefore(cert), from_utc_s);
	ASN1_TIME_set(X509_getm_notAfter(cert), to_utc_s);
	X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)(san ? "leaf" : "root"), -1, -1, 0);
	X509_set_issuer_name(cert, a->cert ? X509_get_subject_name(a->cert) : name);
	X509_set_pubkey(cert, key);
	for (i = 0; i < ARRAY_LEN(ext); i++) {
		if (!ext[i].value)
			continue;
		e = X509V3_EXT_conf_nid(NULL, NULL, ext[i].nid, ext[i].value);
		assert_non_null(e);
		X509_add_ext(cert, e, -1);
		X509_EXTENSION_free(e);
	}
	assert_true(X509_sign(cert, a->key, EVP_sha256()) > 0);
	return cert;
}

void
authority_init(struct authority *a)
{
	FILE *f;
	int fd;

	*a = (struct authority){ 0 };
	a->key = EVP_EC_gen("P-256");
	a->cert = issue(a, NULL, "critical,keyCertSign", NULL, a->key, 1000, 4000000000);
	fd = mkstemp(unit_tmp(a->path, "test_records"));
	assert_true(fd >= 0);
	f = fdopen(fd, "w");
	PEM_write_X509(f, a->cert);
	fclose(f);
	a->trust = trust_of(a->path, NULL);
}

void
authority_fini(struct authority *a)
{
	unlink(a->path);
	record_trust_free(a->trust);
	X509_free(a->cert);
	EVP_PKEY_free(a->key);
}

char *
pem_of(X509 *cert)
{
	BIO *bio = BIO_new(BIO_s_mem());
	char *data, *text;
	long n;

	PEM_write_bio_X509(bio, cert);
	n = BIO_get_mem_data(bio, &data);
	text = strndup(data, (size_t)n);
	BIO_free(bio);
	return text;
}

json_t *
signed_record(const char *parent, const char *section, const char *name, json_t *data, int64_t at_utc_s, EVP_PKEY *key,
    const char *pem)
{
	char when[CLOCK_RFC3339_MAX], err[RECORD_ERR_MAX];
	json_t *raw, *record = NULL, *out = NULL;

	clock_rfc3339(at_utc_s * NS_PER_S, when);
	raw = json_pack("{s:s, s:s, s:o, s:s}", "name", name, "section", section, "data", data, "created_at", when);
	assert_int_equal(record_normalise(raw, RECORD_OPEN, &record, err), 0);
	assert_int_equal(record_sign(record, parent, key, pem, &out, err), 0);
	json_decref(raw);
	json_decref(record);
	return out;
}
