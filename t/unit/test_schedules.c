/* test_schedules.c - random schedules of arrivals, deaths, late messages and time, against a model
 *
 *   test_schedules                the check: 20,000 schedules; HYPER_LONG=1: a million; HYPER_SCHEDULES=N: so many
 *   test_schedules SEED           one schedule, step by step, with what the master logs
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

#include "hyper/base/bytes.h"

#define STEPS_MIN 10
#define STEPS_MAX 60
#define CHUNK     1000 /* schedules of one child */

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

/* --- steps --- */

static struct proc *
living(unsigned n)
{
	for (unsigned i = 0; i < N_SLOTS; i++) {
		struct proc *p = &w.procs[(n + i) % N_SLOTS];

		if (p->pid && !p->is_dead)
			return p;
	}
	return NULL;
}

static struct proc *
serving(unsigned n)
{
	for (unsigned i = 0; i < N_SLOTS; i++) {
		struct proc *p = &w.procs[(n + i) % N_SLOTS];

		if (p->pid && !p->is_dead && p->is_ready)
			return p;
	}
	return NULL;
}

static void
say_arrived(struct proc *p, int conn, const uint8_t token[32])
{
	struct chan_msg msg = { .type = CHAN_ARRIVED, .gen = p->gen, .conn = ++m.last_conn };

	memcpy(msg.token, token, 32);
	w.conns[conn].is_used = true;
	w.conns[conn].slot = p->slot;
	proc_say(p, &msg, w.conns[conn].srv);
	say_verbose("      worker %u: ARRIVED %llu, connection %d\n", p->slot, (unsigned long long)msg.conn, conn);
}

/* A free connection with a token of ours, live or not. */
static void
do_arrive(unsigned a, unsigned b)
{
	struct proc *p = serving(a);
	const struct tok *t = &m.toks[b % N_TOKENS];
	static const uint8_t nothing[32] = { 1 };

	for (unsigned i = 0; p && i < N_CONNS; i++) {
		int c = (int)((a / N_SLOTS + i) % N_CONNS);

		if (w.conns[c].is_used || w.conns[c].is_reset || w.conns[c].is_spent)
			continue;
		say_arrived(p, c, t->state == T_NONE || b % 29 == 0 ? nothing : t->token.bytes);
		return;
	}
}

/* The parked connection once more, as a confused worker would. */
static void
do_same(unsigned a, unsigned b)
{
	struct proc *p = serving(a);
	const struct tok *t = &m.toks[b % N_TOKENS];

	if (p && t->state == T_PARKED)
		say_arrived(p, t->conn, t->token.bytes);
}

static void
do_read(unsigned a, unsigned b)
{
	struct proc *p = living(a);

	if (!p)
		return;
	if (!p->is_ready && b % 8) {
		struct chan_msg ready = { .type = CHAN_READY, .gen = p->gen, .pid = (uint32_t)p->pid };

		p->is_ready = true;
		proc_say(p, &ready, -1);
	}
	proc_read(p);
	if (!p->is_dead && p->is_told_to_stop && b % 2)
		proc_die(p, 0);
}

/* PAIRED or ENDED for the pair that a worker may say it for. */
static void
say_pair(unsigned a, enum chan_type type, enum end_reason reason, bool handing)
{
	for (size_t i = 0; i < m.n_pairs; i++) {
		const struct mpair *p = &m.pairs[(a + i) % m.n_pairs];
		struct proc *proc = &w.procs[p->slot];
		struct chan_msg msg = { .type = type, .gen = proc->gen, .pair = p->id, .reason = reason };

		if (p->is_done || p->is_waiting || p->is_handing != handing || !proc->pid || proc->is_dead)
			continue;
		proc_say(proc, &msg, -1);
		return;
	}
}

static void
do_paired(unsigned a, unsigned b)
{
	(void)b;
	say_pair(a, CHAN_PAIRED, END_CLOSED, true);
}

static void
do_ended(unsigned a, unsigned b)
{
	say_pair(a, CHAN_ENDED, b % 2 ? END_CLOSED : END_RESET, false);
}

static void
do_not_paired(unsigned a, unsigned b)
{
	say_pair(a, CHAN_ENDED, b % 2 ? END_DEADLINE : END_BUSY, true);
}

static void
do_die(unsigned a, unsigned b)
{
	struct proc *p = living(a);

	if (p)
		proc_die(p, b % 2 ? SIGSEGV : 256);
}

static void
do_reap(unsigned a, unsigned b)
{
	(void)a;
	(void)b;
	slots_reap(m.slots);
}

/* Anything at all about a pair, from any worker: right now and then. */
static void
do_stray(unsigned a, unsigned b)
{
	struct proc *p = serving(a);
	struct chan_msg msg = { .type = b % 2 ? CHAN_PAIRED : CHAN_ENDED };

	if (!p)
		return;
	msg.gen = p->gen;
	msg.pair = m.n_pairs ? m.pairs[b / 2 % m.n_pairs].id : 77;
	proc_say(p, &msg, -1);
}

static void
do_wrong(unsigned a, unsigned b)
{
	struct proc *p = living(a);
	struct chan_msg msg = { .type = CHAN_PAIRED };

	if (!p)
		return;
	p->is_wrong = true;
	msg.gen = p->gen;
	if (b % 6 == 0) {
		proc_say_bytes(p, "\xc1", 1);
	} else if (b % 6 == 1) {
		msg.gen--;
		proc_say(p, &msg, -1);
	} else if (b % 6 == 2) {
		msg.type = CHAN_STOP;
		proc_say(p, &msg, -1);
	} else if (b % 6 == 3) {
		proc_say(p, &msg, w.conns[0].srv); /* a descriptor where none belongs */
	} else if (b % 6 == 4) {
		msg.type = CHAN_ARRIVED; /* and none where one belongs */
		proc_say(p, &msg, -1);
	} else {
		msg.type = CHAN_ARRIVED;
		msg.conn = ++m.last_conn;
		proc_say(p, &msg, toktab_fd(m.table)); /* no TCP socket */
	}
}

static void
do_pump(unsigned a, unsigned b)
{
	(void)a;
	(void)b;
	pump();
	model_settled();
}

static void
do_clock(unsigned a, unsigned b)
{
	static const int64_t by[] = { 1, 1, 100, 100, 500, 600, 2000, 5000, 11000, 16000, 20000 };

	(void)b;
	w.now_ns += by[a % ARRAY_LEN(by)] * MS;
}

static void
do_peer(unsigned a, char what)
{
	for (unsigned i = 0; i < N_TOKENS; i++) {
		const struct tok *t = &m.toks[(a + i) % N_TOKENS];

		if (t->state == T_PARKED) {
			conn_do(&w.conns[t->conn], what);
			return;
		}
	}
	conn_do(&w.conns[a % N_CONNS], what);
}

static void
do_peer_resets(unsigned a, unsigned b)
{
	(void)b;
	do_peer(a, 'r');
}

static void
do_peer_finishes(unsigned a, unsigned b)
{
	(void)b;
	do_peer(a, 'f');
}

static void
do_peer_sends(unsigned a, unsigned b)
{
	(void)b;
	do_peer(a, 'd');
}

static void
do_alloc(unsigned a, unsigned b)
{
	(void)b;
	w.alloc_next = (int)(a % 6) + 1;
}

static void
do_freeze(unsigned a, unsigned b)
{
	struct proc *p = living(a);

	(void)b;
	if (p)
		p->is_frozen = true;
}

static void
do_spawn_fails(unsigned a, unsigned b)
{
	(void)b;
	w.spawn_failures = a % 3;
}

static void
do_stop(unsigned a, unsigned b)
{
	(void)b;
	model_stop(a % 4 == 0);
}

static void
do_issue(unsigned a, unsigned b)
{
	(void)b;
	model_issue(a % N_TOKENS);
}

static void
do_answer(unsigned a, unsigned b)
{
	(void)b;
	model_answer(a % N_TOKENS);
}

static void
do_cancel(unsigned a, unsigned b)
{
	(void)b;
	model_cancel(a % N_TOKENS);
}

/* X(name, how often, what it does) */
#define STEPS(X)                                                                           \
	X(issue, 100, "a request")                                                         \
	X(arrive, 260, "a connection with a token, at a worker")                           \
	X(pump, 240, "the master does what there is to do")                                \
	X(read, 140, "a worker reads what it was sent, gets ready, or stops when told so") \
	X(paired, 80, "a worker has joined a pair")                                        \
	X(ended, 50, "a pair is over")                                                     \
	X(not_paired, 20, "a pair could not be joined")                                    \
	X(answer, 50, "A has its answer")                                                  \
	X(cancel, 20, "B refuses")                                                         \
	X(die, 40, "a worker dies")                                                        \
	X(reap, 50, "the master looks for dead workers")                                   \
	X(stray, 20, "a worker speaks of any pair")                                        \
	X(wrong, 10, "a worker sends what it must not")                                    \
	X(same, 20, "the parked connection comes again")                                   \
	X(clock, 60, "time passes")                                                        \
	X(peer_resets, 30, "a peer resets")                                                \
	X(peer_finishes, 20, "a peer ends its stream")                                     \
	X(peer_sends, 20, "a peer sends a byte")                                           \
	X(alloc, 20, "an allocation will fail")                                            \
	X(freeze, 8, "a worker's heart stops")                                             \
	X(spawn_fails, 8, "starts of workers will fail")                                   \
	X(stop, 5, "the program stops")

static const struct {
	const char *name, *what;
	unsigned weight;
	void (*run)(unsigned a, unsigned b);
} ops[] = {
#define X(name, weight, what) { #name, what, weight, do_##name },
	STEPS(X)
#undef X
};

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

	for (size_t i = 0; i < ARRAY_LEN(ops); i++)
		sum += ops[i].weight;
	memset(s, 0, sizeof(*s));
	s->knobs.table_slots = 2 + next(&r) % 3;
	s->knobs.max_pairs = 1 + next(&r) % 4;
	s->knobs.answers_at_once = next(&r) % 2;
	for (size_t i = 0; i < QUOTA_LIMIT_MAX; i++)
		if (i != QUOTA_LIMIT_RATE_FROM && i != QUOTA_LIMIT_RATE_TO && i != QUOTA_LIMIT_NAMES)
			s->knobs.quota.max[i] = next(&r) % 4 ? 0 : 1 + next(&r) % 3;
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
		draw(r->first + i, &s);
		play(r->first + i, &s);
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
explain(uint64_t seed)
{
	struct schedule s;

	draw(seed, &s);
	shared->seed = seed;
	shrink(&s);
	printf("# seed %llu fails; again with `test_schedules %llu`; the %zu steps that it takes:\n",
	    (unsigned long long)seed, (unsigned long long)seed, s.n);
	in_child(play_loud, &s, false);
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
			explain(shared->seed);
			fail_msg("schedule %llu", (unsigned long long)shared->seed);
		}
	}
}

int
main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_schedules) };
	struct schedule s;

	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED)
		return 1;
	if (argc == 2) {
		shared->seed = strtoull(argv[1], NULL, 10);
		draw(shared->seed, &s);
		return in_child(play_loud, &s, false) != 0;
	}
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
