/* broker.c - brokers pairs with real tokens, as many at a time as asked; plays A, A's side of P, P's hyper and B
 *
 *   slot --requestConnection--> proxy --_connectionRequest--> us: B dials with its token, we answer {}
 *   slot <------ token -------- proxy
 *   A dials with its token and 8 bytes --> B compares them, answers 8 --> A compares: the pair is made
 *
 * With `ahead` the tokens are all issued first and B dials when A does; in forward mode (peers) there is no token
 * and B is what the listener accepts.
 *
 * With per_s a pair is begun at the end of each 1/per_s of a second, if a slot is free. What the operator ATTACKER asks for
 * (attack.c) gets our yes, and nobody comes.
 *
 * Always true: one thread, one loop; a connection is closed by its own event only, A first.
 */
#include "bench.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "hyper/base/clock.h"
#include "hyper/base/fd.h"

#define STUCK_MS 10000

struct engine;

/* One of the pairs that are made at the same time. */
struct slot {
	struct engine *e;
	struct http *http; /* NULL: no control plane */
	int64_t start_ns;
	struct slot *next; /* rested */
};

struct party {
	struct ev ev;
	struct engine *e;
	struct slot *slot; /* A only */
	uint8_t hello[8];
	bool has_spoken;
	struct party *peer; /* B: answered with itself */
};

struct engine {
	const struct conf *conf;
	int ep;
	struct ev listener;
	SSL_CTX *server_ctx, *client_ctx;
	struct http *hypers; /* connections of the proxy to its hyper */
	struct slot *slots;
	size_t n_slots;
	uint8_t (*tokens)[TOKEN]; /* ahead */
	size_t n_tokens, n_issued;
	struct pair_fds *pairs; /* keep them; NULL: close when made */
	bool is_issuing, is_over, is_measuring;
	size_t started, done, limit; /* pairs */
	size_t n_idle;               /* slots */
	struct slot *rested;         /* with a pace: slots that wait for their turn */
	int64_t due_ns;
	unsigned source;
	struct hist latency;
};

/* The entry of the demo's operator, as its hyper sends it. */
static const char request[] =
    "{\"jsonrpc\":\"2.0\",\"method\":\"requestConnection\",\"params\":{\"to\":\"hd-2\",\"channel\":\"grpc_server\","
    "\"_client\":{\"name\":\"hd-1\",\"entry\":{\"name\":\"hd-1\",\"groups\":[\"health-departments\"],\"channels\":["
    "{\"type\":\"grpc_client\",\"settings\":null},{\"type\":\"grpc_server\",\"settings\":{\"address\":"
    "\"localhost:8888\",\"proxy\":\"public-proxy-1.ga\"}}],\"services\":[{\"name\":\"internals\",\"permissions\":[],"
    "\"methods\":[{\"name\":\"_ping\",\"permissions\":[{\"group\":\"health-departments\",\"rights\":[\"call\"]}],"
    "\"parameters\":[]}]}],\"certificates\":[{\"fingerprint\":"
    "\"0000000000000000000000000000000000000000000000000000000000000000\",\"key_usage\":\"encryption\"}],"
    "\"settings\":[],\"preferences\":[],\"records\":null,\"properties\":null}}},\"id\":"
    "\"public-proxy-1.ga.requestConnection(2bcd225bf40179d8)\"}";

static void slot_start(struct slot *);
static void slot_begin(struct slot *);

static struct party *
party_new(struct engine *e, int fd, void (*on_event)(struct ev *, uint32_t))
{
	struct party *p = calloc(1, sizeof(*p));

	if (!p)
		bench_die("out of memory");
	p->ev = (struct ev){ .fd = fd, .on_event = on_event };
	p->e = e;
	loop_add(e->ep, &p->ev, EPOLLIN);
	return p;
}

static void
party_end(struct party *p)
{
	fd_close(&p->ev.fd);
	free(p);
}

/* Eight bytes are small enough to come at once. False: nothing there. */
static bool
party_read(struct party *p, uint8_t got[8])
{
	ssize_t n = recv(p->ev.fd, got, 8, 0);

	if (n < 0 && errno == EAGAIN)
		return false;
	if (n != 8)
		bench_die("pairing: %s got %zd instead of 8 bytes: %s", p->slot ? "A" : "B", n,
		    n < 0    ? strerror(errno)
		    : n == 0 ? "its connection was closed"
			     : "cut");
	return true;
}

static void
keep_pair(struct party *a, struct party *b)
{
	struct engine *e = a->e;

	if (epoll_ctl(e->ep, EPOLL_CTL_DEL, a->ev.fd, NULL) < 0 || epoll_ctl(e->ep, EPOLL_CTL_DEL, b->ev.fd, NULL) < 0)
		bench_die("epoll_ctl: %s", strerror(errno));
	e->pairs[e->done] = (struct pair_fds){ a->ev.fd, b->ev.fd };
	free(b); /* it has spoken: no event of it is pending */
}

static void
on_a(struct ev *ev, uint32_t events)
{
	struct party *a = (struct party *)ev, *b;
	struct engine *e = a->e;
	struct slot *s = a->slot;
	uint8_t got[8];

	(void)events;
	if (!party_read(a, got))
		return;
	memcpy(&b, got, sizeof(b));
	if (memcmp(a->hello, b->hello, 8) != 0)
		bench_die("pairing: A was joined with another one's B");
	if (e->is_measuring)
		hist_add(&e->latency, clock_now_ns() - s->start_ns);
	if (e->pairs) {
		keep_pair(a, b);
		free(a);
	} else {
		party_end(a);
	}
	e->done++;
	slot_start(s);
}

static void
on_b(struct ev *ev, uint32_t events)
{
	struct party *b = (struct party *)ev;
	uint8_t got[8];

	(void)events;
	if (b->has_spoken) {
		party_end(b);
		return;
	}
	if (!party_read(b, got))
		return;
	if (b->e->conf->mode == MEET_FORWARD)
		memcpy(b->hello, got, 8);
	else if (memcmp(got, b->hello, 8) != 0)
		bench_die("pairing: B was joined with another one's A");
	b->has_spoken = true;
	write_exactly(b->ev.fd, &b, sizeof(b));
}

static void
dial_b(struct engine *e, const uint8_t token[TOKEN])
{
	struct party *b = party_new(e, tcp_dial(e->conf->dial, ++e->source), on_b);

	memcpy(b->hello, token, 8);
	write_exactly(b->ev.fd, token, TOKEN);
}

/* `token` NULL: the relay wants none. */
static void
dial_a(struct slot *s, const uint8_t *token)
{
	struct engine *e = s->e;
	struct party *a = party_new(e, tcp_dial(e->conf->dial, ++e->source), on_a);
	uint8_t out[TOKEN + 8];
	uint64_t id = e->started;

	a->slot = s;
	memcpy(a->hello, token ? (const void *)token : &id, 8);
	if (token)
		memcpy(out, token, TOKEN);
	memcpy(out + TOKEN, a->hello, 8);
	write_exactly(a->ev.fd, token ? out : out + TOKEN, token ? TOKEN + 8 : 8);
}

static void
slot_start(struct slot *s)
{
	struct engine *e = s->e;

	if (e->is_over || (e->is_issuing ? e->n_issued == e->n_tokens : e->limit && e->started == e->limit)) {
		e->n_idle++;
		return;
	}
	if (e->conf->per_s && !e->is_issuing && !e->pairs) {
		s->next = e->rested;
		e->rested = s;
		return;
	}
	slot_begin(s);
}

static void
slot_begin(struct slot *s)
{
	struct engine *e = s->e;

	s->start_ns = clock_now_ns();
	if (e->is_issuing) {
		e->n_issued++;
		http_request(s->http, "proxy", request);
		return;
	}
	e->started++;
	if (e->tokens) {
		dial_b(e, e->tokens[e->started - 1]);
		dial_a(s, e->tokens[e->started - 1]);
	} else if (s->http) {
		http_request(s->http, "proxy", request);
	} else {
		dial_a(s, NULL);
	}
}

/* --- control plane --- */

static void
on_answer(struct http *h, char *body, size_t len)
{
	struct slot *s = h->arg;
	struct engine *e = s->e;
	uint8_t token[TOKEN];

	(void)len;
	plane_token(body, token);
	if (!e->is_issuing) {
		dial_a(s, token);
		return;
	}
	memcpy(e->tokens[e->started++], token, TOKEN);
	slot_start(s);
}

static void
on_told(struct http *h, char *body, size_t len)
{
	struct engine *e = h->arg;
	uint8_t token[TOKEN];

	(void)len;
	plane_token(body, token);
	if (!e->is_issuing && !strstr(body, "\"name\":\"" ATTACKER "\""))
		dial_b(e, token);
	plane_confirm(h, body);
}

static void
on_hyper_end(struct http *h)
{
	struct engine *e = h->arg;
	struct http **at = &e->hypers;

	while (*at != h)
		at = &(*at)->next;
	*at = h->next;
	http_free(h);
}

static void
on_connection(struct ev *ev, uint32_t events)
{
	struct engine *e = (struct engine *)((char *)ev - offsetof(struct engine, listener));
	int fd;

	(void)events;
	while ((fd = fd_accept(ev->fd)) >= 0) {
		tcp_tune(fd);
		if (e->conf->mode == MEET_FORWARD) {
			party_new(e, fd, on_b);
			continue;
		}
		struct http *h = http_new(e->ep, fd, e->server_ctx, false);

		h->on_message = on_told;
		h->on_end = on_hyper_end;
		h->arg = e;
		h->next = e->hypers;
		e->hypers = h;
	}
	if (fd != -EAGAIN)
		bench_die("accept: %s", strerror(-fd));
}

static struct engine *
engine_new(const struct conf *c, size_t n_slots)
{
	struct engine *e = calloc(1, sizeof(*e));
	bool is_brokered = c->mode == MEET_TOKEN;

	if (!e || !(e->slots = calloc(n_slots, sizeof(*e->slots))))
		bench_die("out of memory");
	e->conf = c;
	e->ep = loop_new();
	e->server_ctx = http_ctx(c, true);
	e->client_ctx = http_ctx(c, false);
	e->listener = (struct ev){ tcp_listen(is_brokered ? c->hyper : c->listen), on_connection };
	loop_add(e->ep, &e->listener, EPOLLIN);
	e->n_slots = n_slots;
	for (size_t i = 0; i < n_slots; i++) {
		struct slot *s = &e->slots[i];

		s->e = e;
		if (!is_brokered)
			continue;
		s->http = http_new(e->ep, tcp_dial(c->rpc, 0), e->client_ctx, true);
		s->http->on_message = on_answer;
		s->http->arg = s;
	}
	return e;
}

/* Connections of the proxy to us must not outlive who answers on them: a later engine has the same port. */
static void
engine_free(struct engine *e)
{
	for (size_t i = 0; i < e->n_slots; i++)
		if (e->slots[i].http)
			http_free(e->slots[i].http);
	while (e->hypers)
		on_hyper_end(e->hypers);
	fd_close(&e->listener.fd);
	fd_close(&e->ep);
	free(e->slots);
	free(e->tokens);
	free(e);
}

static void
start_all(struct engine *e)
{
	e->n_idle = 0;
	for (size_t i = 0; i < e->n_slots; i++)
		slot_start(&e->slots[i]);
}

/* Lets the slots begin whose turn it is, or rest for good: milliseconds until the next turn. */
static int
pace(struct engine *e)
{
	int64_t step = NS_PER_S / (int64_t)e->conf->per_s, now = clock_now_ns();
	struct slot *s;

	if (e->due_ns < now - NS_PER_S)
		e->due_ns = now;
	while ((s = e->rested) && (e->is_over || e->due_ns <= now)) {
		e->rested = s->next;
		e->due_ns += step;
		if (e->is_over)
			e->n_idle++;
		else
			slot_begin(s);
	}
	return e->due_ns > now ? (int)((e->due_ns - now) / NS_PER_MS) : 1;
}

/* Until `*counter` is `want`, or the time is over; dies when nothing moves. */
static void
run(struct engine *e, const size_t *counter, size_t want, int64_t end_ns)
{
	size_t last = *counter;
	int64_t now = clock_now_ns(), moved = now;

	for (; *counter < want && now < end_ns; now = clock_now_ns()) {
		loop_turn(e->ep, e->conf->per_s ? pace(e) : 100);
		if (*counter != last) {
			last = *counter;
			moved = now;
		} else if (now - moved > STUCK_MS * NS_PER_MS) {
			bench_die("pairing: nothing moves, %zu of %zu done", last, want);
		}
	}
}

static void
issue_ahead(struct engine *e, size_t n)
{
	e->tokens = calloc(n, TOKEN);
	if (!e->tokens)
		bench_die("out of memory");
	e->n_tokens = n;
	e->is_issuing = true;
	start_all(e);
	run(e, &e->started, n, INT64_MAX);
	e->is_issuing = false;
	e->started = 0;
}

void
broker_pairs(const struct conf *c, struct pair_fds *ret, size_t n)
{
	struct engine *e = engine_new(c, n < 32 ? n : 32);

	e->pairs = ret;
	e->limit = n;
	start_all(e);
	run(e, &e->done, n, INT64_MAX);
	engine_free(e);
}

int
work_rate(const struct conf *c)
{
	struct engine *e = engine_new(c, c->in_flight);
	int64_t t0, t1, cpu0, cpu1;
	size_t before, done;

	if (c->ahead)
		issue_ahead(e, c->count);
	e->limit = c->count;
	start_all(e);
	if (!c->count)
		run(e, &e->done, SIZE_MAX, clock_now_ns() + (int64_t)(c->warm * 1e9));
	e->is_measuring = true;
	before = c->count ? 0 : e->done;
	cpu0 = cpu_of(c);
	t0 = clock_now_ns();
	run(e, &e->done, c->count ? c->count : SIZE_MAX, c->count ? INT64_MAX : t0 + (int64_t)(c->seconds * 1e9));
	t1 = clock_now_ns();
	cpu1 = cpu_of(c);
	e->is_measuring = false;
	e->is_over = true;
	done = e->done - before;
	run(e, &e->n_idle, e->n_slots, INT64_MAX);
	printf("{\"seconds\":%.4f,\"pairs\":%zu,\"per_s\":%.1f,\"p50_us\":%.1f,\"p99_us\":%.1f,\"cpu_us_per_pair\":%."
	       "3f}\n",
	    (double)(t1 - t0) / 1e9, done, (double)done / ((double)(t1 - t0) / 1e9), hist_us(&e->latency, 0.5),
	    hist_us(&e->latency, 0.99), done ? (double)(cpu1 - cpu0) / 1000.0 / (double)done : 0.0);
	engine_free(e);
	return 0;
}
