/* test_worker_faults.c - one worker whose master is wrong, late or slow, and whose resources are used up */
#include "worker_fixture.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "proxy/shared/toktab_layout.h"

/* --- a master that is wrong, late, or of another generation ------------------- */

static void
send_raw(const void *data, size_t len, int fd)
{
	assert_int_equal(fd_send(m.chan, data, len, fd), 0);
}

static void
wrong_messages(void **state)
{
	static const struct {
		const char *what;
		struct chan_msg msg;
		bool fd, early;
	} cases[] = {
		{ "a worker's message", { .type = CHAN_READY }, false, false },
		{ "PARKED with a descriptor", { .type = CHAN_PARKED, .conn = 1 }, true, false },
		{ "PAIR without a descriptor", { .type = CHAN_PAIR, .pair = 1, .session = "0123456789ab" }, false,
		    false },
		{ "PAIR before SETTINGS", { .type = CHAN_PAIR, .pair = 1, .session = "0123456789ab" }, true, true },
		{ "PARKED before SETTINGS", { .type = CHAN_PARKED, .conn = 1 }, false, true },
	};
	int null_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		spawn(-1, 0);
		expect(CHAN_READY, NULL);
		if (!cases[i].early)
			send_settings();
		send_msg(cases[i].msg, cases[i].fd ? null_fd : -1);
		if (wait_exit() != 1)
			fail_msg("%s", cases[i].what);
		teardown(state);
	}
	start();
	send_raw("\x93\x01\x0c", 3, -1); /* cut */
	assert_int_equal(wait_exit(), 1);
	teardown(state);
	start();
	send_raw("\xdd\xff\xff\xff\xff", 5, null_fd); /* array32 of four billion, and a descriptor */
	assert_int_equal(wait_exit(), 1);
	close(null_fd);
}

static void
pair_twice(void **state)
{
	int first, second;

	(void)state;
	start();
	make_pair(&first, &second);
	m.pairs--;
	send_pair(99, &first);
	assert_string_equal(get(second, WAIT_MS), "reset");
	assert_int_equal(wait_exit(), 1);
	close(first);
	close(second);
}

static void
old_generation_and_late_answers(void **state)
{
	struct chan_msg msg;
	int sv[2];
	uint64_t pair;

	(void)state;
	start();
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
	send_msg((struct chan_msg){ .type = CHAN_STOP, .gen = GEN - 1 }, -1);
	send_msg((struct chan_msg){ .type = CHAN_PAIR, .gen = GEN - 1, .pair = 5, .session = "0123456789ab" }, sv[1]);
	send_msg((struct chan_msg){ .type = CHAN_PARKED, .conn = 4711 }, -1);
	send_msg((struct chan_msg){ .type = CHAN_REFUSED, .conn = 4711, .reason = END_BUSY }, -1);
	/* PAIR for a connection that is no more: the master must hear of it, once. */
	pair = send_pair(4711, &sv[1]);
	close(sv[1]);
	msg = expect(CHAN_ENDED, NULL);
	assert_int_equal(msg.pair, pair);
	assert_int_equal(msg.reason, END_DEADLINE);
	assert_string_equal(get(sv[0], WAIT_MS), "eof"); /* no copy was kept */
	expect_nothing(50);
	close(sv[0]);
	stop();
}

/* --- resources ----------------------------------------------------------------- */

/* The table's writer is inside: the look-up is tried again, not refused. */
static void
lookup_meets_the_writer(void **state)
{
	struct toktab *t = NULL;
	struct toktab_rec rec = { .deadline_ns = INT64_MAX };
	struct toktab_head head;
	struct toktab_record *records;
	struct token token;
	uint32_t slot, gen;
	char *from, *to;
	int copy = memfd_create("copy", MFD_CLOEXEC | MFD_ALLOW_SEALING), client;

	(void)state;
	token_new(&token);
	token_hash(&token, rec.hash);
	assert_int_equal(toktab_new(4, &t), 0);
	assert_int_equal(toktab_issue(t, &rec, &slot, &gen), 0);
	assert_int_equal(pread(toktab_fd(t), &head, sizeof(head), 0), sizeof(head));
	assert_int_equal(ftruncate(copy, (off_t)head.size), 0);
	from = mmap(NULL, head.size, PROT_READ, MAP_SHARED, toktab_fd(t), 0);
	to = mmap(NULL, head.size, PROT_READ | PROT_WRITE, MAP_SHARED, copy, 0);
	memcpy(to, from, head.size);
	records = (struct toktab_record *)(to + head.records_off);
	assert_int_equal(fcntl(copy, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW), 0);
	__atomic_add_fetch(&records[slot].seq, 1, __ATOMIC_RELEASE);

	spawn(copy, 0);
	expect(CHAN_READY, NULL);
	send_settings();
	client = dial();
	put(client, token.bytes, TOKEN_LEN);
	UNTIL(STAT(accepted) == 1);
	expect_nothing(50);
	__atomic_add_fetch(&records[slot].seq, 1, __ATOMIC_RELEASE);
	expect_arrived(&token, NULL);
	stop();
	close(client);
	munmap(from, head.size);
	munmap(to, head.size);
	close(copy);
	toktab_free(t);
}

/* Nobody reads the channel: nothing is lost, nothing is accepted beyond the cap. */
static void
master_is_slow(void **state)
{
	enum { N = 400 };
	static int client[N];
	static struct token t[N];
	bool came[N] = { false };
	long cpu;

	(void)state;
	start();
	for (int i = 0; i < N; i++) {
		t[i] = issue(INT64_MAX, NULL);
		client[i] = dial();
		put(client[i], t[i].bytes, TOKEN_LEN);
	}
	UNTIL(STAT(waiting) >= 250 || STAT(accepted) == N);
	poll(NULL, 0, 50);
	cpu = cpu_ms();
	poll(NULL, 0, 300);
	assert_true(cpu_ms() - cpu < 150); /* it does not spin */
	assert_in_range(STAT(waiting), 1, 256 + 16);
	for (int i = 0; i < N; i++) {
		struct chan_msg msg = expect(CHAN_ARRIVED, NULL);

		/* Each once. In any order: one that had its token at accept overtakes one that had not. */
		assert_in_range(msg.conn, 1, N);
		assert_false(came[msg.conn - 1]);
		came[msg.conn - 1] = true;
		send_msg((struct chan_msg){ .type = CHAN_PARKED, .conn = msg.conn }, -1);
	}
	UNTIL(STAT(waiting) == 0);
	for (int i = 0; i < N; i++)
		close(client[i]);
	stop();
}

/* At the descriptor limit: accepting pauses, what is waiting still gets its pair, and it goes on by itself. */
static void
descriptors_used_up(void **state)
{
	enum { N = 24 };
	int client[N], first[2], second[2], parked[2], dup_fd;
	struct token t[2];
	struct chan_msg msg[2];
	long cpu;

	(void)state;
	spawn(-1, 24); /* twelve or so are in use */
	expect(CHAN_READY, NULL);
	m.settings.accept_timeout_ms = 60000;
	send_settings();
	for (int i = 0; i < 2; i++) {
		t[i] = issue(INT64_MAX, NULL);
		parked[i] = park(&t[i], &first[i]);
	}
	for (int i = 0; i < 2; i++) {
		second[i] = dial();
		put(second[i], t[i].bytes, TOKEN_LEN);
		msg[i] = expect_arrived(&t[i], &dup_fd);
		close(dup_fd);
	}
	for (int i = 0; i < N; i++)
		client[i] = dial(); /* silent: they take all descriptors */
	poll(NULL, 0, 100);
	cpu = cpu_ms();
	poll(NULL, 0, 300);
	assert_true(cpu_ms() - cpu < 100); /* it does not spin */
	/* The oldest silent ones go first, so who comes is served before their time is over. */
	assert_string_equal(get(client[0], 0), "eof");
	assert_true(STAT(refused[END_BUSY]) > 0);
	assert_int_equal(STAT(refused[END_SILENT]), 0);
	for (int i = 0; i < 2; i++)
		send_pair(msg[i].conn, &parked[i]);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(expect(CHAN_PAIRED, NULL).pair, i + 1);
		close(parked[i]);
		put(first[i], "through", 7);
		assert_string_equal(get(second[i], WAIT_MS), "through");
	}
	UNTIL(STAT(accepted) == 4 + N);
	assert_true(STAT(refused[END_BUSY]) < N); /* not more than it had to */
	for (int i = 0; i < N; i++)
		close(client[i]);
	for (int i = 0; i < 2; i++) {
		close(first[i]);
		close(second[i]);
		assert_int_equal(expect(CHAN_ENDED, NULL).reason, END_CLOSED);
	}
	stop();
}

/* Somebody else's exclusive wait on the listener: it is woken and accepts nothing, as a worker does that dies there. */
static pid_t
thief(void)
{
	struct epoll_event ev = { .events = EPOLLIN | EPOLLEXCLUSIVE | EPOLLET };
	pid_t pid = fork();
	int epoll_fd;

	assert_true(pid >= 0);
	if (pid > 0)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL); /* when the test fails */
	epoll_fd = epoll_create1(0);
	if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, m.listener, &ev) < 0)
		_exit(1);
	for (;;)
		epoll_wait(epoll_fd, &ev, 1, -1);
}

/* The kernel wakes one worker for a connection. When that one dies or pauses before it accepts, nobody else is woken:
 * those that live must look from time to time. */
static void
wake_up_that_got_lost(void **state)
{
	struct token t;
	pid_t thieves[2];
	int client;

	(void)state;
	spawn(-1, 0);
	expect(CHAN_READY, NULL);
	thieves[0] =
	    thief(); /* one before it in the listener's queue, one behind it: whom the kernel asks first differs */
	poll(NULL, 0, 100);
	send_settings();
	UNTIL(STAT(heartbeat_ns) > 0);
	poll(NULL, 0, 100);
	thieves[1] = thief();
	poll(NULL, 0, 100);
	t = issue(INT64_MAX, NULL);
	client = dial();
	put(client, t.bytes, TOKEN_LEN);
	expect_arrived(&t, NULL);
	for (int i = 0; i < 2; i++) {
		kill(thieves[i], SIGKILL);
		waitpid(thieves[i], NULL, 0);
	}
	close(client);
	stop();
}

/* A listener that only gives errors (somebody with a copy of it shut it down) costs no processor time. */
static void
listener_that_fails(void **state)
{
	long cpu;

	(void)state;
	start();
	UNTIL(STAT(heartbeat_ns) > 0);
	assert_int_equal(shutdown(m.listener, SHUT_RD), 0);
	poll(NULL, 0, 100);
	cpu = cpu_ms();
	poll(NULL, 0, 300);
	assert_true(cpu_ms() - cpu < 100);
	stop();
}

/* Started by hand, or by a master with a bug: it says what is missing and ends. */
static void
wrong_descriptors(void **state)
{
	int file = open("/dev/null", O_RDONLY | O_CLOEXEC);

	(void)state;
	spawn(file, 0);
	assert_int_equal(wait_exit(), 1);
	close(file);
}

int
main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		T(wrong_messages),
		T(pair_twice),
		T(old_generation_and_late_answers),
		T(lookup_meets_the_writer),
		T(master_is_slow),
		T(descriptors_used_up),
		T(wake_up_that_got_lost),
		T(listener_that_fails),
		T(wrong_descriptors),
	};

	return worker_main(argc, argv, tests, sizeof(tests) / sizeof(*tests));
}
