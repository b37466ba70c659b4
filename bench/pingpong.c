/* pingpong.c - 64-byte round trips, one in flight on each pair; idle.c's pairs are the ones nobody writes on
 *
 * Always true: one thread plays all ends; an echo is compared with what was sent before the next one leaves.
 */
#include "bench.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "hyper/base/clock.h"

#define PING_LEN 64
#define STUCK_MS 5000

struct ball;

struct racket {
	struct ev ev;
	struct ball *ball;
	size_t got;
	uint8_t buf[PING_LEN];
};

struct ball {
	struct racket a, b;
	uint64_t seed, pos;
	int64_t sent_ns;
};

static struct hist latency;
static bool is_measuring, is_over;
static uint64_t n_trips, n_in_flight;

static void
serve(struct ball *b)
{
	b->sent_ns = clock_now_ns();
	n_in_flight++;
	write_exactly(b->a.ev.fd, pattern_at(b->seed, b->pos), PING_LEN);
}

/* True when a whole message is there. */
static bool
racket_read(struct racket *r)
{
	ssize_t n = recv(r->ev.fd, r->buf + r->got, PING_LEN - r->got, 0);

	if (n == 0 || (n < 0 && errno != EAGAIN))
		bench_die("ping-pong: %s", n == 0 ? "the relay ended a connection" : strerror(errno));
	if (n > 0)
		r->got += (size_t)n;
	if (r->got < PING_LEN)
		return false;
	r->got = 0;
	return true;
}

static void
on_b(struct ev *ev, uint32_t events)
{
	struct racket *r = (struct racket *)ev;

	(void)events;
	if (racket_read(r))
		write_exactly(r->ev.fd, r->buf, PING_LEN);
}

static void
on_a(struct ev *ev, uint32_t events)
{
	struct racket *r = (struct racket *)ev;
	struct ball *b = r->ball;

	(void)events;
	if (!racket_read(r))
		return;
	if (memcmp(r->buf, pattern_at(b->seed, b->pos), PING_LEN) != 0)
		bench_die("ping-pong: WRONG BYTES");
	b->pos += PING_LEN;
	n_trips++;
	n_in_flight--;
	if (is_measuring)
		hist_add(&latency, clock_now_ns() - b->sent_ns);
	if (!is_over)
		serve(b);
}

static void
run_until(int ep, int64_t end_ns)
{
	uint64_t trips = n_trips;
	int64_t moved = clock_now_ns();

	for (int64_t now = moved; now < end_ns; now = clock_now_ns()) {
		loop_turn(ep, 100);
		if (n_trips != trips) {
			trips = n_trips;
			moved = now;
		} else if (now - moved > STUCK_MS * NS_PER_MS) {
			bench_die("ping-pong: no round trip for %d ms", STUCK_MS);
		}
	}
}

static void
wait_for_end(void)
{
	char line[16];

	fflush(stdout);
	while (fgets(line, sizeof(line), stdin))
		;
}

int
work_pingpong(const struct conf *c)
{
	struct pair_fds *p = meet_pairs(c, c->pairs);
	size_t n = c->active && c->active < c->pairs ? c->active : c->pairs, every = c->pairs / n;
	struct ball *balls = calloc(n, sizeof(*balls));
	int64_t start, t0, t1, cpu0, cpu1;
	int ep = loop_new();

	if (!balls)
		bench_die("out of memory");
	for (size_t i = 0; i < n; i++) {
		struct ball *b = &balls[i];

		b->a = (struct racket){ .ev = { p[i * every].a, on_a }, .ball = b };
		b->b = (struct racket){ .ev = { p[i * every].b, on_b }, .ball = b };
		b->seed = i;
		loop_add(ep, &b->a.ev, EPOLLIN);
		loop_add(ep, &b->b.ev, EPOLLIN);
	}
	for (size_t i = 0; i < n; i++)
		serve(&balls[i]);
	start = clock_now_ns();
	run_until(ep, start + (int64_t)(c->warm * 1e9));
	is_measuring = true;
	cpu0 = cpu_of(c);
	n_trips = 0;
	t0 = clock_now_ns();
	run_until(ep, t0 + (int64_t)(c->seconds * 1e9));
	t1 = clock_now_ns();
	cpu1 = cpu_of(c);
	is_over = true;
	is_measuring = false;
	printf("{\"seconds\":%.4f,\"trips\":%llu,\"per_s\":%.1f,\"p50_us\":%.2f,\"p99_us\":%.2f,\"cpu_us_per_trip\":%."
	       "4f}\n",
	    (double)(t1 - t0) / 1e9, (unsigned long long)latency.n, (double)latency.n / ((double)(t1 - t0) / 1e9),
	    hist_us(&latency, 0.5), hist_us(&latency, 0.99),
	    latency.n ? (double)(cpu1 - cpu0) / 1000.0 / (double)latency.n : 0.0);
	if (c->active)
		wait_for_end();
	return 0;
}

static void
check_alive(const struct pair_fds *p)
{
	char got[2];

	write_exactly(p->a, "x", 1);
	write_exactly(p->b, "y", 1);
	read_exactly(p->b, &got[0], 1);
	read_exactly(p->a, &got[1], 1);
	if (memcmp(got, "xy", 2) != 0)
		bench_die("idle: WRONG BYTES");
}

/* A quarter of the pairs, a line on standard input, the rest, until standard input ends. So what each pair costs is the
 * slope between the two, without what the first ones made grow once. At the end all must still carry bytes both ways. */
int
work_idle(const struct conf *c)
{
	size_t few = c->pairs / 4;
	struct pair_fds *first = meet_pairs(c, few), *rest;
	char line[16];

	puts("few");
	fflush(stdout);
	if (!fgets(line, sizeof(line), stdin))
		bench_die("idle: standard input ended early");
	rest = meet_pairs(c, c->pairs - few);
	puts("all");
	wait_for_end();
	for (size_t i = 0; i < c->pairs; i++)
		check_alive(i < few ? &first[i] : &rest[i - few]);
	puts("{\"alive\":true}");
	return 0;
}
