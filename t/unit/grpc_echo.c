/* grpc_echo.c - a gRPC server over our own ends, for tests against implementations we did not write
 *
 *   grpc_echo CERTS NAME     certificates NAME.crt, NAME.key, root.crt in CERTS; writes `ready port=N`
 *
 * /Hyper/Call answers by the method after the last dot of `method`:
 *   echo    result = params           error   error 7 "no", data {"why": params}
 *   list    result = a list           status  grpc-status 2 with text beyond ASCII
 *   big     result = {"text": params.size times "x"}
 * /Hyper/ServerCall waits for the announcement, then params.wait_ms of its result, then sends
 * params.count requests, each after the answer to the one before, and ends with status 0.
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <event2/event.h>
#include <jansson.h>

#include "hyper/base/daemon.h"
#include "hyper/base/log.h"
#include "hyper/net/grpc.h"

struct call {
	struct grpc_stream *s;
	bool is_stream;
	json_int_t sent, count;
	struct event *timer;
};

static struct event_base *base;

static void
respond(struct grpc_stream *s, const char *id, struct rpc_answer answer)
{
	struct grpc_response r = { .id = (char *)(uintptr_t)id, .answer = answer };
	uint8_t *frame;
	size_t len;
	int rc = grpc_response_pack(&r, &frame, &len);

	if (rc == 0)
		rc = grpc_stream_send(s, frame, len);
	grpc_stream_finish(s, rc == 0 ? GRPC_OK : GRPC_RESOURCE_EXHAUSTED, rc == 0 ? "" : strerror(-rc));
	rpc_answer_fini(&r.answer);
}

static json_t *
big(const json_t *params)
{
	const size_t size = (size_t)json_integer_value(json_object_get(params, "size"));
	char *text = malloc(size + 1);
	json_t *result;

	if (text == NULL)
		return NULL;
	memset(text, 'x', size);
	result = json_pack("{s:s#}", "text", text, (int)size);
	free(text);
	return result;
}

static void
serve_call(struct call *call, const uint8_t *msg, size_t len)
{
	struct grpc_request q;
	const char *method;

	if (grpc_request_unpack(msg, len, &q) != 0) {
		grpc_stream_finish(call->s, GRPC_INTERNAL, "malformed request");
		return;
	}
	log_info("call", "svc=%s why=\"%s from %s\"", q.method, q.id, q.client_name);
	method = strrchr(q.method, '.') != NULL ? strrchr(q.method, '.') + 1 : q.method;
	if (strcmp(method, "echo") == 0)
		respond(call->s, q.id, rpc_ok(json_incref(q.params)));
	else if (strcmp(method, "list") == 0)
		respond(call->s, q.id, rpc_ok(json_pack("[i,s,n]", 1, "two")));
	else if (strcmp(method, "error") == 0)
		respond(call->s, q.id, rpc_fail(7, json_pack("{s:O}", "why", q.params), "no"));
	else if (strcmp(method, "big") == 0)
		respond(call->s, q.id, rpc_ok(big(q.params)));
	else
		grpc_stream_finish(call->s, GRPC_UNKNOWN, "error handling gRPC request: \xc3\xa4 100% \n done");
	grpc_request_fini(&q);
}

static void
ask(struct call *call)
{
	char id[64];
	struct grpc_request q = {
		.method = (char *)(uintptr_t) "hd-1.ask", .id = id, .client_name = (char *)(uintptr_t) "hd-2"
	};
	uint8_t *frame;
	size_t len;

	if (call->sent == call->count) {
		grpc_stream_finish(call->s, GRPC_OK, "all answered");
		return;
	}
	snprintf(id, sizeof id, "hd-1.ask(%lld)", (long long)++call->sent);
	q.params = json_pack("{s:I}", "n", call->sent);
	if (grpc_request_pack(&q, &frame, &len) != 0 || grpc_stream_send(call->s, frame, len) != 0)
		grpc_stream_finish(call->s, GRPC_INTERNAL, "cannot send");
	json_decref(q.params);
}

static void
on_timer(evutil_socket_t sock, short what, void *arg)
{
	(void)sock;
	(void)what;
	ask(arg);
}

static void
serve_answer(struct call *call, const uint8_t *msg, size_t len)
{
	struct grpc_response r;
	json_int_t wait_ms;
	char *text;

	if (grpc_response_unpack(msg, len, false, &r) != 0) {
		grpc_stream_finish(call->s, GRPC_UNKNOWN, "invalid client announcement");
		return;
	}
	text = json_dumps(r.answer.result, JSON_COMPACT | JSON_SORT_KEYS | JSON_ENCODE_ANY);
	log_info("answer", "id=%s code=%d result=%s", r.id, r.answer.code, text != NULL ? text : "-");
	free(text);
	wait_ms = json_integer_value(json_object_get(r.answer.result, "wait_ms"));
	if (call->count == 0)
		call->count = json_integer_value(json_object_get(r.answer.result, "count"));
	if (wait_ms > 0) {
		const struct timeval tv = { .tv_sec = wait_ms / 1000, .tv_usec = wait_ms % 1000 * 1000 };

		evtimer_add(call->timer, &tv);
	} else {
		ask(call);
	}
	grpc_response_fini(&r);
}

static void
on_message(struct grpc_stream *s, const uint8_t *msg, size_t len, void *arg)
{
	struct call *call = arg;

	(void)s;
	if (call->is_stream)
		serve_answer(call, msg, len);
	else
		serve_call(call, msg, len);
}

static void
on_end(struct grpc_stream *s, int status, const char *message, void *arg)
{
	struct call *call = arg;

	(void)s;
	log_info("end", "svc=%s err=%d why=\"%s\"", call->is_stream ? "ServerCall" : "Call", status, message);
	event_free(call->timer);
	free(call);
}

static const struct grpc_stream_ops stream_ops = { on_message, NULL, on_end };

static bool
on_secured(struct grpc_conn *c, const struct tls_peer *peer, void *arg)
{
	(void)c;
	(void)arg;
	log_info("secured", "why=\"%s\"", peer->names[0]);
	return true;
}

static bool
on_stream(struct grpc_conn *c, struct grpc_stream *s, const char *path, void *arg)
{
	struct call *call;

	(void)c;
	(void)arg;
	if (strcmp(path, "/Hyper/Call") != 0 && strcmp(path, "/Hyper/ServerCall") != 0)
		return false;
	call = calloc(1, sizeof *call);
	call->s = s;
	call->is_stream = strcmp(path, "/Hyper/ServerCall") == 0;
	call->timer = evtimer_new(base, on_timer, call);
	grpc_stream_set(s, &stream_ops, call);
	return true;
}

static void
on_closed(struct grpc_conn *c, enum end_reason reason, const char *why, void *arg)
{
	(void)arg;
	log_info("closed", "reason=%s why=\"%s\"", end_reason_word(reason), why);
	grpc_conn_free(c);
}

static const struct grpc_conn_ops conn_ops = { on_secured, on_stream, on_closed };

static void *
on_conn(struct grpc_conn *c, void *arg)
{
	(void)c;
	return arg;
}

static void
on_signal(enum daemon_signal sig, void *arg)
{
	if (sig == DAEMON_STOP || sig == DAEMON_STOP_NOW)
		daemon_stop(*(struct daemon **)arg, EXIT_OK);
}

static char *
join(const char *dir, const char *name, const char *suffix)
{
	char *path = NULL;

	return asprintf(&path, "%s/%s.%s", dir, name, suffix) > 0 ? path : NULL;
}

int
main(int argc, char **argv)
{
	char *ca = argc == 3 ? join(argv[1], "root", "crt") : NULL;
	struct conf_tls tls = { .ca_certificate_files = { &ca, 1 }, .verify_client = true };
	struct conf_grpc_server conf = {
		.bind_address = (char *)(uintptr_t) "localhost:0", .tls = &tls, .max_connections = 64
	};
	struct grpc_listener *listener = NULL;
	struct daemon *daemon = NULL;
	char err[GRPC_ERR_MAX];
	int code = EXIT_FAIL;

	if (argc != 3)
		return EXIT_USAGE;
	log_open("grpc_echo", LOG_LVL_INFO);
	tls.certificate_file = join(argv[1], argv[2], "crt");
	tls.key_file = join(argv[1], argv[2], "key");
	if (daemon_new(on_signal, &daemon, &daemon) != 0)
		return EXIT_FAIL;
	base = daemon_base(daemon);
	if (grpc_listener_new(base, &conf, &conn_ops, on_conn, NULL, &listener, err) == 0) {
		daemon_ready("port=%u", grpc_listener_port(listener));
		code = daemon_run(daemon);
	} else {
		log_error("start", "why=\"%s\"", err);
	}
	grpc_listener_free(listener);
	daemon_free(daemon);
	free(ca);
	free(tls.certificate_file);
	free(tls.key_file);
	return code;
}
