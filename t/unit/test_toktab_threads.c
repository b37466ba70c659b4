/* test_toktab_threads.c - the token table's writer at full speed beside its readers, as threads of one process
 *
 * For ThreadSanitizer, which knows memory by its address: writer and readers share one mapping here, in life they are
 * processes. One more reader looks through a mapping of its own, as a worker does. `./dev check` builds it with
 * --enable-tsan; built otherwise it still sees torn records.
 *
 * Every field of a record says of which token and of which of its issues it is, so a mixture of two shows.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "hyper/base/clock.h"
#include "hyper/proxy/toktab.h"

#define N_KEYS    48 /* many more than slots, few buckets: long chains, all of them busy */
#define N_SLOTS   16
#define N_READERS 3
#define KEPT      0 /* this one is never released, and always the last of its chain */
#define HOT       3 /* in the same chain, and the writer's darling */
#define FOREVER   (INT64_C(1) << 60)
#define NS_PER_S  INT64_C(1000000000)

struct reader {
	const struct toktab *table;
	const uint32_t *stop;
	uint64_t seed;
	uint64_t found, none, again, torn, lost;
	int64_t longest_ns; /* that the kept token could not be had */
	pthread_t thread;
};

static uint64_t
next(uint64_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	return *seed;
}

/* Only three buckets of the table are used. */
static void
hash_of(uint64_t key, uint8_t ret[32])
{
	memset(ret, (int)key, 32);
	ret[0] = (uint8_t)(key % 3);
	memset(ret + 1, 0, 3);
	memcpy(ret + 8, &key, sizeof(key));
}

static void
record_of(uint64_t key, uint64_t issue, struct toktab_rec *ret)
{
	memset(ret, 0, sizeof(*ret));
	hash_of(key, ret->hash);
	ret->parked_fd = -1;
	ret->issued_ns = (int64_t)(issue * N_KEYS + key);
	ret->deadline_ns = FOREVER + ret->issued_ns;
	snprintf(ret->from, sizeof(ret->from), "from-%llu-%llu", (unsigned long long)key, (unsigned long long)issue);
	snprintf(ret->to, sizeof(ret->to), "to-%llu-%llu", (unsigned long long)key, (unsigned long long)issue);
	snprintf(ret->channel, sizeof(ret->channel), "channel-%llu", (unsigned long long)(issue * 7 + key));
}

/* Is it one record of this token, as it was at one time? */
static bool
is_whole(uint64_t key, const struct toktab_rec *r)
{
	struct toktab_rec want;

	if (r->slot >= N_SLOTS || (uint64_t)r->issued_ns % N_KEYS != key)
		return false;
	record_of(key, (uint64_t)r->issued_ns / N_KEYS, &want);
	return memcmp(r->hash, want.hash, 32) == 0 && r->deadline_ns == want.deadline_ns &&
	       strcmp(r->from, want.from) == 0 && strcmp(r->to, want.to) == 0 &&
	       strcmp(r->channel, want.channel) == 0 &&
	       (r->state == TOKTAB_ISSUED ? r->parked_fd == -1
					  : r->state == TOKTAB_PARKED && r->parked_fd == (int)key + 3);
}

/* As a worker does: tries again, for a while. */
static int
find_in_the_end(struct reader *r, const uint8_t hash[32], struct toktab_rec *rec)
{
	int64_t start = 0, took;
	int rc;

	while ((rc = toktab_find(r->table, hash, 0, rec)) == -EAGAIN) {
		r->again++;
		if (!start)
			start = clock_now_ns();
		took = clock_now_ns() - start;
		if (took > r->longest_ns)
			r->longest_ns = took;
		if (took > 20 * NS_PER_S)
			break;
		sched_yield();
	}
	return rc;
}

static void *
read_on(void *arg)
{
	struct reader *r = arg;
	struct toktab_rec rec;
	uint8_t hash[32];
	uint64_t key;
	int rc;

	while (!__atomic_load_n(r->stop, __ATOMIC_ACQUIRE)) {
		key = next(&r->seed) % 4;
		key = key < 2 ? KEPT : key == 2 ? HOT : next(&r->seed) % N_KEYS;
		hash_of(key, hash);
		rc = find_in_the_end(r, hash, &rec);
		r->found += rc == 0;
		r->none += rc == -ENOENT;
		r->torn += rc == 0 && !is_whole(key, &rec);
		r->lost += rc != 0 && key == KEPT;
	}
	return NULL;
}

static uint32_t
issue(struct toktab *t, uint64_t key, uint64_t issue_no)
{
	struct toktab_rec rec;
	uint32_t slot, gen;

	record_of(key, issue_no, &rec);
	assert_int_equal(toktab_issue(t, &rec, &slot, &gen), 0);
	return slot;
}

/* A random token is issued, parked or released. */
static uint64_t
write_on(struct toktab *t, int64_t until_ns)
{
	enum { NONE, ISSUED, PARKED } state[N_KEYS] = { 0 };
	uint32_t slot[N_KEYS];
	uint64_t seed = 88172645463325252u, n = 0;
	size_t live = 1;

	while (n % 64 || clock_now_ns() < until_ns) {
		uint64_t key = next(&seed) % 2 ? HOT : 1 + next(&seed) % (N_KEYS - 1);

		n++;
		if (state[key] == NONE && live < N_SLOTS) {
			slot[key] = issue(t, key, n);
			state[key] = ISSUED;
			live++;
		} else if (state[key] == ISSUED && next(&seed) % 4) {
			toktab_park(t, slot[key], (int)key + 3);
			state[key] = PARKED;
		} else if (state[key] != NONE) {
			toktab_release(t, slot[key]);
			state[key] = NONE;
			live--;
		}
	}
	return n;
}

static void
test_writer_beside_readers(void **state)
{
	const char *is_long = getenv("HYPER_LONG");
	int64_t seconds = is_long && *is_long ? 30 : 2;
	struct reader r[N_READERS] = { 0 };
	struct toktab *t, *mapped;
	uint64_t n, found = 0;
	uint32_t stop = 0;

	(void)state;
	assert_int_equal(toktab_new(N_SLOTS, &t), 0);
	assert_int_equal(toktab_map(toktab_fd(t), &mapped), 0);
	issue(t, KEPT, 1);
	for (size_t i = 0; i < N_READERS; i++) {
		r[i] = (struct reader){ .table = i == 0 ? mapped : t, .stop = &stop, .seed = 77 + i };
		assert_int_equal(pthread_create(&r[i].thread, NULL, read_on, &r[i]), 0);
	}
	n = write_on(t, clock_now_ns() + seconds * NS_PER_S);
	__atomic_store_n(&stop, 1, __ATOMIC_RELEASE);
	for (size_t i = 0; i < N_READERS; i++) {
		pthread_join(r[i].thread, NULL);
		printf("# reader %zu: %llu found, %llu not there, %llu times to be tried again, for at most %.1f ms\n",
		    i, (unsigned long long)r[i].found, (unsigned long long)r[i].none, (unsigned long long)r[i].again,
		    (double)r[i].longest_ns / 1e6);
		assert_int_equal(r[i].torn, 0);
		assert_int_equal(r[i].lost, 0);
		found += r[i].found;
	}
	printf("# writer: %llu steps\n", (unsigned long long)n);
	assert_true(found > 100);
	toktab_free(mapped);
	toktab_free(t);
}

int
main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_writer_beside_readers) };

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
