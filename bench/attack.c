/* attack.c - who wants to hurt: strangers without a token, peers that never read, an operator without measure
 *
 *   silent    `pairs` connections that say nothing, made again when they are closed
 *   drip      the same, each with a byte of a wrong token per_s / pairs times a second
 *   bad       per_s connections a second with 32 wrong bytes, at most `pairs` at a time
 *   segments  `pairs` real pairs: one end writes single bytes as segments of their own, the other one never reads
 *   park      one operator asks for per_s connections a second and keeps one party of each waiting
 *   hold      the same, but `pairs` of them, and no more
 *
 * `source` N: all from 127.N.0.0/16, `sources` addresses of it, one after the other; so the others have addresses of
 * their own. Says `ready` when all that it holds is there; runs until the end of its standard input.
 *
 * Always true: nothing here waits but in the loop, so that who is refused goes on.
 */
#include "bench.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "hyper/base/bytes.h"
#include "hyper/base/clock.h"
#include "hyper/base/fd.h"

#define TURN_MS 5
#define FIRST   8192 /* bytes */
#define HTTP_N  16   /* of an operator's server */

struct attack;

struct client {
	struct ev ev; /* fd -1: none */
	struct attack *a;
	size_t no, sent;
	struct pair_fds pair;
};

struct attack {
	const struct conf *conf;
	int ep;
	struct ev input;
	bool is_over;
	struct client *clients;
	size_t n, next;
	struct http *http[HTTP_N];
	bool is_asking[HTTP_N];
	uint64_t dialled, closed, bytes, stalled, refused;
};

/* --- connections --- */

static void
client_close(struct client *c)
{
	fd_close(&c->ev.fd);
	c->a->closed++;
}

static void
client_token(struct client *c)
{
	uint8_t wrong[TOKEN];

	random_bytes(wrong, sizeof(wrong));
	c->sent = sizeof(wrong);
	if (send(c->ev.fd, wrong, sizeof(wrong), MSG_NOSIGNAL | MSG_DONTWAIT) != sizeof(wrong))
		client_close(c);
	else
		loop_set(c->a->ep, &c->ev, EPOLLIN);
}

static void
on_client(struct ev *ev, uint32_t events)
{
	struct client *c = (struct client *)ev;
	uint8_t got[64];

	if (events & (EPOLLIN | EPOLLERR | EPOLLHUP)) {
		if (recv(ev->fd, got, sizeof(got), MSG_DONTWAIT) <= 0)
			client_close(c);
	} else if (events & EPOLLOUT) {
		client_token(c);
	}
}

static void
client_dial(struct client *c, uint32_t events)
{
	struct attack *a = c->a;
	struct sockaddr_in to = { .sin_family = AF_INET,
		.sin_port = htons(a->conf->dial),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK) },
			   from = { .sin_family = AF_INET };
	uint32_t no = (uint32_t)(c->no % a->conf->sources);
	int on = 1;

	from.sin_addr.s_addr = htonl(0x7f000000u | (uint32_t)a->conf->source << 16 | no / 250 << 8 | (1 + no % 250));
	c->sent = 0;
	c->ev = (struct ev){ socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), on_client };
	if (c->ev.fd < 0 || setsockopt(c->ev.fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof(on)) < 0 ||
	    setsockopt(c->ev.fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) < 0 ||
	    bind(c->ev.fd, (struct sockaddr *)&from, sizeof(from)) < 0)
		bench_die("a socket: %s", strerror(errno));
	if (connect(c->ev.fd, (struct sockaddr *)&to, sizeof(to)) < 0 && errno != EINPROGRESS) {
		client_close(c);
		return;
	}
	a->dialled++;
	loop_add(a->ep, &c->ev, events);
}

/* --- one step of each attack: by one client after the other, per_s a second --- */

static void
step_silent(struct client *c)
{
	if (c->ev.fd < 0)
		client_dial(c, EPOLLIN);
}

static void
step_drip(struct client *c)
{
	uint8_t byte;

	step_silent(c);
	random_bytes(&byte, 1);
	/* while it connects, and after a reset that we have not read: next time */
	if (c->ev.fd >= 0 && send(c->ev.fd, &byte, 1, MSG_NOSIGNAL | MSG_DONTWAIT) == 1)
		c->a->bytes++;
}

static void
step_bad(struct client *c)
{
	if (c->ev.fd < 0)
		client_dial(c, EPOLLIN | EPOLLOUT);
}

static void
step_segments(struct client *c)
{
	static const uint8_t first[FIRST];
	uint8_t byte = (uint8_t)c->sent;

	if (c->sent == 0 && send(c->pair.a, first, sizeof(first), MSG_NOSIGNAL | MSG_DONTWAIT) > 0)
		c->sent++; /* what fits the receiver, so that the single bytes are stuck */
	if (send(c->pair.a, &byte, 1, MSG_NOSIGNAL | MSG_DONTWAIT) == 1) {
		c->sent++;
		c->a->bytes++;
	} else if (errno == EAGAIN) {
		c->a->stalled++;
	} else {
		bench_die("segments: %s", strerror(errno));
	}
}

/* --- the operator without measure --- */

static const char request[] =
    "{\"jsonrpc\":\"2.0\",\"method\":\"requestConnection\",\"params\":{\"to\":\"hd-66\",\"channel\":\"grpc_server\","
    "\"_client\":{\"name\":\"" ATTACKER "\",\"entry\":{\"name\":\"" ATTACKER "\",\"channels\":[{\"type\":"
    "\"grpc_client\",\"settings\":null}]}}},\"id\":\"p.requestConnection(1)\"}";

static void
on_token(struct http *h, char *body, size_t len)
{
	struct client *c = h->arg;
	struct attack *a = c->a;
	const char *p = strstr(body, "\"token\":\"");
	uint8_t token[TOKEN];
	char text[45];

	(void)len;
	a->is_asking[c->no % HTTP_N] = false;
	if (!p) {
		a->refused++;
		return;
	}
	snprintf(text, sizeof(text), "%.44s", p + 9);
	if (base64_decode(text, token, TOKEN) != TOKEN)
		bench_die("a bad token in: %.400s", body);
	if (c->ev.fd >= 0)
		client_close(c);
	client_dial(c, EPOLLIN);
	if (c->ev.fd >= 0 && send(c->ev.fd, token, TOKEN, MSG_NOSIGNAL | MSG_DONTWAIT) == TOKEN)
		a->bytes += TOKEN;
}

static void
step_park(struct client *c)
{
	struct attack *a = c->a;
	size_t i = c->no % HTTP_N;

	if (a->is_asking[i])
		return;
	if (!a->http[i]) {
		a->http[i] = http_new(a->ep, tcp_dial(a->conf->rpc, 0), NULL, true);
		a->http[i]->on_message = on_token;
		a->http[i]->takes_refusals = true;
	}
	a->is_asking[i] = true;
	a->http[i]->arg = c;
	http_request(a->http[i], "proxy", request);
}

static void
step_hold(struct client *c)
{
	if (c->ev.fd < 0)
		step_park(c);
}

static const struct kind {
	const char *name;
	void (*step)(struct client *);
	bool is_held; /* ready means that all clients are there */
} kinds[] = {
	{ "silent", step_silent, true },
	{ "drip", step_drip, true },
	{ "bad", step_bad, false },
	{ "segments", step_segments, false },
	{ "park", step_park, false },
	{ "hold", step_hold, true },
};

/* --- the whole --- */

static void
on_input(struct ev *ev, uint32_t events)
{
	struct attack *a = (struct attack *)((char *)ev - offsetof(struct attack, input));
	char buf[64];

	(void)events;
	if (read(ev->fd, buf, sizeof(buf)) <= 0)
		a->is_over = true;
}

/* Receivers that never read. */
static void
make_pairs(struct attack *a)
{
	struct pair_fds *p;

	tcp_be_meagre(true);
	p = meet_pairs(a->conf, a->n);
	tcp_be_meagre(false);
	for (size_t i = 0; i < a->n; i++)
		a->clients[i].pair = p[i];
	free(p);
}

static const struct kind *
kind_of(const struct conf *c)
{
	for (size_t i = 0; c->kind && i < sizeof(kinds) / sizeof(kinds[0]); i++)
		if (strcmp(c->kind, kinds[i].name) == 0)
			return &kinds[i];
	bench_die("kind=silent, drip, bad, segments, park or hold");
}

static void
say_ready(void)
{
	puts("ready");
	fflush(stdout);
}

/* Those that hold tokens are there when each has one. */
static bool
has_tokens(const struct attack *a, const struct kind *k)
{
	return k->step != step_hold || a->bytes >= a->n * TOKEN;
}

/* So many steps as are due; not more than a second's worth after a pause. */
static void
run(struct attack *a, const struct kind *k)
{
	int64_t step_ns = NS_PER_S / (int64_t)a->conf->per_s, due = clock_now_ns();
	bool is_ready = false;
	uint64_t steps = 0;

	while (!a->is_over) {
		int64_t now = clock_now_ns();

		if (due < now - NS_PER_S)
			due = now - NS_PER_S;
		for (; due <= now; due += step_ns, steps++)
			k->step(&a->clients[a->next++ % a->n]);
		if (!is_ready && (!k->is_held || (steps >= a->n && has_tokens(a, k)))) {
			is_ready = true;
			say_ready();
		}
		loop_turn(a->ep, TURN_MS);
	}
}

int
work_attack(const struct conf *c)
{
	struct attack a = { .conf = c, .n = c->pairs, .ep = loop_new() };
	const struct kind *k = kind_of(c);

	a.clients = calloc(a.n, sizeof(*a.clients));
	if (!a.clients)
		bench_die("out of memory");
	for (size_t i = 0; i < a.n; i++)
		a.clients[i] = (struct client){ .ev.fd = -1, .a = &a, .no = i, .pair = { -1, -1 } };
	if (k->step == step_segments)
		make_pairs(&a);
	a.input = (struct ev){ STDIN_FILENO, on_input };
	loop_add(a.ep, &a.input, EPOLLIN);
	run(&a, k);
	printf("{\"dialled\":%llu,\"closed\":%llu,\"bytes\":%llu,\"stalled\":%llu,\"refused\":%llu}\n",
	    (unsigned long long)a.dialled, (unsigned long long)a.closed, (unsigned long long)a.bytes,
	    (unsigned long long)a.stalled, (unsigned long long)a.refused);
	return 0;
}
