/* broker.c - one request from its sender to the channel that delivers it (protocol.md section 5)
 *
 *   broker_call --> in-flight set --> directory fresh? --> who, whom, may he? --> internal method | channel --> answer
 *
 * Always true:
 *  1. The address is parsed once, from the id; permission, internal methods and
 *     channels all look at that one, and `method` must name the same.
 *  2. `_client` is what the directory says of the sender, whatever came in, without its `records`.
 *  3. A flight lives until its caller was answered AND every channel or
 *     directory call-back it waits for has come (`refs`), so a late one never
 *     meets freed memory. Flights, late ones included, are capped in number and in
 *     bytes of their parameters.
 *  4. A foreign operator's request is for this operator or nobody: it is never
 *     passed on under our own name.
 *
 * Not here: TLS, pinning (pin.c), how a message travels (channels).
 */
#include "server/broker.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "hyper/base/bug.h"
#include "hyper/base/clock.h"
#include "hyper/base/log.h"
#include "hyper/directory/directory.h"
#include "hyper/directory/entry.h"
#include "hyper/wire/json.h"
#include "server/counts.h"
#include "server/pending.h"
#include "server/reply.h"

#define DRAINED_RETRY_MS 1000 /* nobody knows when it is taken back */

struct flight {
	LIST_ENTRY(flight) link;
	struct broker *broker;
	struct reply reply;
	struct request req;
	struct pending_key *key;
	unsigned refs; /* the caller, and each call-back that is still to come */
	enum counts_from from;
	int64_t begun_ns;
	bool is_foreign;
	bool was_refreshed; /* an unknown name was asked for once more */
	unsigned channel;
	size_t bytes; /* of the parameters as they came, about */
};

struct broker {
	struct event_base *base;
	const struct conf_hyper *conf;
	struct directory *dir;
	struct pending *ids;
	LIST_HEAD(, flight) flights;
	size_t n_flights;
	size_t bytes; /* of all flights */
	struct {
		const struct channel_ops *ops;
		void *arg;
	} channel[BROKER_MAX_CHANNELS], internal;
	unsigned n_channels;
	bool is_draining, is_over;
};

static void flight_on_directory(enum directory_state, void *arg);

struct broker *
broker_new(struct event_base *base, const struct conf_hyper *conf, struct directory *dir)
{
	struct broker *b = calloc(1, sizeof(*b));

	if (!b)
		return NULL;
	b->base = base;
	b->conf = conf;
	b->dir = dir;
	b->ids = pending_new(conf->max_in_flight);
	if (!b->ids) {
		free(b);
		return NULL;
	}
	return b;
}

void
broker_add_channel(struct broker *b, const struct channel_ops *ops, void *channel)
{
	BUG_ON(b->n_channels == BROKER_MAX_CHANNELS);
	b->channel[b->n_channels].ops = ops;
	b->channel[b->n_channels++].arg = channel;
}

void
broker_set_internal(struct broker *b, const struct channel_ops *ops, void *internal)
{
	b->internal.ops = ops;
	b->internal.arg = internal;
}

static void
request_fini(struct request *req)
{
	free(req->client);
	free(req->method);
	free(req->id);
	address_fini(&req->addr);
	json_decref(req->params);
}

static void
flight_unref(struct flight *f)
{
	if (--f->refs > 0)
		return;
	pending_remove(f->broker->ids, f->key);
	LIST_REMOVE(f, link);
	f->broker->n_flights--;
	f->broker->bytes -= f->bytes;
	request_fini(&f->req);
	free(f);
}

/* The caller has its answer: the id is free again, though a channel may still hold the flight. */
static void
flight_on_done(void *owner)
{
	struct flight *f = owner;

	pending_remove(f->broker->ids, f->key);
	f->key = NULL;
	flight_unref(f);
}

/* The first answer is the one. */
static void
flight_answer(struct flight *f, struct rpc_answer answer, bool failed)
{
	if (reply_is_open(&f->reply))
		counts_call(f->from, &answer, clock_now_ns() - f->begun_ns);
	reply_give(&f->reply, answer, failed);
}

static void
flight_on_deadline(void *owner)
{
	struct flight *f = owner;

	flight_answer(f,
	    rpc_fail_step(RPC_DEADLINE, END_DEADLINE, STEP_NONE, NULL, 0, "%s was not answered in time", f->req.method),
	    false);
}

static const struct reply_ops flight_reply_ops = { flight_on_deadline, flight_on_done };

/* An error that protocol.md 4.2 calls a broker error: text only, code 1. */
#define flight_fail(f, reason, ...) \
	flight_answer((f), rpc_fail_step(RPC_BROKER, (reason), STEP_NONE, NULL, 0, __VA_ARGS__), true)

/* An error with a code of its own. */
#define flight_refuse(f, code, reason, ...) \
	flight_answer((f), rpc_fail_step((code), (reason), STEP_NONE, NULL, 0, __VA_ARGS__), false)

static bool
is_own_code(int code)
{
	return code <= RPC_BUSY && code >= RPC_STALE;
}

/* What failed on the way gets the reference's words, unless it has a code of ours (4.2, "Errors of ours"). */
static void
flight_on_delivered(struct rpc_answer *a, bool failed, void *arg)
{
	struct flight *f = arg;
	struct rpc_answer answer = *a;

	*a = (struct rpc_answer){ 0 };
	if (failed && answer.code != RPC_BROKER && !is_own_code(answer.code)) {
		char *text = answer.message;

		answer.message = NULL;
		rpc_answer_fini(&(struct rpc_answer){ .result = answer.result, .result_text = answer.result_text });
		answer =
		    rpc_fail(RPC_CHANNEL, answer.data, "Channel %u encountered an error delivering the message: %s",
			f->channel, text ? text : "out of memory");
		free(text);
	}
	if (answer.code)
		log_debug("call_failed", "method=%s client=%s code=%d why=\"%s\"", f->req.method, f->req.client,
		    answer.code, answer.message ? answer.message : "");
	flight_answer(f, answer, failed && answer.code == RPC_BROKER);
	flight_unref(f);
}

static void
flight_deliver(struct flight *f, const struct channel_ops *ops, void *channel)
{
	f->refs++;
	if (ops->deliver(channel, &f->req, flight_on_delivered, f) == 0)
		return;
	f->refs--;
	flight_refuse(f, RPC_INTERNAL, END_INTERNAL, "internal error");
}

static bool
broker_has_channel(const struct broker *b, const char *type)
{
	for (unsigned i = 0; i < b->n_channels; i++)
		if (strcmp(b->channel[i].ops->type, type) == 0)
			return true;
	return false;
}

static void
flight_no_channel(struct flight *f)
{
	const struct broker *b = f->broker;
	const struct address *to = &f->req.addr;

	if (strcmp(to->operator, b->conf->name) == 0 || !broker_has_channel(b, "grpc_server")) {
		flight_fail(f, END_NOT_CONNECTED, "no channel can deliver this request");
		return;
	}
	flight_answer(f,
	    rpc_fail_step(RPC_NOT_CONNECTED, END_NOT_CONNECTED,
		strcmp(to->method, "_connectionRequest") == 0 ? STEP_TOLD : STEP_NONE, NULL, b->conf->reconnect_max_ms,
		"%s has no standing connection to %s: no channel can deliver this request", to->operator,
		b->conf->name),
	    false);
}

static void
flight_dispatch(struct flight *f)
{
	struct broker *b = f->broker;

	if (b->internal.ops && b->internal.ops->can_deliver(b->internal.arg, &f->req)) {
		flight_deliver(f, b->internal.ops, b->internal.arg);
		return;
	}
	for (unsigned i = 0; i < b->n_channels; i++) {
		const struct channel_ops *ops = b->channel[i].ops;

		if (!ops->can_deliver || !ops->can_deliver(b->channel[i].arg, &f->req))
			continue;
		f->channel = i;
		flight_deliver(f, ops, b->channel[i].arg);
		return;
	}
	flight_no_channel(f);
}

/* 0 or -ENOMEM. The entry goes without its history: most of it, and growing (docs/decisions/020-broker.md). */
static int
flight_set_client(struct flight *f, const json_t *entry)
{
	json_t *params = json_copy(f->req.params);
	json_t *copy = json_copy((json_t *)entry); /* shallow */
	int rc = json_object_set_new(copy, "records", json_null());
	json_t *client = json_pack("{s:s, s:o}", "name", f->req.client, "entry", copy);

	if (rc < 0 || !params || !client || json_object_set(params, "_client", client) < 0) {
		json_decref(params);
		json_decref(client);
		return -ENOMEM;
	}
	json_decref(client);
	json_decref(f->req.params);
	f->req.params = params;
	return 0;
}

static bool
flight_is_permitted(const struct flight *f, const json_t *own, const json_t *client)
{
	return !f->is_foreign || (entry_permits(own, client, f->req.addr.method) &&
				     strcmp(f->req.addr.operator, f->broker->conf->name) == 0);
}

/* Would it be refused for what the directory says, or does not say yet? */
static bool
flight_is_refusable(const struct flight *f)
{
	const struct broker *b = f->broker;
	const json_t *own = directory_get(b->dir, b->conf->name);
	const json_t *client = directory_get(b->dir, f->req.client);

	return !own || !client || !directory_get(b->dir, f->req.addr.operator) || !flight_is_permitted(f, own, client);
}

/* May it be delivered? Otherwise the flight was answered. */
static bool
flight_check(struct flight *f)
{
	const struct broker *b = f->broker;
	const json_t *own = directory_get(b->dir, b->conf->name);
	const json_t *client = directory_get(b->dir, f->req.client);

	if (!own) {
		log_warn("no_own_entry", "operator=%s why=\"the directory has no entry of this name: submit one\"",
		    b->conf->name);
		flight_refuse(f, RPC_INTERNAL, END_UNKNOWN_OPERATOR, "internal error");
		return false;
	}
	if (!client) {
		flight_fail(f, END_UNKNOWN_OPERATOR,
		    "error retrieving directory entry for client '%s': no directory entry found", f->req.client);
		return false;
	}
	if (flight_set_client(f, client) < 0) {
		flight_refuse(f, RPC_INTERNAL, END_INTERNAL, "internal error");
		return false;
	}
	if (!flight_is_permitted(f, own, client)) {
		flight_refuse(f, RPC_DENIED, END_DENIED, "Permission denied for method '%s' and client '%s'",
		    f->req.addr.method, f->req.client);
		return false;
	}
	return true;
}

static void
flight_route(struct flight *f)
{
	struct broker *b = f->broker;

	if (!f->was_refreshed && flight_is_refusable(f)) {
		/* the operator, or its permission, may be new */
		f->was_refreshed = true;
		f->refs++;
		directory_refresh(b->dir, flight_on_directory, f);
	} else if (!directory_get(b->dir, f->req.addr.operator)) {
		flight_fail(f, END_UNKNOWN_OPERATOR,
		    "error retrieving directory entry for recipient '%s': no directory entry found",
		    f->req.addr.operator);
	} else if (flight_check(f)) {
		flight_dispatch(f);
	}
}

static void
flight_on_directory(enum directory_state state, void *arg)
{
	struct flight *f = arg;

	if (reply_is_open(&f->reply)) {
		if (state == DIRECTORY_EMPTY || state == DIRECTORY_STALE)
			flight_refuse(f, RPC_STALE, END_STALE,
			    "%s: the directory could not be fetched and what is kept is too old: is sd running?",
			    f->broker->conf->name);
		else
			flight_route(f);
	}
	flight_unref(f);
}

static void
flight_parse(struct flight *f)
{
	if (address_parse(f->req.id, &f->req.addr) < 0)
		flight_fail(f, END_BAD_REQUEST, "error parsing address: invalid ID format");
	else if (!address_fits(&f->req.addr, f->req.method))
		flight_refuse(f, RPC_INVALID_REQUEST, END_BAD_REQUEST,
		    "invalid request: the id names %s.%s and the method is '%s'", f->req.addr.operator,
		    f->req.addr.method, f->req.method);
}

static void
flight_register(struct flight *f, bool is_edge)
{
	struct broker *b = f->broker;
	int rc;

	if (is_edge)
		rc = pending_add_edge(b->ids, f->req.client, &f->req.id, &f->req.addr, &f->key);
	else
		rc = pending_add(b->ids, f->req.client, f->req.id, &f->key);
	if (rc == -EEXIST)
		flight_fail(
		    f, END_BAD_REQUEST, "request %s is already being processed (maybe a delivery loop)", f->req.id);
	else if (rc == -ENOSPC || b->n_flights > b->conf->max_in_flight)
		flight_answer(f,
		    rpc_fail_step(RPC_BUSY, END_BUSY, STEP_NONE, NULL, 1000,
			"%zu requests are in flight, the setting max_in_flight permits no more", b->n_flights),
		    false);
	else if (rc < 0)
		flight_refuse(f, RPC_INTERNAL, END_INTERNAL, "internal error");
	else if (b->bytes > b->conf->max_in_flight_bytes)
		flight_answer(f,
		    rpc_fail_step(RPC_BUSY, END_BUSY, STEP_NONE, NULL, 1000,
			"the requests in flight take %zu bytes, the setting max_in_flight_bytes permits no more",
			b->bytes - f->bytes),
		    false);
}

/* A flight in the list with one reference, the caller's. NULL when out of memory. */
static struct flight *
flight_new(struct broker *b, const struct broker_in *in, deliver_cb cb, void *arg)
{
	int64_t timeout_ms = in->timeout_ms > 0 ? in->timeout_ms : b->conf->call_timeout_ms;
	int64_t deadline_ms = clock_now_ms() + timeout_ms;
	int64_t margin_ms = timeout_ms / 16 < 500 ? timeout_ms / 16 : 500;
	struct flight *f = calloc(1, sizeof(*f));

	if (!f)
		return NULL;
	f->req.client = strdup(in->client);
	f->req.method = strdup(in->method);
	f->req.id = strdup(in->id);
	f->req.params = json_incref(in->params);
	f->req.deadline_ms = deadline_ms - margin_ms;
	f->req.as_text = in->as_text;
	if (!f->req.client || !f->req.method || !f->req.id ||
	    reply_init(&f->reply, b->base, deadline_ms, &flight_reply_ops, f, cb, arg) < 0) {
		request_fini(&f->req);
		free(f);
		return NULL;
	}
	f->broker = b;
	f->refs = 1;
	f->bytes = json_weight(in->params);
	b->bytes += f->bytes;
	f->is_foreign = strcmp(in->client, b->conf->name) != 0;
	f->from = f->is_foreign ? COUNTS_OPERATOR : in->is_inner ? COUNTS_SELF : COUNTS_APPLICATION;
	f->begun_ns = clock_now_ns();
	LIST_INSERT_HEAD(&b->flights, f, link);
	b->n_flights++;
	return f;
}

static void
flight_drained(struct flight *f)
{
	const struct broker *b = f->broker;

	flight_answer(f,
	    rpc_fail_step(RPC_DRAINING, END_DRAINING, STEP_NONE, NULL, b->is_over ? 0 : DRAINED_RETRY_MS,
		b->is_over ? "%s is shutting down: ask again when it is back"
			   : "%s is draining: it takes no new calls for now, ask again later",
		b->conf->name),
	    false);
}

/* Our own proxy tells the other operator of a connection that somebody has asked for: that call is in flight here
 * and would come to nothing without this one. */
static bool
is_for_a_brokering(const struct broker *b, const struct broker_in *in)
{
	const char *dot = strrchr(in->method, '.');
	const struct flight *f;

	if (!dot || strcmp(dot, "._connectionRequest") != 0 || strcmp(in->client, b->conf->name) != 0)
		return false;
	LIST_FOREACH (f, &b->flights, link)
		if (f->is_foreign && reply_is_open(&f->reply) && f->req.addr.method &&
		    strcmp(f->req.addr.method, "requestConnection") == 0)
			return true;
	return false;
}

int
broker_call(struct broker *b, const struct broker_in *in, deliver_cb cb, void *arg)
{
	struct flight *f = flight_new(b, in, cb, arg);

	if (!f)
		return -ENOMEM;
	if (b->is_over || (b->is_draining && !in->is_inner && !is_for_a_brokering(b, in)))
		flight_drained(f);
	if (reply_is_open(&f->reply))
		flight_parse(f);
	if (reply_is_open(&f->reply))
		flight_register(f, in->is_edge);
	if (reply_is_open(&f->reply)) {
		f->refs++;
		directory_fresh(b->dir, flight_on_directory, f);
	}
	return 0;
}

void
broker_apply(struct broker *b, const struct conf_hyper *conf)
{
	b->conf = conf;
	pending_set_max(b->ids, conf->max_in_flight);
}

void
broker_drain(struct broker *b, bool on)
{
	b->is_draining = on;
}

void
broker_drain_now(struct broker *b)
{
	struct flight *f;

	b->is_draining = b->is_over = true;
	LIST_FOREACH (f, &b->flights, link)
		flight_drained(f);
}

size_t
broker_bytes(const struct broker *b)
{
	return b->bytes;
}

size_t
broker_in_flight(const struct broker *b)
{
	return b->n_flights;
}

void
broker_free(struct broker *b)
{
	struct flight *f;

	if (!b)
		return;
	while ((f = LIST_FIRST(&b->flights))) {
		if (f->reply.timer) {
			reply_flush(&f->reply);
			continue;
		}
		/* what it waited for is gone with the directory */
		f->refs = 1;
		flight_unref(f);
	}
	pending_free(b->ids);
	free(b);
}
