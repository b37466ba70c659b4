/* reply.c - the contract "exactly once, from the loop, by the deadline" in one place
 *
 *   reply_init --> open --reply_give--> given --loop--> cb, on_done --> done
 *                    `---deadline: on_deadline gives --'
 *
 * Always true:
 *  1. `cb` runs from the timer's callback only (or from reply_flush() at the
 *     end of the program), so never inside the call that started it.
 *  2. The first reply_give() counts, every later one is freed unseen.
 *
 * Not here: what the answer is.
 */
#include "server/reply.h"

#include <errno.h>
#include <string.h>

#include <event2/event.h>

#include "hyper/base/bug.h"
#include "hyper/base/clock.h"

static void
reply_fire(struct reply *r)
{
	struct rpc_answer answer = r->answer;

	BUG_ON(!r->is_given);
	event_free(r->timer);
	r->timer = NULL;
	r->answer = (struct rpc_answer){ 0 };
	r->cb(&answer, r->failed, r->arg);
	rpc_answer_fini(&answer);
	r->ops->on_done(r->owner);
}

static void
reply_on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct reply *r = arg;

	(void)fd;
	(void)what;
	if (!r->is_given)
		r->ops->on_deadline(r->owner);
	reply_fire(r);
}

int
reply_init(struct reply *r, struct event_base *base, int64_t deadline_ms, const struct reply_ops *ops, void *owner,
    deliver_cb cb, void *arg)
{
	int64_t left_ms = deadline_ms - clock_now_ms();
	struct timeval tv;
	struct event *timer = evtimer_new(base, reply_on_timer, r);

	if (left_ms < 0)
		left_ms = 0;
	tv = (struct timeval){ .tv_sec = left_ms / 1000, .tv_usec = left_ms % 1000 * 1000 };
	if (!timer || evtimer_add(timer, &tv) < 0) {
		if (timer)
			event_free(timer);
		return -ENOMEM;
	}
	*r = (struct reply){ .timer = timer, .ops = ops, .owner = owner, .cb = cb, .arg = arg };
	return 0;
}

void
reply_give(struct reply *r, struct rpc_answer answer, bool failed)
{
	if (!reply_is_open(r)) {
		rpc_answer_fini(&answer);
		return;
	}
	r->answer = answer;
	r->failed = failed;
	r->is_given = true;
	event_active(r->timer, EV_TIMEOUT, 0);
}

bool
reply_is_open(const struct reply *r)
{
	return r->timer && !r->is_given;
}

void
reply_flush(struct reply *r)
{
	if (!r->timer)
		return;
	if (!r->is_given)
		reply_give(
		    r, rpc_fail_step(RPC_DRAINING, END_STOPPED, STEP_NONE, NULL, 0, "the server was stopped"), true);
	reply_fire(r);
}
