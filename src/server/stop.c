/* stop.c - a stop that lets calls come to their end
 *
 *   drain --> new requests -32004, no new connections of operators --nothing in flight--> a moment for answers --> the end
 *                                                                 `--deadline--> -32004 to all --'
 *
 * Always true:
 *  1. What was in flight when it began gets its own answer, unless the deadline comes first; so do the requests that it
 *     needs itself (a brokering asks the proxy).
 *  2. Streams and connections stay until the end: answers travel on them.
 *  3. Who asked by the admin socket is answered once, just before the end.
 *
 * Not here: taking the parts down (server.c).
 */
#include <stdlib.h>
#include <unistd.h>

#include <event2/event.h>

#include "hyper/base/clock.h"
#include "hyper/base/log.h"
#include "hyper/base/notify.h"
#include "hyper/net/admin.h"
#include "server/parts.h"

#define LOOK_MS  20   /* how often it is looked whether all is over */
#define LEAVE_MS 300  /* for the last answers to leave */
#define END_MS   5000 /* to take the parts down, at most */
#define DAY_MS   86400000

static json_t *
answer(const struct server *s, const char *error)
{
	json_t *a = json_pack(
	    "{s:b, s:I, s:i}", "ok", !error, "calls", (json_int_t)broker_in_flight(s->broker), "pid", (int)getpid());

	if (error)
		json_object_set_new(a, "error", json_string(error));
	return a;
}

/* The admin's answer leaves while the parts are taken down: the loop runs then. */
static void
end(struct server *s, const char *error)
{
	if (s->stop_call)
		admin_answer(s->stop_call, answer(s, error));
	s->stop_call = NULL;
	server_enter(s, SERVER_STOPPING, error ? error : "drained");
	daemon_stop(s->daemon, EXIT_OK);
}

static void
look(struct server *s)
{
	int64_t now_ms = clock_now_ms();
	size_t left = broker_in_flight(s->broker);

	if (s->state != SERVER_DRAINING)
		return;
	if (left > 0 && now_ms >= s->stop_ms && s->quiet_ms == 0) {
		log_warn("drain_deadline", "in_flight=%zu why=\"they are refused now\"", left);
		broker_drain_now(s->broker);
		s->quiet_ms = now_ms + LEAVE_MS;
	} else if (left == 0 && s->quiet_ms == 0) {
		s->quiet_ms = now_ms + LEAVE_MS;
	}
	if (s->quiet_ms > 0 && now_ms >= s->quiet_ms) {
		log_info("drained", "in_flight=%zu ms=%lld", left, (long long)(now_ms - s->drain_ms));
		end(s, now_ms >= s->stop_ms && left > 0 ? "calls were left at the deadline" : NULL);
	}
}

static void
on_look(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	look(arg);
}

void
server_drain(struct server *s, int64_t timeout_ms)
{
	const struct timeval tv = { 0, LOOK_MS * 1000 };
	int64_t now_ms = clock_now_ms();

	if (s->state == SERVER_DRAINING) {
		s->stop_ms = s->stop_ms < now_ms + timeout_ms ? s->stop_ms : now_ms + timeout_ms;
		return;
	}
	if (s->state != SERVER_SERVING) {
		server_stop_now(s);
		return;
	}
	server_enter(s, SERVER_DRAINING, "asked");
	s->drain_ms = now_ms;
	s->stop_ms = now_ms + timeout_ms;
	log_info("draining", "in_flight=%zu deadline_ms=%lld", broker_in_flight(s->broker), (long long)timeout_ms);
	notify_stopping(timeout_ms + LEAVE_MS + END_MS);
	ch_grpc_server_deafen(s->grpc_server);
	broker_drain(s->broker);
	s->look = event_new(s->base, -1, EV_PERSIST, on_look, s);
	if (broker_in_flight(s->broker) == 0 || !s->look || event_add(s->look, &tv) < 0)
		end(s, NULL);
}

void
server_stop_on_admin(struct server *s, struct admin_call *call, const json_t *args)
{
	const json_t *deadline = json_object_get(args, "deadline_ms");
	int64_t ms = json_is_integer(deadline) ? json_integer_value(deadline) : s->conf->drain_timeout_ms;

	if (s->state != SERVER_SERVING || ms < 0 || ms > DAY_MS) {
		admin_answer(call, admin_error("it is %s, or the deadline is over a day", server_state_word(s)));
		return;
	}
	s->stop_call = call;
	server_drain(s, ms);
}

void
server_stop_now(struct server *s)
{
	if (s->state != SERVER_STOPPING)
		end(s, "stopped at once");
}

void
server_stop_fini(struct server *s)
{
	if (s->look)
		event_free(s->look);
	s->look = NULL;
}
