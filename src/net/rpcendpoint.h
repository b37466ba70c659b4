/* rpcendpoint.h - where JSON-RPC calls go, worked out from the settings once; private to src/net */
#ifndef NET_RPCENDPOINT_H
#define NET_RPCENDPOINT_H

#include <curl/curl.h>
#include <openssl/ssl.h>

#include "hyper/base/attr.h"
#include "hyper/net/rpcclient.h"

#define ENDPOINT_TEXT_MAX 300

/* One endpoint and the way to it. Read-only once it is filled; every part is its own. */
struct rpc_endpoint {
	char *url;                     /* host replaced by the name to be verified */
	char *proxy_url;               /* "" none */
	char host[ENDPOINT_TEXT_MAX];  /* without brackets: what the certificate must say */
	char shown[ENDPOINT_TEXT_MAX]; /* the endpoint without user and password, for messages */
	struct curl_slist *headers;    /* of every request */
	struct curl_slist *connect_to; /* where url's host really is; may be NULL */
	SSL_CTX *tls;                  /* NULL: plain HTTP */
	/* The same for lanes; hostport "" where only libcurl knows the way. */
	char hostport[2 * ENDPOINT_TEXT_MAX];
	char host_header[2 * ENDPOINT_TEXT_MAX];
	char path[2 * ENDPOINT_TEXT_MAX];
};

/* Reads the certificate files. 0 with *ret filled, or -errno with `err`; then nothing of *ret needs an end. */
int rpc_endpoint_init(
    const struct conf_rpc_client *conf, struct rpc_endpoint *ret, char err[RPC_CLIENT_ERR_MAX]) ATTR_MUST_USE;

/* One that is all zero is fine. */
void rpc_endpoint_fini(struct rpc_endpoint *);

#endif
