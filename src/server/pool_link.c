/* pool_link.c - a connection of the pool and the calls on it
 *
 *   queue --pcall_send--> stream --message, trailers--> answer
 *      `--- deadline ---------`--- lost, deadline ----> error
 *
 * Always true:
 *  1. A call has two ends, its caller's (reply) and its stream's. Its memory
 *     goes with the later one.
 *  2. An answer is given with the trailers of status 0, never with the message alone.
 *  3. A link without target is freed with its last call.
 *
 * Not here: when a connection is made (pool.c).
 */
#include "server/pool_impl.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "hyper/base/clock.h"
#include "hyper/base/log.h"
#include "server/pin.h"
#include "server/story.h"

#define CONNECT_MS 10000 /* resolving, TCP, TLS; brokered: TLS alone, which waits for B to come */

static const struct grpc_conn_ops link_ops;

void
link_log_end(struct link *l, enum end_reason reason, const char *why)
{
	if (l->since_ms > 0 && !l->has_ended)
		log_info("connection_lost",
		    "side=a operator=%s via=%s session=%s calls=%" PRIu64 " reason=%s why=\"%s\"", l->name,
		    l->via ? l->via : "", l->session, l->calls, end_reason_word(reason), why);
	story_ended(l->story, reason, why);
	l->has_ended = true;
}

void
link_free(struct link *l)
{
	link_log_end(l, END_CLOSED, "let go");
	TAILQ_REMOVE(&l->pool->links, l, entry);
	grpc_conn_free(l->conn);
	json_decref(l->timeline);
	names_fini(&l->names);
	free(l->name);
	free(l->via);
	free(l);
}

struct link *
link_new(struct target *t, const char *via)
{
	struct link *l = calloc(1, sizeof(*l));

	if (!l)
		return NULL;
	l->pool = t->pool;
	l->target = t;
	l->since_ms = clock_now_ms();
	l->asked_ms = (double)l->since_ms;
	TAILQ_INSERT_TAIL(&t->pool->links, l, entry);
	l->name = strdup(t->name);
	l->via = strdup(via);
	if (!l->name || !l->via) {
		link_free(l);
		return NULL;
	}
	return l;
}

int
link_dial(struct link *l, const char *address)
{
	return grpc_conn_dial(l->pool->base, l->pool->ctx, address, l->name, CONNECT_MS, &link_ops, l, &l->conn);
}

int
link_adopt(struct link *l, int fd)
{
	return grpc_conn_adopt(l->pool->base, l->pool->ctx, fd, l->name, CONNECT_MS, &link_ops, l, &l->conn);
}

/* The steps that A knows. They were clocked in whole milliseconds: never earlier than the step before. */
static void
link_add_steps(struct link *l)
{
	double answered_ms = json_number_value(json_object_get(l->timeline, broker_step_word(STEP_ANSWERED)));
	double paired_ms = (double)grpc_conn_heard_ms(l->conn) - l->asked_ms;
	double secured_ms = (double)grpc_conn_secured_ms(l->conn) - l->asked_ms;

	paired_ms = paired_ms > answered_ms ? paired_ms : answered_ms;
	timeline_add(l->timeline, STEP_PAIRED, paired_ms);
	timeline_add(l->timeline, STEP_SECURED, secured_ms > paired_ms ? secured_ms : paired_ms);
}

static bool
link_on_secured(struct grpc_conn *conn, const struct tls_peer *peer, void *arg)
{
	struct link *l = arg;
	struct target *t = l->target;

	(void)conn;
	l->was_unpinned = pin_names(l->pool->dir, peer, &l->names) < 0 || !names_has(&l->names, l->name);
	if (l->was_unpinned || !t)
		return false;
	l->since_ms = clock_now_ms();
	if (*l->via)
		link_add_steps(l);
	story_steps(l->story, l->timeline);
	story_paired(l->story);
	log_info(*l->via ? "brokered" : "connected", "side=a operator=%s via=%s session=%s step=%s ms=%.0f", l->name,
	    l->via, l->session, *l->via ? broker_step_word(STEP_SECURED) : "", (double)l->since_ms - l->asked_ms);
	target_enter(t, TARGET_READY, "secured");
	target_kick(t);
	return true;
}

/* P let our token's connection go, or never had it, and B was not heard: was it for the token's time? */
static bool
link_has_expired(const struct link *l, enum end_reason reason)
{
	return *l->via && l->expires_ms > 0 && !l->was_unpinned && grpc_conn_heard_ms(l->conn) == 0 &&
	       reason != END_DEADLINE && (double)clock_now_ms() >= l->expires_ms;
}

/* The error for all who waited for this connection. */
static struct rpc_answer
link_error(const struct link *l, enum end_reason reason, const char *why)
{
	bool heard = grpc_conn_heard_ms(l->conn) > 0;
	enum broker_step step = !*l->via ? STEP_NONE : heard ? STEP_SECURED : STEP_PAIRED;

	if (l->was_unpinned)
		return rpc_fail_step(RPC_CHANNEL, END_TLS, *l->via ? STEP_SECURED : STEP_NONE, l->session, 0,
		    "the certificate that answered as %s is not the one that the directory pins for it", l->name);
	if (link_has_expired(l, reason))
		return rpc_fail_step(RPC_DEADLINE, END_EXPIRED, step, l->session, 0,
		    "%s and %s did not both reach %s within the %.0f ms of their token (step %s)", l->pool->hyper->name,
		    l->name, l->via, l->expires_ms - l->asked_ms, broker_step_word(step));
	if (*l->via)
		return rpc_fail_step(reason == END_DEADLINE ? RPC_DEADLINE : RPC_CHANNEL, reason, step, l->session, 0,
		    "the connection to %s through %s failed at step %s: %s", l->name, l->via, broker_step_word(step),
		    why);
	return rpc_fail_step(
	    RPC_CHANNEL, reason, STEP_NONE, NULL, 0, "%s could not reach %s: %s", l->pool->hyper->name, l->name, why);
}

/* Before it came to be. */
static void
link_log_failed(const struct link *l, enum end_reason reason, const char *why)
{
	const char *step = *l->via ? broker_step_word(grpc_conn_heard_ms(l->conn) ? STEP_SECURED : STEP_PAIRED) : "";

	log_warn(*l->via ? "brokered" : "connect_failed",
	    "side=a operator=%s via=%s session=%s failed=%s reason=%s why=\"%s\"", l->name, l->via, l->session, step,
	    end_reason_word(reason), why);
	story_failed(l->story, step, end_reason_word(reason), why);
}

static void
link_on_closed(struct grpc_conn *conn, enum end_reason reason, const char *why, void *arg)
{
	struct link *l = arg;
	struct target *t = l->target;

	(void)conn;
	if (t) {
		struct rpc_answer error = link_error(l, reason, why);

		if (link_has_expired(l, reason))
			reason = END_EXPIRED;
		if (t->state == TARGET_SECURING)
			link_log_failed(l, l->was_unpinned ? END_TLS : reason, error.message ? error.message : why);
		else
			link_log_end(l, reason, why);
		if (t->state == TARGET_READY)
			target_lost(t, &error, why);
		else
			target_fail(t, &error, why);
		rpc_answer_fini(&error);
	}
	link_log_end(l, reason, why);
	link_free(l);
}

static const struct grpc_conn_ops link_ops = { link_on_secured, NULL, link_on_closed };

static void
pcall_free(struct pcall *p)
{
	rpc_answer_fini(&p->answer);
	free(p);
}

void
pcall_unqueue(struct pcall *p)
{
	TAILQ_REMOVE(&p->target->queue, p, entry);
	p->target->n_queue--;
	p->target = NULL;
}

/* False: too many wait. */
static bool
pcall_enqueue(struct pcall *p, struct target *t)
{
	if (t->n_queue >= POOL_MAX_QUEUE)
		return false;
	p->target = t;
	TAILQ_INSERT_TAIL(&t->queue, p, entry);
	t->n_queue++;
	return true;
}

static void
pcall_on_message(struct grpc_stream *stream, const uint8_t *data, size_t len, void *arg)
{
	struct pcall *p = arg;
	struct grpc_response msg;

	(void)stream;
	if (p->has_message || p->is_done)
		return; /* a unary answer is one message; the first counts */
	p->has_message = true;
	if (grpc_response_unpack(data, len, p->req->as_text, &msg) < 0) {
		p->answer = rpc_fail_step(
		    RPC_CHANNEL, END_BAD_REQUEST, STEP_NONE, NULL, 0, "%s sent a malformed response", p->link->name);
		return;
	}
	p->answer = msg.answer;
	msg.answer = (struct rpc_answer){ 0 };
	grpc_response_fini(&msg);
}

static struct rpc_answer
pcall_status_error(const struct pcall *p, int status, const char *message)
{
	const struct link *l = p->link;

	if (status == GRPC_OK)
		return rpc_fail_step(RPC_CHANNEL, END_BAD_REQUEST, STEP_NONE, l->session, 0,
		    "%s ended the call without a response", l->name);
	if (status == GRPC_UNAVAILABLE)
		return rpc_fail_step(RPC_CHANNEL, END_RESET, STEP_NONE, l->session, 0,
		    "the connection to %s was lost before it answered: %s", l->name, message);
	return rpc_fail_step(
	    RPC_CHANNEL, END_REFUSED, STEP_NONE, l->session, 0, "%s: %s (gRPC status %d)", l->name, message, status);
}

/* Nobody has looked at it: it goes to the end of the queue, once. True: it waits there. */
static bool
pcall_again(struct pcall *p, const struct grpc_stream *stream, const char *why)
{
	struct link *l = p->link;
	struct target *t;
	int rc;

	if (p->was_again || p->is_done || !reply_is_open(&p->reply) || !grpc_stream_was_untouched(stream))
		return false;
	t = pool_target(l->pool, l->name, &rc);
	if (!t || !pcall_enqueue(p, t))
		return false;
	p->was_again = true;
	log_info("call_again", "operator=%s method=%s why=\"%s\"", l->name, p->req->method, why);
	target_kick(t);
	return true;
}

static void
pcall_on_end(struct grpc_stream *stream, int status, const char *message, void *arg)
{
	struct pcall *p = arg;
	struct link *l = p->link;

	if (status == GRPC_OK && p->has_message) {
		reply_give(&p->reply, p->answer, false);
		p->answer = (struct rpc_answer){ 0 };
	} else if (!p->is_done && !pcall_again(p, stream, message)) {
		reply_give(&p->reply, pcall_status_error(p, status, message), true);
	}
	p->stream = NULL;
	p->link = NULL;
	if (p->is_done)
		pcall_free(p);
	l->n_active--;
	if (!l->target && l->n_active == 0)
		link_free(l);
}

static const struct grpc_stream_ops pcall_stream_ops = { pcall_on_message, NULL, pcall_on_end };

int
pcall_send(struct pcall *p, struct link *l)
{
	json_t *params = request_params_for_wire(p->req, false);
	struct grpc_request msg = { p->req->method, p->req->id, l->pool->hyper->name, params };
	uint8_t *frame = NULL;
	size_t len;
	int rc = params ? grpc_request_pack(&msg, &frame, &len) : -ENOMEM;

	/* the peer puts its own directory's word in its place: a large call does not fail for it */
	if (rc == -EMSGSIZE && json_object_del(params, "_client") == 0)
		rc = grpc_request_pack(&msg, &frame, &len);
	json_decref(params);
	if (rc == 0)
		rc = grpc_stream_open(l->conn, "/Hyper/Call", l->name, &pcall_stream_ops, p, &p->stream);
	if (rc < 0) {
		free(frame);
		return rc;
	}
	p->link = l;
	l->n_active++;
	l->calls++;
	/* from here on the stream's end is the call's, whatever becomes of the message */
	if (grpc_stream_send(p->stream, frame, len) < 0)
		grpc_stream_finish(p->stream, GRPC_CANCELLED, "");
	else
		grpc_stream_half_close(p->stream);
	return 0;
}

static void
pcall_on_deadline(void *owner)
{
	struct pcall *p = owner;
	const struct target *t = p->target;
	enum broker_step step = STEP_NONE;

	if (t && t->state == TARGET_BROKERING)
		step = brokered_step(t->brokered);
	else if (t && t->state == TARGET_SECURING && *t->link->via)
		step = grpc_conn_heard_ms(t->link->conn) ? STEP_SECURED : STEP_PAIRED;
	reply_give(&p->reply,
	    rpc_fail_step(RPC_DEADLINE, END_DEADLINE, step, t && t->link ? t->link->session : NULL, 0,
		step ? "%s was not connected in time: still waiting for step %s"
		: t  ? "%s was not connected in time%s"
		     : "%s did not answer in time%s",
		p->req->addr.operator, step ? broker_step_word(step) : ""),
	    true);
	if (p->stream)
		grpc_stream_finish(p->stream, GRPC_CANCELLED, "deadline");
}

static void
pcall_on_done(void *owner)
{
	struct pcall *p = owner;

	p->is_done = true;
	if (p->target)
		pcall_unqueue(p);
	if (!p->stream)
		pcall_free(p);
}

static const struct reply_ops pcall_reply_ops = { pcall_on_deadline, pcall_on_done };

int
pcall_new(struct pool *pool, struct target *t, const struct request *req, deliver_cb cb, void *arg)
{
	struct pcall *p = calloc(1, sizeof(*p));

	if (!p || reply_init(&p->reply, pool->base, req->deadline_ms, &pcall_reply_ops, p, cb, arg) < 0) {
		free(p);
		return -ENOMEM;
	}
	p->req = req;
	if (!t || !pcall_enqueue(p, t))
		reply_give(&p->reply,
		    rpc_fail_step(RPC_BUSY, END_BUSY, STEP_NONE, NULL, 1000,
			t ? "too many calls already wait for the connection to %s"
			  : "too many connections are in use to make one more to %s",
			req->addr.operator),
		    true);
	return 0;
}
