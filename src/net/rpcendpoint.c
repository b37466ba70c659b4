/* rpcendpoint.c - the endpoint of JSON-RPC calls as libcurl and lanes want to have it
 *
 * Always true of a filled one:
 *  1. Only http:// and https:// are spoken, and https:// never without certificates to judge by.
 *  2. `url` names whom the certificate must name. Where that is not where the endpoint is, `connect_to` and the
 *     line Host of `headers` say what the settings say.
 *  3. `shown` holds no user, no password and no query: it is what messages and logs may say, also when
 *     the endpoint is refused. Nothing of proxy_url is ever said.
 *  4. `hostport` is filled only where a plain connection does: no proxy, no password, no text that is too long.
 *
 * Not here: connecting (rpccurl.c, rpclane.c), the rules of TLS (tls.c).
 */
#include "net/rpcendpoint.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "hyper/base/log.h"
#include "hyper/net/tls.h"

static int
refuse(char err[RPC_CLIENT_ERR_MAX], const struct rpc_endpoint *at, const char *why)
{
	snprintf(err, RPC_CLIENT_ERR_MAX, "jsonrpc_client: endpoint '%.100s': %s", at->shown, why);
	return -EINVAL;
}

/* One part of a URL into `ret`, which holds ENDPOINT_TEXT_MAX bytes. */
static bool
url_part(CURLU *u, CURLUPart part, unsigned flags, char *ret)
{
	char *text = NULL;
	bool ok = curl_url_get(u, part, &text, flags) == CURLUE_OK && strlen(text) < ENDPOINT_TEXT_MAX;

	if (ok)
		snprintf(ret, ENDPOINT_TEXT_MAX, "%s", text);
	curl_free(text);
	return ok;
}

static bool
add_header(struct rpc_endpoint *at, const char *line)
{
	struct curl_slist *list = curl_slist_append(at->headers, line);

	if (list != NULL)
		at->headers = list;
	return list != NULL;
}

/* The URL names whom the certificate must name; CONNECT_TO and Host say what the endpoint says. */
static int
set_server_name(struct rpc_endpoint *at, const struct conf_rpc_client *conf, CURLU *u, const char *real,
    char err[RPC_CLIENT_ERR_MAX])
{
	const char *name = conf->tls->server_name;
	char port[ENDPOINT_TEXT_MAX], shown_port[ENDPOINT_TEXT_MAX], line[2 * ENDPOINT_TEXT_MAX + 16];
	bool explicit_port = url_part(u, CURLUPART_PORT, 0, shown_port);

	if (!url_part(u, CURLUPART_PORT, CURLU_DEFAULT_PORT, port) ||
	    curl_url_set(u, CURLUPART_HOST, name, 0) != CURLUE_OK || strlen(name) >= sizeof(at->host))
		return refuse(err, at, "tls.server_name is no host name");
	snprintf(line, sizeof(line), "::%s:%s", real, port);
	at->connect_to = curl_slist_append(NULL, line);
	snprintf(line, sizeof(line), "Host: %s%s%s", real, explicit_port ? ":" : "", explicit_port ? shown_port : "");
	snprintf(at->host, sizeof(at->host), "%s", name);
	return at->connect_to != NULL && add_header(at, line) ? 0 : -ENOMEM;
}

/* What lanes need. Nothing for a proxy, a password, or what is too long. */
static void
set_direct(struct rpc_endpoint *at, const struct conf_rpc_client *conf, CURLU *u, const char *real)
{
	char port[ENDPOINT_TEXT_MAX], path[ENDPOINT_TEXT_MAX], query[ENDPOINT_TEXT_MAX], part[ENDPOINT_TEXT_MAX];
	bool has_port = url_part(u, CURLUPART_PORT, 0, port), has_query = url_part(u, CURLUPART_QUERY, 0, query);

	if (at->proxy_url[0] != '\0' || url_part(u, CURLUPART_USER, 0, part) ||
	    url_part(u, CURLUPART_OPTIONS, 0, part) || url_part(u, CURLUPART_ZONEID, 0, part) ||
	    !url_part(u, CURLUPART_PATH, 0, path) || strlen(conf->endpoint) >= ENDPOINT_TEXT_MAX)
		return;
	snprintf(at->host_header, sizeof(at->host_header), "%s%s%s", real, has_port ? ":" : "", has_port ? port : "");
	snprintf(at->path, sizeof(at->path), "%s%s%s", path, has_query ? "?" : "", has_query ? query : "");
	if (url_part(u, CURLUPART_PORT, CURLU_DEFAULT_PORT, port))
		snprintf(at->hostport, sizeof(at->hostport), "%s:%s", real, port);
}

/* For messages: no user, no password, no query. */
static void
set_shown(struct rpc_endpoint *at, const struct conf_rpc_client *conf, CURLU *u)
{
	if (curl_url_set(u, CURLUPART_URL, conf->endpoint, 0) != CURLUE_OK ||
	    curl_url_set(u, CURLUPART_USER, NULL, 0) != CURLUE_OK ||
	    curl_url_set(u, CURLUPART_PASSWORD, NULL, 0) != CURLUE_OK ||
	    curl_url_set(u, CURLUPART_QUERY, NULL, 0) != CURLUE_OK || !url_part(u, CURLUPART_URL, 0, at->shown))
		snprintf(at->shown, sizeof(at->shown), "(not shown)");
}

static int
set_url(struct rpc_endpoint *at, const struct conf_rpc_client *conf, CURLU *u, char err[RPC_CLIENT_ERR_MAX])
{
	char scheme[ENDPOINT_TEXT_MAX], real[ENDPOINT_TEXT_MAX], *url = NULL;
	bool https;
	size_t len;
	int rc = 0;

	if (curl_url_set(u, CURLUPART_URL, conf->endpoint, 0) != CURLUE_OK ||
	    !url_part(u, CURLUPART_SCHEME, 0, scheme) || !url_part(u, CURLUPART_HOST, 0, real))
		return refuse(err, at, "http://host:port/path or https://... is expected");
	https = strcmp(scheme, "https") == 0;
	if (!https && strcmp(scheme, "http") != 0)
		return refuse(err, at, "only http:// and https:// are spoken");
	if (https && conf->tls == NULL)
		return refuse(err, at, "https:// needs the settings group tls");
	if (!https && conf->tls != NULL)
		log_warn("rpcclient", "why=\"endpoint %s is http://: the settings group tls is not used\"", real);
	len = strlen(real);
	if (real[0] == '[') /* certificates name addresses without brackets */
		snprintf(at->host, sizeof(at->host), "%.*s", (int)len - 2, real + 1);
	else
		snprintf(at->host, sizeof(at->host), "%s", real);
	set_direct(at, conf, u, real);
	if (https) {
		rc = tls_ctx_new(conf->tls, TLS_CLIENT, TLS_ALPN_NONE, &at->tls, err);
		if (rc == 0 && conf->tls->server_name != NULL && strcasecmp(conf->tls->server_name, at->host) != 0)
			rc = set_server_name(at, conf, u, real, err);
	}
	if (rc == 0 && curl_url_get(u, CURLUPART_URL, &url, 0) == CURLUE_OK)
		at->url = strdup(url);
	curl_free(url);
	return rc != 0 || at->url != NULL ? rc : -ENOMEM;
}

/* The headers and the proxy: what does not hang on the URL. */
static int
set_common(struct rpc_endpoint *at, const struct conf_rpc_client *conf, char err[RPC_CLIENT_ERR_MAX])
{
	if (conf->proxy_url != NULL && strncasecmp(conf->proxy_url, "http://", 7) != 0) {
		/* the value may hold a password */
		snprintf(err, RPC_CLIENT_ERR_MAX, "jsonrpc_client: proxy_url: http://host:port is expected");
		return -EINVAL;
	}
	at->proxy_url = strdup(conf->proxy_url != NULL ? conf->proxy_url : "");
	if (at->proxy_url == NULL || !add_header(at, "Content-Type: application/json") ||
	    !add_header(at, "Accept: application/json") || !add_header(at, "Expect:"))
		return -ENOMEM;
	return 0;
}

int
rpc_endpoint_init(const struct conf_rpc_client *conf, struct rpc_endpoint *ret, char err[RPC_CLIENT_ERR_MAX])
{
	struct rpc_endpoint at = { 0 };
	CURLU *u = curl_url();
	int rc = u != NULL ? 0 : -ENOMEM;

	snprintf(err, RPC_CLIENT_ERR_MAX, "jsonrpc_client: out of memory");
	if (rc == 0)
		rc = set_common(&at, conf, err);
	if (rc == 0) {
		set_shown(&at, conf, u);
		rc = set_url(&at, conf, u, err);
	}
	if (rc == 0) {
		*ret = at;
		err[0] = '\0';
	} else {
		rpc_endpoint_fini(&at);
	}
	curl_url_cleanup(u);
	return rc;
}

void
rpc_endpoint_fini(struct rpc_endpoint *at)
{
	curl_slist_free_all(at->headers);
	curl_slist_free_all(at->connect_to);
	SSL_CTX_free(at->tls);
	free(at->url);
	free(at->proxy_url);
	*at = (struct rpc_endpoint){ 0 };
}
