/* selftest.c - see the header
 *
 * Always true:
 *  1. The operator is QUOTA_SELF on both sides: a name that the directory cannot
 *     have, in each log line. It joins two sockets of whoever asked with each
 *     other, and nothing with an operator's.
 *  2. It is a token like any other: table, time-out, workers, limits of all
 *     operators together. Limits of one operator are not asked.
 *  3. A drain does not refuse it: the endpoint still serves tokens of before.
 *
 * Not here: who may ask (net/admin.c), the two parties (cli/selftest.c).
 */
#include "proxy/master/selftest.h"

#include <errno.h>
#include <string.h>

#include "hyper/base/clock.h"
#include "hyper/base/words.h"
#include "hyper/net/admin.h"
#include "hyper/wire/json.h"
#include "hyper/wire/token.h"
#include "proxy/master/master.h"
#include "proxy/master/tally.h"

#define NS_PER_MS 1000000

static json_t *
refused(int rc, const struct quota_no *no)
{
	enum end_reason reason = rc == -EDQUOT ? END_QUOTA : rc == -EBUSY || rc == -ENOSPC ? END_BUSY : END_INTERNAL;

	tally_refused("", QUOTA_SELF, QUOTA_SELF, reason, STEP_ISSUED, NULL);
	if (rc == -ENOSPC)
		return admin_error("busy: the token table is full, so no operator gets a token either");
	if (rc == -EBUSY)
		return admin_error("busy: %zu %s, the limit of public.%s for all operators together", no->max,
		    quota_what(no->limit), quota_setting(no->limit));
	if (rc == -EDQUOT)
		return admin_error("quota: %d selftests are under way already", QUOTA_SELF_MAX);
	return admin_error("no token: %s", strerror(-rc));
}

static json_t *
issue(struct master *m)
{
	static char nobody; /* waits for an answer over JSON-RPC */
	struct session_new n = { .from = QUOTA_SELF,
		.to = QUOTA_SELF,
		.channel = "selftest",
		.asked_ns = clock_now_ns(),
		.life_ns = m->conf->public->token_timeout_ms * NS_PER_MS,
		.ask = &nobody };
	char text[TOKEN_BASE64_MAX];
	struct quota_no no = { 0 };
	struct session *s;
	struct token token;
	json_t *answer;
	int rc;

	if (m->state != MASTER_SERVING && m->state != MASTER_DRAINING)
		return admin_error("the proxy is %s", m->view.state);
	token_new(&token);
	n.token = &token;
	rc = session_issue(m->sessions, &n, &s, &no);
	if (rc < 0)
		return refused(rc, &no);
	tally_selftest();
	token_text(&token, text);
	answer = json_pack("{s:b, s:s, s:s, s:s, s:s, s:I}", "ok", 1, "token", text, "session", s->id, "endpoint",
	    m->endpoint, "state", m->view.state, "now_ns", (json_int_t)n.asked_ns);
	explicit_bzero(text, sizeof(text));
	explicit_bzero(&token, sizeof(token));
	session_step(s, STEP_ANSWERED, "");
	session_answered(s);
	return answer;
}

static const struct tally_note *
find(const char *session)
{
	const struct tally_note *n;

	for (unsigned i = 0; (n = tally_note(i)); i++)
		if (strcmp(n->session, session) == 0 && strcmp(n->from, QUOTA_SELF) == 0)
			return n;
	return NULL;
}

static json_t *
progress(const char *session)
{
	static const char *const stages[] = { [TALLY_REFUSED] = "refused",
		[TALLY_BROKERING] = "under way",
		[TALLY_UNPAIRED] = "not paired",
		[TALLY_PAIR] = "paired",
		[TALLY_ENDED] = "ended" };
	const struct tally_note *n = find(session);
	json_t *answer, *steps = json_object();
	bool is_over;

	/* after an upgrade nobody remembers: the two parties see for themselves */
	is_over = n && (n->stage == TALLY_UNPAIRED || n->stage == TALLY_ENDED);
	for (int i = 1; n && i < BROKER_STEP_MAX; i++)
		if (n->step_ns[i] >= 0)
			json_object_set_new(
			    steps, broker_step_word((enum broker_step)i), json_integer((json_int_t)n->step_ns[i]));
	answer = json_pack("{s:b, s:s, s:o}", "ok", 1, "stage", n ? stages[n->stage] : "unknown", "steps", steps);
	if (answer && is_over) {
		json_object_set_new(answer, "reason", json_string(end_reason_word((enum end_reason)n->reason)));
		json_object_set_new(answer, "help", json_string(end_reason_help((enum end_reason)n->reason)));
	}
	return answer;
}

json_t *
selftest_answer(struct master *m, const json_t *args)
{
	const char *session = json_str(args, "session");

	return session ? progress(session) : issue(m);
}
