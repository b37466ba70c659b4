/* drain.c - nothing new, what is in flight comes to its end: to be waited for, taken back, or followed by the end
 *
 *   SERVING --drain, stop, TERM--> DRAINING --undrain--> SERVING
 *                                      `--with stop or TERM: nothing in flight, a moment for answers--> the end
 *                                                            `--deadline: -32004 to all --'
 *
 * Always true:
 *  1. While it drains, new requests get -32004 and /readyz says no. What was in flight when it began gets its own
 *     answer, unless a stop's deadline comes first; so do the requests that it needs (broker.c).
 *  2. Streams and connections stay: answers travel on them. Only a stop accepts no further ones of operators.
 *  3. Who asked by the admin socket is answered once: when nothing is in flight, at its own deadline, when another call
 *     takes the draining back, or just before the end.
 *  4. s->waits and s->look are there exactly in DRAINING.
 *
 * Not here: taking the parts down (server.c).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <event2/event.h>

#include "hyper/base/clock.h"
#include "hyper/base/log.h"
#include "hyper/base/notify.h"
#include "hyper/net/admin.h"
#include "hyper/net/adminwait.h"
#include "server/parts.h"

#define LOOK_MS  20   /* how often it is looked whether all is over */
#define LEAVE_MS 300  /* for the last answers to leave */
#define END_MS   5000 /* to take the parts down, at most */

static json_t *
answer(const char *error, void *arg)
{
	const struct server *s = arg;
	json_t *a = json_pack(
	    "{s:b, s:I, s:i}", "ok", !error, "calls", (json_int_t)broker_in_flight(s->broker), "pid", (int)getpid());

	if (error)
		json_object_set_new(a, "error", json_string(error));
	return a;
}

static bool
is_met(size_t until, void *arg)
{
	const struct server *s = arg;

	return broker_in_flight(s->broker) <= until && !s->was_cut;
}

static const struct admin_waits_ops waits_ops = { is_met, answer };

void
server_drain_fini(struct server *s)
{
	admin_waits_free(s->waits);
	s->waits = NULL;
	if (s->look)
		event_free(s->look);
	s->look = NULL;
}

/* The admin's answers leave while the parts are taken down: the loop runs then. */
static void
end(struct server *s, const char *why)
{
	if (s->waits)
		admin_waits_end(s->waits, why);
	server_enter(s, SERVER_STOPPING, why);
	daemon_stop(s->daemon, EXIT_OK);
}

/* With a stop: is it time to end? */
static void
look_for_end(struct server *s, int64_t now_ms)
{
	size_t left = broker_in_flight(s->broker);

	if (left > 0 && now_ms >= s->stop_ms && s->quiet_ms == 0) {
		log_warn("drain_deadline", "in_flight=%zu why=\"they are refused now\"", left);
		s->was_cut = true;
		broker_drain_now(s->broker);
		s->quiet_ms = now_ms + LEAVE_MS;
	} else if (left == 0 && s->quiet_ms == 0) {
		s->quiet_ms = now_ms + LEAVE_MS;
	}
	if (s->quiet_ms > 0 && now_ms >= s->quiet_ms) {
		log_info("drained", "in_flight=%zu ms=%lld", left, (long long)(now_ms - s->drain_ms));
		end(s, s->was_cut ? "calls were left at the deadline" : "drained");
	}
}

static void
on_look(evutil_socket_t fd, short what, void *arg)
{
	int64_t now_ms = clock_now_ms();
	struct server *s = arg;

	(void)fd;
	(void)what;
	if (s->state != SERVER_DRAINING)
		return;
	admin_waits_look(s->waits, now_ms);
	if (s->then_stop)
		look_for_end(s, now_ms);
}

/* SERVING -> DRAINING, or already there. 0 or -ENOMEM. */
static int
begin(struct server *s)
{
	const struct timeval tv = { 0, LOOK_MS * 1000 };

	if (s->state == SERVER_DRAINING)
		return 0;
	s->look = event_new(s->base, -1, EV_PERSIST, on_look, s);
	if (!s->look || event_add(s->look, &tv) < 0 || admin_waits_new(&waits_ops, s, &s->waits) < 0) {
		server_drain_fini(s);
		return -ENOMEM;
	}
	server_enter(s, SERVER_DRAINING, "asked");
	s->drain_ms = clock_now_ms();
	broker_drain(s->broker, true);
	notify_status();
	return 0;
}

void
server_drain(struct server *s, int64_t timeout_ms)
{
	int64_t ms = clock_now_ms() + timeout_ms;

	if ((s->state != SERVER_SERVING && s->state != SERVER_DRAINING) || begin(s) < 0) {
		server_stop_now(s);
		return;
	}
	s->stop_ms = s->then_stop && s->stop_ms < ms ? s->stop_ms : ms;
	s->then_stop = true;
	log_info("draining", "in_flight=%zu deadline_ms=%lld", broker_in_flight(s->broker), (long long)timeout_ms);
	notify_stopping(s->stop_ms - clock_now_ms() + LEAVE_MS + END_MS);
	ch_grpc_server_deafen(s->grpc_server);
	if (broker_in_flight(s->broker) == 0)
		end(s, "drained");
}

void
server_stop_now(struct server *s)
{
	if (s->state != SERVER_STOPPING)
		end(s, "stopped at once");
}

/* --- verbs --- */

/* DRAINING -> SERVING: who waits for it gets `why`. */
static void
take_back(struct server *s, const char *why, const char *by)
{
	admin_waits_end(s->waits, why);
	server_drain_fini(s);
	broker_drain(s->broker, false);
	server_enter(s, SERVER_SERVING, by);
	notify_status();
	log_info("undrained", "in_flight=%zu", broker_in_flight(s->broker));
}

/* `drain` and, with then_stop, `stop`. */
static void
drain(struct server *s, struct admin_call *call, const json_t *args, bool then_stop)
{
	bool was_serving = s->state == SERVER_SERVING;
	int64_t ms;

	if (s->state != SERVER_SERVING && s->state != SERVER_DRAINING) {
		admin_answer(call, admin_error("it is %s", server_state_word(s)));
		return;
	}
	if (admin_wait_deadline(args, s->conf->drain_timeout_ms, &ms) < 0) {
		admin_answer(call, admin_error("the deadline is over a day"));
		return;
	}
	if (begin(s) < 0 || admin_waits_add(s->waits, call, 0, then_stop ? INT64_MAX : clock_now_ms() + ms) < 0) {
		/* who gets no answer has asked for nothing: it does not go on refusing calls for them */
		if (was_serving && s->state == SERVER_DRAINING)
			take_back(s, "out of memory", "no memory");
		admin_answer(call, NULL);
		return;
	}
	log_info("drain_asked", "verb=%s in_flight=%zu deadline_ms=%lld", then_stop ? "stop" : "drain",
	    broker_in_flight(s->broker), (long long)ms);
	if (then_stop)
		server_drain(s, ms);
	else
		admin_waits_look(s->waits, clock_now_ms());
}

static void
undrain(struct server *s, struct admin_call *call)
{
	if (s->state != SERVER_DRAINING || s->then_stop) {
		admin_answer(call, admin_error("undrain: it is %s", s->then_stop ? "stopping" : server_state_word(s)));
		return;
	}
	take_back(s, "undrained by another call", "undrain");
	admin_answer(call, answer(NULL, s));
}

bool
server_drain_on_admin(struct server *s, struct admin_call *call, const char *verb, const json_t *args)
{
	if (strcmp(verb, "undrain") == 0)
		undrain(s, call);
	else if (strcmp(verb, "drain") == 0)
		drain(s, call, args, false);
	else if (strcmp(verb, "stop") == 0)
		drain(s, call, args, true);
	else
		return false;
	return true;
}
