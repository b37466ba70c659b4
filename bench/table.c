/* table.c - the token table alone, at growing sizes: look-up, issue and release, expiry
 *
 *   table TOKENS SECONDS        prints one JSON line
 *
 * The table is filled with that many live tokens; each figure is ns per operation with all of them in it. Look-ups
 * go over the tokens in an order that no cache foresees.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "hyper/base/bytes.h"
#include "hyper/base/clock.h"
#include "hyper/proxy/toktab.h"

static uint64_t seed = 0x9e3779b97f4a7c15u;

static uint64_t
next(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed;
}

/* The hash of a token is as good as random. */
static void
fill_hash(uint8_t hash[32], uint64_t n)
{
	uint64_t words[4] = { n * 0x9e3779b97f4a7c15u, n * 0xbf58476d1ce4e5b9u + 1, n * 0x94d049bb133111ebu + 2, n };

	for (size_t i = 0; i < 4; i++) {
		words[i] ^= words[i] >> 31;
		words[i] *= 0xff51afd7ed558ccdu;
		words[i] ^= words[i] >> 33;
	}
	memcpy(hash, words, 32);
}

static void
issue(struct toktab *t, uint64_t n, int64_t deadline_ns, uint32_t *ret_slot)
{
	struct toktab_rec rec = { .parked_fd = -1,
		.issued_ns = 1,
		.deadline_ns = deadline_ns,
		.from = "hd-1",
		.to = "hd-2",
		.channel = "grpc_server" };
	uint32_t gen;
	int rc;

	fill_hash(rec.hash, n);
	rc = toktab_issue(t, &rec, ret_slot, &gen);
	if (rc < 0) {
		fprintf(stderr, "table: issue: %s\n", strerror(-rc));
		exit(1);
	}
}

static double
find_ns(struct toktab *t, uint64_t first, uint64_t n, bool is_there, double seconds)
{
	int64_t start = clock_now_ns(), end = start + (int64_t)(seconds * 1e9), now;
	struct toktab_rec rec;
	uint64_t ops = 0;
	uint8_t hash[32];

	do {
		for (int i = 0; i < 256; i++, ops++) {
			fill_hash(hash, first + next() % n);
			if ((toktab_find(t, hash, 2, &rec) == 0) != is_there) {
				fputs("table: a wrong answer\n", stderr);
				exit(1);
			}
		}
		now = clock_now_ns();
	} while (now < end);
	return (double)(now - start) / (double)ops;
}

/* A random one goes, a new one comes. */
static double
turnover_ns(struct toktab *t, uint32_t *slots, uint64_t n, uint64_t *ret_next_id, double seconds)
{
	int64_t start = clock_now_ns(), end = start + (int64_t)(seconds * 1e9), now;
	uint64_t ops = 0, id = *ret_next_id;

	do {
		for (int i = 0; i < 256; i++, ops++) {
			uint64_t k = next() % n;

			toktab_release(t, slots[k]);
			issue(t, id++, (int64_t)(1000000 + next() % 1000000), &slots[k]);
		}
		now = clock_now_ns();
	} while (now < end);
	*ret_next_id = id;
	return (double)(now - start) / (double)ops;
}

/* All of them run out, in the order of their deadlines. */
static double
expiry_ns(struct toktab *t, uint64_t n)
{
	int64_t start = clock_now_ns();
	struct toktab_rec rec;
	uint64_t ops = 0;

	while (toktab_expired(t, INT64_MAX - 1, &rec)) {
		toktab_release(t, rec.slot);
		ops++;
	}
	if (ops != n) {
		fprintf(stderr, "table: %llu of %llu expired\n", (unsigned long long)ops, (unsigned long long)n);
		exit(1);
	}
	return (double)(clock_now_ns() - start) / (double)n;
}

int
main(int argc, char **argv)
{
	uint64_t n = argc == 3 ? strtoull(argv[1], NULL, 10) : 0, id = n;
	double seconds = argc == 3 ? strtod(argv[2], NULL) : 0, fill, hit, miss, turnover;
	struct toktab *t;
	uint32_t *slots;
	int64_t start;

	if (n == 0 || n > 4000000 || seconds <= 0 || seconds > 60) {
		fputs("usage: table TOKENS SECONDS\n", stderr);
		return 64;
	}
	slots = calloc(n, sizeof(*slots));
	if (!slots || toktab_new(n, &t) < 0) {
		fputs("table: out of memory\n", stderr);
		return 1;
	}
	start = clock_now_ns();
	for (uint64_t i = 0; i < n; i++)
		issue(t, i, (int64_t)(1000000 + next() % 1000000), &slots[i]);
	fill = (double)(clock_now_ns() - start) / (double)n;
	hit = find_ns(t, 0, n, true, seconds);
	miss = find_ns(t, UINT64_C(1) << 40, n, false, seconds);
	turnover = turnover_ns(t, slots, n, &id, seconds);
	printf("{\"tokens\":%llu,\"issue_ns\":%.1f,\"hit_ns\":%.1f,\"miss_ns\":%.1f,\"turnover_ns\":%.1f,\"expiry_ns\":"
	       "%.1f}\n",
	    (unsigned long long)n, fill, hit, miss, turnover, expiry_ns(t, n));
	toktab_free(t);
	free(slots);
	return 0;
}
