/* meet.c - brings the two ends of pairs together, in the way each relay wants it
 *
 *   forward   A --dial--> relay --dial--> our listener
 *   preamble  A --bytes--> relay <--bytes-- B, the relay may answer with some bytes first
 *   token     broker.c
 *
 * Always true: when a pair is returned, eight bytes that name it went both ways; nothing else is in flight.
 */
#include "bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "hyper/base/bytes.h"
#include "hyper/base/fd.h"

#define PREAMBLE_MAX 512
#define CODE_END     16
#define PAUSE_MS     1

static void
check_hello(int from, int to, uint64_t id)
{
	uint64_t got = 0;

	write_exactly(from, &id, sizeof(id));
	read_exactly(to, &got, sizeof(got));
	if (got != id)
		bench_die("pair %llu talks to pair %llu", (unsigned long long)id, (unsigned long long)got);
}

static void
meet_forward(const struct conf *c, struct pair_fds *ret, size_t n)
{
	int listener = tcp_listen(c->listen);

	for (size_t i = 0; i < n; i++) {
		uint64_t id = i + 1;

		ret[i].a = tcp_dial(c->dial, 0);
		/* One at a time, so the next one that comes is this one's. */
		ret[i].b = tcp_accept(listener);
		check_hello(ret[i].a, ret[i].b, id);
		check_hello(ret[i].b, ret[i].a, id);
	}
	fd_close(&listener);
}

/* Dials with these bytes. The relay answers `skip` bytes, of which the last of the first 16 is 0 for a yes; -1 for a no:
 * strelaysrv refuses, and forgets the key, when a party is faster than its own preparations. */
static int
dial_with(uint16_t port, const char *hex, unsigned skip)
{
	uint8_t bytes[PREAMBLE_MAX], answer[PREAMBLE_MAX];
	size_t len = strlen(hex) / 2;
	int fd;

	if (len > sizeof(bytes) || hex_decode(hex, bytes, len) < 0 || skip < CODE_END || skip > sizeof(answer))
		bench_die("a bad preamble");
	fd = tcp_dial(port, 0);
	write_exactly(fd, bytes, len);
	read_exactly(fd, answer, CODE_END);
	if (answer[CODE_END - 1] == 0)
		read_exactly(fd, answer, skip - CODE_END);
	else
		fd_close(&fd);
	return fd;
}

/* Lines of the file: hex for A, hex for B, number of bytes that the relay answers to each; some are spare. */
static void
meet_preamble(const struct conf *c, struct pair_fds *ret, size_t n)
{
	char a[2 * PREAMBLE_MAX + 1], b[2 * PREAMBLE_MAX + 1];
	FILE *f = fopen(c->preambles, "re");
	unsigned skip;

	for (size_t i = 0; i < n;) {
		if (!f || fscanf(f, "%1024s %1024s %u", a, b, &skip) != 3)
			bench_die("%s: no preamble for pair %zu", c->preambles, i);
		ret[i].a = dial_with(c->dial, a, skip);
		nanosleep(&(struct timespec){ .tv_nsec = PAUSE_MS * NS_PER_MS }, NULL);
		ret[i].b = ret[i].a >= 0 ? dial_with(c->dial, b, skip) : -1;
		if (ret[i].b < 0) {
			fd_close(&ret[i].a);
			continue;
		}
		check_hello(ret[i].a, ret[i].b, i + 1);
		check_hello(ret[i].b, ret[i].a, i + 1);
		i++;
	}
	fclose(f);
}

struct pair_fds *
meet_pairs(const struct conf *c, size_t n)
{
	struct pair_fds *p = calloc(n, sizeof(*p));

	if (!p)
		bench_die("out of memory");
	switch (c->mode) {
	case MEET_FORWARD: meet_forward(c, p, n); break;
	case MEET_TOKEN: broker_pairs(c, p, n); break;
	case MEET_PREAMBLE: meet_preamble(c, p, n); break;
	}
	return p;
}
