/* rpcjudge.c - what the head of a request decides, and how the head of an answer looks
 *
 * Always true:
 *  1. Who is calling comes first: a client that may not call learns nothing about paths.
 *  2. No stranger's bytes reach a header line unless the head scan let them pass.
 *
 * Not here: bodies, sockets (rpcconn.c).
 */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <event2/buffer.h>

#include "hyper/wire/json.h"
#include "net/rpcconn.h"

#define JSON_TYPE "application/json; charset=utf-8"

static enum rpc_judge_result
plain(struct rpc_verdict *ret, int status, enum rpc_judge_result result)
{
	ret->status = status;
	return result;
}

/* What is permitted, for the message: "hd-1, hd-2". */
static void
permitted_names(const struct rpc_server *srv, char *ret, size_t cap)
{
	const struct conf_strings *list = &srv->conf->allowed_clients;
	size_t i, at = 0;

	if (list->n == 0)
		snprintf(ret, cap, "%s", srv->own_name);
	for (i = 0; i < list->n && at < cap; i++)
		at += (size_t)snprintf(ret + at, cap - at, "%s%s", i > 0 ? ", " : "", list->v[i]);
}

/* protocol.md "Who is calling": any certificate of the CA would otherwise act as this operator. */
static bool
client_is_permitted(const struct rpc_server *srv, const struct tls_peer *peer)
{
	const struct conf_rpc_server *conf = srv->conf;
	size_t i;

	if (conf->tls == NULL || !conf->tls->verify_client)
		return true;
	if (conf->allowed_clients.n == 0)
		return srv->own_name == NULL || (peer != NULL && tls_peer_has_name(peer, srv->own_name));
	for (i = 0; peer != NULL && i < conf->allowed_clients.n; i++)
		if (tls_peer_has_name(peer, conf->allowed_clients.v[i]))
			return true;
	return false;
}

enum rpc_judge_result
rpc_judge(const struct rpc_server *srv, const struct http_head *h, const struct tls_peer *peer, struct rpc_verdict *ret)
{
	char names[256];

	if (!client_is_permitted(srv, peer)) {
		permitted_names(srv, names, sizeof(names));
		rpc_verdict_set(ret, 403, RPC_DENIED,
		    "this client certificate (%.100s) may not call here: one of the names '%s' is expected, see the "
		    "setting allowed_clients",
		    peer != NULL && peer->n_names > 0 ? peer->names[0] : "without a name", names);
		return RPC_JUDGE_REFUSE;
	}
	if (strcmp(h->method, "OPTIONS") == 0 && cors_permits(srv->cors, h->origin))
		return plain(ret, 200, RPC_JUDGE_PREFLIGHT);
	if (strcmp(h->path, srv->conf->path) != 0)
		return plain(ret, 404, RPC_JUDGE_NOT_FOUND);
	if (strcmp(h->method, "POST") != 0) {
		rpc_verdict_set(ret, 405, RPC_INVALID_REQUEST, "HTTP method %.20s: POST is expected", h->method);
		return RPC_JUDGE_REFUSE;
	}
	if (!http_is_json(h->content_type)) {
		rpc_verdict_set(ret, 400, RPC_PARSE, "JSON required");
		return RPC_JUDGE_REFUSE;
	}
	if (h->length > (int64_t)JSON_MAX_BYTES) {
		rpc_verdict_set(ret, 413, RPC_PARSE, "the body has %lld bytes, the limit is %zu", (long long)h->length,
		    JSON_MAX_BYTES);
		return RPC_JUDGE_REFUSE;
	}
	return RPC_JUDGE_SERVE;
}

/* "Date: ...\r\n" of the current second, made once in it; "" when there is no such date. */
static const char *
date_line(void)
{
	static char line[64];
	static time_t of = (time_t)-1;
	time_t now_utc = time(NULL);
	struct tm tm;

	if (now_utc != of && (gmtime_r(&now_utc, &tm) == NULL ||
				 strftime(line, sizeof(line), "Date: %a, %d %b %Y %H:%M:%S GMT\r\n", &tm) == 0))
		return "";
	of = now_utc;
	return line;
}

void
rpc_response_head(const struct rpc_server *srv, const struct http_head *request, int status, size_t body_len, bool keep,
    struct evbuffer *out)
{
	const char *connection = !keep ? "Connection: close\r\n" : "Connection: keep-alive\r\n";

	evbuffer_add_printf(out, "HTTP/1.1 %d %s\r\n%s%sContent-Length: %zu\r\n%s", status, http_status_text(status),
	    date_line(), body_len > 0 ? "Content-Type: " JSON_TYPE "\r\n" : "", body_len,
	    keep && request->http11 ? "" : connection);
	if (status == 405)
		evbuffer_add_printf(out, "Allow: %s\r\n", srv->cors != NULL ? "POST, OPTIONS" : "POST");
	if (cors_permits(srv->cors, request->origin))
		cors_add_headers(srv->cors, request->origin, request->acr_headers, out);
	evbuffer_add(out, "\r\n", 2);
}
