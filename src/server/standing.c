/* standing.c - streams to the operators that may call us, so that they can though nobody can dial us (protocol.md 3.5)
 *
 *   WAITING --timer--> DIALLING --TLS, pinning, announcement sent--> OPEN
 *      ^--- back-off doubles, with jitter ---'------ end ------------'
 *
 * Always true:
 *  1. One connection and one stream for each peer that the directory says we
 *     keep one to; the set is compared again after each change and each minute.
 *  2. The back-off starts anew only after a stream that has lived HEALTHY_MS: a
 *     peer that takes and drops us at once is not called ten times a second.
 *  3. Only the operator that was dialled may send requests over its stream, and
 *     the peer's certificate is pinned for it.
 *  4. A request in the broker outlives its stream: its answer is dropped then.
 *
 * Not here: the other side (servercall.c), permissions (broker.c).
 */
#include "server/standing.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include <event2/event.h>

#include "hyper/base/bug.h"
#include "hyper/base/bytes.h"
#include "hyper/base/clock.h"
#include "hyper/base/log.h"
#include "hyper/directory/directory.h"
#include "hyper/directory/entry.h"
#include "hyper/net/grpc.h"
#include "hyper/wire/json.h"
#include "server/broker.h"
#include "server/internal.h"
#include "server/pin.h"
#include "server/servercall.h"

#define CONNECT_MS 10000
#define HEALTHY_MS 5000
#define UPDATE_MS  60000
#define BIT(s)     (1u << (s))

#define SPEER_STATES(X)                                   \
	X(WAITING, BIT(SPEER_DIALLING))                   \
	X(DIALLING, BIT(SPEER_OPEN) | BIT(SPEER_WAITING)) \
	X(OPEN, BIT(SPEER_WAITING))

enum speer_state {
#define X(n, to) SPEER_##n,
	SPEER_STATES(X)
#undef X
	    SPEER_STATE_MAX
};

static const struct {
	const char *name;
	unsigned to;
} speer_tab[] = {
#define X(n, to) { #n, to },
	SPEER_STATES(X)
#undef X
};

struct speer {
	TAILQ_ENTRY(speer) link;
	struct standing *standing;
	char *name;
	struct names names; /* what its certificate was pinned for */
	enum speer_state state;
	struct grpc_conn *conn;     /* DIALLING, OPEN; after that until on_closed */
	struct grpc_stream *stream; /* OPEN */
	struct event *timer;        /* WAITING: dials; DIALLING: opens the stream */
	int64_t delay_ms;           /* the next back-off */
	int64_t since_ms;
	uint64_t calls;
	unsigned n_served;   /* requests in the broker */
	unsigned generation; /* of the stream: a late answer must not go to its successor */
	bool was_unpinned;
	bool is_wanted;
	bool is_gone; /* in `gone`: waits for its stream's end only */
};

/* A request of a peer, in the broker. */
struct served {
	LIST_ENTRY(served) link;
	struct speer *peer; /* NULL: gone */
	unsigned generation;
	char *id;
};

struct standing {
	struct event_base *base;
	const struct conf_hyper *conf;
	struct directory *dir;
	struct broker *broker;
	SSL_CTX *ctx;
	struct event *tick;
	TAILQ_HEAD(speer_list, speer) peers, gone;
	size_t n_peers;
	LIST_HEAD(, served) served;
	bool was_full;
};

/* The only place that writes p->state. */
static void
speer_enter(struct speer *p, enum speer_state to, const char *why)
{
	BUG_ON(!(speer_tab[p->state].to & BIT(to)));
	log_debug("standing_state", "operator=%s state=%s>%s why=\"%s\"", p->name, speer_tab[p->state].name,
	    speer_tab[to].name, why);
	p->state = to;
}

static void
speer_arm(struct speer *p, int64_t ms)
{
	struct timeval tv = { .tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000 };

	evtimer_add(p->timer, &tv);
}

/* Half to all of the delay, so that many servers do not come back in step. */
static int64_t
with_jitter(int64_t ms)
{
	uint32_t r;

	random_bytes(&r, sizeof(r));
	return ms / 2 + (int64_t)(r % (uint64_t)(ms / 2 + 1));
}

static void
speer_wait(struct speer *p, const char *why)
{
	const struct conf_hyper *conf = p->standing->conf;
	int64_t ms;

	if (p->state == SPEER_OPEN && clock_now_ms() - p->since_ms >= HEALTHY_MS)
		p->delay_ms = conf->reconnect_min_ms;
	ms = with_jitter(p->delay_ms);
	log_info("standing_lost", "operator=%s retry_ms=%" PRId64 " why=\"%s\"", p->name, ms, why);
	speer_enter(p, SPEER_WAITING, why);
	p->delay_ms = p->delay_ms * 2 < conf->reconnect_max_ms ? p->delay_ms * 2 : conf->reconnect_max_ms;
	speer_arm(p, ms);
}

static void
served_send(struct served *s, struct rpc_answer answer)
{
	struct speer *p = s->peer;
	struct grpc_response msg = { .id = s->id, .answer = answer };
	uint8_t *frame;
	size_t len;
	int rc = grpc_response_pack(&msg, &frame, &len);

	if (rc == -EMSGSIZE || rc == -EINVAL) {
		struct rpc_answer error = rpc_fail_step(RPC_REMOTE_HANDLER, END_INTERNAL, STEP_NONE, NULL, 0,
		    "the answer cannot travel: it is larger than 4 MiB or holds a NUL");

		msg.answer = error;
		rc = grpc_response_pack(&msg, &frame, &len);
		rpc_answer_fini(&error);
	}
	if (rc == 0)
		rc = grpc_stream_send(p->stream, frame, len);
	if (rc < 0)
		log_warn("answer_lost", "operator=%s why=\"%s\"", p->name, strerror(-rc));
}

static void
served_free(struct served *s)
{
	if (s->peer)
		s->peer->n_served--;
	LIST_REMOVE(s, link);
	free(s->id);
	free(s);
}

static void
served_on_answer(struct rpc_answer *answer, bool failed, void *arg)
{
	struct served *s = arg;
	struct speer *p = s->peer;
	struct rpc_answer out = *answer;

	if (failed)
		out.code = RPC_REMOTE_HANDLER; /* 3.5: "broker error -> error code -100 with the text" */
	if (p && p->stream && p->generation == s->generation)
		served_send(s, out);
	served_free(s);
}

/* An answer without asking the broker. */
static void
speer_refuse(struct speer *p, const char *id, struct rpc_answer answer)
{
	struct served s = { .peer = p, .id = (char *)id };

	served_send(&s, answer);
	rpc_answer_fini(&answer);
}

static int
speer_ask(struct speer *p, struct grpc_request *msg)
{
	struct broker_in in = { .client = p->name, .method = msg->method, .id = msg->id, .params = msg->params };
	struct served *s = calloc(1, sizeof(*s));

	if (!s)
		return -ENOMEM;
	s->peer = p;
	s->generation = p->generation;
	s->id = strdup(msg->id);
	LIST_INSERT_HEAD(&p->standing->served, s, link);
	p->n_served++;
	if (!s->id || broker_call(p->standing->broker, &in, served_on_answer, s) < 0) {
		served_free(s);
		return -ENOMEM;
	}
	p->calls++;
	return 0;
}

/* A server of ours says with its first request that it sends several at a time; it is no parameter of the method. */
static void
take_agreement(json_t *params)
{
	const json_t *hyper = json_object_get(params, "hyper");

	if (json_integer_value(json_object_get(hyper, "version")) == 1 &&
	    json_integer_value(json_object_get(hyper, "parallel")) > 0 && json_object_size(hyper) == 2)
		json_object_del(params, "hyper");
}

static void
speer_destroy(struct speer *p)
{
	TAILQ_REMOVE(p->is_gone ? &p->standing->gone : &p->standing->peers, p, link);
	names_fini(&p->names);
	free(p->name);
	free(p);
}

/* Is it still who it was when the stream was opened? Otherwise the stream ends. */
static bool
speer_is_pinned(struct speer *p)
{
	if (pin_holds(p->standing->dir, &p->names, p->name))
		return true;
	grpc_stream_finish(p->stream, GRPC_CANCELLED, "the directory pins another certificate now");
	return false;
}

static void
speer_on_message(struct grpc_stream *stream, const uint8_t *data, size_t len, void *arg)
{
	struct speer *p = arg;
	struct grpc_request msg;

	if (!speer_is_pinned(p))
		return;
	if (grpc_request_unpack(data, len, &msg) < 0) {
		grpc_stream_finish(stream, GRPC_CANCELLED, "malformed request");
		return;
	}
	take_agreement(msg.params);
	if (*msg.client_name && strcmp(msg.client_name, p->name) != 0)
		speer_refuse(p, msg.id, rpc_fail(RPC_NOT_FOUND, NULL, "no matching client found"));
	else if (p->n_served >= SERVERCALL_PARALLEL)
		speer_refuse(p, msg.id,
		    rpc_fail_step(
			RPC_BUSY, END_BUSY, STEP_NONE, NULL, 1000, "%u requests are being served", p->n_served));
	else if (speer_ask(p, &msg) < 0)
		speer_refuse(p, msg.id, rpc_fail(RPC_INTERNAL, NULL, "internal error"));
	grpc_request_fini(&msg);
}

static void
speer_on_end(struct grpc_stream *stream, int status, const char *message, void *arg)
{
	struct speer *p = arg;

	(void)status;
	if (p->stream != stream)
		return;
	p->stream = NULL;
	if (p->is_gone) {
		speer_destroy(p);
		return;
	}
	/* the connection serves this stream only */
	if (p->state == SPEER_OPEN) {
		grpc_conn_free(p->conn);
		p->conn = NULL;
		speer_wait(p, *message ? message : "the peer ended the stream");
	}
}

static const struct grpc_stream_ops speer_stream_ops = { speer_on_message, NULL, speer_on_end };

/* 0 or -errno. */
static int
speer_announce(struct speer *p)
{
	struct grpc_response msg = { .id = (char *)"1" };
	uint8_t *frame = NULL;
	size_t len;
	int rc = -ENOMEM;

	msg.answer.result = json_pack("{s:s, s:{s:i, s:i}}", "name", p->standing->conf->name, "hyper", "version", 1,
	    "parallel", SERVERCALL_PARALLEL);
	if (msg.answer.result)
		rc = grpc_response_pack(&msg, &frame, &len);
	json_decref(msg.answer.result);
	if (rc == 0)
		rc = grpc_stream_open(p->conn, "/Hyper/ServerCall", p->name, &speer_stream_ops, p, &p->stream);
	if (rc < 0) {
		free(frame);
		return rc;
	}
	p->generation++;
	return grpc_stream_send(p->stream, frame, len);
}

static bool
speer_on_secured(struct grpc_conn *conn, const struct tls_peer *peer, void *arg)
{
	struct speer *p = arg;
	struct names names = { 0 };

	(void)conn;
	p->was_unpinned = pin_names(p->standing->dir, peer, &names) < 0 || !names_has(&names, p->name);
	names_fini(&p->names);
	p->names = names;
	if (p->was_unpinned)
		return false;
	speer_arm(p, 0);
	return true;
}

static void
speer_on_closed(struct grpc_conn *conn, enum end_reason reason, const char *why, void *arg)
{
	struct speer *p = arg;

	(void)reason;
	grpc_conn_free(conn);
	p->conn = NULL;
	event_del(p->timer);
	speer_wait(p, p->was_unpinned ? "its certificate is not the one that the directory pins" : why);
}

static const struct grpc_conn_ops speer_conn_ops = { speer_on_secured, NULL, speer_on_closed };

static void
speer_dial(struct speer *p)
{
	const json_t *entry = directory_get(p->standing->dir, p->name);
	struct entry_grpc server = { 0 };
	int rc = -ENOENT;

	p->was_unpinned = false;
	speer_enter(p, SPEER_DIALLING, "");
	if (entry && entry_grpc_server(entry, &server))
		rc = grpc_conn_dial(p->standing->base, p->standing->ctx, server.address, p->name, CONNECT_MS,
		    &speer_conn_ops, p, &p->conn);
	if (rc < 0)
		speer_wait(p, strerror(-rc));
}

static void
speer_on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct speer *p = arg;
	int rc;

	(void)fd;
	(void)what;
	if (p->state == SPEER_WAITING) {
		speer_dial(p);
		return;
	}
	BUG_ON(p->state != SPEER_DIALLING);
	rc = speer_announce(p);
	if (rc < 0) {
		grpc_conn_free(p->conn);
		p->conn = NULL;
		speer_wait(p, strerror(-rc));
		return;
	}
	p->since_ms = clock_now_ms();
	speer_enter(p, SPEER_OPEN, "announced");
	log_info("standing", "operator=%s", p->name);
}

/* No longer a peer. Its memory stays until its stream's end has come from the loop. */
static void
speer_drop(struct speer *p)
{
	struct served *s;

	LIST_FOREACH (s, &p->standing->served, link)
		if (s->peer == p)
			s->peer = NULL;
	if (p->timer)
		event_free(p->timer);
	p->timer = NULL;
	p->standing->n_peers--;
	grpc_conn_free(p->conn);
	p->conn = NULL;
	if (!p->stream) {
		speer_destroy(p);
		return;
	}
	TAILQ_REMOVE(&p->standing->peers, p, link);
	TAILQ_INSERT_TAIL(&p->standing->gone, p, link);
	p->is_gone = true;
}

static void
speer_new(struct standing *st, const char *name)
{
	struct speer *p = calloc(1, sizeof(*p));

	if (!p)
		return; /* the next tick tries again */
	p->standing = st;
	p->delay_ms = st->conf->reconnect_min_ms;
	p->is_wanted = true;
	TAILQ_INSERT_TAIL(&st->peers, p, link);
	st->n_peers++;
	p->name = strdup(name);
	p->timer = evtimer_new(st->base, speer_on_timer, p);
	if (!p->name || !p->timer)
		speer_drop(p);
	else
		speer_arm(p, 0);
}

/* protocol.md 3.5 "which peers are dialled" */
static bool
is_peer(const struct standing *st, const json_t *own, const char *name, const json_t *other)
{
	struct entry_grpc theirs = { 0 }, ours = { 0 };

	if (strcmp(name, st->conf->name) == 0 || !entry_grpc_server(other, &theirs))
		return false;
	if (theirs.internal || *theirs.proxy || !entry_may_be_called_by(own, other))
		return false;
	/* whoever can dial us does so */
	return !(
	    entry_grpc_server(own, &ours) && !ours.internal && !*ours.proxy && entry_has_channel(other, "grpc_client"));
}

static struct speer *
standing_find(struct standing *st, const char *name)
{
	struct speer *p;

	TAILQ_FOREACH (p, &st->peers, link)
		if (strcmp(p->name, name) == 0)
			return p;
	return NULL;
}

static void
standing_want(struct standing *st, const char *name)
{
	struct speer *p = standing_find(st, name);

	if (p) {
		p->is_wanted = true;
		return;
	}
	if (st->n_peers < STANDING_MAX_PEERS) {
		speer_new(st, name);
		return;
	}
	if (!st->was_full)
		log_warn("standing_full", "peers=%zu operator=%s why=\"no stream is kept to it and further ones\"",
		    st->n_peers, name);
	st->was_full = true;
}

void
standing_update(struct standing *st)
{
	json_t *all = (json_t *)directory_all(st->dir); /* jansson's loops take no const */
	const json_t *own = directory_get(st->dir, st->conf->name);
	struct speer *p, *next;
	const char *name;
	json_t *entry;

	if (!own || directory_state(st->dir) == DIRECTORY_EMPTY)
		return; /* nothing is known: what there is stays */
	TAILQ_FOREACH (p, &st->peers, link)
		p->is_wanted = false;
	json_object_foreach (all, name, entry)
		if (is_peer(st, own, name, entry))
			standing_want(st, name);
	for (p = TAILQ_FIRST(&st->peers); p; p = next) {
		next = TAILQ_NEXT(p, link);
		if (p->is_wanted && p->state == SPEER_OPEN && p->stream)
			(void)speer_is_pinned(p);
		if (p->is_wanted)
			continue;
		log_info("standing_dropped", "operator=%s why=\"the directory has changed\"", p->name);
		speer_drop(p);
	}
}

static void
standing_on_fresh(enum directory_state state, void *arg)
{
	(void)state;
	standing_update(arg);
}

static void
standing_on_tick(evutil_socket_t fd, short what, void *arg)
{
	struct standing *st = arg;

	(void)fd;
	(void)what;
	directory_fresh(st->dir, standing_on_fresh, st);
}

int
standing_new(struct event_base *base, const struct conf_grpc_client *conf, const struct conf_hyper *hyper,
    struct directory *dir, struct broker *broker, struct standing **ret, char err[CH_ERR_MAX])
{
	struct standing *st = calloc(1, sizeof(*st));
	char why[TLS_ERR_MAX] = "out of memory";
	struct timeval tv = { .tv_sec = UPDATE_MS / 1000 };
	int rc = -ENOMEM;

	if (!st)
		goto out;
	st->base = base;
	st->conf = hyper;
	st->dir = dir;
	st->broker = broker;
	TAILQ_INIT(&st->peers);
	TAILQ_INIT(&st->gone);
	LIST_INIT(&st->served);
	st->tick = event_new(base, -1, EV_PERSIST, standing_on_tick, st);
	if (!st->tick || evtimer_add(st->tick, &tv) < 0)
		goto out;
	rc = tls_ctx_new(conf->tls, TLS_CLIENT, TLS_ALPN_H2, &st->ctx, why);
out:
	if (rc < 0) {
		snprintf(err, CH_ERR_MAX, "grpc_client: %s", why);
		standing_free(st);
		return rc;
	}
	*ret = st;
	event_active(st->tick, EV_TIMEOUT, 0);
	return 0;
}

void
standing_apply(struct standing *st, const struct conf_hyper *hyper, SSL_CTX *ctx)
{
	struct speer *p;

	st->conf = hyper;
	SSL_CTX_free(st->ctx);
	st->ctx = ctx;
	TAILQ_FOREACH (p, &st->peers, link)
		if (p->delay_ms > hyper->reconnect_max_ms)
			p->delay_ms = hyper->reconnect_max_ms;
}

void
standing_list(void *arg, json_t *array)
{
	struct standing *st = arg;
	const struct speer *p;

	TAILQ_FOREACH (p, &st->peers, link) {
		struct connection_line line = {
			.name = p->name, .kind = "standing-out", .since_ms = p->since_ms, .calls = p->calls
		};

		if (p->state == SPEER_OPEN)
			connection_line_append(array, &line);
	}
}

void
standing_close(struct standing *st)
{
	struct speer *p;

	if (!st)
		return;
	while ((p = TAILQ_FIRST(&st->peers)))
		speer_drop(p);
	if (st->tick)
		event_free(st->tick);
	st->tick = NULL;
}

void
standing_free(struct standing *st)
{
	struct speer *p;

	if (!st)
		return;
	standing_close(st);
	while ((p = TAILQ_FIRST(&st->gone)))
		speer_destroy(p);
	SSL_CTX_free(st->ctx);
	free(st);
}
