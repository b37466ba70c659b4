/* hyper_call.c - one call through the operator's own running server
 *
 *   hyper call/ping --JSON-RPC--> own `hyper server run` --> ... --> the other operator
 *
 * Always true:
 *  1. One request at a time; the private loop ends with its answer.
 *  2. The client certificate is the server's own: that is the one name the
 *     server always lets in.
 *
 * Not here: brokering. The steps that `ping` prints are the server's answer
 * to its internal method `_connections`.
 */
#include "cli/hyper_call.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <event2/event.h>
#include <jansson.h>

#include "hyper/base/clock.h"
#include "hyper/base/daemon.h"
#include "hyper/net/listen.h"
#include "hyper/net/rpcclient.h"
#include "hyper/wire/address.h"
#include "hyper/wire/json.h"
#include "hyper/wire/rpc.h"

struct caller {
	struct event_base *base;
	struct rpc_client *client;
	struct conf_rpc_client conf;
	struct conf_tls tls;
	char endpoint[HOSTPORT_MAX + 64];
	int64_t timeout_ms;
	struct rpc_answer answer; /* taken from the reply */
	bool answered;
};

static const struct conf_rpc_server *
call_find_server(const struct conf_hyper *conf)
{
	for (size_t i = 0; i < conf->n_channels; i++)
		if (conf->channels[i].type == CONF_CH_JSONRPC_SERVER)
			return conf->channels[i].rpc_server;
	return NULL;
}

/* The listener's address as something to dial: "0.0.0.0" and "[::]" become localhost. */
static int
call_endpoint(struct caller *c, const struct conf_rpc_server *server)
{
	char host[256];
	uint16_t port;
	const char *dial = host;

	if (hostport_parse(server->bind_address, host, &port) < 0 || port == 0)
		return -EINVAL;
	if (strcmp(host, "0.0.0.0") == 0 || strcmp(host, "::") == 0)
		dial = "localhost";
	snprintf(c->endpoint, sizeof c->endpoint, strchr(dial, ':') ? "%s://[%s]:%u%s" : "%s://%s:%u%s",
	    server->tls ? "https" : "http", dial, port, server->path);
	return 0;
}

static void
call_fini(struct caller *c)
{
	rpc_client_free(c->client);
	rpc_answer_fini(&c->answer);
	if (c->base)
		event_base_free(c->base);
}

static int
call_init(struct caller *c, const struct conf_hyper *conf, const char *timeout)
{
	const struct conf_rpc_server *server = call_find_server(conf);
	char err[RPC_CLIENT_ERR_MAX] = "";
	double seconds = (double)conf->call_timeout_ms / 1000;
	char *end;

	*c = (struct caller){ 0 };
	if (timeout) {
		seconds = strtod(timeout, &end);
		if (end == timeout || *end || !isfinite(seconds) || seconds <= 0 || seconds > 3600) {
			fprintf(
			    stderr, "hyper: --timeout %s: expected seconds, more than 0 and at most 3600\n", timeout);
			return EXIT_USAGE;
		}
	}
	c->timeout_ms = (int64_t)(seconds * 1000 + 0.5);
	if (!server || call_endpoint(c, server) < 0) {
		fprintf(stderr, "hyper: the settings have no channel of type jsonrpc_server with a fixed port: add "
				"one, calls go through it\n");
		return EXIT_SETTINGS;
	}
	c->conf.endpoint = c->endpoint;
	if (server->tls) {
		c->tls = *server->tls;
		c->tls.server_name = conf->name;
		c->conf.tls = &c->tls;
	}
	c->base = event_base_new();
	if (!c->base || rpc_client_new(c->base, &c->conf, &c->client, err) < 0) {
		fprintf(stderr, "hyper: cannot prepare a call to %s: %s\n", c->endpoint, err);
		return EXIT_FAIL;
	}
	return EXIT_OK;
}

static void
call_on_reply(struct rpc_answer *answer, void *arg)
{
	struct caller *c = arg;

	rpc_answer_fini(&c->answer);
	c->answer = *answer;
	*answer = (struct rpc_answer){ 0 };
	c->answered = true;
	event_base_loopbreak(c->base);
}

static void
call_do(struct caller *c, const char *method, const json_t *params)
{
	c->answered = false;
	rpc_client_call(c->client, method, params, "", c->timeout_ms, call_on_reply, c);
	while (!c->answered && event_base_dispatch(c->base) == 0)
		;
	if (!c->answered)
		c->answer = rpc_fail(RPC_INTERNAL, NULL, "the call ended without an answer");
}

static int
call_print_error(const struct caller *c)
{
	const char *reason = c->answer.data ? json_str(c->answer.data, "reason") : NULL;
	char *data = c->answer.data ? json_text(c->answer.data) : NULL;

	fprintf(stderr, "hyper: error %d: %s%s%s\n", c->answer.code, c->answer.message ? c->answer.message : "?",
	    data ? "\n  data: " : "", data ? data : "");
	free(data);
	return c->answer.is_local && reason && strcmp(reason, "unreachable") == 0 ? EXIT_UNAVAILABLE : EXIT_FAIL;
}

static int
call_print_json(const json_t *value)
{
	char *text = json_dumps(value, JSON_INDENT(2) | JSON_ENCODE_ANY);
	int ok = text && puts(text) >= 0;

	free(text);
	return ok ? EXIT_OK : EXIT_FAIL;
}

int
hyper_call(const struct conf_hyper *conf, const char *method, const char *params, const char *timeout)
{
	struct caller c;
	char err[JSON_ERR_MAX];
	json_t *object = NULL;
	int code;

	if (json_parse(params, strlen(params), &object, err) < 0 || !json_is_object(object)) {
		fprintf(stderr, "hyper: params: expected a JSON object such as '{\"a\":1}'%s%s\n", object ? "" : ": ",
		    object ? "" : err);
		json_decref(object);
		return EXIT_USAGE;
	}
	code = call_init(&c, conf, timeout);
	if (code == EXIT_OK) {
		call_do(&c, method, object);
		code = c.answer.code ? call_print_error(&c) : call_print_json(c.answer.result);
	}
	json_decref(object);
	call_fini(&c);
	return code;
}

/* The entry of `_connections` that a call to `operator` goes through. Borrowed; NULL when there is none. */
static const json_t *
ping_find(const json_t *result, const char *operator)
{
	const json_t *found = NULL;
	const json_t *item;
	size_t i;

	json_array_foreach (json_object_get(result, "connections"), i, item) {
		const char *name = json_str(item, "operator");

		if (name && strcmp(name, operator) == 0 && (!found || json_object_get(item, "timeline")))
			found = item;
	}
	return found;
}

static void
ping_print_steps(const json_t *conn)
{
	static const char *const help[] = {
#define X(n, num, word, text) [num] = text,
		BROKER_STEPS(X)
#undef X
	};
	const json_t *timeline = json_object_get(conn, "timeline");
	const char *session = json_str(conn, "session");
	const char *via = json_str(conn, "via");
	const char *kind = json_str(conn, "kind");

	printf("connection %s", kind ? kind : "?");
	if (via && *via)
		printf(" via %s", via);
	if (session && *session)
		printf(" session %s", session);
	putchar('\n');
	for (int step = STEP_ASKED; timeline && step < BROKER_STEP_MAX; step++) {
		const json_t *ms = json_object_get(timeline, broker_step_word((enum broker_step)step));

		if (ms)
			printf("  %d %-10s %8.1f ms  %s\n", step, broker_step_word((enum broker_step)step),
			    json_number_value(ms), help[step]);
		else
			printf(
			    "  %d %-10s        -     %s\n", step, broker_step_word((enum broker_step)step), help[step]);
	}
}

static int
ping_report(struct caller *c, const char *operator, double ms, bool json)
{
	const json_t *conn = c->answer.code ? NULL : ping_find(c->answer.result, operator);
	json_t *report;
	int code;

	if (!json) {
		printf("%s answered in %.1f ms\n", operator, ms);
		if (conn)
			ping_print_steps(conn);
		return EXIT_OK;
	}
	report = json_pack("{s:s, s:f, s:O?}", "operator", operator, "ms", ms, "connection", (json_t *)conn);
	code = report ? call_print_json(report) : EXIT_FAIL;
	json_decref(report);
	return code;
}

int
hyper_ping(const struct conf_hyper *conf, const char *operator, const char * timeout, bool json)
{
	json_t *params = json_object();
	char method[512];
	struct caller c;
	int64_t start_ns;
	double ms;
	int code;

	if (!operator_name_is_valid(operator)) {
		fprintf(
		    stderr, "hyper: '%s' is no operator's name: expected letters, digits, '.', '_', '-'\n", operator);
		json_decref(params);
		return EXIT_USAGE;
	}
	code = call_init(&c, conf, timeout);
	if (code != EXIT_OK)
		goto out;
	snprintf(method, sizeof method, "%s._ping", operator);
	start_ns = clock_now_ns();
	call_do(&c, method, params);
	ms = (double)(clock_now_ns() - start_ns) / 1e6;
	if (c.answer.code) {
		code = call_print_error(&c);
		goto out;
	}
	snprintf(method, sizeof method, "%s._connections", conf->name);
	call_do(&c, method, params);
	code = ping_report(&c, operator, ms, json);
out:
	json_decref(params);
	call_fini(&c);
	return code;
}
