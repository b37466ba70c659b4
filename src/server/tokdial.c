/* tokdial.c - TCP to a proxy's endpoint, then the 32 raw token bytes (protocol.md 7.1, steps 6 and 11)
 *
 *   start --dial--> connected --32 bytes written--> cb(fd)
 *     `------- refused, deadline -----------------> cb(-1)
 *
 * Always true:
 *  1. Nothing but the token is written and nothing is read: what follows on
 *     the socket is TLS, whoever speaks first.
 *  2. The token is wiped from memory with this object and is never logged.
 *
 * Not here: where the endpoint comes from (brokered.c, accept.c), TLS (src/net).
 */
#include "server/tokdial.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <event2/event.h>
#include <openssl/crypto.h>

#include "hyper/base/clock.h"
#include "hyper/base/fd.h"
#include "hyper/directory/entry.h"
#include "hyper/net/dial.h"
#include "hyper/net/listen.h"

struct tokdial {
	struct event_base *base;
	struct dial *dial; /* NULL once connected */
	int fd;            /* -1 until connected */
	struct event *writable;
	struct token token;
	size_t written;
	int64_t deadline_ms;
	char *endpoint;
	tokdial_cb cb;
	void *arg;
};

static void
tokdial_free(struct tokdial *d)
{
	dial_free(d->dial);
	if (d->writable)
		event_free(d->writable);
	fd_close(&d->fd);
	OPENSSL_cleanse(&d->token, sizeof(d->token));
	free(d->endpoint);
	free(d);
}

/* The last line of every way: the socket is given away, or `why` says what went wrong. */
static void
tokdial_end(struct tokdial *d, int fd, enum end_reason reason, const char *why)
{
	tokdial_cb cb = d->cb;
	void *arg = d->arg;
	char text[DIAL_WHY_MAX + HOSTPORT_MAX];

	snprintf(text, sizeof(text), "%s", why);
	tokdial_free(d);
	cb(fd, reason, text, arg);
}

static void
tokdial_fail(struct tokdial *d, int rc, const char *doing)
{
	char why[DIAL_WHY_MAX + HOSTPORT_MAX];

	snprintf(why, sizeof(why), "%s %s: %s", doing, d->endpoint, strerror(-rc));
	tokdial_end(d, -1, rc == -ETIMEDOUT ? END_DEADLINE : END_UNREACHABLE, why);
}

static void
tokdial_write(evutil_socket_t fd, short what, void *arg)
{
	struct tokdial *d = arg;
	struct timeval tv;
	int64_t left_ms;
	ssize_t n;

	if (what & EV_TIMEOUT) {
		tokdial_fail(d, -ETIMEDOUT, "send the token to");
		return;
	}
	n = send(fd, d->token.bytes + d->written, TOKEN_LEN - d->written, MSG_NOSIGNAL);
	if (n < 0 && errno != EAGAIN && errno != EINTR) {
		tokdial_fail(d, -errno, "send the token to");
		return;
	}
	if (n > 0)
		d->written += (size_t)n;
	if (d->written == TOKEN_LEN) {
		int given = d->fd;

		/* the loop must have forgotten the descriptor before its next owner registers it */
		event_free(d->writable);
		d->writable = NULL;
		d->fd = -1;
		tokdial_end(d, given, END_CLOSED, "");
		return;
	}
	left_ms = d->deadline_ms - clock_now_ms();
	if (left_ms < 1)
		left_ms = 1;
	tv = (struct timeval){ .tv_sec = left_ms / 1000, .tv_usec = left_ms % 1000 * 1000 };
	if (event_add(d->writable, &tv) < 0)
		tokdial_fail(d, -ENOMEM, "send the token to");
}

static void
tokdial_on_dialled(int fd, const char *why, void *arg)
{
	struct tokdial *d = arg;

	d->dial = NULL;
	if (fd < 0) {
		tokdial_end(d, -1, fd == -ETIMEDOUT ? END_DEADLINE : END_UNREACHABLE, why);
		return;
	}
	d->fd = fd;
	d->writable = event_new(d->base, fd, EV_WRITE, tokdial_write, d);
	if (!d->writable)
		tokdial_fail(d, -ENOMEM, "send the token to");
	else
		tokdial_write(fd, EV_WRITE, d);
}

int
tokdial_start(struct event_base *base, const char *endpoint, const struct token *token, int64_t deadline_ms,
    tokdial_cb cb, void *arg, struct tokdial **ret)
{
	int64_t left_ms = deadline_ms - clock_now_ms();
	struct tokdial *d = calloc(1, sizeof(*d));
	int rc = -ENOMEM;

	if (!d)
		return -ENOMEM;
	*d = (struct tokdial){
		.base = base, .fd = -1, .token = *token, .deadline_ms = deadline_ms, .cb = cb, .arg = arg
	};
	d->endpoint = strdup(endpoint);
	if (d->endpoint)
		rc = dial_start(base, endpoint, left_ms > 1 ? left_ms : 1, tokdial_on_dialled, d, &d->dial);
	if (rc < 0) {
		tokdial_free(d);
		return rc;
	}
	*ret = d;
	return 0;
}

void
tokdial_cancel(struct tokdial *d)
{
	if (d)
		tokdial_free(d);
}

bool
endpoint_is_allowed(const struct conf_strings *allow, const json_t *proxy_entry, const char *name, const char *endpoint)
{
	const json_t *settings = proxy_entry ? entry_settings(proxy_entry, "proxy", name) : NULL;
	const json_t *list = settings ? json_object_get(settings, "endpoints") : NULL;
	bool is_local = allow->n == 0, is_published = !list;
	const json_t *item;
	size_t i;

	for (i = 0; i < allow->n && !is_local; i++)
		is_local = strcmp(allow->v[i], "*") == 0 || strcmp(allow->v[i], endpoint) == 0;
	json_array_foreach (list, i, item)
		if (json_is_string(item) && strcmp(json_string_value(item), endpoint) == 0)
			is_published = true;
	return is_local && is_published;
}
