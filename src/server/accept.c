/* accept.c - B's side of a brokering: a proxy asks us to dial it for a client (protocol.md 7.1)
 *
 *   _connectionRequest --checks--> DIALLING --token written--> answer {} --> grpc_server (TLS server, client.name only)
 *            `------ refused, unreachable, deadline --> error that says which
 *
 * Always true:
 *  1. Nothing is dialled that endpoint_allow, or the list that the proxy itself
 *     publishes, does not name; the token is exactly 32 bytes (faults.md "SSRF").
 *  2. The answer goes out when the token bytes are written, not before.
 *  3. Whoever comes through that socket must prove to be `client.name`.
 *
 * Not here: the permission to send this request (broker.c).
 */
#include "server/accept.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include <openssl/crypto.h>

#include "hyper/base/clock.h"
#include "hyper/base/fd.h"
#include "hyper/base/log.h"
#include "hyper/directory/directory.h"
#include "hyper/wire/json.h"
#include "hyper/wire/token.h"
#include "server/ch_grpc_server.h"
#include "server/reply.h"
#include "server/story.h"
#include "server/tokdial.h"

/* From the token's arrival at P: A has the token's life (5 s) or accept_timeout (10 s) to come, then TLS (5 s). */
#define SECURE_MS 15000

struct acceptor {
	struct event_base *base;
	const struct conf_hyper *conf;
	struct directory *dir;
	struct ch_grpc_server *server;
	LIST_HEAD(, acceptance) all;
	size_t n;
};

struct acceptance {
	LIST_ENTRY(acceptance) link;
	struct acceptor *acceptor;
	struct reply reply;
	const struct request *req; /* borrowed until the reply */
	struct tokdial *dial;
	char session[SESSION_ID_MAX];
	uint64_t story; /* story.h; 0 until it is known who asks */
};

/* What was asked, checked. Texts borrowed from the request. */
struct wanted {
	const char *endpoint;
	const char *client;
	struct token token;
};

static void
acceptance_log(const struct acceptance *a, const struct wanted *w, enum broker_step step, const char *more)
{
	log_info("brokered", "side=b operator=%s via=%s session=%s step=%s endpoint=%s%s", w->client, a->req->client,
	    a->session, broker_step_word(step), w->endpoint, more);
}

static void
acceptance_refuse(struct acceptance *a, int code, enum end_reason reason, const char *why)
{
	struct rpc_answer answer =
	    rpc_fail_step(code, reason, STEP_TOLD, *a->session ? a->session : NULL, 0, "%s", why);

	log_warn("brokered", "side=b via=%s session=%s failed=%s reason=%s why=\"%s\"", a->req->client, a->session,
	    broker_step_word(STEP_TOLD), end_reason_word(reason), why);
	story_failed(a->story, broker_step_word(STEP_TOLD), end_reason_word(reason), why);
	reply_give(&a->reply, answer, code == RPC_BROKER);
}

static void
acceptance_on_deadline(void *owner)
{
	struct acceptance *a = owner;

	acceptance_refuse(a, RPC_DEADLINE, END_DEADLINE, "the endpoint took too long");
}

static void
acceptance_on_done(void *owner)
{
	struct acceptance *a = owner;

	tokdial_cancel(a->dial);
	LIST_REMOVE(a, link);
	a->acceptor->n--;
	free(a);
}

static const struct reply_ops acceptance_reply_ops = { acceptance_on_deadline, acceptance_on_done };

static void
acceptance_on_dialled(int fd, enum end_reason reason, const char *why, void *arg)
{
	struct acceptance *a = arg;
	const json_t *params = a->req->params;
	struct wanted w = { .endpoint = json_str(params, "endpoint"),
		.client = json_str(json_object_get(params, "client"), "name") };
	char text[DIRECTORY_ERR_MAX + 256];
	int rc;

	a->dial = NULL;
	if (fd < 0) {
		snprintf(text, sizeof(text), "%s could not reach the endpoint %s: %s", a->acceptor->conf->name,
		    w.endpoint, why);
		acceptance_refuse(a, reason == END_DEADLINE ? RPC_DEADLINE : RPC_NOT_CONNECTED, reason, text);
		return;
	}
	if (!reply_is_open(&a->reply)) {
		fd_close(&fd);
		return;
	}
	acceptance_log(a, &w, STEP_CONFIRMED, "");
	story_step(a->story, STEP_CONFIRMED);
	rc = ch_grpc_server_adopt(
	    a->acceptor->server, fd, w.client, a->req->client, a->session, a->story, clock_now_ms() + SECURE_MS);
	if (rc < 0)
		acceptance_refuse(a, RPC_BUSY, END_BUSY, "too many brokered connections are open");
	else
		reply_give(&a->reply, rpc_ok(json_object()), false);
}

/* 0 with *ret filled, or false with the faults in *ret_answer (taken). */
static bool
wanted_parse(const json_t *params, struct wanted *ret, struct rpc_answer *ret_answer)
{
	const json_t *client = json_object_get(params, "client");
	const char *token = json_str(params, "token");
	json_t *form = NULL;

	ret->endpoint = json_str(params, "endpoint");
	ret->client = json_is_object(client) ? json_str(client, "name") : NULL;
	if (!json_str(params, "channel"))
		rpc_form_fault(&form, "channel", "expected a string");
	if (!ret->endpoint)
		rpc_form_fault(&form, "endpoint", "expected a string");
	if (!token || token_parse(token, &ret->token) < 0)
		rpc_form_fault(&form, "token", "expected base64 of exactly 32 bytes");
	if (!ret->client || !operator_name_is_valid(ret->client))
		rpc_form_fault(&form, "client.name", "expected an operator's name");
	if (!json_is_object(client) || !json_is_object(json_object_get(client, "entry")))
		rpc_form_fault(&form, "client.entry", "expected a map");
	if (form)
		*ret_answer = rpc_form_answer(form);
	return !form;
}

static void
acceptance_dial(struct acceptance *a, const struct wanted *w)
{
	struct acceptor *acceptor = a->acceptor;
	const json_t *proxy = directory_get(acceptor->dir, a->req->client);
	char why[512];
	int rc;

	if (!endpoint_is_allowed(&acceptor->conf->endpoint_allow, proxy, a->req->client, w->endpoint)) {
		snprintf(why, sizeof(why),
		    "%s does not dial %s for %s: endpoint_allow or the proxy's own directory entry does not name it",
		    acceptor->conf->name, w->endpoint, a->req->client);
		acceptance_refuse(a, RPC_REFUSED, END_REFUSED, why);
		return;
	}
	if (!directory_get(acceptor->dir, w->client)) {
		snprintf(why, sizeof(why), "the directory has no entry of client '%s'", w->client);
		acceptance_refuse(a, RPC_REFUSED, END_UNKNOWN_OPERATOR, why);
		return;
	}
	rc = tokdial_start(
	    acceptor->base, w->endpoint, &w->token, a->req->deadline_ms, acceptance_on_dialled, a, &a->dial);
	if (rc == 0) {
		acceptance_log(a, w, STEP_TOLD, "");
		return;
	}
	snprintf(why, sizeof(why), "the endpoint '%s' cannot be dialled: %s", w->endpoint, strerror(-rc));
	acceptance_refuse(
	    a, rc == -EINVAL ? RPC_INVALID_PARAMS : RPC_INTERNAL, rc == -EINVAL ? END_BAD_REQUEST : END_INTERNAL, why);
}

static void
acceptance_begin(struct acceptance *a, const struct wanted *w)
{
	token_session(&w->token, a->session);
	a->story = story_begin(STORY_B, w->client, a->req->client, a->session);
	story_step(a->story, STEP_TOLD);
}

int
acceptor_deliver(void *arg, const struct request *req, deliver_cb cb, void *cb_arg)
{
	struct acceptor *acceptor = arg;
	struct acceptance *a = calloc(1, sizeof(*a));
	const char *channel = json_str(req->params, "channel");
	struct rpc_answer faults;
	struct wanted w;

	if (!a || reply_init(&a->reply, acceptor->base, req->deadline_ms, &acceptance_reply_ops, a, cb, cb_arg) < 0) {
		free(a);
		return -ENOMEM;
	}
	a->acceptor = acceptor;
	a->req = req;
	LIST_INSERT_HEAD(&acceptor->all, a, link);
	if (acceptor->n++ >= ACCEPTOR_MAX) {
		acceptance_refuse(a, RPC_BUSY, END_BUSY, "too many connection requests are being served");
		return 0;
	}
	if (!wanted_parse(req->params, &w, &faults)) {
		reply_give(&a->reply, faults, false);
	} else if (strcmp(channel, "grpc_server") != 0) {
		acceptance_begin(a, &w);
		acceptance_refuse(a, RPC_BROKER, END_REFUSED, "no channel accepted the request");
	} else {
		acceptance_begin(a, &w);
		acceptance_dial(a, &w);
	}
	OPENSSL_cleanse(&w.token, sizeof(w.token));
	return 0;
}

struct acceptor *
acceptor_new(
    struct event_base *base, const struct conf_hyper *conf, struct directory *dir, struct ch_grpc_server *server)
{
	struct acceptor *a = calloc(1, sizeof(*a));

	if (!a)
		return NULL;
	a->base = base;
	a->conf = conf;
	a->dir = dir;
	a->server = server;
	LIST_INIT(&a->all);
	return a;
}

void
acceptor_apply(struct acceptor *a, const struct conf_hyper *conf)
{
	a->conf = conf;
}

void
acceptor_free(struct acceptor *acceptor)
{
	struct acceptance *a;

	if (!acceptor)
		return;
	while ((a = LIST_FIRST(&acceptor->all)))
		reply_flush(&a->reply);
	free(acceptor);
}
