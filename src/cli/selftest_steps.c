/* selftest_steps.c - see the header
 *
 *   token    the master issues one for us, over the admin socket
 *   connect  the endpoint is dialled, as operators dial it
 *   park     B's token goes there; until the master says that it waits
 *   pair     A dials and sends the same; until the master says that they are joined
 *   echo     1 MiB from A to B and back, every byte compared
 *   close    A ends its stream, B's goes on and ends too
 *
 * Always true:
 *  1. One deadline holds for all of it; each wait is bounded by what is left.
 *  2. The token is neither shown nor kept, and given back where no pair was made of it.
 *
 * Dialling is done here and not in the master: docs/decisions/031.
 */
#include "cli/selftest_steps.h"

#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include <event2/event.h>

#include "hyper/base/clock.h"
#include "hyper/net/admin.h"
#include "hyper/net/dial.h"
#include "hyper/wire/json.h"

#define PAYLOAD      SELFTEST_PAYLOAD
#define GIVE_BACK_MS 500
#define LOOK_MS      10 /* between two questions how far it has come, at most */
#define NS_PER_MS    1e6

enum { A, B };

static int64_t
left(const struct selftest *t)
{
	int64_t ms = t->end_ms - clock_now_ms();

	return ms > 0 ? ms : 0;
}

int
selftest_fail(struct selftest *t, int code, const char *fmt, ...)
{
	va_list ap;

	if (t->error[0])
		return -EIO;
	t->code = code;
	va_start(ap, fmt);
	vsnprintf(t->error, sizeof(t->error), fmt, ap);
	va_end(ap);
	return -EIO;
}

/* --- the master --- */

/* 0 with *ret taken, or what admin_ask() returns. */
static int
ask(const struct selftest *t, json_t *args, json_t **ret, char err[ADMIN_ERR_MAX])
{
	int rc = args ? admin_ask(t->socket, "selftest", args, left(t) + 1, ret, err) : -ENOMEM;

	json_decref(args);
	return rc;
}

static void
copy(char *ret, size_t cap, const json_t *answer, const char *key)
{
	const char *text = json_str(answer, key);

	snprintf(ret, cap, "%s", text ? text : "");
}

static int
get_token(struct selftest *t)
{
	char err[ADMIN_ERR_MAX] = "out of memory";
	json_t *answer = NULL;
	const char *text;
	int rc = ask(t, json_object(), &answer, err);

	if (rc == -ETIMEDOUT)
		return selftest_fail(t, CRITICAL, "the master does not answer at its admin socket");
	if (rc < 0)
		return selftest_fail(t, UNKNOWN, "%s", err);
	text = json_str(answer, "token");
	if (!json_is_true(json_object_get(answer, "ok"))) {
		text = json_str(answer, "error");
		rc = selftest_fail(t, CRITICAL, "%s", text ? text : "it said no without a reason");
	} else if (!text || token_parse(text, &t->token) < 0) {
		rc = selftest_fail(t, UNKNOWN, "the master's answer has no token: is it of another version?");
	}
	t->issued_ns = json_integer_value(json_object_get(answer, "now_ns"));
	copy(t->session, sizeof(t->session), answer, "session");
	copy(t->state, sizeof(t->state), answer, "state");
	copy(t->endpoint, sizeof(t->endpoint), answer, "endpoint");
	if (t->endpoint_wanted)
		snprintf(t->endpoint, sizeof(t->endpoint), "%s", t->endpoint_wanted);
	json_decref(answer);
	return rc;
}

/* Has it come to `step`? 1; 0 not yet; -EIO it will not. *ret_ns: when, since the issue. */
static int
look(struct selftest *t, const char *step, int64_t *ret_ns)
{
	char err[ADMIN_ERR_MAX];
	json_t *answer = NULL, *ns;
	const char *reason, *help;
	int rc = 0;

	/* a master that is just executed anew answers again in a moment */
	if (ask(t, json_pack("{s:s}", "session", t->session), &answer, err) < 0)
		return 0;
	reason = json_str(answer, "reason");
	help = json_str(answer, "help");
	ns = json_object_get(json_object_get(answer, "steps"), step);
	if (strcmp(json_str(answer, "stage") ? json_str(answer, "stage") : "", "unknown") == 0) {
		/* forgotten among newer ones, or by an upgrade: the next step shows whether it is so */
		rc = 1;
	} else if (ns) {
		*ret_ns = json_integer_value(ns);
		rc = 1;
	} else if (reason) {
		rc = selftest_fail(t, CRITICAL, "the proxy ended it: %s (%s)", reason, help ? help : "?");
	}
	json_decref(answer);
	return rc;
}

/* --- the endpoint --- */

struct dialled {
	int fd;
	bool is_over;
	char why[DIAL_WHY_MAX];
};

static void
on_dialled(int fd, const char *why, void *arg)
{
	struct dialled *d = arg;

	d->fd = fd;
	d->is_over = true;
	snprintf(d->why, sizeof(d->why), "%s", why);
}

static int
dial_endpoint(struct selftest *t, int who)
{
	struct event_base *base = event_base_new();
	struct dialled d = { .fd = -1, .why = "out of memory" };
	struct dial *dial;
	int rc = base ? dial_start(base, t->endpoint, left(t) + 1, on_dialled, &d, &dial) : -ENOMEM;

	if (rc == -EINVAL)
		rc = selftest_fail(t, UNKNOWN, "%s is no host:port", t->endpoint);
	while (rc == 0 && !d.is_over)
		if (event_base_loop(base, EVLOOP_ONCE) < 0)
			rc = -EIO;
	if (rc == 0 && d.fd >= 0)
		t->fd[who] = d.fd;
	else
		rc = selftest_fail(t, CRITICAL,
		    "%s: is the port open to this machine, and does public.internal_endpoint lead to this proxy?",
		    d.why);
	if (base)
		event_base_free(base);
	return rc;
}

static int
connect_b(struct selftest *t)
{
	return dial_endpoint(t, B);
}

/* Did the endpoint hang up on one of the two? Waits so long for it. -EIO when it did. */
static int
watch(struct selftest *t, int64_t ms)
{
	struct pollfd p[2] = { { .fd = t->fd[A], .events = POLLIN }, { .fd = t->fd[B], .events = POLLIN } };

	if (poll(p, 2, (int)(ms < left(t) ? ms : left(t))) <= 0)
		return 0;
	return selftest_fail(t, CRITICAL,
	    "%s closed the connection of %s: it may be another proxy's endpoint, or this address is over a limit there "
	    "(see `explain %s`, and the worker's log)",
	    t->endpoint, p[0].revents ? "A" : "B", t->session);
}

/* Until the master has come to `step`: when, by its own clock, where that is plausible. */
static int
wait_for(struct selftest *t, const char *step, int64_t *ret_ns)
{
	int64_t since_ns = 0, wait_ms = 1;
	int rc;

	while ((rc = look(t, step, &since_ns)) == 0) {
		if (left(t) == 0)
			return selftest_fail(t, CRITICAL, "the master has not seen it within the time-out");
		rc = watch(t, wait_ms);
		if (rc < 0)
			return rc;
		wait_ms = wait_ms * 2 < LOOK_MS ? wait_ms * 2 : LOOK_MS;
	}
	*ret_ns = t->issued_ns + since_ns;
	return rc < 0 ? rc : 0;
}

/* All 32 bytes fit into the queue of a new connection. */
static int
send_token(struct selftest *t, int who)
{
	ssize_t n = send(t->fd[who], t->token.bytes, TOKEN_LEN, MSG_NOSIGNAL);

	return n == TOKEN_LEN
		   ? 0
		   : selftest_fail(t, CRITICAL, "the token could not be sent: %s", strerror(n < 0 ? errno : EIO));
}

/* What a step took until `end_ns`, which is the master's word and must lie within it. */
static void
set_time(struct selftest *t, enum step step, int64_t began_ns, int64_t end_ns)
{
	int64_t now = clock_now_ns();

	t->ms[step] = (double)((end_ns > began_ns && end_ns < now ? end_ns : now) - began_ns) / NS_PER_MS;
}

static int
park(struct selftest *t)
{
	int64_t began = clock_now_ns(), end = 0;
	int rc = send_token(t, B);

	if (rc == 0)
		rc = wait_for(t, "parked", &end);
	if (rc == 0)
		set_time(t, ST_PARK, began, end);
	return rc;
}

static int
pair(struct selftest *t)
{
	int64_t began = clock_now_ns(), end = 0;
	int rc = dial_endpoint(t, A);

	if (rc == 0)
		rc = send_token(t, A);
	if (rc == 0)
		rc = wait_for(t, "paired", &end);
	if (rc == 0)
		set_time(t, ST_PAIR, began, end);
	return rc;
}

/* --- bytes --- */

static const char *const way[] = { "from B to A", "from A to B" }; /* by who reads */

/* Reads what is there of the payload from *at on; `other`'s stream must not have ended. */
static int
read_some(struct selftest *t, int who, size_t *at)
{
	uint8_t buf[65536];
	ssize_t n = recv(t->fd[who], buf, sizeof(buf), MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (n < 0)
		return selftest_fail(t, CRITICAL, "%s after %zu bytes %s", strerror(errno), *at, way[who]);
	if (n == 0)
		return selftest_fail(t, CRITICAL, "the stream ended after %zu of %zu bytes %s", *at, PAYLOAD, way[who]);
	if ((size_t)n > PAYLOAD - *at)
		return selftest_fail(t, CRITICAL, "more than was sent came %s", way[who]);
	if (memcmp(t->payload + *at, buf, (size_t)n) != 0)
		return selftest_fail(
		    t, CRITICAL, "wrong bytes came %s, between %zu and %zu", way[who], *at, *at + (size_t)n);
	*at += (size_t)n;
	return 0;
}

static int
write_some(struct selftest *t, int who, size_t *at, size_t end)
{
	ssize_t n = send(t->fd[who], t->payload + *at, end - *at, MSG_DONTWAIT | MSG_NOSIGNAL);

	if (n < 0 && errno != EAGAIN && errno != EINTR)
		return selftest_fail(t, CRITICAL, "%s after %zu bytes %s", strerror(errno), *at, way[!who]);
	*at += n > 0 ? (size_t)n : 0;
	return 0;
}

/* B sends back what it has got, while A still sends. */
static int
echo(struct selftest *t)
{
	size_t sent = 0, there = 0, echoed = 0, back = 0;
	int rc = 0;

	while (rc == 0 && back < PAYLOAD) {
		struct pollfd p[2] = { { .fd = t->fd[A], .events = (short)(POLLIN | (sent < PAYLOAD ? POLLOUT : 0)) },
			{ .fd = t->fd[B],
			    .events = (short)((there < PAYLOAD ? POLLIN : 0) | (echoed < there ? POLLOUT : 0)) } };

		if (poll(p, 2, (int)left(t)) == 0)
			return selftest_fail(
			    t, CRITICAL, "after the time-out %zu bytes had come from A to B, %zu back", there, back);
		if (p[A].revents & POLLOUT)
			rc = write_some(t, A, &sent, PAYLOAD);
		if (rc == 0 && p[B].revents & (POLLIN | POLLHUP | POLLERR) && there < PAYLOAD)
			rc = read_some(t, B, &there);
		if (rc == 0 && p[B].revents & POLLOUT)
			rc = write_some(t, B, &echoed, there);
		if (rc == 0 && p[A].revents & (POLLIN | POLLHUP | POLLERR))
			rc = read_some(t, A, &back);
	}
	return rc;
}

/* The next byte of one's stream: 1, 0 its end, or -EIO. */
static int
next_byte(struct selftest *t, int who, uint8_t *ret)
{
	struct pollfd p = { .fd = t->fd[who], .events = POLLIN };
	ssize_t n;

	if (poll(&p, 1, (int)left(t)) == 0)
		return selftest_fail(
		    t, CRITICAL, "the end of the stream did not come %s within the time-out", way[who]);
	n = recv(t->fd[who], ret, 1, MSG_DONTWAIT);
	return n < 0 ? selftest_fail(t, CRITICAL, "%s instead of a clean end %s", strerror(errno), way[who]) : (int)n;
}

/* A's stream ends, B's lives on for one more byte, and ends. */
static int
half_close(struct selftest *t)
{
	uint8_t byte = 0;
	int rc;

	(void)shutdown(t->fd[A], SHUT_WR);
	rc = next_byte(t, B, &byte);
	if (rc == 0 && send(t->fd[B], "!", 1, MSG_NOSIGNAL) == 1) {
		rc = next_byte(t, A, &byte);
		if (rc != 1 || byte != '!')
			return selftest_fail(t, CRITICAL, "B's stream ended with that of A");
		(void)shutdown(t->fd[B], SHUT_WR);
		rc = next_byte(t, A, &byte);
	}
	return rc == 0 ? 0 : selftest_fail(t, CRITICAL, "more than was sent came, or nothing more could be sent");
}

/* --- all of it --- */

static const struct {
	const char *word;
	int (*run)(struct selftest *);
} steps[] = {
	[ST_TOKEN] = { "token", get_token },
	[ST_CONNECT] = { "connect", connect_b },
	[ST_PARK] = { "park", park },
	[ST_PAIR] = { "pair", pair },
	[ST_ECHO] = { "echo", echo },
	[ST_CLOSE] = { "half-close", half_close },
};
_Static_assert(ARRAY_LEN(steps) == STEP_COUNT, "a function for each step");

/* After a failure: nothing of ours is left in the table until its time is over. */
static void
give_back(const struct selftest *t)
{
	json_t *args = json_pack("{s:s}", "id", t->session), *answer = NULL;
	char err[ADMIN_ERR_MAX];

	if (args && admin_ask(t->socket, "kick", args, GIVE_BACK_MS, &answer, err) == 0)
		json_decref(answer);
	json_decref(args);
}

int
selftest_steps(struct selftest *t)
{
	for (int i = 0; i < STEP_COUNT; i++) {
		int64_t began = clock_now_ns();

		if (steps[i].run(t) < 0) {
			if (t->session[0])
				give_back(t);
			return i;
		}
		if (t->ms[i] < 0)
			t->ms[i] = (double)(clock_now_ns() - began) / NS_PER_MS;
	}
	return STEP_COUNT;
}

const char *
selftest_step_word(int step)
{
	return steps[step].word;
}
