/* grpc_call.c - a gRPC client over our own ends, for tests against implementations we did not write
 *
 *   grpc_call CERTS NAME ADDRESS PEER call METHOD PARAMS-JSON    one /Hyper/Call
 *   grpc_call CERTS NAME ADDRESS PEER stream RESULT-JSON         /Hyper/ServerCall: announces RESULT, answers each
 *                                                                request with {"got": its params}
 *   grpc_call CERTS NAME ADDRESS PEER path PATH BYTES            so many zero bytes as one message
 *
 * Each event is one JSON line on stdout: {"response":…}, {"request":…}, {"end":[status,message]},
 * {"closed":[reason,why]}. Ends after the stream's end.
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

struct client {
	char **argv; /* from the verb on */
	const char *peer;
	struct daemon *daemon;
	struct grpc_conn *conn;
	bool is_stream;
};

static void
say(const char *key, json_t *value)
{
	json_t *line = json_pack("{s:o}", key, value);

	json_dumpf(line, stdout, JSON_COMPACT | JSON_SORT_KEYS | JSON_ENSURE_ASCII);
	putchar('\n');
	fflush(stdout);
	json_decref(line);
}

static void
send_response(struct grpc_stream *s, const char *id, json_t *result)
{
	struct grpc_response r = { .id = (char *)(uintptr_t)id, .answer = rpc_ok(result) };
	uint8_t *frame;
	size_t len;

	if (grpc_response_pack(&r, &frame, &len) != 0 || grpc_stream_send(s, frame, len) != 0)
		say("failed", json_string("response"));
	rpc_answer_fini(&r.answer);
}

static void
on_request(struct grpc_stream *s, const uint8_t *msg, size_t len)
{
	struct grpc_request q;

	if (grpc_request_unpack(msg, len, &q) != 0) {
		say("failed", json_string("request"));
		return;
	}
	say("request", json_pack("{s:s,s:s,s:s,s:O}", "method", q.method, "id", q.id, "clientName", q.client_name,
			   "params", q.params));
	send_response(s, q.id, json_pack("{s:O}", "got", q.params));
	grpc_request_fini(&q);
}

static void
on_message(struct grpc_stream *s, const uint8_t *msg, size_t len, void *arg)
{
	const struct client *cl = arg;
	struct grpc_response r;

	if (cl->is_stream) {
		on_request(s, msg, len);
		return;
	}
	if (grpc_response_unpack(msg, len, false, &r) != 0) {
		say("failed", json_string("response"));
		return;
	}
	say("response", json_pack("{s:s,s:i,s:s?,s:O?,s:O?}", "id", r.id, "code", r.answer.code, "message",
			    r.answer.message, "data", r.answer.data, "result", r.answer.result));
	grpc_response_fini(&r);
}

static void
on_end(struct grpc_stream *s, int status, const char *message, void *arg)
{
	struct client *cl = arg;

	(void)s;
	say("end", json_pack("[i,s]", status, message));
	daemon_stop(cl->daemon, EXIT_OK);
}

static const struct grpc_stream_ops stream_ops = { on_message, NULL, on_end };

static void
start(struct client *cl)
{
	const char *const verb = cl->argv[0];
	const char *path = strcmp(verb, "path") == 0 ? cl->argv[1]
			   : cl->is_stream           ? "/Hyper/ServerCall"
						     : "/Hyper/Call";
	struct grpc_request q = {
		.method = cl->argv[1], .id = (char *)(uintptr_t) "hd-2.x(1)", .client_name = (char *)(uintptr_t) "hd-1"
	};
	struct grpc_stream *s = NULL;
	uint8_t *frame = NULL;
	size_t len = 0;
	int rc = grpc_stream_open(cl->conn, path, cl->peer, &stream_ops, cl, &s);

	if (rc != 0) {
		say("failed", json_string("open"));
		return;
	}
	if (cl->is_stream) {
		send_response(s, "1", json_loads(cl->argv[1], 0, NULL));
		return;
	}
	if (strcmp(verb, "call") == 0) {
		q.params = json_loads(cl->argv[2], 0, NULL);
		rc = grpc_request_pack(&q, &frame, &len);
		json_decref(q.params);
	} else {
		const size_t n = (size_t)strtoul(cl->argv[2], NULL, 10);

		len = GRPC_FRAME_HEAD + n;
		frame = calloc(1, len);
		for (int i = 0; frame != NULL && i < 4; i++)
			frame[1 + i] = (uint8_t)(n >> (24 - 8 * i));
	}
	if (rc != 0 || grpc_stream_send(s, frame, len) != 0)
		say("failed", json_string("send"));
	grpc_stream_half_close(s);
}

static bool
on_secured(struct grpc_conn *c, const struct tls_peer *peer, void *arg)
{
	(void)c;
	(void)peer;
	start(arg);
	return true;
}

static void
on_closed(struct grpc_conn *c, enum end_reason reason, const char *why, void *arg)
{
	struct client *cl = arg;

	(void)c;
	say("closed", json_pack("[s,s]", end_reason_word(reason), why));
	daemon_stop(cl->daemon, EXIT_UNAVAILABLE);
}

static const struct grpc_conn_ops conn_ops = { on_secured, NULL, on_closed };

static void
on_signal(enum daemon_signal sig, void *arg)
{
	struct client *cl = arg;

	(void)sig;
	daemon_stop(cl->daemon, EXIT_FAIL);
}

static char *
join(const char *dir, const char *name, const char *suffix)
{
	char *path = NULL;

	return asprintf(&path, "%s/%s.%s", dir, name, suffix) > 0 ? path : NULL;
}

static int
run(struct client *cl, char **argv, const struct conf_tls *tls)
{
	SSL_CTX *ctx = NULL;
	char err[TLS_ERR_MAX];
	int code = EXIT_FAIL;

	if (tls_ctx_new(tls, TLS_CLIENT, TLS_ALPN_H2, &ctx, err) != 0)
		fprintf(stderr, "%s\n", err);
	else if (grpc_conn_dial(daemon_base(cl->daemon), ctx, argv[3], argv[4], 5000, &conn_ops, cl, &cl->conn) == 0)
		code = daemon_run(cl->daemon);
	SSL_CTX_free(ctx);
	return code;
}

int
main(int argc, char **argv)
{
	char *ca = argc >= 7 ? join(argv[1], "root", "crt") : NULL;
	struct conf_tls tls = { .ca_certificate_files = { &ca, 1 }, .verify_client = true };
	struct client cl = { .argv = argv + 5, .peer = argv[4] };
	int code;

	if (argc < 7)
		return EXIT_USAGE;
	cl.is_stream = strcmp(argv[5], "stream") == 0;
	log_open("grpc_call", getenv("T_DEBUG") != NULL ? LOG_LVL_DEBUG : LOG_LVL_INFO);
	tls.certificate_file = join(argv[1], argv[2], "crt");
	tls.key_file = join(argv[1], argv[2], "key");
	if (daemon_new(on_signal, &cl, &cl.daemon) != 0)
		return EXIT_FAIL;
	code = run(&cl, argv, &tls);
	grpc_conn_free(cl.conn);
	daemon_free(cl.daemon);
	free(ca);
	free(tls.certificate_file);
	free(tls.key_file);
	return code;
}
