/* tls.c - TLS contexts with the project's rules, and who the peer is
 *
 * Always true:
 *  1. A client context verifies its peer, whatever the settings say; the name is
 *     checked by OpenSSL itself (SSL_set1_host), against SANs only.
 *  2. What is in ca_certificate_files is trusted and nothing else: no system
 *     store, and an intermediate listed there is a trust anchor of its own.
 *  3. No session outlives its connection: no tickets, no cache, so a certificate
 *     is looked at on every handshake.
 *  4. A key is read through the descriptor whose mode was checked.
 *
 * Not here: handshakes and their deadlines (rpcserver.c, grpc), pinning against
 * the directory (src/server).
 */
#include "hyper/net/tls.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include "hyper/base/bug.h"
#include "hyper/base/bytes.h"
#include "hyper/base/fd.h"
#include "hyper/base/log.h"

/* The last one has no forward secrecy: peers of the reference offer nothing
 * else for RSA certificates in TLS 1.2 (protocol.md 3.3). */
#define TLS12_CIPHERS                                                \
	"ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:" \
	"ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:" \
	"ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305:AES128-GCM-SHA256"
#define TLS_GROUPS    "X25519:P-256:P-384:P-521"
#define TLS_DEPTH_MAX 8
#define TLS_NAMES_MAX 256
#define TLS_NAME_LEN  255
#define TLS_SECLEVEL  2 /* 112 bits: RSA-2048 and SHA-256 pass, SHA-1 does not */
#define TLS_CHAIN_MAX ((long)64 * 1024)
#define TLS_STALL_MS  500

static const unsigned char alpn_h2[] = { 2, 'h', '2' };

void
tls_error_text(char ret[TLS_ERR_MAX])
{
	unsigned long code = ERR_get_error();
	const char *why = code != 0 ? ERR_reason_error_string(code) : "unknown";

	if (why != NULL)
		snprintf(ret, TLS_ERR_MAX, "%s", why);
	else
		ERR_error_string_n(code, ret, TLS_ERR_MAX);
	ERR_clear_error();
}

/* `what` file: OpenSSL's reason. Always -EINVAL. */
static int
file_fault(const char *what, const char *file, const char *hint, char err[TLS_ERR_MAX])
{
	char why[TLS_ERR_MAX];

	tls_error_text(why);
	snprintf(err, TLS_ERR_MAX, "%s %.100s: %.60s%s%s", what, file, why, hint != NULL ? "; " : "",
	    hint != NULL ? hint : "");
	return -EINVAL;
}

/* Opens for reading and says in words why it cannot. A descriptor or -errno. */
static int
file_open(const char *what, const char *file, char err[TLS_ERR_MAX])
{
	int fd = open(file, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	int rc = fd < 0 ? -errno : 0;
	struct stat st;

	if (rc == 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode))
		return fd;
	if (rc == 0) {
		fd_close(&fd);
		snprintf(err, TLS_ERR_MAX, "%s %.160s: not a regular file", what, file);
		return -EINVAL;
	}
	snprintf(err, TLS_ERR_MAX, "%s %.160s: %s", what, file, strerror(-rc));
	return rc == -ENOENT || rc == -EACCES || rc == -ENOMEM ? rc : -EINVAL;
}

static int
load_ca_files(SSL_CTX *ctx, const struct conf_strings *files, enum tls_role role, char err[TLS_ERR_MAX])
{
	STACK_OF(X509_NAME) *names = sk_X509_NAME_new_null();
	int fd = -1, rc = 0;
	size_t i;

	if (names == NULL)
		rc = -ENOMEM;
	if (rc == 0 && files->n == 0) {
		snprintf(err, TLS_ERR_MAX, "tls.ca_certificate_files: at least one file is needed");
		rc = -EINVAL;
	}
	for (i = 0; rc == 0 && i < files->n; i++) {
		fd = file_open("CA certificate file", files->v[i], err);
		rc = fd < 0 ? fd : 0;
		fd_close(&fd);
		if (rc == 0 && SSL_CTX_load_verify_file(ctx, files->v[i]) != 1)
			rc = file_fault("CA certificate file", files->v[i], "a PEM certificate is expected", err);
		if (rc == 0 && SSL_add_file_cert_subjects_to_stack(names, files->v[i]) != 1)
			rc = file_fault("CA certificate file", files->v[i], NULL, err);
	}
	if (rc == 0 && role == TLS_SERVER) {
		/* told to clients, some choose their certificate by it */
		SSL_CTX_set_client_CA_list(ctx, names);
		names = NULL;
	}
	sk_X509_NAME_pop_free(names, X509_NAME_free);
	return rc;
}

/* A daemon has nobody to ask. */
static int
no_passphrase(char *buf, int size, int rwflag, void *arg)
{
	(void)buf;
	(void)size;
	(void)rwflag;
	*(bool *)arg = true;
	return -1;
}

static int
load_key(SSL_CTX *ctx, const char *file, char err[TLS_ERR_MAX])
{
	int fd = file_open("key file", file, err), rc = 0;
	EVP_PKEY *key = NULL;
	bool asked = false;
	BIO *bio = NULL;
	struct stat st;

	if (fd < 0)
		return fd;
	if (fstat(fd, &st) != 0 || (st.st_mode & S_IRWXO) != 0) {
		snprintf(err, TLS_ERR_MAX,
		    "key file %.120s may be used by everybody: take the rights away with chmod o= FILE", file);
		rc = -EACCES;
		goto out;
	}
	bio = BIO_new_fd(fd, BIO_NOCLOSE);
	if (bio == NULL) {
		rc = -ENOMEM;
		goto out;
	}
	key = PEM_read_bio_PrivateKey(bio, NULL, no_passphrase, &asked);
	if (key == NULL) {
		rc = file_fault("key file", file,
		    asked ? "it has a passphrase, which a daemon cannot ask for" : "a PEM private key is expected",
		    err);
	} else if (SSL_CTX_use_PrivateKey(ctx, key) != 1 || SSL_CTX_check_private_key(ctx) != 1) {
		/* the first finds another key of the same type, the second one of another type */
		snprintf(err, TLS_ERR_MAX, "key file %.140s does not belong to certificate_file", file);
		rc = -EINVAL;
	}
out:
	EVP_PKEY_free(key);
	BIO_free(bio);
	fd_close(&fd);
	return rc;
}

/* An expired certificate fails at every peer, each with words of its own: say it here once. */
static void
warn_if_expired(SSL_CTX *ctx, const char *file)
{
	const X509 *leaf = SSL_CTX_get0_certificate(ctx);

	if (leaf != NULL && X509_cmp_current_time(X509_get0_notAfter(leaf)) < 0)
		log_warn("tls", "err=expired file=%s why=\"peers will refuse this certificate, renew it\"", file);
}

static int
load_identity(SSL_CTX *ctx, const struct conf_tls *conf, enum tls_role role, char err[TLS_ERR_MAX])
{
	int fd, rc;

	if (conf->certificate_file == NULL || conf->key_file == NULL) {
		if (role == TLS_CLIENT && conf->certificate_file == NULL && conf->key_file == NULL)
			return 0;
		snprintf(err, TLS_ERR_MAX, "tls: certificate_file and key_file are both needed");
		return -EINVAL;
	}
	fd = file_open("certificate file", conf->certificate_file, err);
	if (fd < 0)
		return fd;
	fd_close(&fd);
	if (SSL_CTX_use_certificate_chain_file(ctx, conf->certificate_file) != 1)
		return file_fault("certificate file", conf->certificate_file,
		    "PEM certificates are expected, own first, then the intermediate", err);
	rc = load_key(ctx, conf->key_file, err);
	if (rc != 0)
		return rc;
	warn_if_expired(ctx, conf->certificate_file);
	return 0;
}

static int
alpn_choose_h2(
    SSL *ssl, const unsigned char **ret, unsigned char *ret_len, const unsigned char *in, unsigned inlen, void *arg)
{
	unsigned char *out = NULL;

	(void)ssl;
	(void)arg;
	if (SSL_select_next_proto(&out, ret_len, alpn_h2, sizeof(alpn_h2), in, inlen) != OPENSSL_NPN_NEGOTIATED)
		return SSL_TLSEXT_ERR_ALERT_FATAL;
	*ret = out;
	return SSL_TLSEXT_ERR_OK;
}

/* OpenSSL asks alpn_choose_h2() only when the client sent the extension at all. */
static int
hello_needs_alpn(SSL *ssl, int *ret_alert, void *arg)
{
	const unsigned char *ext;
	size_t len;

	(void)arg;
	if (SSL_client_hello_get0_ext(ssl, TLSEXT_TYPE_application_layer_protocol_negotiation, &ext, &len) == 1)
		return SSL_CLIENT_HELLO_SUCCESS;
	*ret_alert = SSL_AD_NO_APPLICATION_PROTOCOL;
	return SSL_CLIENT_HELLO_ERROR;
}

static bool
set_alpn_h2(SSL_CTX *ctx, enum tls_role role)
{
	if (role == TLS_CLIENT) /* 0 is success here, unlike everywhere else in OpenSSL */
		return SSL_CTX_set_alpn_protos(ctx, alpn_h2, sizeof(alpn_h2)) == 0;
	SSL_CTX_set_alpn_select_cb(ctx, alpn_choose_h2, NULL);
	SSL_CTX_set_client_hello_cb(ctx, hello_needs_alpn, NULL);
	return true;
}

/* What does not depend on files. */
static bool
set_rules(SSL_CTX *ctx, enum tls_role role, enum tls_alpn alpn, bool verify_client)
{
	int verify = SSL_VERIFY_NONE;

	SSL_CTX_set_security_level(ctx, TLS_SECLEVEL);
	if (SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION) != 1 || SSL_CTX_set_max_proto_version(ctx, 0) != 1 ||
	    SSL_CTX_set_cipher_list(ctx, TLS12_CIPHERS) != 1 || SSL_CTX_set1_groups_list(ctx, TLS_GROUPS) != 1)
		return false;
	SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_NO_TICKET |
				     SSL_OP_IGNORE_UNEXPECTED_EOF | SSL_OP_CIPHER_SERVER_PREFERENCE);
	SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
	if (SSL_CTX_set_num_tickets(ctx, 0) != 1)
		return false;
	SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS);
	SSL_CTX_set_max_cert_list(ctx, TLS_CHAIN_MAX);
	SSL_CTX_set_verify_depth(ctx, TLS_DEPTH_MAX);
	X509_VERIFY_PARAM_set_flags(SSL_CTX_get0_param(ctx), X509_V_FLAG_PARTIAL_CHAIN);
	if (role == TLS_CLIENT)
		verify = SSL_VERIFY_PEER;
	else if (verify_client)
		verify = SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT;
	SSL_CTX_set_verify(ctx, verify, NULL);
	return alpn != TLS_ALPN_H2 || set_alpn_h2(ctx, role);
}

int
tls_ctx_new(const struct conf_tls *conf, enum tls_role role, enum tls_alpn alpn, SSL_CTX **ret, char err[TLS_ERR_MAX])
{
	SSL_CTX *ctx = SSL_CTX_new(role == TLS_SERVER ? TLS_server_method() : TLS_client_method());
	int rc = -ENOMEM;

	snprintf(err, TLS_ERR_MAX, "tls: out of memory");
	if (ctx == NULL)
		goto out;
	if (!set_rules(ctx, role, alpn, conf->verify_client)) {
		rc = file_fault("tls:", "this OpenSSL does not take our settings", NULL, err);
		goto out;
	}
	rc = load_ca_files(ctx, &conf->ca_certificate_files, role, err);
	if (rc == 0)
		rc = load_identity(ctx, conf, role, err);
out:
	ERR_clear_error(); /* leftovers would be taken for the error of a later handshake */
	if (rc != 0) {
		SSL_CTX_free(ctx);
		return rc;
	}
	err[0] = '\0';
	*ret = ctx;
	return 0;
}

/* An address or a name; an empty one would switch the check off. */
static bool
param_set_name(X509_VERIFY_PARAM *param, const char *name)
{
	X509_VERIFY_PARAM_set_hostflags(
	    param, X509_CHECK_FLAG_NEVER_CHECK_SUBJECT | X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
	return name[0] != '\0' &&
	       (X509_VERIFY_PARAM_set1_ip_asc(param, name) == 1 || X509_VERIFY_PARAM_set1_host(param, name, 0) == 1);
}

bool
tls_ctx_copy(SSL_CTX *to, SSL_CTX *from, const char *server_name)
{
	STACK_OF(X509) *chain = NULL;
	X509 *leaf = SSL_CTX_get0_certificate(from);
	bool ok = set_rules(to, TLS_CLIENT, TLS_ALPN_NONE, false);

	SSL_CTX_set1_cert_store(to, SSL_CTX_get_cert_store(from));
	ok = ok && param_set_name(SSL_CTX_get0_param(to), server_name);
	if (ok && leaf != NULL) {
		SSL_CTX_get0_chain_certs(from, &chain);
		ok = SSL_CTX_use_certificate(to, leaf) == 1 && (chain == NULL || SSL_CTX_set1_chain(to, chain) == 1) &&
		     SSL_CTX_use_PrivateKey(to, SSL_CTX_get0_privatekey(from)) == 1;
	}
	ERR_clear_error();
	return ok;
}

SSL *
tls_ssl_new(SSL_CTX *ctx, enum tls_role role, const char *server_name)
{
	SSL *ssl = SSL_new(ctx);
	bool ok = ssl != NULL;

	BUG_ON((role == TLS_CLIENT) != (server_name != NULL));
	if (ok && role == TLS_CLIENT) {
		ASN1_OCTET_STRING *ip = a2i_IPADDRESS(server_name);

		ok = param_set_name(SSL_get0_param(ssl), server_name);
		if (ok && ip == NULL) /* RFC 6066: no addresses in SNI */
			ok = SSL_set_tlsext_host_name(ssl, server_name) == 1;
		ASN1_OCTET_STRING_free(ip);
		SSL_set_connect_state(ssl);
	} else if (ok) {
		SSL_set_accept_state(ssl);
	}
	ERR_clear_error();
	if (!ok) {
		SSL_free(ssl);
		return NULL;
	}
	return ssl;
}

bool
tls_is_stalled(int fd, int64_t since_ms)
{
	int unread = 0;

	/* with bytes to be read it is our turn: a burst on a slow machine must not eat itself */
	return since_ms >= TLS_STALL_MS && ioctl(fd, FIONREAD, &unread) == 0 && unread == 0;
}

void
tls_peer_fini(struct tls_peer *peer)
{
	size_t i;

	for (i = 0; i < peer->n_names; i++)
		free(peer->names[i]);
	free(peer->names);
	memset(peer, 0, sizeof(*peer));
}

bool
tls_peer_has_name(const struct tls_peer *peer, const char *name)
{
	size_t i;

	for (i = 0; i < peer->n_names; i++)
		if (strcmp(peer->names[i], name) == 0)
			return true;
	return false;
}

/* A name that a C string cannot hold is an attack ("hd-1\0.example.com"), not a name to skip. */
static int
peer_add_name(struct tls_peer *peer, const unsigned char *text, int len)
{
	char *copy;

	if (len <= 0 || len > TLS_NAME_LEN || !utf8_is_clean(text, (size_t)len))
		return -EINVAL;
	copy = strndup((const char *)text, (size_t)len);
	if (copy == NULL)
		return -ENOMEM;
	if (tls_peer_has_name(peer, copy)) {
		free(copy);
		return 0;
	}
	if (peer->n_names == TLS_NAMES_MAX) {
		free(copy);
		return -EINVAL;
	}
	peer->names[peer->n_names++] = copy;
	return 0;
}

/* Of several CNs the last one counts, as for the reference's peers. */
static int
peer_add_cn(struct tls_peer *peer, const X509 *leaf)
{
	const X509_NAME *subject = X509_get_subject_name(leaf);
	unsigned char *text = NULL;
	int at, next = -1, len, rc;

	do {
		at = next;
		next = X509_NAME_get_index_by_NID(subject, NID_commonName, at);
	} while (next >= 0);
	if (at < 0)
		return 0;
	len = ASN1_STRING_to_UTF8(&text, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at)));
	if (len < 0)
		return -EINVAL;
	rc = len == 0 ? 0 : peer_add_name(peer, text, len);
	OPENSSL_free(text);
	return rc;
}

static int
peer_add_sans(struct tls_peer *peer, const X509 *leaf)
{
	int i, crit = -1, rc = 0;
	GENERAL_NAMES *sans = X509_get_ext_d2i(leaf, NID_subject_alt_name, &crit, NULL);

	if (sans == NULL)
		return crit == -1 ? 0 : -EINVAL; /* -1: the certificate has none */
	for (i = 0; rc == 0 && i < sk_GENERAL_NAME_num(sans); i++) {
		const GENERAL_NAME *n = sk_GENERAL_NAME_value(sans, i);

		if (n->type == GEN_DNS)
			rc = peer_add_name(peer, ASN1_STRING_get0_data(n->d.dNSName), ASN1_STRING_length(n->d.dNSName));
	}
	GENERAL_NAMES_free(sans);
	return rc;
}

static int
peer_set_fingerprint(struct tls_peer *peer, const X509 *leaf)
{
	unsigned char digest[EVP_MAX_MD_SIZE];
	unsigned len = 0;

	if (X509_digest(leaf, EVP_sha256(), digest, &len) != 1 || len != SHA256_LEN)
		return -ENOMEM;
	hex_encode(digest, SHA256_LEN, peer->fingerprint);
	return 0;
}

int
tls_peer_get(const SSL *ssl, struct tls_peer *ret)
{
	const X509 *leaf = SSL_get0_peer_certificate(ssl);
	struct tls_peer peer = { .names = NULL };
	int rc;

	if (leaf == NULL)
		return -ENOENT;
	peer.names = calloc(TLS_NAMES_MAX, sizeof(*peer.names));
	if (peer.names == NULL)
		return -ENOMEM;
	rc = peer_set_fingerprint(&peer, leaf);
	if (rc == 0)
		rc = peer_add_cn(&peer, leaf);
	if (rc == 0)
		rc = peer_add_sans(&peer, leaf);
	ERR_clear_error();
	if (rc != 0) {
		tls_peer_fini(&peer);
		return rc;
	}
	*ret = peer;
	return 0;
}
