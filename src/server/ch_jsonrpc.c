/* ch_jsonrpc.c - JSON-RPC between this server and its own operator's applications
 *
 *   application --POST--> jsonrpc_server --> broker ... broker --> jsonrpc_client --POST--> local service
 *
 * Always true:
 *  1. A request of the server channel is the own operator's; the certificate
 *     was checked below (allowed_clients, default: the own name).
 *  2. The client channel sends the bare method and the whole internal id, with
 *     `_client` in the parameters (protocol.md 4.4).
 *
 * Not here: HTTP (src/net), unwrapping of {"_": value} (src/wire).
 */
#include "server/ch_jsonrpc.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hyper/base/clock.h"
#include "hyper/net/rpcclient.h"
#include "hyper/net/rpcserver.h"
#include "server/broker.h"
#include "server/reply.h"

struct ch_rpc_server {
	struct rpc_server *server; /* NULL once closed */
	struct broker *broker;
	const char *own_name;
};

struct ch_rpc_client {
	struct event_base *base;
	struct rpc_client *client;
	const char *own_name;
};

static void
server_on_answer(struct rpc_answer *a, bool failed, void *arg)
{
	struct rpc_answer answer = *a;

	(void)failed; /* the code says it: protocol.md 4.2 */
	*a = (struct rpc_answer){ 0 };
	rpc_call_answer(arg, answer);
}

static void
server_on_request(struct rpc_call *call, void *arg)
{
	struct ch_rpc_server *ch = arg;
	const struct rpc_request *req = rpc_call_request(call);
	struct broker_in in = {
		.client = ch->own_name, .method = req->method, .params = req->params, .is_edge = true, .as_text = true
	};
	char *id;

	if (asprintf(&id, "%s(%s)", req->method, req->id) < 0) {
		rpc_call_answer(call, rpc_fail(RPC_INTERNAL, NULL, "internal error"));
		return;
	}
	in.id = id;
	if (broker_call(ch->broker, &in, server_on_answer, call) < 0)
		rpc_call_answer(call, rpc_fail(RPC_INTERNAL, NULL, "internal error"));
	free(id);
}

int
ch_rpc_server_new(struct event_base *base, const struct conf_rpc_server *conf, const char *own_name,
    struct broker *broker, struct ch_rpc_server **ret, char err[CH_ERR_MAX])
{
	struct ch_rpc_server *ch = calloc(1, sizeof(*ch));
	char why[RPC_SERVER_ERR_MAX] = "out of memory";
	int rc = -ENOMEM;

	if (ch) {
		ch->broker = broker;
		ch->own_name = own_name;
		rc = rpc_server_new(base, conf, own_name, server_on_request, ch, &ch->server, why);
	}
	if (rc < 0) {
		snprintf(err, CH_ERR_MAX, "jsonrpc_server: %s", why);
		free(ch);
		return rc;
	}
	*ret = ch;
	return 0;
}

uint16_t
ch_rpc_server_port(const struct ch_rpc_server *ch)
{
	return rpc_server_port(ch->server);
}

void
ch_rpc_server_apply(struct ch_rpc_server *ch, const char *own_name, struct rpc_server_next *next)
{
	ch->own_name = own_name;
	rpc_server_apply(ch->server, next);
}

void
ch_rpc_server_close(struct ch_rpc_server *ch)
{
	if (!ch)
		return;
	rpc_server_free(ch->server);
	ch->server = NULL;
}

void
ch_rpc_server_free(struct ch_rpc_server *ch)
{
	ch_rpc_server_close(ch);
	free(ch);
}

const struct channel_ops ch_rpc_server_ops = { "jsonrpc_server", NULL, NULL };

struct local_call {
	deliver_cb cb;
	void *arg;
};

static bool
client_can_deliver(void *arg, const struct request *req)
{
	const struct ch_rpc_client *ch = arg;

	return strcmp(req->addr.operator, ch->own_name) == 0;
}

static void
client_on_answer(struct rpc_answer *answer, void *arg)
{
	struct local_call call = *(struct local_call *)arg;

	free(arg);
	call.cb(answer, answer->is_local, call.arg);
}

static int
client_deliver(void *arg, const struct request *req, deliver_cb cb, void *cb_arg)
{
	struct ch_rpc_client *ch = arg;
	int64_t left_ms = req->deadline_ms - clock_now_ms();
	struct local_call *call = calloc(1, sizeof(*call));

	if (!call)
		return -ENOMEM;
	call->cb = cb;
	call->arg = cb_arg;
	rpc_client_call(
	    ch->client, req->addr.method, req->params, req->id, left_ms > 1 ? left_ms : 1, client_on_answer, call);
	return 0;
}

const struct channel_ops ch_rpc_client_ops = { "jsonrpc_client", client_can_deliver, client_deliver };

int
ch_rpc_client_new(struct event_base *base, const struct conf_rpc_client *conf, const char *own_name,
    struct ch_rpc_client **ret, char err[CH_ERR_MAX])
{
	struct ch_rpc_client *ch = calloc(1, sizeof(*ch));
	char why[RPC_CLIENT_ERR_MAX] = "out of memory";
	int rc = -ENOMEM;

	if (ch) {
		ch->base = base;
		ch->own_name = own_name;
		rc = rpc_client_new(base, conf, &ch->client, why);
	}
	if (rc < 0) {
		snprintf(err, CH_ERR_MAX, "jsonrpc_client: %s", why);
		free(ch);
		return rc;
	}
	*ret = ch;
	return 0;
}

void
ch_rpc_client_apply(struct ch_rpc_client *ch, const char *own_name, struct rpc_client *client)
{
	ch->own_name = own_name;
	rpc_client_replace(client, ch->client);
	ch->client = client;
}

void
ch_rpc_client_close(struct ch_rpc_client *ch)
{
	if (!ch)
		return;
	rpc_client_free(ch->client);
	ch->client = NULL;
}

void
ch_rpc_client_free(struct ch_rpc_client *ch)
{
	ch_rpc_client_close(ch);
	free(ch);
}
