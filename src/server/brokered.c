/* brokered.c - A's side of a brokering (protocol.md 7.1)
 *
 *   ASKING --requestConnection's result--> DIALLING --token sent--> cb(fd)
 *      `------ error, bad result, deadline ----'------------------> cb(error that names the step)
 *
 * Always true:
 *  1. While the broker still owes an answer this object lives, cancelled or not.
 *  2. The result is a stranger's word: endpoint must be host:port and permitted
 *     like one that a connectionRequest names, the token exactly 32 bytes.
 *  3. Each log line carries the session id, once there is one; never the token.
 *
 * Times: P tells how long after receipt it reached each step; that scale is
 * kept. P's receipt is taken to lie half the remaining round trip after our
 * asking, so that the steps that we know (6 to 8) are on the same scale.
 *
 * Not here: TLS with B and what is kept of it (pool.c).
 */
#include "server/brokered.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/crypto.h>

#include "hyper/base/bytes.h"
#include "hyper/base/clock.h"
#include "hyper/base/log.h"
#include "hyper/directory/directory.h"
#include "hyper/wire/json.h"
#include "server/broker.h"
#include "server/story.h"
#include "server/tokdial.h"

struct brokered {
	const struct brokered_env *env;
	char *target;
	char *proxy;
	int64_t deadline_ms;
	int64_t asked_ns;
	double shift_ms; /* from our asking to P's receipt, as far as we can tell */
	bool is_asking;  /* the broker owes an answer */
	struct tokdial *dial;
	char session[SESSION_ID_MAX];
	uint64_t story;
	double life_ms; /* of the token since P's receipt; 0 P did not say */
	json_t *timeline;
	brokered_cb cb; /* NULL: cancelled */
	void *arg;
};

static void
brokered_free(struct brokered *b)
{
	tokdial_cancel(b->dial);
	json_decref(b->timeline);
	free(b->target);
	free(b->proxy);
	free(b);
}

enum broker_step
brokered_step(const struct brokered *b)
{
	return b->is_asking ? STEP_ANSWERED : STEP_PAIRED;
}

void
timeline_add(json_t *timeline, enum broker_step step, double ms)
{
	if (timeline)
		json_object_set_new(timeline, broker_step_word(step), json_real(round(ms * 1000) / 1000));
}

static double
ms_since(int64_t start_ns)
{
	return (double)(clock_now_ns() - start_ns) / 1e6;
}

/* P's steps as it told them, and the shift that brings our own clock onto P's scale. */
static void
brokered_read_timeline(struct brokered *b, const json_t *theirs)
{
	double answered_ms = ms_since(b->asked_ns), last_ms = 0;

	for (int step = STEP_ASKED; step < STEP_PAIRED; step++) {
		const json_t *ms = json_object_get(theirs, broker_step_word((enum broker_step)step));

		if (!json_is_number(ms))
			continue;
		last_ms = json_number_value(ms) > last_ms ? json_number_value(ms) : last_ms;
		timeline_add(b->timeline, (enum broker_step)step, json_number_value(ms));
	}
	b->shift_ms = answered_ms > last_ms ? (answered_ms - last_ms) / 2 : 0;
	timeline_add(b->timeline, STEP_ANSWERED, answered_ms - b->shift_ms);
}

static void
brokered_end(struct brokered *b, int fd, struct rpc_answer *error)
{
	struct brokered_end end = { .via = b->proxy,
		.fd = fd,
		.story = b->story,
		.timeline = b->timeline,
		.asked_ms = (double)b->asked_ns / 1e6 + b->shift_ms,
		.expires_ms = b->life_ms > 0 ? (double)b->asked_ns / 1e6 + b->shift_ms + b->life_ms : 0,
		.error = error };
	brokered_cb cb = b->cb;

	memcpy(end.session, b->session, sizeof(end.session));
	b->cb = NULL;
	cb(&end, b->arg);
	if (error)
		rpc_answer_fini(error);
	brokered_free(b);
}

static void
brokered_fail(struct brokered *b, struct rpc_answer error, const char *step)
{
	log_warn("brokered", "side=a operator=%s via=%s session=%s failed=%s reason=%s why=\"%s\"", b->target, b->proxy,
	    b->session, step, answer_reason(&error, "?"), error.message ? error.message : "");
	story_steps(b->story, b->timeline);
	story_failed(b->story, step, answer_reason(&error, ""), error.message ? error.message : "");
	brokered_end(b, -1, &error);
}

static void
brokered_on_dialled(int fd, enum end_reason reason, const char *why, void *arg)
{
	struct brokered *b = arg;

	b->dial = NULL;
	if (fd >= 0) {
		/* P answered before it saw a socket: at the latest with ours the first one has come */
		if (!json_object_get(b->timeline, broker_step_word(STEP_PARKED)))
			timeline_add(b->timeline, STEP_PARKED, ms_since(b->asked_ns) - b->shift_ms);
		brokered_end(b, fd, NULL);
		return;
	}
	brokered_fail(b,
	    rpc_fail_step(RPC_CHANNEL, reason, STEP_PAIRED, b->session, 0,
		"%s could not reach the endpoint that %s gave for %s: %s", b->env->conf->name, b->proxy, b->target,
		why),
	    broker_step_word(STEP_PAIRED));
}

/* Without the words that each hop's broker puts in front (4.2 "a channel failed"): only the innermost tells something. */
static const char *
without_channel_words(const char *text)
{
	static const char words[] = " encountered an error delivering the message: ";
	const char *found;

	while (strncmp(text, "Channel ", 8) == 0 && (found = strstr(text, words)))
		text = found + sizeof(words) - 1;
	return text;
}

/* NULL: P has a reason of its own. */
static const char *
advice_of(const char *word)
{
	for (int i = 0; i < END_REASON_MAX; i++)
		if (strcmp(word, end_reason_word((enum end_reason)i)) == 0)
			return end_reason_advice((enum end_reason)i);
	return NULL;
}

/* What P, or whoever could not reach P, said; our words name the step, P's data wins where it has some. */
static void
brokered_refused(struct brokered *b, const struct rpc_answer *a)
{
	static const char *const fallback = "refused";
	const json_t *data = json_is_object(a->data) ? a->data : NULL;
	const char *step = data ? json_str(data, "step") : NULL;
	const char *session = data ? json_str(data, "session") : NULL;
	const char *word = answer_reason(a, a->code == RPC_DENIED ? "denied" : fallback);
	const char *help = data && json_str(data, "help") ? json_str(data, "help") : advice_of(word);
	json_t *retry = data ? json_object_get(data, "retry_after_ms") : NULL;
	int code = a->code <= RPC_BUSY && a->code >= RPC_STALE ? a->code : RPC_CHANNEL;
	json_t *out = json_pack("{s:s, s:s}", "reason", word, "step", step ? step : broker_step_word(STEP_ASKED));

	if (out && session)
		json_object_set_new(out, "session", json_string(session));
	if (out && retry)
		json_object_set(out, "retry_after_ms", retry);
	if (out && help)
		json_object_set_new(out, "help", json_string(help));
	if (session && strlen(session) < sizeof(b->session)) {
		memcpy(b->session, session, strlen(session) + 1);
		story_session(b->story, b->session);
	}
	brokered_fail(b,
	    rpc_fail(code, out, "%s could not connect %s to %s (step %s): %s", b->proxy, b->env->conf->name, b->target,
		step ? step : broker_step_word(STEP_ASKED),
		a->message ? without_channel_words(a->message) : "no reason given"),
	    step ? step : broker_step_word(STEP_ASKED));
}

static void
brokered_dial(struct brokered *b, const char *endpoint, const struct token *token)
{
	const json_t *entry = directory_get(b->env->dir, b->proxy);
	int rc;

	if (!endpoint_is_allowed(&b->env->conf->endpoint_allow, entry, b->proxy, endpoint)) {
		brokered_fail(b,
		    rpc_fail_step(RPC_CHANNEL, END_REFUSED, STEP_PAIRED, b->session, 0,
			"%s gave the endpoint %s, which endpoint_allow or its own directory entry does not permit",
			b->proxy, endpoint),
		    broker_step_word(STEP_PAIRED));
		return;
	}
	rc = tokdial_start(b->env->base, endpoint, token, b->deadline_ms, brokered_on_dialled, b, &b->dial);
	if (rc < 0)
		brokered_fail(b,
		    rpc_fail_step(RPC_CHANNEL, rc == -EINVAL ? END_BAD_REQUEST : END_INTERNAL, STEP_PAIRED, b->session,
			0, "the endpoint '%s' that %s gave cannot be dialled: %s", endpoint, b->proxy, strerror(-rc)),
		    broker_step_word(STEP_PAIRED));
}

static void
brokered_on_answer(struct rpc_answer *answer, bool failed, void *arg)
{
	struct brokered *b = arg;
	const json_t *result = answer->result;
	const char *endpoint, *text;
	struct token token;

	(void)failed;
	b->is_asking = false;
	if (!b->cb) {
		brokered_free(b);
		return;
	}
	if (answer->code) {
		brokered_refused(b, answer);
		return;
	}
	endpoint = json_is_object(result) ? json_str(result, "endpoint") : NULL;
	text = json_is_object(result) ? json_str(result, "token") : NULL;
	if (!endpoint || !text || token_parse(text, &token) < 0) {
		brokered_fail(b,
		    rpc_fail_step(RPC_CHANNEL, END_BAD_REQUEST, STEP_ANSWERED, NULL, 0,
			"%s answered requestConnection without an endpoint and a token of 32 bytes", b->proxy),
		    broker_step_word(STEP_ANSWERED));
		return;
	}
	token_session(&token, b->session);
	b->life_ms = json_number_value(json_object_get(result, "expires_ms"));
	story_session(b->story, b->session);
	brokered_read_timeline(b, json_object_get(result, "timeline"));
	story_steps(b->story, b->timeline);
	log_info("brokered", "side=a operator=%s via=%s session=%s step=%s endpoint=%s", b->target, b->proxy,
	    b->session, broker_step_word(STEP_ANSWERED), endpoint);
	brokered_dial(b, endpoint, &token);
	OPENSSL_cleanse(&token, sizeof(token));
}

/* 0 or -ENOMEM: nothing is on its way then. */
static int
brokered_ask(struct brokered *b)
{
	char inner[33], *method = NULL, *id = NULL;
	int64_t left_ms = b->deadline_ms - clock_now_ms();
	struct broker_in in = {
		.client = b->env->conf->name, .timeout_ms = left_ms > 1 ? left_ms : 1, .is_inner = true
	};
	size_t len = strlen(b->proxy) + sizeof(".requestConnection");
	int rc = -ENOMEM;

	random_hex(8, inner); /* protocol.md 7.1, row 2 */
	method = malloc(len);
	id = address_text(b->proxy, "requestConnection", inner);
	in.params = json_pack("{s:s, s:s}", "to", b->target, "channel", "grpc_server");
	if (method && id && in.params) {
		memcpy(method, b->proxy, strlen(b->proxy));
		memcpy(method + strlen(b->proxy), ".requestConnection", sizeof(".requestConnection"));
		in.method = method;
		in.id = id;
		rc = broker_call(b->env->broker, &in, brokered_on_answer, b);
	}
	json_decref(in.params);
	free(method);
	free(id);
	return rc;
}

int
brokered_start(const struct brokered_env *env, const char *target, const char *proxy, int64_t deadline_ms,
    brokered_cb cb, void *arg, struct brokered **ret)
{
	struct brokered *b = calloc(1, sizeof(*b));

	if (!b)
		return -ENOMEM;
	b->env = env;
	b->target = strdup(target);
	b->proxy = strdup(proxy);
	b->timeline = json_object();
	b->deadline_ms = deadline_ms;
	b->asked_ns = clock_now_ns();
	b->is_asking = true;
	b->cb = cb;
	b->arg = arg;
	if (!b->target || !b->proxy || !b->timeline || brokered_ask(b) < 0) {
		brokered_free(b);
		return -ENOMEM;
	}
	log_debug(
	    "brokered", "side=a operator=%s via=%s session= step=%s", target, proxy, broker_step_word(STEP_ASKED));
	b->story = story_begin(STORY_A, target, proxy, "");
	*ret = b;
	return 0;
}

void
brokered_cancel(struct brokered *b)
{
	if (!b)
		return;
	b->cb = NULL;
	story_failed(b->story, broker_step_word(brokered_step(b)), end_reason_word(END_STOPPED), "given up");
	if (!b->is_asking)
		brokered_free(b);
}
