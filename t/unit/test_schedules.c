/* test_schedules.c - random schedules of arrivals, deaths, late messages and time, against a model
 *
 *   test_schedules                the check: 20,000 schedules; HYPER_LONG=1: a million; HYPER_SCHEDULES=N: so many
 *   test_schedules SEED           one schedule, step by step, with what the master logs
 *   test_schedules SEED N         so many from this one on, in one process
 *
 * A schedule is 10 to 60 steps drawn from its seed. Schedules are played in child processes, a thousand each, so that
 * one which fails (also by an abort or a sanitizer) leaves the parent to look for the fewest steps that still fail. What
 * must happen is in schedules_model.c.
 */
#include "schedules.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define STEPS_MIN 10
#define STEPS_MAX 60
#define CHUNK     1000 /* schedules of one child */
#define ALONE     100  /* of them played alone as well */

struct step {
	unsigned op;
	unsigned a, b;
};

struct schedule {
	struct knobs knobs;
	bool abruptly, at_once;
	size_t n;
	struct step steps[STEPS_MAX];
};

/* Written by the children. */
static struct {
	uint64_t seed;
	size_t step;
	unsigned activity[ALONE]; /* of a chunk's first ones */
} * shared;

static bool is_quiet;

void
say_verbose(const char *fmt, ...)
{
	va_list ap;

	if (!w.is_verbose)
		return;
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
}

void
schedule_failed(const char *fmt, ...)
{
	va_list ap;

	if (!is_quiet) {
		printf("# seed %llu, step %zu: ", (unsigned long long)shared->seed, shared->step);
		va_start(ap, fmt);
		vprintf(fmt, ap);
		va_end(ap);
		printf("\n");
		fflush(stdout);
	}
	_exit(99);
}

/* --- a schedule --- */

static uint64_t
next(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15u;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return z ^ z >> 31;
}

static void
draw(uint64_t seed, struct schedule *s)
{
	uint64_t r = seed;
	unsigned sum = 0, at, op;

	for (size_t i = 0; i < n_ops; i++)
		sum += ops[i].weight;
	memset(s, 0, sizeof(*s));
	s->knobs.table_slots = 2 + next(&r) % 3;
	s->knobs.max_pairs = 1 + next(&r) % 4;
	s->knobs.copy_mode = next(&r) % 8 == 0;
	s->knobs.answers_at_once = next(&r) % 2;
	for (size_t i = 0; i < QUOTA_LIMIT_MAX; i++)
		if (i != QUOTA_LIMIT_RATE_FROM && i != QUOTA_LIMIT_RATE_TO && i != QUOTA_LIMIT_NAMES)
			s->knobs.quota.max[i] = next(&r) % 4 ? 0 : 1 + next(&r) % 3;
	s->knobs.seed = seed;
	s->abruptly = next(&r) % 4 == 0;
	s->at_once = next(&r) % 4 == 0;
	s->n = STEPS_MIN + next(&r) % (STEPS_MAX - STEPS_MIN + 1);
	for (size_t i = 0; i < s->n; i++) {
		at = (unsigned)(next(&r) % sum);
		for (op = 0; at >= ops[op].weight; op++)
			at -= ops[op].weight;
		s->steps[i] = (struct step){ op, (unsigned)(next(&r) >> 40), (unsigned)(next(&r) >> 40) };
	}
}

static void
play(uint64_t seed, const struct schedule *s)
{
	shared->seed = seed;
	shared->step = 0;
	model_start(&s->knobs);
	for (unsigned i = 0; i < N_SLOTS; i++)
		do_read(i, 1);
	pump();
	model_check();
	for (size_t i = 0; i < s->n; i++) {
		const struct step *st = &s->steps[i];

		shared->step = i + 1;
		say_verbose("%3zu %s(%u, %u): %s\n", i + 1, ops[st->op].name, st->a, st->b, ops[st->op].what);
		ops[st->op].run(st->a, st->b);
		model_check();
	}
	say_verbose("    the end, %s\n", s->abruptly ? "abruptly" : s->at_once ? "at once" : "in order");
	shared->step++;
	pump();
	model_check();
	model_settled();
	model_finish(s->abruptly, s->at_once);
	conns_renew();
}

/* In a child: 0 when all of them hold. */
static int
in_child(void (*fn)(const void *), const void *arg, bool quiet)
{
	pid_t pid;
	int status;

	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		is_quiet = quiet;
		if (quiet && !freopen("/dev/null", "w", stderr))
			_exit(98);
		world_init();
		fn(arg);
		world_fini();
		fflush(stdout);
		exit(0);
	}
	return pid > 0 && wait(&status) == pid ? status : -1;
}

struct range {
	uint64_t first;
	size_t n;
};

static void
play_range(const void *arg)
{
	const struct range *r = arg;
	struct schedule s;

	for (size_t i = 0; i < r->n; i++) {
		unsigned before = w.activity;

		draw(r->first + i, &s);
		play(r->first + i, &s);
		if (i < ALONE)
			shared->activity[i] = w.activity - before;
	}
}

static void
play_one(const void *arg)
{
	play(shared->seed, arg);
}

static void
play_loud(const void *arg)
{
	w.is_verbose = true;
	setvbuf(stdout, NULL, _IOLBF, 0);
	play(shared->seed, arg);
}

/* Leaves out whatever is not needed for a failure, longest runs first. */
static void
shrink(struct schedule *s)
{
	for (size_t len = s->n / 2; len > 0; len /= 2) {
		for (size_t at = 0; at + len <= s->n;) {
			struct schedule less = *s;

			less.n -= len;
			memmove(less.steps + at, less.steps + at + len, (less.n - at) * sizeof(less.steps[0]));
			if (in_child(play_one, &less, true) != 0)
				*s = less;
			else
				at++;
		}
	}
}

static void
explain(uint64_t seed, uint64_t first)
{
	struct schedule s;

	draw(seed, &s);
	shared->seed = seed;
	/* A seed says all, or should. */
	if (in_child(play_one, &s, true) == 0) {
		printf("# seed %llu passes when it is played alone; again with `test_schedules %llu %llu`\n",
		    (unsigned long long)seed, (unsigned long long)first, (unsigned long long)(seed - first + 1));
		return;
	}
	shrink(&s);
	printf("# seed %llu fails; again with `test_schedules %llu`; the %zu steps that it takes:\n",
	    (unsigned long long)seed, (unsigned long long)seed, s.n);
	in_child(play_loud, &s, false);
}

/* What happened in a schedule is the same without those before it: else a failure could not be looked into. */
static void
test_seed_says_all(void **state)
{
	struct range r = { .first = 1, .n = ALONE };
	unsigned in_row[ALONE];

	(void)state;
	assert_int_equal(in_child(play_range, &r, false), 0);
	memcpy(in_row, shared->activity, sizeof(in_row));
	for (size_t i = 0; i < ALONE; i++) {
		r = (struct range){ .first = 1 + i, .n = 1 };
		assert_int_equal(in_child(play_range, &r, false), 0);
		if (shared->activity[0] != in_row[i])
			fail_msg("seed %zu: %u things happened alone, %u behind others", 1 + i, shared->activity[0],
			    in_row[i]);
	}
}

static size_t
how_many(void)
{
	const char *n = getenv("HYPER_SCHEDULES"), *is_long = getenv("HYPER_LONG");

	if (n && *n)
		return strtoull(n, NULL, 10);
	return is_long && *is_long ? 1000000 : 20000;
}

static void
test_schedules(void **state)
{
	struct range r = { .n = CHUNK };
	size_t n = how_many();
	struct timeval tv;

	(void)state;
	gettimeofday(&tv, NULL); /* other schedules in each run; a seed tells all */
	r.first = (uint64_t)tv.tv_sec * 1000000 + (uint64_t)tv.tv_usec;
	printf("# %zu schedules from seed %llu\n", n, (unsigned long long)r.first);
	for (size_t done = 0; done < n; done += r.n, r.first += r.n) {
		r.n = n - done < CHUNK ? n - done : CHUNK;
		if (in_child(play_range, &r, false) != 0) {
			explain(shared->seed, r.first);
			fail_msg("schedule %llu", (unsigned long long)shared->seed);
		}
	}
}

int
main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_seed_says_all), cmocka_unit_test(test_schedules) };
	struct schedule s;

	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED)
		return 1;
	if (argc == 3) {
		struct range r = { strtoull(argv[1], NULL, 10), strtoull(argv[2], NULL, 10) };

		return in_child(play_range, &r, false) != 0;
	}
	if (argc == 2) {
		shared->seed = strtoull(argv[1], NULL, 10);
		draw(shared->seed, &s);
		return in_child(play_loud, &s, false) != 0;
	}
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
