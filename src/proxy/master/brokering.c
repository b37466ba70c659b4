/* brokering.c - requestConnection: a token for A, word to B through our hyper, the answer
 *
 *   A's request --> issued --> told --> B's answer --> A's answer
 *                     `-- expired, peer gone, stopped --^ (error; B's answer is ignored)
 *
 * Always true:
 *  1. Each request is answered once, within the token's life.
 *  2. Which socket comes first, and whether it comes before B's answer, makes
 *     no difference here.
 *  3. An error of B's side keeps its code, and its data where it has some; the
 *     message names the step that failed. The token is released with it.
 *  4. A request over a limit of quota.c is refused before B hears of it, with
 *     the name of the limit, and leaves nothing behind.
 *
 * `told` in the timeline is the moment at which our request left towards B: the
 * earliest at which B can have it. The latest is `confirmed`, or `parked` when that came first.
 *
 * Not here: sockets (meet.c), the token's time (session.c).
 */
#include "proxy/master/brokering.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include <event2/event.h>

#include "hyper/base/bug.h"
#include "hyper/base/clock.h"
#include "hyper/base/log.h"
#include "hyper/wire/json.h"
#include "hyper/wire/token.h"
#include "proxy/master/form.h"
#include "proxy/master/refusal.h"
#include "proxy/master/tally.h"

#define NS_PER_MS 1000000

/* B writes its token before it confirms, but the two take different ways to us.
 * That long an answer waits for B's socket: then A's timeline has all that
 * happened, and A need not be the one that is parked. Not a promise: it is
 * answered in any case. */
#define GRACE_MS 10

/* Lines that any of our callers can cause. */
static struct log_limit refuse_limit, confirm_limit;

struct ask;
struct brokering {
	struct brokering_conf conf;
	bool is_draining;
	struct form_memo *callers;
	TAILQ_HEAD(, ask) graces; /* asks whose grace is running */
};

/* One requestConnection; lives until B's side answered or the call failed. */
struct ask {
	struct brokering *b;
	struct rpc_call *call;   /* NULL once answered */
	struct session *session; /* NULL once answered */
	struct event *grace;     /* armed between `confirmed` and `parked`, for GRACE_MS at most */
	TAILQ_ENTRY(ask) graces; /* while there is one */
	struct token token;
};

static void
ask_free(struct ask *a)
{
	if (a->grace) {
		TAILQ_REMOVE(&a->b->graces, a, graces);
		event_free(a->grace);
	}
	explicit_bzero(&a->token, sizeof(a->token));
	free(a);
}

/* What A is told of a failure is what `explain` tells. */
static void
note_failure(const struct session *s, const struct rpc_answer *answer)
{
	const char *word = json_string_value(json_object_get(answer->data, "step"));
	enum broker_step step = STEP_TOLD;

	for (int i = STEP_ASKED; word && i < BROKER_STEP_MAX; i++)
		if (strcmp(word, broker_step_word((enum broker_step)i)) == 0)
			step = (enum broker_step)i;
	tally_failed(s->note, step, answer->message);
}

/* Answers A; `answer`'s members are given. The session may be gone after it. */
static void
ask_answer(struct ask *a, struct rpc_answer answer)
{
	struct session *s = a->session;
	struct rpc_call *call = a->call;
	char more[32] = "";

	a->session = NULL;
	a->call = NULL;
	if (a->grace)
		evtimer_del(a->grace);
	if (answer.code) {
		snprintf(more, sizeof(more), " code=%d", answer.code);
		note_failure(s, &answer);
	}
	session_step(s, STEP_ANSWERED, more);
	rpc_call_answer(call, answer);
	session_answered(s);
}

/* Answers A with an error and ends the session, if no pair was made of it yet. */
static void
ask_fail(struct ask *a, struct rpc_answer answer, enum end_reason reason)
{
	struct session *s = a->session;
	bool is_live = s->state == SESSION_ISSUED || s->state == SESSION_PARKED;

	ask_answer(a, answer);
	if (is_live)
		session_end(s, reason);
}

/* --- success --- */

static double
ms_of(int64_t ns)
{
	return (double)(ns / 1000) / 1000.0; /* to the microsecond */
}

static json_t *
timeline(const struct session *s)
{
	static const enum broker_step steps[] = { STEP_ASKED, STEP_ISSUED, STEP_TOLD, STEP_PARKED, STEP_CONFIRMED };
	json_t *t = json_object();
	int rc = 0;
	size_t i;

	for (i = 0; i < ARRAY_LEN(steps); i++)
		if (s->step_ns[steps[i]] >= 0)
			rc |=
			    json_object_set_new(t, broker_step_word(steps[i]), json_real(ms_of(s->step_ns[steps[i]])));
	rc |= json_object_set_new(t, broker_step_word(STEP_ANSWERED), json_real(ms_of(clock_now_ns() - s->asked_ns)));
	if (rc == 0)
		return t;
	json_decref(t);
	return NULL;
}

static struct rpc_answer
success(const struct ask *a)
{
	char text[TOKEN_BASE64_MAX];
	json_t *result;

	token_text(&a->token, text);
	result = json_pack("{s:s, s:s, s:s, s:f, s:o}", "endpoint", a->b->conf.endpoint, "token", text, "session",
	    a->session->id, "expires_ms", ms_of(a->session->deadline_ns - a->session->asked_ns), "timeline",
	    timeline(a->session));
	explicit_bzero(text, sizeof(text));
	if (!result)
		return rpc_fail(RPC_INTERNAL, NULL, "internal error: out of memory");
	return rpc_ok(result);
}

/* --- failure --- */

/* The word for an error of B's side that gives none. */
static enum end_reason
reason_of(int code)
{
	static const struct {
		int code;
		enum end_reason reason;
	} tab[] = {
		{ RPC_BUSY, END_BUSY },
		{ RPC_QUOTA, END_QUOTA },
		{ RPC_DEADLINE, END_DEADLINE },
		{ RPC_DRAINING, END_DRAINING },
		{ RPC_NOT_CONNECTED, END_NOT_CONNECTED },
		{ RPC_DENIED, END_DENIED },
		{ RPC_STALE, END_STALE },
		{ RPC_INTERNAL, END_INTERNAL },
	};
	size_t i;

	for (i = 0; i < ARRAY_LEN(tab); i++)
		if (tab[i].code == code)
			return tab[i].reason;
	return END_REFUSED;
}

static enum end_reason
reason_from_word(const char *word, enum end_reason otherwise)
{
	int i;

	for (i = 0; word && i < END_REASON_MAX; i++)
		if (strcmp(word, end_reason_word((enum end_reason)i)) == 0)
			return (enum end_reason)i;
	return otherwise;
}

static void
add_word(json_t *data, const char *key, const char *word)
{
	/* out of memory costs a key of the data, never the error itself */
	if (!json_object_get(data, key))
		(void)json_object_set_new(data, key, json_string(word));
}

/* B's side said no: code and message are passed through (protocol.md 7.1), the data says the step. Or it could not be
 * asked: the message names who. */
static struct rpc_answer
failure_of_backend(const struct ask *a, struct rpc_answer *got, enum end_reason *ret_reason)
{
	const char *word = json_string_value(json_object_get(got->data, "reason")), *to = a->session->to;
	const char *what = got->message ? got->message : "out of memory";
	enum end_reason reason = reason_from_word(word, reason_of(got->code));
	int code = reason == END_DEADLINE && got->code == RPC_INTERNAL ? RPC_DEADLINE : got->code;
	json_t *data = got->data && !json_is_null(got->data) ? json_incref(got->data) : json_object();

	*ret_reason = reason;
	if (json_is_object(data)) {
		add_word(data, "reason", end_reason_word(reason));
		add_word(data, "step", broker_step_word(STEP_TOLD));
		add_word(data, "session", a->session->id);
		add_word(data, "help", end_reason_advice(reason));
	}
	if ((code == RPC_INTERNAL || code == RPC_DEADLINE) && !strstr(what, to))
		return rpc_fail(code, data, "%s could not reach %s: %s", a->b->conf.name, to, what);
	return rpc_fail(code, data, "%s", what);
}

void
brokering_on_session_end(struct session *s, enum end_reason reason, void *broker)
{
	/* B is known to have been told when somebody has parked */
	enum broker_step step = s->step_ns[STEP_CONFIRMED] >= 0 ? STEP_PARKED
				: s->step_ns[STEP_PARKED] >= 0  ? STEP_CONFIRMED
								: STEP_TOLD;
	struct brokering *b = broker;
	struct rpc_answer answer;
	struct ask *a = s->ask;
	bool is_confirmed = a->grace != NULL; /* B's answer has come: nobody else frees */

	if (reason == END_DEADLINE)
		answer = rpc_fail_step(RPC_DEADLINE, reason, step, s->id, 0,
		    "%s could not reach %s: no answer within the token's life of %lld ms", b->conf.name, s->to,
		    (long long)b->conf.token_timeout_ms);
	else if (reason == END_STOPPED)
		answer = rpc_fail_step(RPC_DRAINING, reason, step, s->id, 0,
		    "%s is shutting down: ask again when it is back", b->conf.name);
	else
		answer = rpc_fail_step(RPC_INTERNAL, reason, STEP_PARKED, s->id, 0,
		    "the connection of %s to %s was lost before %s answered: %s", b->conf.name, s->to, s->to,
		    end_reason_help(reason));
	ask_answer(a, answer);
	if (is_confirmed)
		ask_free(a);
}

/* --- the call to B --- */

static void
ask_succeed(struct ask *a)
{
	ask_answer(a, success(a));
	ask_free(a);
}

static void
on_grace_over(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	ask_succeed(arg);
}

/* False: out of memory, so do not wait. */
static bool
ask_wait_parked(struct ask *a)
{
	const struct timeval grace = { 0, GRACE_MS * 1000 };

	a->grace = evtimer_new(a->b->conf.base, on_grace_over, a);
	if (!a->grace)
		return false;
	TAILQ_INSERT_TAIL(&a->b->graces, a, graces);
	return evtimer_add(a->grace, &grace) == 0;
}

void
brokering_on_session_parked(struct session *s, void *broker)
{
	struct ask *a = s->ask;

	(void)broker;
	/* From the loop's next turn: the worker's message is still being served. */
	if (a->grace)
		event_active(a->grace, EV_TIMEOUT, 1);
}

static void
on_reply(struct rpc_answer *got, void *arg)
{
	struct ask *a = arg;
	struct session *s = a->session;
	struct rpc_answer answer;
	enum end_reason reason;

	if (!s) { /* A was answered before: expired, peer gone, stopped */
		ask_free(a);
		return;
	}
	if (got->code == 0) {
		session_step(s, STEP_CONFIRMED, "");
		if (s->state != SESSION_ISSUED || !ask_wait_parked(a))
			ask_succeed(a);
		return;
	}
	answer = failure_of_backend(a, got, &reason);
	log_limited(&confirm_limit, LOG_LVL_WARN, "not_confirmed",
	    "session=%s from=%s to=%s code=%d reason=%s why=\"%s\"", s->id, s->from, s->to, answer.code,
	    end_reason_word(reason), answer.message ? answer.message : "");
	ask_fail(a, answer, reason);
	ask_free(a);
}

/* {channel, client, endpoint, token}: neither names nor token need an escape. NULL when out of memory. */
static char *
told_params(const struct ask *a, const struct form *f)
{
	char token[TOKEN_BASE64_MAX], *endpoint = NULL, *text = NULL;
	json_t *quoted = json_string(a->b->conf.endpoint);

	endpoint = quoted ? json_text(quoted) : NULL;
	json_decref(quoted);
	token_text(&a->token, token);
	if (endpoint && asprintf(&text, "{\"channel\":\"%s\",\"client\":%s,\"endpoint\":%s,\"token\":\"%s\"}",
			    f->channel, f->client_text, endpoint, token) < 0)
		text = NULL;
	explicit_bzero(token, sizeof(token));
	free(endpoint);
	return text;
}

/* 0 or -ENOMEM. */
static int
tell(struct ask *a, const struct form *f)
{
	const struct brokering_conf *conf = &a->b->conf;
	struct session *s = a->session;
	int64_t left = (s->deadline_ns - clock_now_ns()) / NS_PER_MS + 1;
	char method[300], *params = told_params(a, f);

	if (!params)
		return -ENOMEM;
	snprintf(method, sizeof(method), "%s._connectionRequest", f->to);
	session_step(s, STEP_TOLD, "");
	rpc_client_call_text(conf->client, method, params, s->id,
	    left < conf->call_timeout_ms ? left : conf->call_timeout_ms, on_reply, a);
	free(params);
	return 0;
}

/* `rc` is that of session_issue(); 0: we take nothing new. `token` NULL when there was no memory for one. */
static void
refuse(struct brokering *b, struct rpc_call *call, const struct form *f, const struct token *token, int rc,
    const struct quota_no *no)
{
	char session[SESSION_ID_MAX] = "";
	struct refusal r = { .own = b->conf.name,
		.session = session,
		.from = f ? f->from : "",
		.to = f ? f->to : "",
		.retry_ms = rc < 0 ? sessions_retry_ms(b->conf.sessions) : 0 };

	if (token)
		token_session(token, session);
	rpc_call_answer(call, rc < 0 ? refusal_no_token(&r, rc, no) : refusal_draining(&r));
}

/* Takes `call` in every case: it is answered here or by `ask`'s later end. */
static void
serve(struct brokering *b, struct rpc_call *call, const struct form *f, int64_t asked_ns)
{
	struct ask *a = calloc(1, sizeof(*a));
	struct session_new n = { .from = f->from, .to = f->to, .channel = f->channel, .asked_ns = asked_ns, .ask = a };
	struct quota_no no;
	int rc = -ENOMEM;

	if (a) {
		a->b = b;
		a->call = call;
		token_new(&a->token);
		n.token = &a->token;
		n.life_ns = b->conf.token_timeout_ms * NS_PER_MS;
		rc = session_issue(b->conf.sessions, &n, &a->session, &no);
	}
	if (rc < 0) {
		refuse(b, call, f, a ? &a->token : NULL, rc, &no);
		if (a)
			ask_free(a);
	} else if (tell(a, f) < 0) {
		ask_fail(a, rpc_fail(RPC_INTERNAL, NULL, "internal error: out of memory"), END_INTERNAL);
		ask_free(a);
	}
}

static void
on_request_connection(struct brokering *b, struct rpc_call *call, int64_t asked_ns)
{
	struct rpc_answer answer;
	struct form f;

	if (form_parse(b->callers, rpc_call_request(call), &f, &answer) != 0) {
		log_limited(
		    &refuse_limit, LOG_LVL_INFO, "bad_request", "method=requestConnection code=%d", answer.code);
		tally_refused("", "", "", END_BAD_REQUEST, STEP_ASKED, answer.message);
		rpc_call_answer(call, answer);
		return;
	}
	serve(b, call, &f, asked_ns);
	form_fini(&f);
}

/* Whoever asks, and for whom, is noted as far as the request says. */
static void
on_call_while_draining(struct brokering *b, struct rpc_call *call)
{
	struct rpc_answer faults;
	struct token never;
	struct form f;
	bool is_good = form_parse(b->callers, rpc_call_request(call), &f, &faults) == 0;

	token_new(&never);
	refuse(b, call, is_good ? &f : NULL, &never, 0, NULL);
	if (is_good)
		form_fini(&f);
	else
		rpc_answer_fini(&faults);
}

void
brokering_on_call(struct rpc_call *call, void *broker)
{
	int64_t asked_ns = clock_now_ns();
	struct brokering *b = broker;

	if (b->is_draining)
		on_call_while_draining(b, call);
	else if (strcmp(rpc_call_request(call)->method, "requestConnection") == 0)
		on_request_connection(b, call, asked_ns);
	else
		rpc_call_answer(call, rpc_fail(RPC_NO_METHOD, NULL, "method not found"));
}

struct brokering *
brokering_new(const struct brokering_conf *conf)
{
	struct brokering *b = calloc(1, sizeof(*b));

	if (!b)
		return NULL;
	b->callers = form_memo_new();
	if (!b->callers) {
		free(b);
		return NULL;
	}
	b->conf = *conf;
	TAILQ_INIT(&b->graces);
	return b;
}

void
brokering_free(struct brokering *b)
{
	struct ask *a;

	if (!b)
		return;
	/* The loop ended within the grace of one whose sockets have met already: no end of its session came for it. */
	while ((a = TAILQ_FIRST(&b->graces)))
		ask_succeed(a);
	form_memo_free(b->callers);
	free(b);
}

void
brokering_drain(struct brokering *b, bool on)
{
	b->is_draining = on;
}

void
brokering_apply(struct brokering *b, int64_t token_timeout_ms, int64_t call_timeout_ms, struct rpc_client *client)
{
	b->conf.token_timeout_ms = token_timeout_ms;
	b->conf.call_timeout_ms = call_timeout_ms;
	b->conf.client = client;
}
