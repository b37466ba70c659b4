/* refusal.c - a requestConnection that gets no token: what A is told and what is noted of it
 *
 * Always true: the answer, the log's line, the count and the note for `explain`
 * have one reason, and one session id by which A finds them.
 *
 * Not here: whether it is refused (quota.c, session.c, brokering.c).
 */
#include "proxy/master/refusal.h"

#include <errno.h>
#include <string.h>

#include "hyper/base/log.h"
#include "proxy/master/tally.h"

/* Lines that any of our callers can cause: of each reason some get through. */
static struct log_limit limits[END_REASON_MAX];

static struct rpc_answer
note(const struct refusal *r, enum end_reason reason, enum broker_step step, struct rpc_answer answer)
{
	log_limited(&limits[reason], LOG_LVL_WARN, "not_issued",
	    "session=%s from=%s to=%s step=%s reason=%s why=\"%s\"", r->session, r->from, r->to, broker_step_word(step),
	    end_reason_word(reason), answer.message ? answer.message : "");
	tally_refused(r->session, r->from, r->to, reason, step, answer.message);
	return answer;
}

/* A limit of the settings: which one, whose, and what to do. */
static struct rpc_answer
over_quota(const struct refusal *r, int rc, const struct quota_no *no)
{
	int64_t retry_ms = no->retry_ms ? no->retry_ms : r->retry_ms;
	bool is_target = no->limit == QUOTA_LIMIT_INCOMING || no->limit == QUOTA_LIMIT_RATE_TO;

	if (rc == -EBUSY)
		return rpc_fail_step(RPC_BUSY, END_BUSY, STEP_ISSUED, r->session, retry_ms,
		    "%s is at its limit of %zu %s: try again later, or raise public.%s there", r->own, no->max,
		    quota_what(no->limit), quota_setting(no->limit));
	return rpc_fail_step(RPC_QUOTA, END_QUOTA, STEP_ISSUED, r->session, retry_ms,
	    "%s %s at its limit of %zu %s at %s: try again later, or have public.%s raised there",
	    is_target ? r->to : r->from, is_target ? "as a target is" : "is", no->max, quota_what(no->limit), r->own,
	    quota_setting(no->limit));
}

struct rpc_answer
refusal_no_token(const struct refusal *r, int rc, const struct quota_no *no)
{
	if (rc == -EDQUOT || rc == -EBUSY)
		return note(r, rc == -EBUSY ? END_BUSY : END_QUOTA, STEP_ISSUED, over_quota(r, rc, no));
	if (rc == -ENOSPC)
		return note(r, END_BUSY, STEP_ISSUED,
		    rpc_fail_step(RPC_BUSY, END_BUSY, STEP_ISSUED, r->session, r->retry_ms,
			"%s has no room for another token: try again later, or raise public.table_slots there",
			r->own));
	return note(r, END_INTERNAL, STEP_ISSUED,
	    rpc_fail_step(
		RPC_INTERNAL, END_INTERNAL, STEP_ISSUED, r->session, 0, "internal error: no token: %s", strerror(-rc)));
}

struct rpc_answer
refusal_draining(const struct refusal *r)
{
	return note(r, END_DRAINING, STEP_ASKED,
	    rpc_fail_step(RPC_DRAINING, END_DRAINING, STEP_ASKED, r->session, 0,
		"%s is shutting down: ask again when it is back", r->own));
}
