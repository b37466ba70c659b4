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
 *  4. Each call is answered once: when it has what it waits for, at its own deadline, or when the state ends.
 *
 * Not here: the stop itself (master.c).
 */
#include "proxy/master/drain.h"

#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <unistd.h>

#include <event2/event.h>

#include "hyper/base/bug.h"
#include "hyper/base/clock.h"
#include "hyper/base/log.h"
#include "hyper/base/notify.h"
#include "hyper/net/admin.h"
#include "proxy/master/master.h"

#define LOOK_MS 20 /* how often it is looked whether all is over */

struct waiter {
	TAILQ_ENTRY(waiter) link;
	struct admin_call *call;
	size_t until;        /* pairs */
	int64_t deadline_ms; /* of the monotonic clock; INT64_MAX: that of the stop */
};

struct drain {
	struct event *look;
	bool then_stop;
	int64_t stop_ms; /* the deadline, with then_stop */
	int64_t began_ms;
	TAILQ_HEAD(, waiter) waiters;
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
is_met(const struct master *m, size_t until)
{
	if (pairs_left(m) > until)
		return false;
	return until > 0 || (tokens_left(m) == 0 && quota_held(m->quota, QUOTA_OUTSTANDING) == 0);
}

static json_t *
answer(const struct master *m, const char *error)
{
	json_t *a = json_pack("{s:b, s:I, s:I, s:i}", "ok", !error, "pairs", (json_int_t)pairs_left(m), "tokens",
	    (json_int_t)tokens_left(m), "pid", (int)getpid());

	if (error)
		json_object_set_new(a, "error", json_string(error));
	return a;
}

static void
waiter_answer(struct master *m, struct waiter *w, const char *error)
{
	TAILQ_REMOVE(&m->drain->waiters, w, link);
	admin_answer(w->call, answer(m, error));
	free(w);
}

void
drain_fini(struct master *m)
{
	if (!m->drain)
		return;
	while (!TAILQ_EMPTY(&m->drain->waiters))
		waiter_answer(m, TAILQ_FIRST(&m->drain->waiters), "stopped");
	if (m->drain->look)
		event_free(m->drain->look);
	free(m->drain);
	m->drain = NULL;
}

void
drain_over(struct master *m)
{
	struct waiter *w;

	if (!m->drain)
		return;
	while ((w = TAILQ_FIRST(&m->drain->waiters)))
		waiter_answer(m, w, is_met(m, w->until) ? NULL : "stopped with connections left: they are reset");
	drain_fini(m);
}

static void
look(struct master *m)
{
	int64_t now_ms = clock_now_ms();
	struct drain *d = m->drain;
	struct waiter *w, *next;

	for (w = TAILQ_FIRST(&d->waiters); w; w = next) {
		next = TAILQ_NEXT(w, link);
		if (w->deadline_ms == INT64_MAX)
			continue; /* of the stop */
		if (is_met(m, w->until))
			waiter_answer(m, w, NULL);
		else if (now_ms >= w->deadline_ms)
			waiter_answer(m, w, "connections are left at the deadline; it goes on draining");
	}
	if (!d->then_stop)
		return;
	if (is_met(m, 0) || now_ms >= d->stop_ms) {
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
	TAILQ_INIT(&d->waiters);
	d->began_ms = clock_now_ms();
	d->look = event_new(daemon_base(m->daemon), -1, EV_PERSIST, on_look, m);
	m->drain = d;
	if (!d->look || event_add(d->look, &tv) < 0) {
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

static void
undrain(struct master *m, struct admin_call *call)
{
	if (!m->drain || m->drain->then_stop) {
		admin_answer(call, admin_error("undrain: it is %s", m->drain ? "stopping" : m->view.state));
		return;
	}
	while (!TAILQ_EMPTY(&m->drain->waiters))
		waiter_answer(m, TAILQ_FIRST(&m->drain->waiters), "undrained by another call");
	drain_fini(m);
	brokering_drain(m->broker, false);
	master_enter(m, MASTER_SERVING, "undrain");
	notify_status();
	log_info("undrained", "pairs=%zu", pairs_left(m));
	admin_answer(call, answer(m, NULL));
}

static void
drain(struct master *m, struct admin_call *call, const json_t *args, bool then_stop)
{
	const json_t *until = json_object_get(args, "until"), *deadline = json_object_get(args, "deadline_ms");
	int64_t ms = json_is_integer(deadline) ? json_integer_value(deadline) : m->conf->public->drain_timeout_ms;
	struct waiter *w = NULL;

	if (m->state == MASTER_STARTING || m->state == MASTER_STOPPING || ms < 0 || ms > 86400000) {
		admin_answer(call, admin_error("it is %s, or the deadline is over a day", m->view.state));
		return;
	}
	w = calloc(1, sizeof(*w));
	if (!w || !begin(m)) {
		free(w);
		admin_answer(call, NULL);
		return;
	}
	w->call = call;
	w->until = json_is_integer(until) && !then_stop ? (size_t)json_integer_value(until) : 0;
	w->deadline_ms = then_stop ? INT64_MAX : clock_now_ms() + ms;
	TAILQ_INSERT_TAIL(&m->drain->waiters, w, link);
	log_info(
	    "drain_asked", "verb=%s until=%zu deadline_ms=%lld", then_stop ? "stop" : "drain", w->until, (long long)ms);
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
