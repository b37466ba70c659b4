/* test_toktab.c - the token table: against a model, full, reused, torn, sealed */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "hyper/base/bytes.h"
#include "hyper/proxy/toktab.h"
#include "proxy/shared/toktab_layout.h"

static void
hash_of(uint64_t n, uint8_t ret[32])
{
	sha256(&n, sizeof n, ret);
}

static struct toktab_rec
rec_of(uint64_t n, int64_t deadline)
{
	struct toktab_rec rec = { .issued_ns = (int64_t)n, .deadline_ns = deadline };

	hash_of(n, rec.hash);
	snprintf(rec.from, sizeof rec.from, "from-%llu", (unsigned long long)n);
	snprintf(rec.to, sizeof rec.to, "to-%llu", (unsigned long long)n);
	snprintf(rec.channel, sizeof rec.channel, "grpc_server");
	return rec;
}

static struct toktab *
table(size_t slots)
{
	struct toktab *t = NULL;

	assert_int_equal(toktab_new(slots, &t), 0);
	assert_non_null(t);
	return t;
}

static uint32_t
issue(struct toktab *t, uint64_t n, int64_t deadline, uint32_t *ret_gen)
{
	struct toktab_rec rec = rec_of(n, deadline);
	uint32_t slot = UINT32_MAX, gen;

	assert_int_equal(toktab_issue(t, &rec, &slot, ret_gen ? ret_gen : &gen), 0);
	return slot;
}

static int
find(const struct toktab *t, uint64_t n, int64_t now, struct toktab_rec *ret)
{
	uint8_t hash[32];

	hash_of(n, hash);
	return toktab_find(t, hash, now, ret);
}

/* --- against a model ------------------------------------------------------- */

#define MODEL_SLOTS 13
#define MODEL_KEYS  40

struct model {
	bool live[MODEL_KEYS];
	enum toktab_state state[MODEL_KEYS];
	int64_t deadline[MODEL_KEYS];
	uint32_t slot[MODEL_KEYS], gen[MODEL_KEYS];
	uint32_t slot_gen[MODEL_SLOTS]; /* newest generation seen of a slot */
	size_t n, n_parked;
};

static uint64_t
rnd(uint64_t *s)
{
	*s ^= *s << 13;
	*s ^= *s >> 7;
	*s ^= *s << 17;
	return *s;
}

static void
model_compare(const struct model *m, struct toktab *w, const struct toktab *r, int64_t now)
{
	int64_t first = INT64_MAX;
	struct toktab_rec rec;
	struct toktab_counts c = toktab_counts(w);

	for (uint64_t k = 0; k < MODEL_KEYS; k++) {
		bool want = m->live[k] && m->deadline[k] > now;

		assert_int_equal(find(w, k, now, &rec), want ? 0 : -ENOENT);
		assert_int_equal(find(r, k, now, &rec), want ? 0 : -ENOENT);
		if (m->live[k] && m->deadline[k] < first)
			first = m->deadline[k];
		if (!want)
			continue;
		assert_int_equal(rec.slot, m->slot[k]);
		assert_int_equal(rec.gen, m->gen[k]);
		assert_int_equal(rec.state, m->state[k]);
		assert_int_equal(rec.deadline_ns, m->deadline[k]);
		assert_int_equal(rec.parked_fd, m->state[k] == TOKTAB_PARKED ? (int)k + 10 : -1);
		assert_int_equal(rec.issued_ns, (int64_t)k);
	}
	assert_int_equal(toktab_next_deadline_ns(w), first);
	assert_int_equal(c.slots, MODEL_SLOTS);
	assert_int_equal(c.parked, m->n_parked);
	assert_int_equal(c.issued, m->n - m->n_parked);
	assert_int_equal(toktab_expired(w, now, &rec), first <= now);
	if (first <= now)
		assert_int_equal(rec.deadline_ns, first);
}

static void
model_issue(struct model *m, struct toktab *w, uint64_t k, int64_t deadline)
{
	struct toktab_rec rec = rec_of(k, deadline);
	uint32_t slot = 77777, gen = 77777;
	int r = toktab_issue(w, &rec, &slot, &gen);

	if (m->live[k]) {
		assert_int_equal(r, -EEXIST);
	} else if (m->n == MODEL_SLOTS) {
		assert_int_equal(r, -ENOSPC);
	} else {
		assert_int_equal(r, 0);
		assert_true(slot < MODEL_SLOTS);
		assert_true(gen > m->slot_gen[slot]);
		m->slot_gen[slot] = m->gen[k] = gen;
		m->slot[k] = slot;
		m->deadline[k] = deadline;
		m->live[k] = true;
		m->state[k] = TOKTAB_ISSUED;
		m->n++;
		return;
	}
	assert_int_equal(slot, 77777); /* untouched */
}

static void
model_release(struct model *m, struct toktab *w, uint64_t k)
{
	if (!m->live[k])
		return;
	toktab_release(w, m->slot[k]);
	m->n_parked -= m->state[k] == TOKTAB_PARKED;
	m->live[k] = false;
	m->n--;
}

static void
model_step(struct model *m, struct toktab *w, uint64_t *seed, int64_t now)
{
	uint64_t what = rnd(seed) % 8, k = rnd(seed) % MODEL_KEYS;
	struct toktab_rec rec;

	if (what < 4) {
		model_issue(m, w, k, now + (int64_t)(rnd(seed) % 50));
	} else if (what < 6) {
		if (m->live[k] && m->state[k] == TOKTAB_ISSUED) {
			toktab_park(w, m->slot[k], (int)k + 10);
			m->state[k] = TOKTAB_PARKED;
			m->n_parked++;
		}
	} else if (what == 6) {
		model_release(m, w, k);
	} else {
		while (toktab_expired(w, now, &rec)) {
			assert_true(m->live[rec.issued_ns]);
			model_release(m, w, (uint64_t)rec.issued_ns);
		}
	}
}

static void
random_schedules(void **state)
{
	(void)state;
	for (uint64_t run = 1; run <= 60; run++) {
		struct toktab *w = table(MODEL_SLOTS), *r = NULL;
		struct model m = { 0 };
		uint64_t seed = run * 0x9e3779b97f4a7c15u;

		assert_int_equal(toktab_map(toktab_fd(w), &r), 0);
		for (int64_t now = 1; now <= 150; now++) {
			model_step(&m, w, &seed, now);
			model_compare(&m, w, r, now);
		}
		toktab_free(r);
		toktab_free(w);
	}
}

/* --- single promises ------------------------------------------------------- */

static void
full_and_again(void **state)
{
	struct toktab *t = table(3);
	struct toktab_rec rec = rec_of(99, 10);
	uint32_t slot, gen, first = issue(t, 0, 10, NULL);

	(void)state;
	issue(t, 1, 10, NULL);
	issue(t, 2, 10, NULL);
	assert_int_equal(toktab_issue(t, &rec, &slot, &gen), -ENOSPC);
	toktab_release(t, first);
	assert_int_equal(toktab_issue(t, &rec, &slot, &gen), 0);
	assert_int_equal(slot, first);
	toktab_free(t);
}

static void
generations_grow(void **state)
{
	struct toktab *t = table(1);
	uint32_t last = 0, gen;
	struct toktab_rec rec;

	(void)state;
	for (uint64_t n = 0; n < 100; n++) {
		uint32_t slot = issue(t, n, 10, &gen);

		assert_true(gen > last);
		last = gen;
		assert_int_equal(find(t, n, 0, &rec), 0);
		assert_int_equal(rec.gen, gen);
		toktab_release(t, slot);
		assert_int_equal(find(t, n, 0, &rec), -ENOENT);
	}
	toktab_free(t);
}

static void
expired_is_unknown(void **state)
{
	struct toktab *t = table(4);
	struct toktab_rec rec = { .slot = 4711 };
	uint32_t slot = issue(t, 7, 1000, NULL);

	(void)state;
	assert_int_equal(find(t, 7, 999, &rec), 0);
	rec.slot = 4711;
	assert_int_equal(find(t, 7, 1000, &rec), -ENOENT);
	assert_int_equal(rec.slot, 4711); /* untouched */
	assert_true(toktab_expired(t, 1000, &rec));
	assert_int_equal(rec.slot, slot);
	assert_false(toktab_expired(t, 999, &rec));
	toktab_free(t);
}

static void
names_are_cut(void **state)
{
	struct toktab *t = table(2);
	struct toktab_rec rec = rec_of(1, 10), got;
	uint32_t slot, gen;

	(void)state;
	memset(rec.from, 'x', sizeof rec.from); /* no NUL at all */
	assert_int_equal(toktab_issue(t, &rec, &slot, &gen), 0);
	assert_int_equal(find(t, 1, 0, &got), 0);
	assert_int_equal(strlen(got.from), TOKTAB_NAME_MAX - 1);
	assert_string_equal(got.to, "to-1");
	assert_string_equal(got.channel, "grpc_server");
	toktab_free(t);
}

static void
sizes_are_checked(void **state)
{
	struct toktab *t = (struct toktab *)0x1;

	(void)state;
	assert_int_equal(toktab_new(0, &t), -EINVAL);
	assert_int_equal(toktab_new(TOKTAB_SLOTS_MAX + 1, &t), -EINVAL);
	assert_ptr_equal(t, (struct toktab *)0x1);
	toktab_free(NULL);
}

/* --- nobody else writes ---------------------------------------------------- */

static void
sealed_against_everything(void **state)
{
	struct toktab *t = table(16);
	int fd = toktab_fd(t), ro;
	char path[64];
	void *map;

	(void)state;
	assert_int_equal(pwrite(fd, "x", 1, 0), -1);
	assert_int_equal(ftruncate(fd, 64), -1);
	assert_int_equal(ftruncate(fd, 1 << 20), -1);
	assert_int_equal(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096), -1);
	assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), -1);
	assert_ptr_equal(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0), MAP_FAILED);
	map = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
	assert_ptr_not_equal(map, MAP_FAILED);
	assert_int_equal(mprotect(map, 4096, PROT_READ | PROT_WRITE), -1);
	munmap(map, 4096);
	/* A new open file description of it is no way in either. */
	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	ro = open(path, O_RDWR | O_CLOEXEC);
	if (ro >= 0) {
		assert_ptr_equal(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, ro, 0), MAP_FAILED);
		assert_int_equal(pwrite(ro, "x", 1, 0), -1);
		close(ro);
	}
	issue(t, 1, 10, NULL); /* the writer still can */
	toktab_free(t);
}

static void
child_has_no_writable_map(void **state)
{
	struct toktab *t = table(16), *r = NULL;
	uint32_t slot = issue(t, 1, 10, NULL);
	pid_t pid;
	int status;

	(void)state;
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		struct toktab_rec rec;

		if (toktab_map(toktab_fd(t), &r) < 0 || find(r, 1, 0, &rec) < 0)
			_exit(1);
		sigaction(SIGSEGV, &(struct sigaction){ .sa_handler = SIG_DFL }, NULL);
		toktab_release(t, slot); /* the mapping was not inherited */
		_exit(2);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGSEGV);
	toktab_free(t);
}

static void
reader_is_no_writer(void **state)
{
	struct toktab *t = table(16), *r = NULL;

	(void)state;
	assert_int_equal(toktab_map(toktab_fd(t), &r), 0);
	assert_int_equal(toktab_fd(r), -1);
	toktab_free(r);
	toktab_free(t);
}

/* --- wrong memfds, torn states: a copy of a table that the test may change -- */

struct copy {
	int fd;
	size_t size;
	struct toktab_head *head;
	struct toktab_bucket *buckets;
	struct toktab_record *records;
	struct toktab *reader; /* maps it too */
};

static struct copy
copy_of(const struct toktab *t, bool seal)
{
	struct copy c = { .fd = memfd_create("copy", MFD_CLOEXEC | MFD_ALLOW_SEALING) };
	struct toktab_head head;
	char *from;

	assert_int_equal(pread(toktab_fd(t), &head, sizeof head, 0), sizeof head);
	c.size = head.size;
	from = mmap(NULL, c.size, PROT_READ, MAP_SHARED, toktab_fd(t), 0);
	assert_int_equal(ftruncate(c.fd, (off_t)c.size), 0);
	c.head = mmap(NULL, c.size, PROT_READ | PROT_WRITE, MAP_SHARED, c.fd, 0);
	memcpy(c.head, from, c.size);
	munmap(from, c.size);
	c.buckets = (struct toktab_bucket *)((char *)c.head + head.buckets_off);
	c.records = (struct toktab_record *)((char *)c.head + head.records_off);
	if (seal)
		assert_int_equal(fcntl(c.fd, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL), 0);
	return c;
}

static void
copy_fini(struct copy *c)
{
	toktab_free(c->reader);
	munmap(c->head, c->size);
	close(c->fd);
}

static void
wrong_memfds(void **state)
{
	static const struct {
		size_t offset;
		const char *what;
	} cases[] = {
		{ offsetof(struct toktab_head, magic), "magic" },
		{ offsetof(struct toktab_head, version), "version" },
		{ offsetof(struct toktab_head, size), "size" },
		{ offsetof(struct toktab_head, slots), "slots" },
		{ offsetof(struct toktab_head, slots) + 3, "slots, far too many" },
		{ offsetof(struct toktab_head, buckets), "buckets" },
		{ offsetof(struct toktab_head, buckets_off), "buckets_off" },
		{ offsetof(struct toktab_head, records_off), "records_off" },
	};
	struct toktab *t = table(5), *r = (struct toktab *)0x1;
	struct copy c = copy_of(t, false);
	int pipe_fds[2], empty = memfd_create("empty", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	(void)state;
	assert_int_equal(toktab_map(c.fd, &r), -EPROTO); /* not sealed: could be cut under us */
	copy_fini(&c);
	c = copy_of(t, true);
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		((uint8_t *)c.head)[cases[i].offset] ^= 0x55;
		if (toktab_map(c.fd, &r) != -EPROTO)
			fail_msg("%s", cases[i].what);
		((uint8_t *)c.head)[cases[i].offset] ^= 0x55;
	}
	c.head->slots = 0;
	assert_int_equal(toktab_map(c.fd, &r), -EPROTO);
	c.head->slots = 5;
	assert_int_equal(fcntl(empty, F_ADD_SEALS, F_SEAL_SHRINK), 0);
	assert_int_equal(toktab_map(empty, &r), -EPROTO);
	assert_int_equal(pipe(pipe_fds), 0);
	assert_int_equal(toktab_map(pipe_fds[0], &r), -EPROTO);
	close(pipe_fds[0]);
	close(pipe_fds[1]);
	close(empty);
	assert_int_equal(toktab_map(empty, &r), -EBADF);
	assert_ptr_equal(r, (struct toktab *)0x1); /* untouched by all of them */
	assert_int_equal(toktab_map(c.fd, &c.reader), 0);
	copy_fini(&c);
	toktab_free(t);
}

static uint32_t
bucket_number(const struct copy *c, uint64_t n)
{
	uint8_t h[32];

	hash_of(n, h);
	return ((uint32_t)h[0] | (uint32_t)h[1] << 8 | (uint32_t)h[2] << 16 | (uint32_t)h[3] << 24) &
	       (c->head->buckets - 1);
}

/* The writer stopped, or died, at any point: readers answer -EAGAIN, soon. */
static void
writer_inside(void **state)
{
	struct toktab *t = table(8);
	uint32_t slot = issue(t, 1, 10, NULL);
	struct toktab_rec rec = { .slot = 4711 };
	struct copy c = copy_of(t, true);

	(void)state;
	assert_int_equal(toktab_map(c.fd, &c.reader), 0);
	c.records[slot].seq++; /* the body is being written */
	assert_int_equal(find(c.reader, 1, 0, &rec), -EAGAIN);
	c.records[slot].seq++;
	c.buckets[bucket_number(&c, 1)].seq++; /* the chain is being changed */
	assert_int_equal(find(c.reader, 1, 0, &rec), -EAGAIN);
	c.buckets[bucket_number(&c, 1)].seq++;
	assert_int_equal(rec.slot, 4711);
	assert_int_equal(find(c.reader, 1, 0, &rec), 0);
	copy_fini(&c);
	toktab_free(t);
}

static void
indices_are_checked(void **state)
{
	struct toktab *t = table(8);
	uint32_t slot = issue(t, 1, 10, NULL);
	struct copy c = copy_of(t, true);
	struct toktab_rec rec;
	uint64_t other = 2;

	(void)state;
	assert_int_equal(toktab_map(c.fd, &c.reader), 0);
	while (bucket_number(&c, other) != bucket_number(&c, 1))
		other++;
	assert_int_equal(find(c.reader, other, 0, &rec), -ENOENT);
	c.records[slot].next = 9; /* one more than there are */
	assert_int_equal(find(c.reader, other, 0, &rec), -EAGAIN);
	c.records[slot].next = UINT32_MAX;
	assert_int_equal(find(c.reader, other, 0, &rec), -EAGAIN);
	c.records[slot].next = slot + 1; /* a ring */
	assert_int_equal(find(c.reader, other, 0, &rec), -EAGAIN);
	c.records[slot].next = 0;
	((struct toktab_body *)c.records[slot].body)->state = 77;
	assert_int_equal(find(c.reader, 1, 0, &rec), -ENOENT);
	copy_fini(&c);
	toktab_free(t);
}

/* --- a writer at work ------------------------------------------------------ */

struct race {
	struct toktab *reader;
	uint32_t stop;
	uint64_t found, mixed, missed;
};

static void *
race_reader(void *arg)
{
	struct race *race = arg;
	struct toktab_rec rec;
	char want[TOKTAB_NAME_MAX];
	int r;

	for (uint64_t i = 0; !__atomic_load_n(&race->stop, __ATOMIC_ACQUIRE); i++) {
		/* Key 0 is never released: it must always be found. */
		r = find(race->reader, i % 24, 0, &rec);
		race->missed += i % 24 == 0 && r == -ENOENT;
		if (r < 0)
			continue;
		race->found++;
		snprintf(want, sizeof want, "to-%llu", (unsigned long long)(i % 24));
		race->mixed += strcmp(want, rec.to) != 0 || rec.issued_ns != (int64_t)(i % 24);
	}
	return NULL;
}

static void
reader_beside_writer(void **state)
{
	struct toktab *w = table(8);
	struct race race = { 0 };
	uint32_t slot[24] = { 0 };
	pthread_t thread;

	(void)state;
	assert_int_equal(toktab_map(toktab_fd(w), &race.reader), 0);
	issue(w, 0, 10, NULL);
	assert_int_equal(pthread_create(&thread, NULL, race_reader, &race), 0);
	for (uint64_t turn = 0; turn < 3000; turn++) {
		uint64_t base = 1 + turn % 17;

		for (uint64_t k = base; k < base + 7; k++)
			slot[k] = issue(w, k, 10, NULL);
		for (uint64_t k = base; k < base + 7; k++)
			toktab_release(w, slot[k]);
	}
	__atomic_store_n(&race.stop, 1, __ATOMIC_RELEASE);
	pthread_join(thread, NULL);
	assert_int_equal(race.mixed, 0);
	assert_int_equal(race.missed, 0);
	assert_true(race.found > 0);
	toktab_free(race.reader);
	toktab_free(w);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(random_schedules),
		cmocka_unit_test(full_and_again),
		cmocka_unit_test(generations_grow),
		cmocka_unit_test(expired_is_unknown),
		cmocka_unit_test(names_are_cut),
		cmocka_unit_test(sizes_are_checked),
		cmocka_unit_test(sealed_against_everything),
		cmocka_unit_test(child_has_no_writable_map),
		cmocka_unit_test(reader_is_no_writer),
		cmocka_unit_test(wrong_memfds),
		cmocka_unit_test(writer_inside),
		cmocka_unit_test(indices_are_checked),
		cmocka_unit_test(reader_beside_writer),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
