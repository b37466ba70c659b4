/* servercall.c - standing streams, the side that sends requests (protocol.md 3.5 and "ServerCall")
 *
 *   ANNOUNCING --name is the certificate's--> REGISTERED --newer stream--> REPLACED
 *        `------------- end, garbage, deadline -------+-------------------'
 *                                                     v
 *                                                   ENDED --on_end--> freed
 *
 * Always true:
 *  1. The registry holds REGISTERED streams only, one for each name: the newest.
 *     So the end of a replaced one cannot unregister its successor.
 *  2. With a reference peer one request is out at a time. One that was not
 *     answered by its deadline stays out as LATE: nothing is sent until its
 *     answer came, and the stream is dropped when it does not come for a second
 *     deadline. Between two programs of ours LATE ones only occupy a slot.
 *  3. An id that is out is never sent again on the same stream, so an answer
 *     belongs to one request.
 *  4. Queued requests move to the newer stream; those that are out stay.
 *  5. Nothing is sent to a peer, and nothing it says is believed, when the directory no
 *     longer pins its certificate: the stream ends then.
 *
 * Not here: who may announce what (pin.c), the other side (standing.c).
 */
#include "server/servercall.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include <event2/event.h>

#define HASH_NONFATAL_OOM 1
#include <uthash.h>

#include "hyper/base/bug.h"
#include "hyper/base/clock.h"
#include "hyper/base/log.h"
#include "hyper/net/grpc.h"
#include "hyper/wire/json.h"
#include "server/internal.h"
#include "server/pin.h"
#include "server/reply.h"

#define ANNOUNCE_MS 10000 /* from the stream's start to its announcement */
#define BIT(s)      (1u << (s))

#define SSTREAM_STATES(X)                                           \
	X(ANNOUNCING, BIT(SSTREAM_REGISTERED) | BIT(SSTREAM_ENDED)) \
	X(REGISTERED, BIT(SSTREAM_REPLACED) | BIT(SSTREAM_ENDED))   \
	X(REPLACED, BIT(SSTREAM_ENDED))                             \
	X(ENDED, 0)

enum sstream_state {
#define X(n, to) SSTREAM_##n,
	SSTREAM_STATES(X)
#undef X
	    SSTREAM_STATE_MAX
};

static const struct {
	const char *name;
	unsigned to;
} sstream_tab[] = {
#define X(n, to) { #n, to },
	SSTREAM_STATES(X)
#undef X
};

enum scall_state { SCALL_QUEUED, SCALL_SENT, SCALL_LATE };

struct scall {
	TAILQ_ENTRY(scall) link;
	struct sstream *s; /* NULL: answered, only its reply is on the way */
	enum scall_state state;
	struct reply reply;
	const struct request *req; /* borrowed until the reply; not valid when LATE */
	char *wire_id;             /* what the answer must carry; NULL while QUEUED */
	int64_t late_until_ms;
};

TAILQ_HEAD(scall_list, scall);

struct sstream {
	TAILQ_ENTRY(sstream) link;
	UT_hash_handle hh; /* by name, REGISTERED only */
	struct servercall *sc;
	enum sstream_state state;
	struct grpc_stream *stream;
	const struct names *names;
	char *name;
	unsigned parallel;
	bool is_ours;  /* the announcement carried "hyper" */
	bool was_told; /* and a request has told the peer that we speak it too */
	struct scall_list queue, out;
	size_t n_queue, n_out;
	struct event *timer; /* ANNOUNCING: its deadline; later: the earliest late_until_ms */
	int64_t since_ms;
	uint64_t calls;
};

struct servercall {
	struct event_base *base;
	struct directory *dir;
	const struct conf_hyper *conf;
	struct sstream *registry;
	TAILQ_HEAD(, sstream) streams;
	uint64_t next_variant;
};

static void sstream_send_queued(struct sstream *);

/* The only place that writes s->state, and with it the registry. */
static void
sstream_enter(struct sstream *s, enum sstream_state to, const char *why)
{
	BUG_ON(!(sstream_tab[s->state].to & BIT(to)));
	log_debug("standing_in_state", "operator=%s state=%s>%s why=\"%s\"", s->name ? s->name : "?",
	    sstream_tab[s->state].name, sstream_tab[to].name, why);
	if (s->state == SSTREAM_REGISTERED) {
		HASH_DEL(s->sc->registry, s);
		if (to == SSTREAM_ENDED)
			log_info("unregistered", "operator=%s calls=%" PRIu64 " why=\"%s\"", s->name, s->calls, why);
	}
	s->state = to;
}

static void
sstream_arm(struct sstream *s, int64_t delay_ms)
{
	struct timeval tv;

	if (delay_ms < 0)
		delay_ms = 0;
	tv = (struct timeval){ .tv_sec = delay_ms / 1000, .tv_usec = delay_ms % 1000 * 1000 };
	evtimer_add(s->timer, &tv);
}

static void
scall_free(struct scall *c)
{
	free(c->wire_id);
	free(c);
}

/* Takes it off its stream. */
static void
scall_detach(struct scall *c)
{
	struct sstream *s = c->s;

	if (c->state == SCALL_QUEUED) {
		TAILQ_REMOVE(&s->queue, c, link);
		s->n_queue--;
	} else {
		TAILQ_REMOVE(&s->out, c, link);
		s->n_out--;
	}
	c->s = NULL;
}

/* Detaches; the answer (given) goes to whoever still waits. */
static void
scall_finish(struct scall *c, struct rpc_answer answer, bool failed)
{
	scall_detach(c);
	if (c->state == SCALL_LATE) {
		rpc_answer_fini(&answer);
		scall_free(c);
		return;
	}
	reply_give(&c->reply, answer, failed);
}

static void
scall_on_deadline(void *owner)
{
	struct scall *c = owner;
	const char *to = c->req->addr.operator;

	log_info("call_late", "operator=%s method=%s why=\"%s\"", to, c->req->method,
	    c->state == SCALL_QUEUED ? "still waiting for its turn" : "sent, no answer");
	reply_give(&c->reply,
	    rpc_fail_step(RPC_DEADLINE, END_DEADLINE, STEP_NONE, NULL, 0,
		c->state == SCALL_QUEUED ? "%s is still busy with earlier requests on its standing connection"
					 : "%s did not answer in time over its standing connection",
		to),
	    true);
}

/* What was sent and not answered stays out, without anybody who waits for it. */
static void
scall_on_done(void *owner)
{
	struct scall *c = owner;
	struct sstream *s = c->s;

	if (s && c->state == SCALL_SENT) {
		c->state = SCALL_LATE;
		c->req = NULL;
		c->late_until_ms = clock_now_ms() + s->sc->conf->call_timeout_ms;
		if (!evtimer_pending(s->timer, NULL))
			sstream_arm(s, s->sc->conf->call_timeout_ms);
		return;
	}
	if (s)
		scall_detach(c);
	scall_free(c);
}

static const struct reply_ops scall_reply_ops = { scall_on_deadline, scall_on_done };

static void
sstream_fail_all(struct sstream *s, const char *why)
{
	struct scall *c;

	while ((c = TAILQ_FIRST(&s->queue)) || (c = TAILQ_FIRST(&s->out)))
		scall_finish(c,
		    rpc_fail_step(RPC_NOT_CONNECTED, c->state == SCALL_QUEUED ? END_NOT_CONNECTED : END_RESET,
			STEP_NONE, NULL, 0, "the standing connection of %s to %s was lost before it answered: %s",
			s->name ? s->name : "?", s->sc->conf->name, why),
		    true);
}

/* Ends it from our side; on_end frees it. */
static void
sstream_drop(struct sstream *s, int status, const char *why)
{
	if (s->state == SSTREAM_ENDED)
		return;
	sstream_enter(s, SSTREAM_ENDED, why);
	sstream_fail_all(s, why);
	grpc_stream_finish(s->stream, status, why);
}

/* Is it still who it was when it registered? Otherwise the stream ends. */
static bool
sstream_is_pinned(struct sstream *s)
{
	if (pin_holds(s->sc->dir, s->names, s->name))
		return true;
	sstream_drop(s, GRPC_UNKNOWN, "the directory pins another certificate now");
	return false;
}

static void
sstream_free(struct sstream *s)
{
	TAILQ_REMOVE(&s->sc->streams, s, link);
	if (s->timer)
		event_free(s->timer);
	free(s->name);
	free(s);
}

static void
sstream_on_end(struct grpc_stream *stream, int status, const char *message, void *arg)
{
	struct sstream *s = arg;

	(void)stream;
	(void)status;
	if (s->state != SSTREAM_ENDED)
		sstream_enter(s, SSTREAM_ENDED, *message ? message : "the peer ended it");
	sstream_fail_all(s, *message ? message : "the peer ended it");
	sstream_free(s);
}

static void
sstream_on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct sstream *s = arg;
	int64_t now_ms = clock_now_ms(), next_ms = INT64_MAX;
	struct scall *c, *tmp;

	(void)fd;
	(void)what;
	if (s->state == SSTREAM_ANNOUNCING) {
		sstream_drop(s, GRPC_UNKNOWN, "no client announcement in time");
		return;
	}
	for (c = TAILQ_FIRST(&s->out); c; c = tmp) {
		tmp = TAILQ_NEXT(c, link);
		if (c->state != SCALL_LATE)
			continue;
		if (c->late_until_ms > now_ms) {
			next_ms = c->late_until_ms < next_ms ? c->late_until_ms : next_ms;
			continue;
		}
		if (!s->is_ours) {
			sstream_drop(s, GRPC_DEADLINE_EXCEEDED, "an answer is overdue for a second deadline");
			return;
		}
		scall_finish(c, (struct rpc_answer){ 0 }, false);
	}
	if (next_ms != INT64_MAX)
		sstream_arm(s, next_ms - now_ms);
	sstream_send_queued(s);
}

static bool
sstream_has_out(const struct sstream *s, const char *id)
{
	const struct scall *c;

	TAILQ_FOREACH (c, &s->out, link)
		if (strcmp(c->wire_id, id) == 0)
			return true;
	return false;
}

/* Taken, NULL when out of memory. A LATE request may still occupy the id. */
static char *
scall_wire_id(struct sstream *s, const struct request *req)
{
	char *inner, *id;

	if (!sstream_has_out(s, req->id))
		return strdup(req->id);
	if (asprintf(&inner, "%s~r%" PRIu64, req->addr.id, s->sc->next_variant++) < 0)
		return NULL;
	id = address_text(req->addr.operator, req->addr.method, inner);
	free(inner);
	return id;
}

/* Tells a peer of ours, with the first request whose parameters leave room for it, how many it will get at a time. */
static void
sstream_tell(struct sstream *s, json_t *params)
{
	json_t *hyper;

	if (!s->is_ours || s->was_told || json_object_get(params, "hyper"))
		return;
	hyper = json_pack("{s:i, s:i}", "version", 1, "parallel", SERVERCALL_PARALLEL);
	s->was_told = hyper && json_object_set_new(params, "hyper", hyper) == 0;
}

/* 0, or -errno with the request not sent. */
static int
scall_send(struct sstream *s, struct scall *c)
{
	json_t *params = request_params_for_wire(c->req, s->is_ours);
	char *id = scall_wire_id(s, c->req);
	uint8_t *frame;
	size_t len;
	int rc = -ENOMEM;

	if (params && id) {
		struct grpc_request msg = { c->req->method, id, (char *)s->sc->conf->name, params };

		sstream_tell(s, params);
		rc = grpc_request_pack(&msg, &frame, &len);
		if (rc == 0)
			rc = grpc_stream_send(s->stream, frame, len);
	}
	json_decref(params);
	if (rc < 0) {
		free(id);
		return rc;
	}
	TAILQ_REMOVE(&s->queue, c, link);
	s->n_queue--;
	TAILQ_INSERT_TAIL(&s->out, c, link);
	s->n_out++;
	s->calls++;
	c->wire_id = id;
	c->state = SCALL_SENT;
	return 0;
}

static void
sstream_send_queued(struct sstream *s)
{
	/* until the peer was told, it takes us for a program that sends one at a time */
	unsigned at_once = s->is_ours && s->was_told ? s->parallel : 1;
	struct scall *c;

	if (TAILQ_EMPTY(&s->queue) || !sstream_is_pinned(s))
		return;

	while ((c = TAILQ_FIRST(&s->queue)) && s->n_out < at_once) {
		int rc = scall_send(s, c);

		if (rc < 0)
			scall_finish(c,
			    rpc_fail_step(RPC_CHANNEL, END_INTERNAL, STEP_NONE, NULL, 0,
				"the request could not be sent to %s over its standing connection: %s", s->name,
				rc == -EMSGSIZE ? "it is larger than 4 MiB" : strerror(-rc)),
			    true);
		at_once = s->is_ours && s->was_told ? s->parallel : 1;
	}
}

/* Moves what waits for its turn to the stream that has replaced `old`. */
static void
sstream_move_queue(struct sstream *old, struct sstream *s)
{
	struct scall *c;

	TAILQ_FOREACH (c, &old->queue, link)
		c->s = s;
	TAILQ_CONCAT(&s->queue, &old->queue, link);
	s->n_queue += old->n_queue;
	old->n_queue = 0;
}

/* 0, or -ENOMEM. */
static int
sstream_register(struct sstream *s, const char *name)
{
	struct sstream *old = NULL;

	s->name = strdup(name);
	if (!s->name)
		return -ENOMEM;
	HASH_FIND_STR(s->sc->registry, name, old);
	if (old)
		sstream_enter(old, SSTREAM_REPLACED, "a newer stream has registered");
	HASH_ADD_KEYPTR(hh, s->sc->registry, s->name, strlen(s->name), s);
	if (!s->hh.tbl)
		return -ENOMEM;
	sstream_enter(s, SSTREAM_REGISTERED, "announced");
	event_del(s->timer);
	s->since_ms = clock_now_ms();
	log_info("registered", "operator=%s parallel=%u%s", s->name, s->parallel, old ? " replaces=1" : "");
	if (old)
		sstream_move_queue(old, s);
	return 0;
}

static void
sstream_on_announcement(struct sstream *s, const struct grpc_response *msg)
{
	const json_t *result = msg->answer.result;
	const json_t *hyper = json_object_get(result, "hyper");
	const char *name = json_is_object(result) ? json_str(result, "name") : NULL;
	json_int_t parallel = json_integer_value(json_object_get(hyper, "parallel"));

	if (!name || !*name) {
		sstream_drop(s, GRPC_UNKNOWN, "invalid client announcement");
		return;
	}
	if (!names_has(s->names, name)) {
		sstream_drop(s, GRPC_UNKNOWN, "invalid client name supplied");
		return;
	}
	s->parallel = 1;
	if (json_integer_value(json_object_get(hyper, "version")) == 1 && parallel > 1) {
		s->is_ours = true;
		s->parallel = parallel < SERVERCALL_PARALLEL ? (unsigned)parallel : SERVERCALL_PARALLEL;
	}
	if (sstream_register(s, name) < 0)
		sstream_drop(s, GRPC_RESOURCE_EXHAUSTED, "out of memory");
	else
		sstream_send_queued(s);
}

static void
sstream_on_answer(struct sstream *s, struct grpc_response *msg)
{
	struct rpc_answer answer = msg->answer;
	struct scall *c;

	TAILQ_FOREACH (c, &s->out, link)
		if (strcmp(c->wire_id, msg->id) == 0)
			break;
	if (!c && !s->is_ours) {
		/* a reference peer does not say what it answers but by the id: nothing on this stream can be trusted */
		sstream_drop(s, GRPC_INTERNAL, "an answer with an id that was not asked");
		return;
	}
	if (!c) {
		static struct log_limit limit;

		log_limited(
		    &limit, LOG_LVL_INFO, "answer_unknown", "operator=%s why=\"no such request is out\"", s->name);
		return;
	}
	msg->answer = (struct rpc_answer){ 0 };
	scall_finish(c, answer, false);
	sstream_send_queued(s);
}

static void
sstream_on_message(struct grpc_stream *stream, const uint8_t *data, size_t len, void *arg)
{
	struct sstream *s = arg;
	struct grpc_response msg;

	(void)stream;
	if (s->state == SSTREAM_ENDED)
		return;
	if (grpc_response_unpack(data, len, false, &msg) < 0) {
		sstream_drop(s, s->state == SSTREAM_ANNOUNCING ? GRPC_UNKNOWN : GRPC_INTERNAL,
		    s->state == SSTREAM_ANNOUNCING ? "invalid client announcement" : "malformed response");
		return;
	}
	if (s->state == SSTREAM_ANNOUNCING)
		sstream_on_announcement(s, &msg);
	else if (sstream_is_pinned(s))
		sstream_on_answer(s, &msg);
	grpc_response_fini(&msg);
}

static void
sstream_on_half_close(struct grpc_stream *stream, void *arg)
{
	(void)stream;
	sstream_drop(arg, GRPC_OK, "closed by the client");
}

static const struct grpc_stream_ops sstream_ops = { sstream_on_message, sstream_on_half_close, sstream_on_end };

int
servercall_accept(struct servercall *sc, struct grpc_stream *stream, const struct names *names)
{
	struct sstream *s = calloc(1, sizeof(*s));

	if (!s)
		return -ENOMEM;
	s->sc = sc;
	s->stream = stream;
	s->names = names;
	s->parallel = 1;
	TAILQ_INIT(&s->queue);
	TAILQ_INIT(&s->out);
	TAILQ_INSERT_TAIL(&sc->streams, s, link);
	s->timer = evtimer_new(sc->base, sstream_on_timer, s);
	if (!s->timer) {
		sstream_free(s);
		return -ENOMEM;
	}
	sstream_arm(s, ANNOUNCE_MS);
	grpc_stream_set(stream, &sstream_ops, s);
	return 0;
}

bool
servercall_has(struct servercall *sc, const char *name)
{
	struct sstream *s = NULL;

	HASH_FIND_STR(sc->registry, name, s);
	return s != NULL && sstream_is_pinned(s);
}

int
servercall_deliver(struct servercall *sc, const struct request *req, deliver_cb cb, void *arg)
{
	struct scall *c = calloc(1, sizeof(*c));
	struct sstream *s = NULL;

	HASH_FIND_STR(sc->registry, req->addr.operator, s);
	BUG_ON(!s);
	if (!c || reply_init(&c->reply, sc->base, req->deadline_ms, &scall_reply_ops, c, cb, arg) < 0) {
		free(c);
		return -ENOMEM;
	}
	c->req = req;
	if (s->n_queue >= SERVERCALL_MAX_QUEUE) {
		reply_give(&c->reply,
		    rpc_fail_step(RPC_BUSY, END_BUSY, STEP_NONE, NULL, 1000,
			"%zu requests already wait for the standing connection of %s", s->n_queue, s->name),
		    true);
		return 0;
	}
	c->s = s;
	TAILQ_INSERT_TAIL(&s->queue, c, link);
	s->n_queue++;
	sstream_send_queued(s);
	return 0;
}

void
servercall_list(struct servercall *sc, json_t *array)
{
	struct sstream *s, *tmp;

	HASH_ITER (hh, sc->registry, s, tmp) {
		struct connection_line line = {
			.name = s->name, .kind = "standing-in", .since_ms = s->since_ms, .calls = s->calls
		};

		connection_line_append(array, &line);
	}
}

struct servercall *
servercall_new(struct event_base *base, struct directory *dir, const struct conf_hyper *conf)
{
	struct servercall *sc = calloc(1, sizeof(*sc));

	if (!sc)
		return NULL;
	sc->base = base;
	sc->dir = dir;
	sc->conf = conf;
	TAILQ_INIT(&sc->streams);
	return sc;
}

void
servercall_apply(struct servercall *sc, const struct conf_hyper *conf)
{
	sc->conf = conf;
}

void
servercall_free(struct servercall *sc)
{
	struct sstream *s;

	if (!sc)
		return;
	while ((s = TAILQ_FIRST(&sc->streams))) {
		struct scall *c;

		if (s->state != SSTREAM_ENDED)
			sstream_enter(s, SSTREAM_ENDED, "stopped");
		while ((c = TAILQ_FIRST(&s->queue)) || (c = TAILQ_FIRST(&s->out))) {
			bool is_late = c->state == SCALL_LATE;

			scall_detach(c);
			if (is_late)
				scall_free(c);
			else
				reply_flush(&c->reply);
		}
		sstream_free(s);
	}
	free(sc);
}
