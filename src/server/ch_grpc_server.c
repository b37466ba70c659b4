/* ch_grpc_server.c - connections of other operators: accepted ones, and dialled ones that were brokered (protocol.md 3.3 to 3.5)
 *
 *   listener --\
 *               > connection --TLS, pinning--> /Hyper/Call        --> broker --> answer
 *   adopt ----/                           \--> /Hyper/ServerCall  --> servercall.c
 *
 * Always true:
 *  1. A connection carries the operator names that its certificate is pinned
 *     for, at least one; a brokered one must carry the name it was brokered for.
 *  2. A call's `clientName` is one of them, or "" for the first, and still pinned.
 *  3. A call in the broker outlives its stream: `stream` is NULL then and the
 *     answer is dropped.
 *
 * Not here: permissions (broker.c), the dialling of brokered sockets (accept.c).
 */
#include "server/ch_grpc_server.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "hyper/base/clock.h"
#include "hyper/base/fd.h"
#include "hyper/base/log.h"
#include "hyper/directory/directory.h"
#include "hyper/net/grpc.h"
#include "hyper/net/metrics.h"
#include "hyper/wire/token.h"
#include "server/broker.h"
#include "server/internal.h"
#include "server/pin.h"
#include "server/servercall.h"
#include "server/story.h"

struct gconn {
	TAILQ_ENTRY(gconn) link;
	struct ch_grpc_server *ch;
	struct grpc_conn *conn;
	struct names names; /* empty until secured */
	char *expected;     /* NULL: any pinned name */
	char *via;          /* NULL: accepted by the listener */
	char session[SESSION_ID_MAX];
	uint64_t story; /* story.h */
	int64_t since_ms;
	uint64_t calls;
	bool has_ended; /* and a line about it was written */
	bool is_judged; /* its certificate was looked at, and a refusal logged */
};

struct gcall {
	struct grpc_stream *stream; /* NULL once it has ended */
	struct gconn *conn;         /* valid while `stream` is */
	bool is_asked;              /* the broker has it and will answer */
};

struct ch_grpc_server {
	struct event_base *base;
	const struct conf_hyper *conf;
	struct directory *dir;
	struct broker *broker;
	struct grpc_listener *listener; /* NULL once closed */
	SSL_CTX *ctx;                   /* for adopted sockets */
	struct servercall *servercall;
	TAILQ_HEAD(, gconn) conns;
	size_t n_adopted;
};

static const struct grpc_conn_ops gconn_ops;

/* One line about a stranger; the same reason never floods the log. */
static void
gconn_log_refused(const struct gconn *g, const struct tls_peer *peer, struct log_limit *limit, const char *why)
{
	log_limited(limit, LOG_LVL_WARN, "grpc_refused", "peer=%s fingerprint=%s session=%s why=\"%s\"",
	    peer->n_names ? peer->names[0] : "?", peer->fingerprint, g->session, why);
}

static bool
gconn_on_secured(struct grpc_conn *conn, const struct tls_peer *peer, void *arg)
{
	static struct log_limit unpinned, misplaced;
	struct gconn *g = arg;
	struct names names;

	(void)conn;
	if (!g)
		return false;
	g->is_judged = true;
	if (pin_names(g->ch->dir, peer, &names) < 0) {
		gconn_log_refused(
		    g, peer, &unpinned, "no name matched: the directory pins this certificate for none of its names");
		return false;
	}
	if (g->expected && !names_has(&names, g->expected)) {
		gconn_log_refused(g, peer, &misplaced, "the connection was brokered for another operator");
		names_fini(&names);
		return false;
	}
	g->names = names;
	g->since_ms = clock_now_ms();
	story_step(g->story, STEP_PAIRED);
	story_step(g->story, STEP_SECURED);
	story_paired(g->story);
	log_info(g->via ? "brokered" : "grpc_accepted", "side=b operator=%s via=%s session=%s step=%s", names.v[0],
	    g->via ? g->via : "", g->session, g->via ? broker_step_word(STEP_SECURED) : "");
	return true;
}

static void
gconn_free(struct gconn *g)
{
	story_failed(g->story, broker_step_word(STEP_PAIRED), end_reason_word(END_STOPPED), "stopping");
	story_ended(g->story, END_STOPPED, "stopping");
	if (g->via && g->names.n && !g->has_ended)
		log_info("grpc_closed", "side=b operator=%s via=%s session=%s reason=%s why=stopping", g->names.v[0],
		    g->via, g->session, end_reason_word(END_STOPPED));
	TAILQ_REMOVE(&g->ch->conns, g, link);
	if (g->via)
		g->ch->n_adopted--;
	grpc_conn_free(g->conn);
	names_fini(&g->names);
	free(g->expected);
	free(g->via);
	free(g);
}

static void
gconn_on_closed(struct grpc_conn *conn, enum end_reason reason, const char *why, void *arg)
{
	static struct log_limit unsecured;
	struct gconn *g = arg;

	if (!g) {
		grpc_conn_free(conn);
		return;
	}
	g->has_ended = true;
	story_ended(g->story, reason, why);
	story_failed(g->story, broker_step_word(grpc_conn_heard_ms(conn) ? STEP_SECURED : STEP_PAIRED),
	    end_reason_word(reason), why);
	if (g->via && !g->names.n)
		log_warn("brokered", "side=b operator=%s via=%s session=%s failed=%s reason=%s why=\"%s\"", g->expected,
		    g->via, g->session, broker_step_word(grpc_conn_heard_ms(conn) ? STEP_SECURED : STEP_PAIRED),
		    end_reason_word(reason), why);
	else if (!g->via && !g->is_judged && reason != END_DEADLINE && grpc_conn_was_mute(conn)) {
		metrics_note_probe();
		log_debug("grpc_probe", "%s", "");
	} else if (!g->is_judged && (reason == END_TLS || reason == END_DEADLINE))
		log_limited(
		    &unsecured, LOG_LVL_INFO, "grpc_refused", "reason=%s why=\"%s\"", end_reason_word(reason), why);
	else
		log_line(g->via ? LOG_LVL_INFO : LOG_LVL_DEBUG, "grpc_closed",
		    "side=b operator=%s via=%s session=%s reason=%s why=\"%s\"", g->names.n ? g->names.v[0] : "?",
		    g->via ? g->via : "", g->session, end_reason_word(reason), why);
	gconn_free(g);
}

static void
gcall_send(struct gcall *call, const char *id, const struct rpc_answer *answer)
{
	struct grpc_response msg = { .id = (char *)id, .answer = *answer };
	uint8_t *frame;
	size_t len;
	int rc = grpc_response_pack(&msg, &frame, &len);

	if (rc == 0)
		rc = grpc_stream_send(call->stream, frame, len);
	if (rc == -EMSGSIZE)
		grpc_stream_finish(call->stream, GRPC_RESOURCE_EXHAUSTED, "the answer is larger than 4 MiB");
	else if (rc < 0)
		grpc_stream_finish(call->stream, GRPC_INTERNAL, "the answer could not be sent");
	else
		grpc_stream_finish(call->stream, GRPC_OK, "");
}

/* What the broker's answer has to know beyond the call itself. */
struct gcall_ask {
	struct gcall *call;
	char *id;
};

static void
gcall_on_answer(struct rpc_answer *answer, bool failed, void *arg)
{
	struct gcall_ask *ask = arg;
	struct gcall *call = ask->call;
	char *text;

	call->is_asked = false;
	if (!call->stream) {
		free(call);
	} else if (failed) {
		if (asprintf(&text, "error handling gRPC request: %s", answer->message ? answer->message : "") < 0)
			text = NULL;
		grpc_stream_finish(call->stream, GRPC_UNKNOWN, text ? text : "error handling gRPC request");
		free(text);
	} else {
		gcall_send(call, ask->id, answer);
	}
	free(ask->id);
	free(ask);
}

/* 0 or -ENOMEM. */
static int
gcall_ask(struct gcall *call, struct grpc_request *msg, const char *client)
{
	struct broker_in in = { .client = client, .method = msg->method, .id = msg->id, .params = msg->params };
	struct gcall_ask *ask = calloc(1, sizeof(*ask));

	if (!ask)
		return -ENOMEM;
	ask->call = call;
	ask->id = strdup(msg->id);
	if (!ask->id || broker_call(call->conn->ch->broker, &in, gcall_on_answer, ask) < 0) {
		free(ask->id);
		free(ask);
		return -ENOMEM;
	}
	call->is_asked = true;
	call->conn->calls++;
	return 0;
}

static void
gcall_on_message(struct grpc_stream *stream, const uint8_t *data, size_t len, void *arg)
{
	struct gcall *call = arg;
	struct grpc_request msg;
	const char *client;

	if (call->is_asked) {
		grpc_stream_finish(stream, GRPC_INTERNAL, "a second message on a unary call");
		return;
	}
	if (grpc_request_unpack(data, len, &msg) < 0) {
		grpc_stream_finish(stream, GRPC_INTERNAL, "malformed request");
		return;
	}
	client = *msg.client_name ? msg.client_name : call->conn->names.v[0];
	if (!pin_holds(call->conn->ch->dir, &call->conn->names, client))
		grpc_stream_finish(stream, GRPC_UNKNOWN, "no matching client");
	else if (gcall_ask(call, &msg, client) < 0)
		grpc_stream_finish(stream, GRPC_RESOURCE_EXHAUSTED, "out of memory");
	grpc_request_fini(&msg);
}

static void
gcall_on_half_close(struct grpc_stream *stream, void *arg)
{
	const struct gcall *call = arg;

	if (!call->is_asked)
		grpc_stream_finish(stream, GRPC_INTERNAL, "a unary call without a message");
}

static void
gcall_on_end(struct grpc_stream *stream, int status, const char *message, void *arg)
{
	struct gcall *call = arg;

	(void)stream;
	(void)status;
	(void)message;
	call->stream = NULL;
	if (!call->is_asked)
		free(call);
}

static const struct grpc_stream_ops gcall_ops = { gcall_on_message, gcall_on_half_close, gcall_on_end };

static bool
gconn_on_stream(struct grpc_conn *conn, struct grpc_stream *stream, const char *path, void *arg)
{
	struct gconn *g = arg;
	struct gcall *call;

	(void)conn;
	if (strcmp(path, "/Hyper/ServerCall") == 0)
		return servercall_accept(g->ch->servercall, stream, &g->names) == 0;
	if (strcmp(path, "/Hyper/Call") != 0)
		return false;
	call = calloc(1, sizeof(*call));
	if (!call)
		return false;
	call->stream = stream;
	call->conn = g;
	grpc_stream_set(stream, &gcall_ops, call);
	return true;
}

static const struct grpc_conn_ops gconn_ops = { gconn_on_secured, gconn_on_stream, gconn_on_closed };

static struct gconn *
gconn_new(struct ch_grpc_server *ch)
{
	struct gconn *g = calloc(1, sizeof(*g));

	if (!g)
		return NULL;
	g->ch = ch;
	g->since_ms = clock_now_ms();
	TAILQ_INSERT_TAIL(&ch->conns, g, link);
	return g;
}

/* NULL (out of memory) is refused by the call-backs. */
static void *
listener_on_conn(struct grpc_conn *conn, void *arg)
{
	struct gconn *g = gconn_new(arg);

	if (g)
		g->conn = conn;
	return g;
}

int
ch_grpc_server_adopt(struct ch_grpc_server *ch, int fd, const char *client, const char *via, const char *session,
    uint64_t story, int64_t deadline_ms)
{
	struct gconn *g = ch->n_adopted < GRPC_SERVER_MAX_ADOPTED ? gconn_new(ch) : NULL;
	int64_t left_ms = deadline_ms - clock_now_ms();
	int rc;

	if (!g) {
		fd_close(&fd);
		return -ENOBUFS;
	}
	g->story = story;
	g->expected = strdup(client);
	g->via = strdup(via);
	ch->n_adopted += g->via != NULL;
	snprintf(g->session, sizeof(g->session), "%s", session);
	if (!g->expected || !g->via) {
		fd_close(&fd);
		gconn_free(g);
		return -ENOMEM;
	}
	rc = grpc_conn_adopt(ch->base, ch->ctx, fd, NULL, left_ms > 1 ? left_ms : 1, &gconn_ops, g, &g->conn);
	if (rc < 0)
		gconn_free(g);
	return rc;
}

static bool
ch_can_deliver(void *arg, const struct request *req)
{
	const struct ch_grpc_server *ch = arg;

	return strcmp(req->addr.operator, ch->conf->name) != 0 && servercall_has(ch->servercall, req->addr.operator);
}

static int
ch_deliver(void *arg, const struct request *req, deliver_cb cb, void *cb_arg)
{
	struct ch_grpc_server *ch = arg;

	return servercall_deliver(ch->servercall, req, cb, cb_arg);
}

const struct channel_ops ch_grpc_server_ops = { "grpc_server", ch_can_deliver, ch_deliver };

void
ch_grpc_server_list(void *arg, json_t *array)
{
	struct ch_grpc_server *ch = arg;
	const struct gconn *g;

	servercall_list(ch->servercall, array);
	TAILQ_FOREACH (g, &ch->conns, link) {
		struct connection_line line = { .name = g->names.n ? g->names.v[0] : "",
			.kind = "accepted",
			.via = g->via,
			.session = g->session,
			.since_ms = g->since_ms,
			.calls = g->calls };

		if (g->names.n)
			connection_line_append(array, &line);
	}
}

uint16_t
ch_grpc_server_port(const struct ch_grpc_server *ch)
{
	return grpc_listener_port(ch->listener);
}

/* Adopted sockets outlive the listener, so they have a reference of their own. */
static void
adopt_ctx(struct ch_grpc_server *ch)
{
	SSL_CTX_free(ch->ctx);
	ch->ctx = grpc_listener_ctx(ch->listener);
	SSL_CTX_up_ref(ch->ctx);
}

void
ch_grpc_server_apply(struct ch_grpc_server *ch, const struct conf_hyper *hyper, struct grpc_listener_next *next)
{
	ch->conf = hyper;
	servercall_apply(ch->servercall, hyper);
	if (!ch->listener) {
		grpc_listener_next_free(next);
		return;
	}
	grpc_listener_apply(ch->listener, next);
	adopt_ctx(ch);
}

int
ch_grpc_server_new(struct event_base *base, const struct conf_grpc_server *conf, const struct conf_hyper *hyper,
    struct directory *dir, struct broker *broker, struct ch_grpc_server **ret, char err[CH_ERR_MAX])
{
	struct ch_grpc_server *ch = calloc(1, sizeof(*ch));
	char why[GRPC_ERR_MAX] = "out of memory";
	int rc = -ENOMEM;

	if (!ch)
		goto out;
	ch->base = base;
	ch->conf = hyper;
	ch->dir = dir;
	ch->broker = broker;
	TAILQ_INIT(&ch->conns);
	ch->servercall = servercall_new(base, dir, hyper);
	if (!ch->servercall)
		goto out;
	rc = grpc_listener_new(base, conf, &gconn_ops, listener_on_conn, ch, &ch->listener, why);
	if (rc == 0)
		adopt_ctx(ch);
out:
	if (rc < 0) {
		snprintf(err, CH_ERR_MAX, "grpc_server: %s", why);
		ch_grpc_server_free(ch);
		return rc;
	}
	*ret = ch;
	return 0;
}

void
ch_grpc_server_deafen(struct ch_grpc_server *ch)
{
	if (!ch)
		return;
	grpc_listener_free(ch->listener);
	ch->listener = NULL;
}

void
ch_grpc_server_close(struct ch_grpc_server *ch)
{
	struct gconn *g;

	if (!ch)
		return;
	ch_grpc_server_deafen(ch);
	while ((g = TAILQ_FIRST(&ch->conns)))
		gconn_free(g);
}

void
ch_grpc_server_free(struct ch_grpc_server *ch)
{
	if (!ch)
		return;
	ch_grpc_server_close(ch);
	servercall_free(ch->servercall);
	SSL_CTX_free(ch->ctx);
	free(ch);
}
