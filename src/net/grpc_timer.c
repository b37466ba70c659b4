/* grpc_timer.c - the one timer of a connection: handshake deadline, keepalive, idle end, slow readers and writers
 *
 * Always true:
 *  1. DIAL (its own timer, dial.c) and HANDSHAKE share one deadline; later the
 *     keepalive bounds the wait for a peer that has vanished.
 *  2. The timer is armed for the earliest deadline or for an earlier moment, never later.
 *  3. Nothing ends inside: reasons are noted, the loop's next step acts on them.
 *
 * Not here: how long a call may take (its owner says so with grpc_stream_finish()).
 */
#include "net/grpc_impl.h"

#include <stdio.h>

#include <event2/event.h>

#include "hyper/base/clock.h"

static int64_t
min64(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

static bool
is_idle_server(const struct grpc_conn *c)
{
	return c->role == TLS_SERVER && c->state == CONN_OPEN && c->n_streams == 0;
}

static int64_t
ping_interval(const struct grpc_conn *c)
{
	return c->role == TLS_SERVER ? GRPC_PING_SERVER_MS : GRPC_PING_CLIENT_MS;
}

static int64_t
ping_patience(const struct grpc_conn *c)
{
	return c->role == TLS_SERVER ? GRPC_PING_SERVER_ACK_MS : GRPC_PING_CLIENT_ACK_MS;
}

static int64_t
next_deadline(const struct grpc_conn *c)
{
	const struct grpc_stream *s;
	int64_t at;

	if (c->state == CONN_HANDSHAKE)
		return c->connect_ms;
	if (!grpc_conn_is_alive(c))
		return INT64_MAX;
	at = c->ping_ms != 0 ? c->ping_ms + ping_patience(c) : c->last_rx_ms + ping_interval(c);
	if (is_idle_server(c))
		at = min64(at, c->idle_since_ms + GRPC_IDLE_MS);
	if (c->linger_ms != 0)
		at = min64(at, c->linger_ms);
	if (c->give_up_ms != 0)
		at = min64(at, c->give_up_ms);
	if (c->n_finishing + c->n_due == 0)
		return at;
	TAILQ_FOREACH (s, &c->streams, link) {
		if (s->deadline_ms != 0)
			at = min64(at, s->deadline_ms);
		if (s->due_ms != 0)
			at = min64(at, s->due_ms);
	}
	return at;
}

/* The timer is only ever moved forward in time by firing: a deadline that went
 * away costs one early wake-up and no call per message. */
void
grpc_timer_rearm(struct grpc_conn *c)
{
	int64_t at = next_deadline(c), left = at - clock_now_ms();
	struct timeval tv;

	if (at >= c->timer_ms)
		return;
	left = left > 1 ? left : 1;
	tv = (struct timeval){ .tv_sec = left / 1000, .tv_usec = left % 1000 * 1000 };
	if (evtimer_add(c->ev_timer, &tv) != 0)
		grpc_conn_fail(c, END_INTERNAL, "%s: no timer", c->peer);
	else
		c->timer_ms = at;
}

static void
streams_expire(struct grpc_conn *c, int64_t now)
{
	struct grpc_stream *s, *next;

	for (s = TAILQ_FIRST(&c->streams); s != NULL; s = next) {
		next = TAILQ_NEXT(s, link);
		if (s->due_ms != 0 && s->due_ms <= now)
			grpc_stream_refuse(
			    s, GRPC_DEADLINE_EXCEEDED, "grpc: no whole message within %d s", GRPC_MESSAGE_MS / 1000);
		if (s->deadline_ms == 0 || s->deadline_ms > now)
			continue;
		if (nghttp2_submit_rst_stream(c->h2, NGHTTP2_FLAG_NONE, s->id, NGHTTP2_CANCEL) != 0)
			grpc_conn_fail(c, END_INTERNAL, "%s: out of memory", c->peer);
		grpc_stream_over(s, GRPC_DEADLINE_EXCEEDED, "the peer did not take the answer in time");
	}
}

static void
keepalive(struct grpc_conn *c, int64_t now)
{
	if (c->ping_ms == 0 && now >= c->last_rx_ms + ping_interval(c)) {
		c->ping_ms = now;
		if (nghttp2_submit_ping(c->h2, NGHTTP2_FLAG_NONE, NULL) != 0)
			grpc_conn_fail(c, END_INTERNAL, "%s: out of memory", c->peer);
	} else if (c->ping_ms != 0 && now >= c->ping_ms + ping_patience(c)) {
		grpc_conn_fail(c, END_DEADLINE, "%s: no answer to an HTTP/2 PING for %d s", c->peer,
		    (int)(ping_patience(c) / 1000));
	}
}

static void
on_timer(evutil_socket_t sock, short what, void *arg)
{
	struct grpc_conn *c = arg;
	int64_t now = clock_now_ms();

	(void)sock;
	(void)what;
	c->timer_ms = INT64_MAX;
	if (c->state == CONN_HANDSHAKE && now >= c->connect_ms)
		grpc_conn_fail(c, END_DEADLINE, "TLS handshake with %s: not done within %lld ms", c->peer,
		    (long long)c->timeout_ms);
	if (!grpc_conn_is_alive(c)) {
		grpc_timer_rearm(c);
		return;
	}
	if (c->linger_ms != 0 && now >= c->linger_ms)
		c->linger_ms = 0;
	if (is_idle_server(c) && now >= c->idle_since_ms + GRPC_IDLE_MS) {
		/* "going away" first: a request may be under way */
		c->linger_ms = now + GRPC_LINGER_MS;
		snprintf(c->h2_why, sizeof c->h2_why, "idle for %d s", GRPC_IDLE_MS / 1000);
		grpc_conn_enter(c, CONN_DRAIN, c->h2_why);
		if (nghttp2_submit_shutdown_notice(c->h2) != 0)
			grpc_conn_fail(c, END_INTERNAL, "%s: out of memory", c->peer);
	}
	if (c->give_up_ms != 0 && now >= c->give_up_ms)
		grpc_conn_run_down(c);
	keepalive(c, now);
	streams_expire(c, now);
	grpc_conn_kick(c);
}

struct event *
grpc_timer_new(struct grpc_conn *c)
{
	return evtimer_new(c->base, on_timer, c);
}
