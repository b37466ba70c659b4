/* drain.c - see the header
 *
 *   SERVING --drain, stop, TERM--> DRAINING --undrain--> SERVING
 *                                      `--TERM or stop, and: nothing left, or deadline--> STOPPING
 *
 * Always true:
 *  1. m->drain is there exactly in DRAINING.
 *  2. While it is, requests get -32004 and /readyz says no. Tokens that were issued before stay good: their parties are
 *     let in, joined, or expire.
 *  3. No pair is ended here but by a stop at its deadline.
 *  4. Each call is answered once (net/adminwait.c): when it has what it waits for, at its own deadline, or when the
 *     state ends.
 *
 * Not here: the stop itself (master.c).
 */
#include "proxy/master/drain.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <event2/event.h>

#include "hyper/base/bug.h"
#include "hyper/base/clock.h"
#include "hyper/base/log.h"
#include "hyper/base/notify.h"
#include "hyper/net/admin.h"
#include "hyper/net/adminwait.h"
#include "proxy/master/master.h"

#define LOOK_MS 20 /* how often it is looked whether all is over */

struct drain {
	struct event *look;
	bool then_stop;
	int64_t stop_ms; /* the deadline, with then_stop */
	int64_t began_ms;
	struct admin_waits *waits; /* `until` are pairs; with 0 no token either */
};

static size_t
pairs_left(const struct master *m)
{
	return quota_held(m->quota, QUOTA_PAIRS);
}

static size_t
tokens_left(const struct master *m)
{
	return toktab_counts(m->table).issued + toktab_counts(m->table).parked;
}

static bool
is_met(size_t until, void *arg)
{
	const struct master *m = arg;

	if (pairs_left(m) > until)
		return false;
	return until > 0 || (tokens_left(m) == 0 && quota_held(m->quota, QUOTA_OUTSTANDING) == 0);
}

static json_t *
answer(const char *error, void *arg)
{
	const struct master *m = arg;
	json_t *a = json_pack("{s:b, s:I, s:I, s:i}", "ok", !error, "pairs", (json_int_t)pairs_left(m), "tokens",
	    (json_int_t)tokens_left(m), "pid", (int)getpid());

	if (error)
		json_object_set_new(a, "error", json_string(error));
	return a;
}

static const struct admin_waits_ops waits_ops = { is_met, answer };

void
drain_fini(struct master *m)
{
	if (!m->drain)
		return;
	admin_waits_free(m->drain->waits);
	if (m->drain->look)
		event_free(m->drain->look);
	free(m->drain);
	m->drain = NULL;
}

void
drain_over(struct master *m)
{
	if (!m->drain)
		return;
	admin_waits_end(m->drain->waits, "stopped with connections left: they are reset");
	drain_fini(m);
}

static void
look(struct master *m)
{
	int64_t now_ms = clock_now_ms();
	struct drain *d = m->drain;

	admin_waits_look(d->waits, now_ms);
	if (!d->then_stop)
		return;
	if (is_met(0, m) || now_ms >= d->stop_ms) {
		log_info("drained", "pairs=%zu tokens=%zu ms=%lld", pairs_left(m), tokens_left(m),
		    (long long)(now_ms - d->began_ms));
		master_stop(m, false);
	}
}

static void
on_look(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	look(arg);
}

/* SERVING -> DRAINING, or already there. False: out of memory. */
static bool
begin(struct master *m)
{
	const struct timeval tv = { 0, LOOK_MS * 1000 };
	struct drain *d = m->drain;

	if (d)
		return true;
	BUG_ON(m->state != MASTER_SERVING);
	d = calloc(1, sizeof(*d));
	if (!d)
		return false;
	d->began_ms = clock_now_ms();
	d->look = event_new(daemon_base(m->daemon), -1, EV_PERSIST, on_look, m);
	m->drain = d;
	if (!d->look || event_add(d->look, &tv) < 0 || admin_waits_new(&waits_ops, m, &d->waits) < 0) {
		drain_fini(m);
		return false;
	}
	master_enter(m, MASTER_DRAINING, "asked");
	brokering_drain(m->broker, true);
	notify_status();
	log_info("draining", "pairs=%zu tokens=%zu", pairs_left(m), tokens_left(m));
	return true;
}

static void
stop_by(struct drain *d, int64_t timeout_ms)
{
	int64_t ms = clock_now_ms() + timeout_ms;

	d->stop_ms = d->then_stop && d->stop_ms < ms ? d->stop_ms : ms;
	d->then_stop = true;
	notify_stopping(d->stop_ms - clock_now_ms() + MASTER_END_MS);
}

void
drain_then_stop(struct master *m, int64_t timeout_ms)
{
	if (m->state == MASTER_STOPPING)
		return;
	if (m->state == MASTER_STARTING || !begin(m)) {
		master_stop(m, false);
		return;
	}
	stop_by(m->drain, timeout_ms);
	look(m);
}

/* --- verbs --- */

/* DRAINING -> SERVING: who waits for it gets `why`. */
static void
take_back(struct master *m, const char *why, const char *by)
{
	admin_waits_end(m->drain->waits, why);
	drain_fini(m);
	brokering_drain(m->broker, false);
	master_enter(m, MASTER_SERVING, by);
	notify_status();
	log_info("undrained", "pairs=%zu", pairs_left(m));
}

static void
undrain(struct master *m, struct admin_call *call)
{
	if (!m->drain || m->drain->then_stop) {
		admin_answer(call, admin_error("undrain: it is %s", m->drain ? "stopping" : m->view.state));
		return;
	}
	take_back(m, "undrained by another call", "undrain");
	admin_answer(call, answer(NULL, m));
}

static void
drain(struct master *m, struct admin_call *call, const json_t *args, bool then_stop)
{
	const json_t *until = json_object_get(args, "until");
	size_t left = json_is_integer(until) && !then_stop ? (size_t)json_integer_value(until) : 0;
	bool was_serving = m->state == MASTER_SERVING;
	int64_t ms;

	if (m->state == MASTER_STARTING || m->state == MASTER_STOPPING ||
	    admin_wait_deadline(args, m->conf->public->drain_timeout_ms, &ms) < 0) {
		admin_answer(call, admin_error("it is %s, or the deadline is over a day", m->view.state));
		return;
	}
	if (!begin(m) ||
	    admin_waits_add(m->drain->waits, call, left, then_stop ? INT64_MAX : clock_now_ms() + ms) < 0) {
		/* who gets no answer has asked for nothing: it does not go on refusing calls for them */
		if (was_serving && m->drain)
			take_back(m, "out of memory", "no memory");
		admin_answer(call, NULL);
		return;
	}
	log_info(
	    "drain_asked", "verb=%s until=%zu deadline_ms=%lld", then_stop ? "stop" : "drain", left, (long long)ms);
	if (then_stop)
		stop_by(m->drain, ms);
	look(m);
}

bool
drain_on_admin(struct master *m, struct admin_call *call, const char *verb, const json_t *args)
{
	if (strcmp(verb, "undrain") == 0)
		undrain(m, call);
	else if (strcmp(verb, "drain") == 0)
		drain(m, call, args, false);
	else if (strcmp(verb, "stop") == 0)
		drain(m, call, args, true);
	else
		return false;
	return true;
}
