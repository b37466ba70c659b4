/* rpc_echo.c - a JSON-RPC server for the tests of src/net: echo, slow, never, fail, fds
 *
 * usage: rpc_echo [--key=value]...   keys: bind ca cert key verify(0/1) own allow(NAME,...) max timeout(ms)
 *        rate(LIMIT/WINDOW_MS) cors(REGEX)
 * Says `ready port=N` on its log. `never` is answered after the server was freed: late, to nobody.
 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <event2/event.h>

#include "hyper/base/clock.h"
#include "hyper/base/daemon.h"
#include "hyper/base/fd.h"
#include "hyper/base/log.h"
#include "hyper/net/rpcserver.h"

#define NEVER_MAX 4096

struct echo {
	struct daemon *daemon;
	struct rpc_server *server;
	struct rpc_call *never[NEVER_MAX];
	size_t n_never;
};

struct slow {
	struct rpc_call *call;
	struct event *timer;
};

static char *allow[8], *ca[1], *cors_hosts[1], *cors_headers[] = { (char *)"x-extra" },
					       *cors_methods[] = { (char *)"POST", (char *)"OPTIONS" };
static struct conf_rate rate[1];
static struct conf_tls tls = { .ca_certificate_files = { ca, 0 }, .verify_client = true };
static struct conf_cors cors = { .allowed_hosts = { cors_hosts, 1 },
	.allowed_headers = { cors_headers, 1 },
	.allowed_methods = { cors_methods, 2 } };
static struct conf_rpc_server conf = { .bind_address = (char *)"127.0.0.1:0",
	.path = (char *)"/jsonrpc",
	.tcp_rate_limits = { rate, 0 },
	.allowed_clients = { allow, 0 },
	.max_connections = 1024,
	.request_timeout_ms = 30000 };
static const char *own;

static void
on_slow(evutil_socket_t fd, short what, void *arg)
{
	struct slow *s = arg;

	(void)fd;
	(void)what;
	rpc_call_answer(s->call, rpc_ok(json_string("late")));
	event_free(s->timer);
	free(s);
}

static void
serve_slow(struct echo *e, struct rpc_call *call)
{
	int64_t ms = json_integer_value(json_object_get(rpc_call_request(call)->params, "ms"));
	struct timeval tv = { .tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000 };
	struct slow *s = malloc(sizeof(*s));

	s->call = call;
	s->timer = evtimer_new(daemon_base(e->daemon), on_slow, s);
	event_add(s->timer, &tv);
}

static json_t *
peer_json(const struct tls_peer *peer)
{
	json_t *names = json_array();
	size_t i;

	for (i = 0; peer != NULL && i < peer->n_names; i++)
		json_array_append_new(names, json_string(peer->names[i]));
	return json_pack("{so ss}", "names", names, "fingerprint", peer != NULL ? peer->fingerprint : "");
}

static void
serve(struct rpc_call *call, void *arg)
{
	const struct rpc_request *r = rpc_call_request(call);
	struct echo *e = arg;

	if (strcmp(r->method, "echo") == 0)
		rpc_call_answer(call, rpc_ok(json_incref(r->params)));
	else if (strcmp(r->method, "slow") == 0)
		serve_slow(e, call);
	else if (strcmp(r->method, "never") == 0 && e->n_never < NEVER_MAX)
		e->never[e->n_never++] = call;
	else if (strcmp(r->method, "fail") == 0)
		rpc_call_answer(call, rpc_fail(7, json_pack("{ss}", "why", "asked"), "failed as asked"));
	else if (strcmp(r->method, "fds") == 0)
		rpc_call_answer(call, rpc_ok(json_pack("{si si}", "fds", (int)fd_count(), "never", (int)e->n_never)));
	else if (strcmp(r->method, "peer") == 0)
		rpc_call_answer(call, rpc_ok(peer_json(rpc_call_peer(call))));
	else
		rpc_call_answer(call, rpc_fail(RPC_NO_METHOD, NULL, "method not found"));
}

static void
on_signal(enum daemon_signal sig, void *arg)
{
	struct echo *e = arg;

	if (sig == DAEMON_STOP || sig == DAEMON_STOP_NOW)
		daemon_stop(e->daemon, EXIT_OK);
}

static void
set(const char *key, char *value)
{
	char *at, *part;

	if (strcmp(key, "bind") == 0)
		conf.bind_address = value;
	else if (strcmp(key, "verify") == 0)
		tls.verify_client = value[0] == '1';
	else if (strcmp(key, "own") == 0)
		own = value;
	else if (strcmp(key, "max") == 0)
		conf.max_connections = (unsigned)strtoul(value, NULL, 10);
	else if (strcmp(key, "timeout") == 0)
		conf.request_timeout_ms = strtol(value, NULL, 10);
	else if (strcmp(key, "cert") == 0)
		tls.certificate_file = value;
	else if (strcmp(key, "key") == 0)
		tls.key_file = value;
	else if (strcmp(key, "cors") == 0) {
		cors_hosts[0] = value;
		conf.cors = &cors;
	} else if (strcmp(key, "ca") == 0) {
		ca[0] = value;
		tls.ca_certificate_files.n = 1;
		conf.tls = &tls;
	} else if (strcmp(key, "rate") == 0) {
		rate[0].limit = (unsigned)strtoul(value, &at, 10);
		rate[0].window_ms = strtol(at + 1, NULL, 10);
		conf.tcp_rate_limits.n = 1;
	} else if (strcmp(key, "allow") == 0) {
		for (part = strtok_r(value, ",", &at); part != NULL; part = strtok_r(NULL, ",", &at))
			if (conf.allowed_clients.n < ARRAY_LEN(allow))
				allow[conf.allowed_clients.n++] = part;
	} else {
		fprintf(stderr, "unknown key %s\n", key);
		exit(EXIT_USAGE);
	}
}

int
main(int argc, char **argv)
{
	static struct echo e;
	char err[RPC_SERVER_ERR_MAX];
	int i, code;

	log_open("rpc_echo", LOG_LVL_DEBUG);
	for (i = 1; i < argc; i++) {
		char *eq = strchr(argv[i], '=');

		if (eq == NULL || strncmp(argv[i], "--", 2) != 0)
			return EXIT_USAGE;
		*eq = '\0';
		set(argv[i] + 2, eq + 1);
	}
	if (daemon_new(on_signal, &e, &e.daemon) != 0)
		return EXIT_FAIL;
	if (rpc_server_new(daemon_base(e.daemon), &conf, own, serve, &e, &e.server, err) != 0) {
		log_error("start", "err=\"%s\"", err);
		daemon_free(e.daemon);
		return EXIT_SETTINGS;
	}
	daemon_ready("port=%u fds=%zu", (unsigned)rpc_server_port(e.server), fd_count());
	code = daemon_run(e.daemon);
	rpc_server_free(e.server);
	while (e.n_never > 0)
		rpc_call_answer(e.never[--e.n_never], rpc_ok(NULL));
	daemon_free(e.daemon);
	return code;
}
