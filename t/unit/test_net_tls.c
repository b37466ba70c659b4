/* test_net_tls.c - which files make a context, who is believed, and what a certificate says about its owner
 *
 * T_CERTS names a folder of development certificates. Handshakes run over a pair of memory BIOs.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <errno.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include "hyper/base/fd.h"
#include "hyper/net/tls.h"
#include "unit_tmp.h"

static char tmp[UNIT_TMP_MAX];

static const char *
cert(const char *file)
{
	static char path[128][400];
	static int n;
	char *p = path[n++ % 128];

	snprintf(p, sizeof(path[0]), "%s/%s", getenv("T_CERTS"), file);
	return p;
}

static const char *
own(const char *file)
{
	static char path[8][400];
	static int n;
	char *p = path[n++ % 8];

	snprintf(p, sizeof(path[0]), "%s/%s", tmp, file);
	return p;
}

/* A copy of `from` with these rights. */
static void
copy(const char *from, const char *to, mode_t mode)
{
	FILE *in = fopen(from, "r"), *out = fopen(to, "w");
	char buf[4096];
	size_t n;

	assert_non_null(in);
	assert_non_null(out);
	while ((n = fread(buf, 1, sizeof(buf), in)) > 0)
		assert_int_equal(fwrite(buf, 1, n, out), n);
	fclose(in);
	fclose(out);
	assert_int_equal(chmod(to, mode), 0);
}

/* Borrowed texts; *ret_ca is one element of storage. */
static struct conf_tls
conf(char **ret_ca, const char *ca, const char *crt, const char *key)
{
	struct conf_tls c = { .ca_certificate_files = { ret_ca, ca != NULL ? 1 : 0 },
		.certificate_file = (char *)(uintptr_t)crt,
		.key_file = (char *)(uintptr_t)key,
		.verify_client = true };

	*ret_ca = (char *)(uintptr_t)ca;
	return c;
}

static void
test_ctx(void **state)
{
	const struct {
		const char *ca, *crt, *key;
		enum tls_role role;
		int want;
		const char *why;
	} cases[] = {
		{ cert("root.crt"), cert("hd-1.crt"), cert("hd-1.key"), TLS_SERVER, 0, "" },
		{ cert("root.crt"), cert("hd-1.crt"), cert("hd-1.key"), TLS_CLIENT, 0, "" },
		{ cert("root.crt"), cert("hd-1-sign.crt"), cert("hd-1-sign.key"), TLS_CLIENT, 0, "" },
		{ cert("root.crt"), NULL, NULL, TLS_CLIENT, 0, "" },
		{ cert("root.crt"), NULL, NULL, TLS_SERVER, -EINVAL, "both needed" },
		{ cert("root.crt"), cert("hd-1.crt"), NULL, TLS_CLIENT, -EINVAL, "both needed" },
		{ NULL, cert("hd-1.crt"), cert("hd-1.key"), TLS_SERVER, -EINVAL, "at least one" },
		{ cert("none.crt"), cert("hd-1.crt"), cert("hd-1.key"), TLS_SERVER, -ENOENT, "none.crt" },
		{ cert("hd-1.key"), cert("hd-1.crt"), cert("hd-1.key"), TLS_SERVER, -EINVAL, "CA certificate file" },
		{ "/dev/null", cert("hd-1.crt"), cert("hd-1.key"), TLS_SERVER, -EINVAL, "not a regular file" },
		{ cert("root.crt"), cert("none.crt"), cert("hd-1.key"), TLS_SERVER, -ENOENT, "none.crt" },
		{ cert("root.crt"), cert("hd-1.key"), cert("hd-1.key"), TLS_SERVER, -EINVAL, "PEM certificates" },
		{ cert("root.crt"), cert("hd-1.crt"), cert("none.key"), TLS_SERVER, -ENOENT, "none.key" },
		{ cert("root.crt"), cert("hd-1.crt"), own("cert.key"), TLS_SERVER, -EINVAL, "private key" },
		{ cert("root.crt"), cert("hd-1.crt"), cert("hd-2.key"), TLS_SERVER, -EINVAL, "does not belong" },
		{ cert("root.crt"), cert("hd-1.crt"), cert("hd-1-sign.key"), TLS_SERVER, -EINVAL, "does not belong" },
		{ cert("root.crt"), cert("hd-1.crt"), own("all.key"), TLS_SERVER, -EACCES, "chmod o=" },
		{ cert("root.crt"), cert("hd-1.crt"), own("write.key"), TLS_SERVER, -EACCES, "chmod o=" },
		{ cert("root.crt"), cert("hd-1.crt"), own("group.key"), TLS_SERVER, 0, "" },
		{ cert("root.crt"), cert("hd-1.crt"), own("locked.key"), TLS_SERVER, -EINVAL, "passphrase" },
	};
	size_t i, before = fd_count();

	(void)state;
	for (i = 0; i < ARRAY_LEN(cases); i++) {
		char *ca, err[TLS_ERR_MAX] = "unset";
		struct conf_tls c = conf(&ca, cases[i].ca, cases[i].crt, cases[i].key);
		SSL_CTX *ctx = (void *)&c;
		int rc = tls_ctx_new(&c, cases[i].role, TLS_ALPN_NONE, &ctx, err);

		if (rc != cases[i].want || strstr(err, cases[i].why) == NULL)
			fail_msg("case %zu: %d, %s", i, rc, err);
		assert_int_equal(ERR_peek_error(), 0);
		if (rc == 0)
			SSL_CTX_free(ctx);
		else
			assert_ptr_equal(ctx, &c);
	}
	assert_int_equal(fd_count(), before);
}

/* Runs both sides to their end. True when both are done. */
static bool
handshake(SSL *client, SSL *server)
{
	BIO *c, *s;
	int i, rc = 0, rs = 0;

	assert_int_equal(BIO_new_bio_pair(&c, 65536, &s, 65536), 1);
	SSL_set_bio(client, c, c);
	SSL_set_bio(server, s, s);
	for (i = 0; i < 20 && (rc != 1 || rs != 1); i++) {
		if (rc != 1)
			rc = SSL_do_handshake(client);
		if (rs != 1)
			rs = SSL_do_handshake(server);
	}
	/* TLS 1.3: the client hears of the server's refusal when it reads */
	if (rc == 1 && rs == 1) {
		char byte;

		return SSL_read(client, &byte, 1) < 0 && SSL_get_error(client, -1) == SSL_ERROR_WANT_READ;
	}
	return false;
}

static SSL_CTX *
ctx_new(const char *ca, const char *name, enum tls_role role, enum tls_alpn alpn, bool verify_client)
{
	char crt[64], key[64], *one, err[TLS_ERR_MAX];
	struct conf_tls c;
	SSL_CTX *ctx = NULL;

	snprintf(crt, sizeof(crt), "%s.crt", name != NULL ? name : "");
	snprintf(key, sizeof(key), "%s.key", name != NULL ? name : "");
	c = conf(&one, ca, name != NULL ? cert(crt) : NULL, name != NULL ? cert(key) : NULL);
	c.verify_client = verify_client;
	if (tls_ctx_new(&c, role, alpn, &ctx, err) != 0)
		fail_msg("%s", err);
	return ctx;
}

static void
test_handshake(void **state)
{
	enum { NONE = TLS_ALPN_NONE, H2 = TLS_ALPN_H2 };
	const struct {
		const char *client_ca, *client, *server_ca, *server, *name;
		int client_alpn, server_alpn;
		bool verify_client, want;
	} cases[] = {
		{ "root.crt", "hd-1", "root.crt", "hd-2", "hd-2", H2, H2, true, true },
		{ "root.crt", "hd-1", "root.crt", "hd-2", "hd-2", NONE, NONE, true, true },
		{ "root.crt", "hd-1", "root.crt", "hd-2", "a.hd-2.local", NONE, NONE, true, true },
		{ "root.crt", "hd-1-sign", "root.crt", "hd-2", "hd-2", NONE, NONE, true, true },
		{ "root.crt", NULL, "root.crt", "hd-2", "hd-2", NONE, NONE, false, true },
		/* the name */
		{ "root.crt", "hd-1", "root.crt", "hd-2", "hd-1", NONE, NONE, true, false },
		{ "root.crt", "hd-1", "root.crt", "hd-2", "d-2", NONE, NONE, true, false },
		{ "root.crt", "hd-1", "root.crt", "hd-2", "xhd-2", NONE, NONE, true, false },
		{ "root.crt", "hd-1", "root.crt", "hd-2", "127.0.0.1", NONE, NONE, true, false },
		{ "root.crt", "hd-1", "root.crt", "hd-2", "a.b.hd-2.local", NONE, NONE, true, false },
		/* no certificate, no common CA */
		{ "root.crt", NULL, "root.crt", "hd-2", "hd-2", NONE, NONE, true, false },
		{ "hd-1.crt", "hd-1", "root.crt", "hd-2", "hd-2", NONE, NONE, true,
		    true }, /* its file holds the intermediate */
		{ "ls-1-leaf", "hd-1", "root.crt", "hd-2", "hd-2", NONE, NONE, true, false },
		{ "root.crt", "hd-1", "ls-1-leaf", "hd-2", "hd-2", NONE, NONE, true, false },
		/* h2 or nothing */
		{ "root.crt", "hd-1", "root.crt", "hd-2", "hd-2", NONE, H2, true, false },
	};
	size_t i;

	(void)state;
	for (i = 0; i < ARRAY_LEN(cases); i++) {
		const char *cca = strstr(cases[i].client_ca, "leaf") ? own("leaf.crt") : cert(cases[i].client_ca);
		const char *sca = strstr(cases[i].server_ca, "leaf") ? own("leaf.crt") : cert(cases[i].server_ca);
		SSL_CTX *cc = ctx_new(cca, cases[i].client, TLS_CLIENT, (enum tls_alpn)cases[i].client_alpn, true);
		SSL_CTX *sc = ctx_new(
		    sca, cases[i].server, TLS_SERVER, (enum tls_alpn)cases[i].server_alpn, cases[i].verify_client);
		SSL *c = tls_ssl_new(cc, TLS_CLIENT, cases[i].name), *s = tls_ssl_new(sc, TLS_SERVER, NULL);
		struct tls_peer peer = { .n_names = 99 };

		if (handshake(c, s) != cases[i].want)
			fail_msg("case %zu", i);
		ERR_clear_error();
		if (cases[i].want) {
			assert_int_equal(SSL_session_reused(c), 0);
			assert_int_equal(tls_peer_get(c, &peer), 0);
			assert_string_equal(peer.names[0], cases[i].server);
			assert_int_equal(strlen(peer.fingerprint), 64);
			tls_peer_fini(&peer);
			assert_int_equal(tls_peer_get(s, &peer), cases[i].client != NULL ? 0 : -ENOENT);
			tls_peer_fini(&peer);
		}
		SSL_free(c);
		SSL_free(s);
		SSL_CTX_free(cc);
		SSL_CTX_free(sc);
	}
}

/* A context that a library made, turned into ours. */
static void
test_copy(void **state)
{
	static const struct {
		const char *name;
		bool want;
	} cases[] = { { "hd-2", true }, { "hd-1", false } };
	size_t i;

	(void)state;
	for (i = 0; i < ARRAY_LEN(cases); i++) {
		SSL_CTX *from = ctx_new(cert("root.crt"), "hd-1", TLS_CLIENT, TLS_ALPN_NONE, true);
		SSL_CTX *sc = ctx_new(cert("root.crt"), "hd-2", TLS_SERVER, TLS_ALPN_NONE, true);
		SSL_CTX *theirs = SSL_CTX_new(TLS_client_method());
		SSL *c, *s;

		SSL_CTX_set_verify(theirs, SSL_VERIFY_NONE, NULL);
		assert_true(tls_ctx_copy(theirs, from, cases[i].name));
		assert_false(tls_ctx_copy(theirs, from, ""));
		assert_true(tls_ctx_copy(theirs, from, cases[i].name));
		SSL_CTX_free(from);
		c = SSL_new(theirs);
		SSL_set_connect_state(c);
		s = tls_ssl_new(sc, TLS_SERVER, NULL);
		assert_int_equal(handshake(c, s), cases[i].want);
		ERR_clear_error();
		SSL_free(c);
		SSL_free(s);
		SSL_CTX_free(theirs);
		SSL_CTX_free(sc);
	}
}

static void
test_empty_name(void **state)
{
	SSL_CTX *ctx = ctx_new(cert("root.crt"), NULL, TLS_CLIENT, TLS_ALPN_NONE, true);

	(void)state;
	assert_null(tls_ssl_new(ctx, TLS_CLIENT, "")); /* it would switch the check off */
	SSL_CTX_free(ctx);
}

/* A self-signed certificate with these texts as CN (may be NULL) and SAN (in OpenSSL's syntax, may be NULL). */
static void
peer_case(const char *cn, size_t cn_len, const char *san, int want, const char *names)
{
	EVP_PKEY *key = EVP_EC_gen("P-256");
	X509 *x = X509_new();
	SSL_CTX *cc = SSL_CTX_new(TLS_client_method()), *sc = SSL_CTX_new(TLS_server_method());
	SSL *c, *s;
	struct tls_peer peer = { .n_names = 99 };
	char got[1000] = "";
	size_t i;
	int rc;

	X509_set_version(x, 2);
	X509_gmtime_adj(X509_getm_notBefore(x), 0);
	X509_gmtime_adj(X509_getm_notAfter(x), 3600);
	X509_set_pubkey(x, key);
	if (cn != NULL)
		X509_NAME_add_entry_by_txt(
		    X509_get_subject_name(x), "CN", MBSTRING_ASC, (const unsigned char *)cn, (int)cn_len, -1, 0);
	if (san != NULL) {
		X509_EXTENSION *ext = X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name, san);

		assert_non_null(ext);
		X509_add_ext(x, ext, -1);
		X509_EXTENSION_free(ext);
	}
	X509_sign(x, key, EVP_sha256());
	SSL_CTX_use_certificate(sc, x);
	SSL_CTX_use_PrivateKey(sc, key);
	c = SSL_new(cc);
	s = SSL_new(sc);
	SSL_set_connect_state(c);
	SSL_set_accept_state(s);
	handshake(c, s);
	rc = tls_peer_get(c, &peer);
	if (rc != want)
		fail_msg("%s %s: %d", cn != NULL ? cn : "-", san != NULL ? san : "-", rc);
	if (rc == 0) {
		for (i = 0; i < peer.n_names; i++)
			snprintf(got + strlen(got), sizeof(got) - strlen(got), "%s ", peer.names[i]);
		assert_string_equal(got, names);
		tls_peer_fini(&peer);
		assert_int_equal(peer.n_names, 0);
	} else {
		assert_int_equal(peer.n_names, 99);
	}
	SSL_free(c);
	SSL_free(s);
	SSL_CTX_free(cc);
	SSL_CTX_free(sc);
	X509_free(x);
	EVP_PKEY_free(key);
	ERR_clear_error();
}

static void
test_peer_names(void **state)
{
	(void)state;
	peer_case("a", 1, "DNS:b,DNS:c", 0, "a b c ");
	peer_case("a", 1, "DNS:a,DNS:b,DNS:a,DNS:b", 0, "a b ");
	peer_case("a", 1, NULL, 0, "a ");
	peer_case(NULL, 0, "DNS:b", 0, "b ");
	peer_case("a", 1, "URI:iris-name://x,DNS:b,IP:127.0.0.1,email:q@b", 0, "a b ");
	peer_case(NULL, 0, NULL, 0, "");
	peer_case("hd-1\0.evil.example", 18, NULL, -EINVAL, NULL);
}

static int
setup(void **state)
{
	char line[200];
	FILE *in, *out;

	(void)state;
	if (getenv("T_CERTS") == NULL || mkdtemp(unit_tmp(tmp, "test_net_tls")) == NULL)
		return -1;
	copy(cert("hd-1.crt"), own("cert.key"), 0600);
	copy(cert("hd-1.key"), own("all.key"), 0644);
	copy(cert("hd-1.key"), own("write.key"), 0602);
	copy(cert("hd-1.key"), own("group.key"), 0640);
	/* a leaf alone: no anchor for anybody else */
	in = fopen(cert("ls-1.crt"), "r");
	out = fopen(own("leaf.crt"), "w");
	while (fgets(line, sizeof(line), in) != NULL) {
		fputs(line, out);
		if (strstr(line, "END CERTIFICATE") != NULL)
			break;
	}
	fclose(in);
	fclose(out);
	{
		EVP_PKEY *key = EVP_EC_gen("P-256");
		BIO *bio = BIO_new_file(own("locked.key"), "w");

		PEM_write_bio_PKCS8PrivateKey(bio, key, EVP_aes_128_cbc(), "secret", 6, NULL, NULL);
		BIO_free(bio);
		EVP_PKEY_free(key);
	}
	return chmod(own("locked.key"), 0600);
}

static int
teardown(void **state)
{
	static const char *const files[] = { "cert.key", "all.key", "write.key", "group.key", "leaf.crt",
		"locked.key" };
	size_t i;

	(void)state;
	for (i = 0; i < ARRAY_LEN(files); i++)
		unlink(own(files[i]));
	return rmdir(tmp);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ctx),
		cmocka_unit_test(test_handshake),
		cmocka_unit_test(test_copy),
		cmocka_unit_test(test_empty_name),
		cmocka_unit_test(test_peer_names),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, setup, teardown);
}
