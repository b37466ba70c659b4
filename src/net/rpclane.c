/* rpclane.c - kept HTTP/1.1 connections to one endpoint, for many small calls
 *
 * Why not libcurl alone: docs/decisions/033. A call costs one write and one recv here, and nothing is told to epoll.
 *
 * Always true:
 *  1. A lane carries one call at a time, and is kept only when its answer ended exactly where its head said.
 *  2. Lanes are opened to a server that was seen to keep libcurl's connections, while there are conf.load calls a second or more, and closed after IDLE_MS of silence, which is
 *     before our servers do. So a client that calls now and then has none.
 *  3. A call is said to be worth repeating (-EAGAIN) only if no byte of an answer came: as libcurl does it with
 *     connections that it kept.
 *  4. After a lane could not be opened none is tried for REST_MS.
 *  5. A turn of the loop reads at most TURN_READS records of a lane, and looks at what came. So an answer without end takes its
 *     share of the loop, and JSON_MAX_BYTES, a head and what one turn reads is all that a lane holds.
 *
 * Not here: deadlines of calls and what answers mean (rpcclient.c), proxies, passwords, redirects.
 */
#include "net/rpclane.h"

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/queue.h>
#include <sys/socket.h>

#include <event2/buffer.h>
#include <event2/event.h>

#include "hyper/base/clock.h"
#include "hyper/base/fd.h"
#include "hyper/base/log.h"
#include "hyper/net/dial.h"
#include "hyper/net/tls.h"
#include "hyper/wire/json.h"
#include "net/http.h"
#include "net/tlsio.h"

#define LANES_MAX   128
#define DIALS_MAX   2 /* at a time: each may be a handshake */
#define IDLE_MS     60000
#define REST_MS     5000
#define SWEEP_MS    5000
#define CONNECT_MS  10000
#define REQUEST_MAX ((size_t)64 * 1024) /* larger ones are libcurl's */
#define HEAD_ROOM   1024
#define READ_SIZE   16384
#define TURN_READS  8 /* records at most, then others get their turn */
#define INTERIM_MAX 8 /* "100 Continue" and the like, in front of one answer */

enum lane_state { LANE_DIALLING, LANE_IDLE, LANE_BUSY };

struct lane {
	struct lanes *all;
	enum lane_state state;
	struct dial *dial;
	int fd;
	struct event *ev;       /* plain: readable, for its whole life */
	struct event *ev_write; /* plain: while a request did not fit the socket */
	SSL *ssl;
	struct tlsio *io; /* TLS: instead of ev */
	struct evbuffer *in, *out;
	int64_t since_ms; /* in this state */
	/* of the call */
	lane_cb cb;
	void *arg;
	int status;     /* of HTTP; 0: the head is not complete */
	int64_t length; /* -1: up to the end of the connection */
	unsigned n_interim;
	bool is_chunked, keep, has_answered;
	struct http_chunks chunks;
	struct http_body body;
	TAILQ_ENTRY(lane) link;
};
TAILQ_HEAD(lane_list, lane);

struct lanes {
	struct event_base *base;
	char *hostport, *server_name;
	char head[HEAD_ROOM]; /* all but the length */
	SSL_CTX *tls;
	struct lane_list idle; /* the last used first */
	struct lane_list rest;
	size_t n, n_dialling;
	int64_t second, rest_until_ms;
	unsigned load, calls; /* in this second */
	bool is_kept;         /* the server keeps connections */
	struct event *sweep;
};

static void
lane_free(struct lane *l)
{
	if (l->state == LANE_IDLE)
		TAILQ_REMOVE(&l->all->idle, l, link);
	else
		TAILQ_REMOVE(&l->all->rest, l, link);
	l->all->n_dialling -= l->state == LANE_DIALLING;
	l->all->n--;
	dial_free(l->dial);
	if (l->ev)
		event_free(l->ev);
	if (l->ev_write)
		event_free(l->ev_write);
	tlsio_free(l->io);
	SSL_free(l->ssl);
	fd_close(&l->fd);
	if (l->in)
		evbuffer_free(l->in);
	if (l->out)
		evbuffer_free(l->out);
	http_body_fini(&l->body);
	free(l);
}

static void
lane_enter(struct lane *l, enum lane_state to)
{
	struct lanes *all = l->all;

	if (l->state == LANE_IDLE)
		TAILQ_REMOVE(&all->idle, l, link);
	else
		TAILQ_REMOVE(&all->rest, l, link);
	all->n_dialling -= l->state == LANE_DIALLING;
	if (to == LANE_IDLE)
		TAILQ_INSERT_HEAD(&all->idle, l, link);
	else
		TAILQ_INSERT_HEAD(&all->rest, l, link);
	l->state = to;
	l->since_ms = clock_now_ms();
}

/* The connection is of no use any more; a call that waits hears why. */
static void
lane_lost(struct lane *l, int err)
{
	struct lanes *all = l->all;
	lane_cb cb = l->state == LANE_BUSY ? l->cb : NULL;
	void *arg = l->arg;

	if (l->state == LANE_DIALLING)
		all->rest_until_ms = clock_now_ms() + REST_MS;
	if (err == -EAGAIN && l->has_answered)
		err = -EPROTO;
	lane_free(l);
	if (cb)
		cb(err, NULL, 0, arg);
}

void
lane_cancel(struct lane *l)
{
	if (l)
		lane_free(l);
}

/* --- answers --- */

/* The whole of an answer is there. */
static void
lane_answer(struct lane *l, const char *body, size_t len)
{
	bool is_counted = !l->is_chunked && l->length >= 0;

	l->cb(l->status, body, len, l->arg);
	l->cb = NULL;
	if (is_counted)
		evbuffer_drain(l->in, len);
	http_body_fini(&l->body);
	if (l->keep && evbuffer_get_length(l->in) == 0)
		lane_enter(l, LANE_IDLE);
	else
		lane_free(l);
}

/* "Name: value" of an answer's head. False: we cannot tell where this answer ends. */
static bool
take_field(struct lane *l, char *line)
{
	char *value = strchr(line, ':'), *end = NULL;

	if (!value)
		return false;
	*value++ = '\0';
	value += strspn(value, " \t");
	if (strcasecmp(line, "Content-Length") == 0) {
		if (l->length >= 0 || *value < '0' || *value > '9' || strlen(value) > 15)
			return false;
		l->length = strtoll(value, &end, 10);
		return end[strspn(end, " \t")] == '\0';
	}
	if (strcasecmp(line, "Transfer-Encoding") == 0) {
		l->is_chunked = true;
		return strcasecmp(value, "chunked") == 0;
	}
	if (strcasecmp(line, "Connection") == 0 && strcasecmp(value, "keep-alive") != 0)
		l->keep = false;
	return true;
}

static bool
is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/* `text` is a head up to its empty line, cut up here. 0 or -EPROTO. */
static int
take_head(struct lane *l, char *text)
{
	char *line = text, *next = strstr(text, "\r\n");

	if (!next || strncmp(text, "HTTP/1.", 7) != 0 || !is_digit(text[7]) || text[8] != ' ' || !is_digit(text[9]) ||
	    !is_digit(text[10]) || !is_digit(text[11]))
		return -EPROTO;
	l->status = (text[9] - '0') * 100 + (text[10] - '0') * 10 + text[11] - '0';
	l->keep = text[7] != '0';
	l->is_chunked = false;
	l->length = -1;
	memset(&l->chunks, 0, sizeof(l->chunks));
	for (line = next + 2; (next = strstr(line, "\r\n")) && next != line; line = next + 2) {
		*next = '\0';
		if (!take_field(l, line))
			return -EPROTO;
	}
	if (l->status < 200 && ++l->n_interim > INTERIM_MAX)
		return -EPROTO;
	if (l->status < 200) /* more will come */
		l->status = 0;
	else if (l->status == 204 || l->status == 304)
		l->length = 0;
	return l->is_chunked && l->length >= 0 ? -EPROTO : 0;
}

/* 1: the head is known, 0: more is needed, -EPROTO, -ENOMEM */
static int
read_head(struct lane *l)
{
	char text[HTTP_HEAD_MAX + 1];
	size_t len, scanned;
	const char *data;
	ssize_t end;
	int rc = 0;

	while (rc == 0 && l->status == 0) {
		scanned = 0;
		len = evbuffer_get_length(l->in);
		len = len < HTTP_HEAD_MAX ? len : HTTP_HEAD_MAX;
		data = (const char *)evbuffer_pullup(l->in, (ev_ssize_t)len);
		if (len == 0)
			return 0;
		end = data ? http_head_scan(data, len, &scanned) : -ENOMEM;
		if (end <= 0)
			return end == 0 ? 0 : -EPROTO;
		evbuffer_remove(l->in, text, (size_t)end);
		text[end] = '\0';
		rc = take_head(l, text);
	}
	return rc < 0 ? rc : 1;
}

/* As far as the bytes that are there allow; `is_over`: no more will come. The lane may be gone afterwards. */
static void
lane_step(struct lane *l, bool is_over)
{
	size_t have;
	int rc = read_head(l);

	have = evbuffer_get_length(l->in);
	if (rc == 1 && l->is_chunked) {
		rc = http_chunks_step(&l->chunks, l->in, &l->body, JSON_MAX_BYTES);
		if (rc == 1) {
			lane_answer(l, l->body.data ? l->body.data : "", l->body.len);
			return;
		}
	} else if (rc == 1) {
		size_t want = l->length >= 0 ? (size_t)l->length : have;

		rc = want > JSON_MAX_BYTES ? -EMSGSIZE : 0;
		l->keep &= l->length >= 0;
		if (rc == 0 && have >= want && (l->length >= 0 || is_over)) {
			const char *body = want > 0 ? (const char *)evbuffer_pullup(l->in, (ev_ssize_t)want) : "";

			if (body) {
				lane_answer(l, body, want);
				return;
			}
			rc = -ENOMEM;
		}
	}
	if (rc < 0 || is_over)
		lane_lost(l, rc == -EMSGSIZE ? rc : rc < 0 ? -EPROTO : -EAGAIN);
}

/* --- sockets --- */

/* Bytes came, or the end. The lane may be gone afterwards. */
static void
lane_heard(struct lane *l, bool is_over)
{
	if (l->state == LANE_BUSY) {
		l->has_answered |= evbuffer_get_length(l->in) > 0;
		lane_step(l, is_over);
	} else if (is_over || evbuffer_get_length(l->in) > 0) {
		lane_lost(l, -EPROTO); /* nobody has asked */
	}
}

static void
on_readable(evutil_socket_t fd, short what, void *arg)
{
	struct lane *l = arg;
	char buf[READ_SIZE];
	ssize_t n = recv((int)fd, buf, sizeof(buf), 0);

	(void)what;
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n > 0 && evbuffer_add(l->in, buf, (size_t)n) < 0)
		lane_lost(l, -EPROTO);
	else
		lane_heard(l, n <= 0);
}

static void
on_writable(evutil_socket_t fd, short what, void *arg)
{
	struct lane *l = arg;

	(void)what;
	/* an error of the socket is heard by reading */
	if (evbuffer_write(l->out, fd) > 0 && evbuffer_get_length(l->out) > 0)
		event_add(l->ev_write, NULL);
}

/* TLS: as much as one turn may read; when that was not all, another is asked for. True: no more will come. */
static bool
lane_read(struct lane *l)
{
	uint8_t buf[READ_SIZE];
	ssize_t n = 1;

	for (int i = 0; i < TURN_READS; i++) {
		n = tlsio_read(l->io, buf, sizeof(buf));
		if (n > 0 && evbuffer_add(l->in, buf, (size_t)n) < 0)
			n = -ENOMEM;
		if (n <= 0 || !tlsio_has_more(l->io))
			return n < 0;
	}
	tlsio_again(l->io);
	return false;
}

/* TLS: something may be possible. */
static void
on_ready(void *arg)
{
	struct lane *l = arg;

	if (l->state == LANE_DIALLING) {
		int rc = tlsio_handshake(l->io);

		if (rc < 0)
			lane_lost(l, rc);
		else if (rc == 1)
			lane_enter(l, LANE_IDLE);
		if (rc != 1)
			return;
	}
	lane_heard(l, tlsio_flush(l->io) < 0 || lane_read(l));
}

static int
lane_connected(struct lane *l)
{
	struct lanes *all = l->all;

	if (all->tls) {
		l->ssl = tls_ssl_new(all->tls, TLS_CLIENT, all->server_name);
		return l->ssl ? tlsio_new(all->base, l->fd, l->ssl, on_ready, l, &l->io) : -ENOMEM;
	}
	l->ev = event_new(all->base, l->fd, EV_READ | EV_PERSIST, on_readable, l);
	l->ev_write = event_new(all->base, l->fd, EV_WRITE, on_writable, l);
	if (!l->ev || !l->ev_write || event_add(l->ev, NULL) < 0)
		return -ENOMEM;
	lane_enter(l, LANE_IDLE);
	return 0;
}

static void
on_dialled(int fd, const char *why, void *arg)
{
	struct lane *l = arg;
	int rc = fd;

	(void)why; /* libcurl will say it */
	l->dial = NULL;
	if (fd >= 0) {
		l->fd = fd;
		rc = lane_connected(l);
	}
	if (rc < 0)
		lane_lost(l, rc);
}

static void
lane_open(struct lanes *all)
{
	const struct timeval every = { .tv_sec = SWEEP_MS / 1000 };
	struct lane *l = calloc(1, sizeof(*l));

	if (!l)
		return;
	log_debug("lane_opened", "to=%s lanes=%zu", all->hostport, all->n + 1);
	l->all = all;
	l->fd = -1;
	l->state = LANE_DIALLING;
	TAILQ_INSERT_HEAD(&all->rest, l, link);
	all->n++;
	all->n_dialling++;
	l->in = evbuffer_new();
	l->out = evbuffer_new();
	if (!l->in || !l->out || event_add(all->sweep, &every) < 0 ||
	    dial_start(all->base, all->hostport, CONNECT_MS, on_dialled, l, &l->dial) < 0)
		lane_lost(l, -ENOMEM);
}

/* --- calls --- */

/* All at once if the socket takes it, which it does unless it is full. 0 or -errno. */
static int
lane_send(struct lane *l, const char *head, size_t head_len, const char *request, size_t len)
{
	if (l->io)
		return tlsio_put(l->io, (const uint8_t *)head, head_len) < 0 ||
			       tlsio_put(l->io, (const uint8_t *)request, len) < 0 || tlsio_flush(l->io) < 0
			   ? -EPIPE
			   : 0;
	if (evbuffer_expand(l->out, head_len + len) < 0 || evbuffer_add(l->out, head, head_len) < 0 ||
	    evbuffer_add(l->out, request, len) < 0)
		return -ENOMEM;
	if (evbuffer_write(l->out, l->fd) < 0 && errno != EAGAIN)
		return -errno;
	return evbuffer_get_length(l->out) > 0 ? event_add(l->ev_write, NULL) : 0;
}

static void
count_call(struct lanes *all, int64_t now_ms)
{
	if (all->second != now_ms / 1000)
		all->calls = 0;
	all->second = now_ms / 1000;
	all->calls++;
	if (all->is_kept && TAILQ_EMPTY(&all->idle) && all->calls >= all->load && all->n < LANES_MAX &&
	    all->n_dialling < DIALS_MAX && now_ms >= all->rest_until_ms)
		lane_open(all);
}

void
lanes_may_open(struct lanes *all, bool is_kept)
{
	if (all->is_kept != is_kept)
		log_debug("lanes", "to=%s kept=%d", all->hostport, is_kept);
	all->is_kept = is_kept;
}

struct lane *
lanes_call(struct lanes *all, const char *request, size_t len, lane_cb cb, void *arg)
{
	char head[HEAD_ROOM + 64];
	struct lane *l;
	int n;

	if (len > REQUEST_MAX)
		return NULL;
	count_call(all, clock_now_ms());
	l = TAILQ_FIRST(&all->idle);
	if (!l)
		return NULL;
	n = snprintf(head, sizeof(head), "%s%zu\r\n\r\n", all->head, len);
	lane_enter(l, LANE_BUSY);
	l->cb = cb;
	l->arg = arg;
	l->status = 0;
	l->n_interim = 0;
	l->has_answered = false;
	if (lane_send(l, head, (size_t)n, request, len) < 0) {
		lane_free(l);
		return NULL;
	}
	return l;
}

/* --- all of them --- */

static void
on_sweep(evutil_socket_t fd, short what, void *arg)
{
	int64_t now_ms = clock_now_ms();
	struct lanes *all = arg;
	struct lane *l;

	(void)fd;
	(void)what;
	while ((l = TAILQ_LAST(&all->idle, lane_list)) && now_ms - l->since_ms >= IDLE_MS)
		lane_free(l);
	/* a handshake that does not end */
	TAILQ_FOREACH (l, &all->rest, link)
		if (l->state == LANE_DIALLING && now_ms - l->since_ms >= 2 * CONNECT_MS)
			break;
	if (l)
		lane_lost(l, -ETIMEDOUT);
	if (all->n == 0)
		event_del(all->sweep);
}

int
lanes_new(const struct lanes_conf *conf, struct lanes **ret)
{
	struct lanes *all = calloc(1, sizeof(*all));
	int n;

	if (!all)
		return -ENOMEM;
	TAILQ_INIT(&all->idle);
	TAILQ_INIT(&all->rest);
	all->base = conf->base;
	all->load = conf->load;
	all->is_kept = conf->load == 0;
	all->hostport = strdup(conf->hostport);
	all->server_name = strdup(conf->server_name);
	all->sweep = event_new(conf->base, -1, EV_PERSIST, on_sweep, all);
	if (conf->tls && SSL_CTX_up_ref(conf->tls) == 1)
		all->tls = conf->tls;
	n = snprintf(all->head, sizeof(all->head),
	    "POST %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: %s/%s\r\nContent-Type: application/json\r\nAccept: "
	    "application/json\r\nContent-Length: ",
	    conf->path, conf->host_header, PACKAGE_NAME, PACKAGE_VERSION);
	if (!all->hostport || !all->server_name || !all->sweep || (conf->tls && !all->tls) ||
	    (size_t)n >= sizeof(all->head)) {
		lanes_free(all);
		return -ENOMEM;
	}
	*ret = all;
	return 0;
}

void
lanes_free(struct lanes *all)
{
	struct lane *l;

	if (!all)
		return;
	while ((l = TAILQ_FIRST(&all->idle)) || (l = TAILQ_FIRST(&all->rest)))
		lane_free(l);
	if (all->sweep)
		event_free(all->sweep);
	SSL_CTX_free(all->tls);
	free(all->server_name);
	free(all->hostport);
	free(all);
}
