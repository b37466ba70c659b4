/* tls.h - TLS contexts with the project's rules, and who the peer is */
#ifndef HYPER_NET_TLS_H
#define HYPER_NET_TLS_H

#include <stdbool.h>
#include <stddef.h>

#include <openssl/ssl.h>

#include "hyper/base/attr.h"
#include "hyper/settings/conf.h"

#define TLS_ERR_MAX 256

enum tls_role { TLS_SERVER, TLS_CLIENT };
enum tls_alpn { TLS_ALPN_NONE, TLS_ALPN_H2 };

/* Loads the files and sets the rules of protocol.md 3.3 and faults.md: 1.2 or
 * newer, no renegotiation, no compression, no tickets, no session cache, peers
 * verified against ca_certificate_files only. A key file that others may read
 * is refused. 0 with *ret taken (SSL_CTX_free()), or -EINVAL, -ENOENT, -EACCES,
 * -ENOMEM with *ret untouched and `err` naming the file and what is wrong. */
int
tls_ctx_new(const struct conf_tls *, enum tls_role, enum tls_alpn, SSL_CTX **ret, char err[TLS_ERR_MAX]) ATTR_MUST_USE;

/* Makes a client context that a library made (libcurl's) obey `from`: its rules, trust, own
 * certificate and key; peers must be `server_name`. False when OpenSSL refuses. */
bool tls_ctx_copy(SSL_CTX *to, SSL_CTX *from, const char *server_name) ATTR_MUST_USE;

/* A client SSL that insists on `server_name` (SNI and SSL_set1_host), or a
 * server SSL (server_name NULL). NULL when out of memory; taken. */
SSL *tls_ssl_new(SSL_CTX *, enum tls_role, const char *server_name);

/* The peer's leaf certificate: subject CN followed by all DNS SANs without
 * repeats, and the lower-case hex SHA-256 of its DER (protocol.md 3.3 "pinning"). */
struct tls_peer {
	char fingerprint[65]; /* "" without a certificate */
	char **names;
	size_t n_names;
};

/* Does a peer whose handshake began so long ago (ms) keep a server waiting? Such a one makes room where all places are taken. */
bool tls_is_stalled(int fd, int64_t since_ms);

/* 0 with *ret taken, -ENOENT without a peer certificate, -EINVAL, -ENOMEM; then *ret is untouched. */
int tls_peer_get(const SSL *, struct tls_peer *ret) ATTR_MUST_USE;
void tls_peer_fini(struct tls_peer *);
bool tls_peer_has_name(const struct tls_peer *, const char *name);

/* First OpenSSL error of this thread's queue as text, the queue cleared; "unknown" when empty. */
void tls_error_text(char ret[TLS_ERR_MAX]);

#endif
