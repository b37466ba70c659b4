/* bulk.c - as many bytes as go through, every one of them compared
 *
 *   thread A: all A ends      relay      thread B: all B ends
 *
 * Always true:
 *  1. Each direction of each pair has its own stream of the pattern; a reader compares each byte and, at the
 *     end, the length with what was sent.
 *  2. The window begins and ends while all writers write; what is made before and after is compared, not counted.
 */
#include "bench.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>

#include "hyper/base/clock.h"
#include "hyper/base/fd.h"

#define DRAIN_S 20

struct side {
	int ep;
	struct end *ends;
	size_t n, n_open; /* n_open: those that still read or write */
	_Atomic uint64_t got;
	uint8_t *buf;
};

struct end {
	struct ev ev;
	struct side *side;
	struct end *other; /* of the pair; belongs to the other thread */
	uint64_t out_seed, in_seed, sent, received;
	bool writes, reads;    /* still */
	atomic_bool has_ended; /* writing: `sent` is final */
};

static atomic_bool is_over;

static void
end_update(struct end *e)
{
	if (!e->reads && !e->writes) {
		(void)epoll_ctl(e->side->ep, EPOLL_CTL_DEL, e->ev.fd, NULL);
		e->side->n_open--;
		return;
	}
	loop_set(e->side->ep, &e->ev, (e->reads ? EPOLLIN : 0u) | (e->writes ? EPOLLOUT : 0u));
}

static void
end_write(struct end *e)
{
	ssize_t n;

	if (atomic_load_explicit(&is_over, memory_order_relaxed)) {
		e->writes = false;
		atomic_store(&e->has_ended, true);
		end_update(e);
		return;
	}
	n = send(e->ev.fd, pattern_at(e->out_seed, e->sent), PATTERN_RUN, MSG_NOSIGNAL);
	if (n > 0)
		e->sent += (uint64_t)n;
	else if (errno != EAGAIN)
		bench_die("bulk: write: %s", strerror(errno));
}

static void
end_read(struct end *e)
{
	ssize_t n = recv(e->ev.fd, e->side->buf, PATTERN_RUN, 0);

	if (n < 0) {
		if (errno != EAGAIN)
			bench_die("bulk: read: %s", strerror(errno));
		return;
	}
	if (n == 0)
		bench_die("bulk: the relay ended a connection");
	if (memcmp(e->side->buf, pattern_at(e->in_seed, e->received), (size_t)n) != 0)
		bench_die("bulk: WRONG BYTES within %zd after %llu", n, (unsigned long long)e->received);
	e->received += (uint64_t)n;
	atomic_fetch_add_explicit(&e->side->got, (uint64_t)n, memory_order_relaxed);
}

static void
end_on_event(struct ev *ev, uint32_t events)
{
	struct end *e = (struct end *)ev;

	if (e->reads && (events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
		end_read(e);
	if (e->writes && (events & EPOLLOUT))
		end_write(e);
}

/* Not all relays pass on the end of one direction: a reader is done when it has what its writer sent. */
static void
side_settle(struct side *s)
{
	for (size_t i = 0; i < s->n; i++) {
		struct end *e = &s->ends[i];

		if (!e->reads || !atomic_load(&e->other->has_ended) || e->received < e->other->sent)
			continue;
		e->reads = false;
		end_update(e);
	}
}

static void *
side_run(void *arg)
{
	struct side *s = arg;
	int64_t deadline = 0;

	while (s->n_open) {
		loop_turn(s->ep, 20);
		if (!atomic_load(&is_over))
			continue;
		side_settle(s);
		if (!deadline)
			deadline = clock_now_ns() + DRAIN_S * NS_PER_S;
		if (clock_now_ns() > deadline)
			bench_die("bulk: %zu connections did not end within %d s", s->n_open, DRAIN_S);
	}
	return NULL;
}

static void
end_init(struct end *e, struct side *s, int fd, uint64_t id, bool is_a, bool both)
{
	e->ev = (struct ev){ .fd = fd, .on_event = end_on_event };
	e->side = s;
	e->writes = is_a || both;
	e->reads = !is_a || both;
	atomic_init(&e->has_ended, !e->writes);
	e->out_seed = 2 * id + is_a;
	e->in_seed = 2 * id + !is_a;
	s->n_open++;
	loop_add(s->ep, &e->ev, (e->reads ? EPOLLIN : 0u) | (e->writes ? EPOLLOUT : 0u));
}

static void
sleep_s(double seconds)
{
	struct timespec ts = { .tv_sec = (time_t)seconds,
		.tv_nsec = (long)((seconds - (double)(time_t)seconds) * 1e9) };

	nanosleep(&ts, NULL);
}

static void
check_lengths(const struct end *a, const struct end *b, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (a[i].sent != b[i].received || b[i].sent != a[i].received)
			bench_die("bulk: pair %zu lost bytes: %llu sent, %llu came; back %llu sent, %llu came", i,
			    (unsigned long long)a[i].sent, (unsigned long long)b[i].received,
			    (unsigned long long)b[i].sent, (unsigned long long)a[i].received);
}

int
work_bulk(const struct conf *c)
{
	struct side side[2] = { { .ep = loop_new() }, { .ep = loop_new() } };
	struct end *a = calloc(c->pairs, sizeof(*a)), *b = calloc(c->pairs, sizeof(*b));
	struct pair_fds *p = meet_pairs(c, c->pairs);
	int64_t t0, t1, cpu0, cpu1;
	uint64_t got0, got1;
	pthread_t thread[2];

	for (int i = 0; i < 2; i++)
		side[i].buf = malloc(PATTERN_RUN);
	if (!a || !b || !side[0].buf || !side[1].buf)
		bench_die("out of memory");
	side[0].ends = a;
	side[1].ends = b;
	side[0].n = side[1].n = c->pairs;
	for (size_t i = 0; i < c->pairs; i++) {
		a[i].other = &b[i];
		b[i].other = &a[i];
		end_init(&a[i], &side[0], p[i].a, i, true, c->both);
		end_init(&b[i], &side[1], p[i].b, i, false, c->both);
	}
	for (int i = 0; i < 2; i++)
		if (pthread_create(&thread[i], NULL, side_run, &side[i]) != 0)
			bench_die("no thread");
	sleep_s(c->warm);
	cpu0 = cpu_of(c);
	got0 = side[0].got + side[1].got;
	t0 = clock_now_ns();
	sleep_s(c->seconds);
	t1 = clock_now_ns();
	got1 = side[0].got + side[1].got;
	cpu1 = cpu_of(c);
	atomic_store(&is_over, true);
	for (int i = 0; i < 2; i++)
		pthread_join(thread[i], NULL);
	check_lengths(a, b, c->pairs);
	printf("{\"seconds\":%.4f,\"gb\":%.5f,\"gb_per_s\":%.4f,\"cpu_s\":%.4f,\"cpu_s_per_gb\":%.5f}\n",
	    (double)(t1 - t0) / 1e9, (double)(got1 - got0) / 1e9, (double)(got1 - got0) / (double)(t1 - t0),
	    (double)(cpu1 - cpu0) / 1e9, got1 > got0 ? (double)(cpu1 - cpu0) / (double)(got1 - got0) : 0.0);
	return 0;
}
