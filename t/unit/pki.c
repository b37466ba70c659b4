/* pki.c - a small certificate authority for unit tests: P-256 keys, one root, leaves under it */
#include "pki.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/pem.h>
#include <openssl/x509v3.h>

static void
must(bool ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "pki: %s failed\n", what);
	abort();
}

static FILE *
file_of(const char *dir, const char *name, const char *suffix, const char *mode)
{
	char path[512];
	FILE *f;

	snprintf(path, sizeof path, "%s/%s.%s", dir, name, suffix);
	f = fopen(path, mode);
	must(f != NULL, path);
	return f;
}

static void
extension(X509 *crt, X509 *issuer, int nid, const char *value)
{
	X509_EXTENSION *ext;
	X509V3_CTX ctx;

	X509V3_set_ctx(&ctx, issuer, crt, NULL, NULL, 0);
	ext = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
	must(ext != NULL && X509_add_ext(crt, ext, -1) == 1, value);
	X509_EXTENSION_free(ext);
}

/* Writes name.crt and name.key. `issuer` NULL: self-signed CA. */
static void
make(const char *dir, const char *name, X509 *issuer, EVP_PKEY *issuer_key)
{
	static long serial = 1;
	EVP_PKEY *key = EVP_EC_gen("P-256");
	X509 *crt = X509_new();
	char san[300];
	FILE *f;

	must(key != NULL && crt != NULL, "key");
	X509_set_version(crt, 2);
	ASN1_INTEGER_set(X509_get_serialNumber(crt), serial++);
	X509_gmtime_adj(X509_getm_notBefore(crt), -3600);
	X509_gmtime_adj(X509_getm_notAfter(crt), 86400);
	X509_set_pubkey(crt, key);
	X509_NAME_add_entry_by_txt(
	    X509_get_subject_name(crt), "CN", MBSTRING_UTF8, (const unsigned char *)name, -1, -1, 0);
	X509_set_issuer_name(crt, X509_get_subject_name(issuer != NULL ? issuer : crt));
	snprintf(san, sizeof san, "DNS:%s", name);
	if (issuer != NULL)
		extension(crt, issuer, NID_subject_alt_name, san);
	else
		extension(crt, crt, NID_basic_constraints, "critical,CA:TRUE");
	must(X509_sign(crt, issuer_key != NULL ? issuer_key : key, EVP_sha256()) > 0, "sign");
	umask(077);
	f = file_of(dir, name, "crt", "w");
	must(PEM_write_X509(f, crt) == 1 && fclose(f) == 0, "write certificate");
	f = file_of(dir, name, "key", "w");
	must(PEM_write_PrivateKey(f, key, NULL, NULL, 0, NULL, NULL) == 1 && fclose(f) == 0, "write key");
	X509_free(crt);
	EVP_PKEY_free(key);
}

void
pki_open(char *dir)
{
	must(mkdtemp(dir) != NULL, "mkdtemp");
	make(dir, "ca", NULL, NULL);
}

void
pki_issue(const char *dir, const char *name)
{
	FILE *f = file_of(dir, "ca", "crt", "r");
	X509 *ca = PEM_read_X509(f, NULL, NULL, NULL);
	EVP_PKEY *key;

	fclose(f);
	f = file_of(dir, "ca", "key", "r");
	key = PEM_read_PrivateKey(f, NULL, NULL, NULL);
	fclose(f);
	must(ca != NULL && key != NULL, "read ca");
	make(dir, name, ca, key);
	X509_free(ca);
	EVP_PKEY_free(key);
}

static char *
path_of(const char *dir, const char *name, const char *suffix)
{
	char *path = NULL;

	must(asprintf(&path, "%s/%s.%s", dir, name, suffix) > 0, "memory");
	return path;
}

struct conf_tls
pki_conf(const char *dir, const char *name)
{
	struct conf_tls conf = { .verify_client = true };

	conf.ca_certificate_files.v = calloc(1, sizeof(char *));
	must(conf.ca_certificate_files.v != NULL, "memory");
	conf.ca_certificate_files.v[0] = path_of(dir, "ca", "crt");
	conf.ca_certificate_files.n = 1;
	if (name != NULL) {
		conf.certificate_file = path_of(dir, name, "crt");
		conf.key_file = path_of(dir, name, "key");
	}
	return conf;
}

void
pki_conf_fini(struct conf_tls *conf)
{
	free(conf->ca_certificate_files.v[0]);
	free(conf->ca_certificate_files.v);
	free(conf->certificate_file);
	free(conf->key_file);
	memset(conf, 0, sizeof *conf);
}

void
pki_close(const char *dir)
{
	const struct dirent *e;
	DIR *d = opendir(dir);
	char path[512];

	must(d != NULL, dir);
	while ((e = readdir(d)) != NULL) {
		if (e->d_name[0] == '.')
			continue;
		snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
		unlink(path);
	}
	closedir(d);
	rmdir(dir);
}
