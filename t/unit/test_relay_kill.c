/* test_relay_kill.c - engines in processes that are killed at random moments; their pairs go on in the next one, byte for byte
 *
 * The test is keeper and both peers at once: it holds duplicates of the sockets
 * and pipes of PAIRS pairs, sends and checks what comes, kills the engine's
 * process, reads its ledger and starts the next one with what was left. Where
 * small messages are copied, engines also die right before and right behind each
 * recv(), send() and write() of theirs: the n-th one, for each n.
 */
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "hyper/base/attr.h"
#include "hyper/base/clock.h"
#include "hyper/base/fd.h"
#include "hyper/relay/relay.h"

enum mode { SPLICE, SMALL, EXACT, COPY };

enum { CALL_RECV, CALL_SEND, CALL_WRITE, CALL_MAX };

enum { PAIRS = 6, PIPES = 16, SEATS = 8, TOTAL_MAX = 300000, KILLS = 300, LIMIT_MS = 60000, STRETCH = 60 };

struct shared {
	uint64_t turn, used_seats;
	uint64_t pipes[PIPES];
	struct relay_seat seats[SEATS];
	struct relay_copy copy;
	uint32_t hit[CALL_MAX][2]; /* who died before this call, behind it; not of the ledger */
};

/* What one peer sends, and what it got. */
struct peer {
	int fd;
	size_t total, sent, got; /* `got` of what the other one sends */
	size_t reset_at;         /* it resets after so many bytes; SIZE_MAX never */
	bool has_reset, saw_end, saw_reset;
};

struct pair {
	struct relay_bundle bundle; /* as the keeper knows it */
	struct peer peer[2];
	bool is_over, is_lost;
	enum end_reason reason;
};

static struct {
	struct shared *shared;
	struct pair pair[PAIRS];
	int pipe_fd[PIPES];
	uint64_t owner[PIPES];
	enum mode mode;
	uint64_t next_id, seed;
	int lost, kills, moved;
	int rests[3]; /* found: before recv() was noted, behind that, in the pipe */
	/* of the process that is to die */
	bool is_doomed, dies_behind;
	int dies_at, calls;
	unsigned dies_of; /* which calls count, bits */
} t;

/* --- the n-th call of an engine's ------------------------------------------- */

ssize_t __real_recv(int fd, void *data, size_t len, int flags);
ssize_t __real_send(int fd, const void *data, size_t len, int flags);
ssize_t __real_write(int fd, const void *data, size_t len);
ssize_t __wrap_recv(int fd, void *data, size_t len, int flags);
ssize_t __wrap_send(int fd, const void *data, size_t len, int flags);
ssize_t __wrap_write(int fd, const void *data, size_t len);

static bool
is_the_one(int call)
{
	return t.is_doomed && t.dies_of >> call & 1 && ++t.calls == t.dies_at;
}

static void
die(int call, bool is_behind)
{
	t.shared->hit[call][is_behind]++;
	kill(getpid(), SIGKILL);
}

static bool
dies_at(int call)
{
	bool dies = is_the_one(call);

	if (dies && !t.dies_behind)
		die(call, false);
	return dies;
}

ssize_t
__wrap_recv(int fd, void *data, size_t len, int flags)
{
	bool dies = dies_at(CALL_RECV);
	ssize_t n = __real_recv(fd, data, len, flags);

	if (dies)
		die(CALL_RECV, true);
	return n;
}

ssize_t
__wrap_send(int fd, const void *data, size_t len, int flags)
{
	bool dies = dies_at(CALL_SEND);
	ssize_t n = __real_send(fd, data, len, flags);

	if (dies)
		die(CALL_SEND, true);
	return n;
}

ssize_t
__wrap_write(int fd, const void *data, size_t len)
{
	bool dies = dies_at(CALL_WRITE);
	ssize_t n = __real_write(fd, data, len);

	if (dies)
		die(CALL_WRITE, true);
	return n;
}

static uint64_t
rnd(uint64_t below)
{
	t.seed ^= t.seed << 13;
	t.seed ^= t.seed >> 7;
	t.seed ^= t.seed << 17;
	return t.seed % below;
}

/* The byte at `at` of the stream that starts at this side of this pair. */
static uint8_t
stream_byte(uint64_t id, int side, size_t at)
{
	uint64_t x = (id * 2 + (uint64_t)side) * 0x9e3779b97f4a7c15u + at / 8 * 0xbf58476d1ce4e5b9u;

	x ^= x >> 29;
	return (uint8_t)(x >> at % 8 * 8);
}

/* --- the process that is killed --------------------------------------------- */

static void
child_on_end(const struct relay_end *end, void *arg)
{
	(void)end;
	(void)arg;
}

static void
child_on_want(size_t n, void *arg)
{
	(void)n;
	(void)arg;
}

static void
child_run(void)
{
	struct relay_conf conf = {
		.epoll_fd = epoll_create1(EPOLL_CLOEXEC),
		.max_pipes = PIPES,
		.copy_mode = t.mode == COPY,
		.copy_small = t.mode != SPLICE && t.mode != COPY,
		.holds_seats = true,
		.on_want = child_on_want,
		.ledger = { &t.shared->turn, t.shared->pipes, t.shared->seats, PIPES, SEATS, &t.shared->used_seats,
		    &t.shared->copy },
	};
	struct relay *r = relay_new(&conf, child_on_end, NULL);
	struct epoll_event ev[16];

	signal(SIGPIPE, SIG_IGN);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (int i = 0; i < PAIRS; i++) {
		struct pair *p = &t.pair[i];

		fd_close(&p->peer[0].fd);
		fd_close(&p->peer[1].fd);
		if (!p->is_over && relay_pair_adopt(r, &p->bundle) < 0)
			_exit(1);
	}
	for (uint32_t no = 0; no < PIPES; no++)
		if (t.owner[no] == 0 && relay_pipe_give(r, no, t.pipe_fd[no]) < 0)
			_exit(2);
	t.is_doomed = t.mode == EXACT;
	for (;;) {
		int n = epoll_wait(conf.epoll_fd, ev, ARRAY_LEN(ev), relay_run(r) ? 0 : 100);

		for (int k = 0; k < n; k++)
			relay_on_event(r, ev[k].data.ptr, ev[k].events);
	}
}

/* --- the keeper -------------------------------------------------------------- */

static void
tcp_pair(int ret[2])
{
	struct sockaddr_in sin = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	socklen_t len = sizeof(sin);
	int small = 8192;                   /* so that pipes stay full for longer */
	bool is_small = t.next_id % 2 == 0; /* of odd ids */

	assert_int_equal(bind(listener, (struct sockaddr *)&sin, len), 0);
	assert_int_equal(listen(listener, 1), 0);
	assert_int_equal(getsockname(listener, (struct sockaddr *)&sin, &len), 0);
	ret[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	/* Before it connects: a buffer that shrinks below the window that was promised loses segments, and then a reset
	 * may be lost too, for which a peer that only waits would wait for ever (Linux 6.18: challenge ACKs are rare). */
	if (is_small)
		setsockopt(ret[0], SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
	assert_int_equal(connect(ret[0], (struct sockaddr *)&sin, len), 0);
	ret[1] = fd_accept(listener);
	assert_true(ret[1] >= 0);
	assert_int_equal(fd_set_nonblock(ret[0]), 0);
	close(listener);
	if (is_small)
		setsockopt(ret[1], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
}

static bool
is_small_mode(void)
{
	return t.mode == SMALL || t.mode == EXACT;
}

static size_t
some_total(void)
{
	return rnd(4) == 0 ? 0 : rnd(4) == 0 ? rnd(200) : rnd(is_small_mode() ? TOTAL_MAX / 4 : TOTAL_MAX);
}

static void
pair_start(struct pair *p)
{
	memset(p, 0, sizeof(*p));
	p->bundle.id = t.next_id++;
	for (int i = 0; i < 2; i++) {
		int fd[2];

		tcp_pair(fd);
		p->bundle.fd[i] = fd[1];
		p->bundle.pipe[i].fd = -1;
		p->peer[i] = (struct peer){ .fd = fd[0], .total = some_total(), .reset_at = SIZE_MAX };
	}
	if (rnd(5) == 0)
		p->peer[rnd(2)].reset_at = rnd(TOTAL_MAX);
}

static void
reset_now(int fd)
{
	struct sockaddr sa = { .sa_family = AF_UNSPEC };

	(void)!connect(fd, &sa, sizeof(sa));
}

/* Ends what an engine had no time to end. */
static void
pair_over(struct pair *p, enum end_reason reason)
{
	struct linger linger = { 0 };

	p->is_over = true;
	p->reason = reason;
	for (int i = 0; i < 2; i++) {
		if (reason == END_CLOSED)
			setsockopt(p->bundle.fd[i], SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
		else
			fd_reset(&p->bundle.fd[i]);
		fd_close(&p->bundle.fd[i]);
	}
}

static struct pair *
pair_by_id(uint64_t id)
{
	for (int i = 0; i < PAIRS; i++)
		if (t.pair[i].bundle.id == id && !t.pair[i].is_over)
			return &t.pair[i];
	return NULL;
}

static void
read_seats(void)
{
	for (int i = 0; i < PAIRS; i++)
		t.pair[i].bundle.suspect = t.pair[i].bundle.id == t.shared->turn;
	for (int i = 0; i < SEATS; i++) {
		const struct relay_seat *s = &t.shared->seats[i];
		struct pair *p = s->pair ? pair_by_id(s->pair) : NULL;

		if (!p)
			continue;
		p->bundle.flags = s->flags;
		p->bundle.bytes_ab = s->bytes_ab;
		p->bundle.bytes_ba = s->bytes_ba;
		if (s->flags & RELAY_OVER) {
			pair_over(p, RELAY_OVER_REASON(s->flags));
		} else if (s->flags & (RELAY_BUFFERED_AB | RELAY_BUFFERED_BA)) {
			t.lost++;
			p->is_lost = true;
			pair_over(p, END_WORKER_LOST);
		}
	}
}

/* What each pipe holds, and whose it is; one of a pair that is over gets a successor. */
static void
read_pipes(void)
{
	for (uint32_t no = 0; no < PIPES; no++) {
		int held;
		struct pair *p;

		assert_int_equal(ioctl(t.pipe_fd[no], FIONREAD, &held), 0);
		if (t.shared->pipes[no])
			t.owner[no] = t.shared->pipes[no];
		if (held == 0) {
			t.owner[no] = 0;
			continue;
		}
		assert_int_not_equal(t.owner[no], 0); /* bytes of nobody */
		p = pair_by_id(t.owner[no] >> 1);
		if (!p) {
			fd_close(&t.pipe_fd[no]);
			t.pipe_fd[no] = relay_pipe_open(65536);
			t.owner[no] = 0;
			continue;
		}
		t.moved++;
		p->bundle.pipe[t.owner[no] & 1].no = no;
		p->bundle.pipe[t.owner[no] & 1].fd = t.pipe_fd[no];
	}
}

/* The rest of a message goes into a pipe that holds nothing. */
static void
keep_rest(struct pair *p, int dir, const uint8_t *rest, size_t len)
{
	uint32_t no = 0;

	while (t.owner[no] != 0 && ++no < PIPES)
		;
	assert_true(no < PIPES);
	assert_int_equal(write(t.pipe_fd[no], rest, len), len);
	t.owner[no] = p->bundle.id << 1 | (unsigned)dir;
	p->bundle.pipe[dir].no = no;
	p->bundle.pipe[dir].fd = t.pipe_fd[no];
}

static size_t
piped_of(const struct pair *p, int dir)
{
	int n = 0;

	if (p->bundle.pipe[dir].fd >= 0)
		assert_int_equal(ioctl(p->bundle.pipe[dir].fd, FIONREAD, &n), 0);
	return (size_t)n;
}

static void
read_copy(void)
{
	const struct relay_copy *c = &t.shared->copy;
	int dir = (int)(c->owner & 1), rc;
	struct pair *p = pair_by_id(c->owner >> 1);
	struct relay_rest_of of;
	const uint8_t *rest = NULL;
	size_t len = 0;

	if (c->owner == 0 || !p)
		return;
	assert_int_equal(t.shared->turn, p->bundle.id);
	of = (struct relay_rest_of){ p->bundle.fd[dir], p->bundle.fd[!dir], 0,
		dir == 0 ? p->bundle.bytes_ab : p->bundle.bytes_ba, piped_of(p, dir) };
	rc = relay_rest(c, &of, &rest, &len);
	if (rc < 0)
		fail_msg("pair %d dir %d: %s; len %u piped %zu delivered %llu", (int)p->bundle.id, dir, strerror(-rc),
		    c->len, of.piped, (unsigned long long)of.delivered);
	t.rests[of.piped > 0 ? 2 : c->len > 0] += of.piped > 0 || len > 0;
	if (len > 0)
		keep_rest(p, dir, rest, len);
}

/* At rest, all that was read was written or is in a pipe. */
static void
count_bytes(struct pair *p)
{
	static const uint32_t eof[2] = { RELAY_EOF_AB, RELAY_EOF_BA };
	uint64_t *bytes[2] = { &p->bundle.bytes_ab, &p->bundle.bytes_ba };

	for (int dir = 0; dir < 2 && !p->is_over; dir++) {
		uint64_t written, between;
		int rc;

		if (p->bundle.flags & eof[dir])
			continue;
		rc = relay_flow(p->bundle.fd[dir], p->bundle.fd[!dir], 0, &written, &between);
		if (rc == -ENOTCONN)
			continue;
		if (rc < 0 || between != piped_of(p, dir) || written < *bytes[dir])
			fail_msg("pair %d dir %d: rc %d, %llu written, %llu between, %zu in its pipe, seat %llu",
			    (int)p->bundle.id, dir, rc, (unsigned long long)written, (unsigned long long)between,
			    piped_of(p, dir), (unsigned long long)*bytes[dir]);
		*bytes[dir] = written;
	}
}

static void
child_kill(pid_t pid)
{
	int status;

	assert_int_equal(kill(pid, SIGKILL), 0); /* it may have done so itself */
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status)); /* else it ended by itself: a bug */
	assert_int_equal(WTERMSIG(status), SIGKILL);
	t.kills++;
	for (int i = 0; i < PAIRS; i++)
		t.pair[i].bundle.pipe[0].fd = t.pair[i].bundle.pipe[1].fd = -1;
	read_seats();
	read_pipes();
	read_copy();
	for (int i = 0; i < PAIRS && t.mode != COPY; i++)
		count_bytes(&t.pair[i]);
}

static pid_t
child_start(void)
{
	pid_t pid;

	memset(t.shared, 0, offsetof(struct shared, hit));
	/* what is left over is rare: of each three one dies there */
	t.dies_of = t.kills % 3 == 0 ? 1u << CALL_WRITE : (1u << CALL_MAX) - 1;
	t.dies_at = 1 + t.kills / 6 % (t.kills % 3 == 0 ? STRETCH / 10 : STRETCH);
	t.dies_behind = t.kills / 3 % 2;
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0)
		child_run();
	return pid;
}

/* --- the peers --------------------------------------------------------------- */

static void
peer_send(struct pair *p, int side)
{
	struct peer *me = &p->peer[side];
	uint8_t buf[9000];
	size_t want = me->total - me->sent, most;
	ssize_t n;

	if (me->has_reset || me->saw_reset || me->sent > me->total)
		return;
	if (me->sent >= me->reset_at) {
		reset_now(me->fd);
		me->has_reset = true;
		return;
	}
	if (want == 0) {
		me->saw_reset = shutdown(me->fd, SHUT_WR) < 0; /* a reset came first, and was not read yet */
		me->sent++;                                    /* the end */
		return;
	}
	/* what comes too fast is no small message any more */
	if (is_small_mode() && rnd(3) > 0)
		return;
	most = 1 + rnd(is_small_mode() && rnd(8) > 0 ? 700 : sizeof(buf));
	if (want > most)
		want = most;
	for (size_t i = 0; i < want; i++)
		buf[i] = stream_byte(p->bundle.id, side, me->sent + i);
	n = send(me->fd, buf, want, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (n > 0)
		me->sent += (size_t)n;
	else if (errno != EAGAIN)
		me->saw_reset = true;
}

static void
peer_receive(struct pair *p, int side)
{
	struct peer *me = &p->peer[side];
	uint8_t buf[16384];
	ssize_t n;

	if (me->has_reset || me->saw_reset || me->saw_end)
		return;
	n = recv(me->fd, buf, sizeof(buf), MSG_DONTWAIT);
	if (n < 0 && errno == EAGAIN)
		return;
	if (n < 0)
		me->saw_reset = true;
	if (n == 0) {
		assert_int_equal(me->got, p->peer[!side].total); /* an end that comes early is a lie */
		assert_false(p->peer[!side].has_reset);
		me->saw_end = true;
	}
	for (ssize_t i = 0; i < n; i++)
		if (buf[i] != stream_byte(p->bundle.id, !side, me->got + (size_t)i))
			fail_msg("pair %d side %d: wrong byte at %zu", (int)p->bundle.id, side, me->got + (size_t)i);
	if (n > 0)
		me->got += (size_t)n;
}

static bool
peer_is_done(const struct peer *me)
{
	return me->has_reset || me->saw_reset || (me->saw_end && me->sent > me->total);
}

static bool
pair_is_done(const struct pair *p)
{
	return peer_is_done(&p->peer[0]) && peer_is_done(&p->peer[1]);
}

/* A stream that nobody broke came whole, and both sides know. */
static void
pair_check(struct pair *p)
{
	bool is_broken = p->is_lost || p->peer[0].has_reset || p->peer[1].has_reset;

	for (int i = 0; i < 2; i++) {
		if (!is_broken && p->peer[i].saw_reset)
			fail_msg("pair %d was broken: reason=%s flags=%x", (int)p->bundle.id,
			    end_reason_word(p->reason), p->bundle.flags);
		fd_close(&p->peer[i].fd);
	}
}

static bool
pump(void)
{
	bool is_done = true;

	for (int i = 0; i < PAIRS; i++) {
		struct pair *p = &t.pair[i];

		if (p->peer[0].fd < 0)
			continue;
		for (int side = 0; side < 2; side++) {
			peer_send(p, side);
			if (rnd(p->bundle.id % 2 ? 12 : 2) == 0) /* some read slowly */
				peer_receive(p, side);
		}
		if (pair_is_done(p) && p->is_over)
			pair_check(p);
		else
			is_done = false;
	}
	return is_done;
}

/* Before and behind each of the three, and each of the three places where a rest can be. */
static bool
all_were_hit(void)
{
	bool all = true;

	for (int i = 0; i < CALL_MAX; i++)
		all = all && t.shared->hit[i][0] > 1 && t.shared->hit[i][1] > 1 && t.rests[i] > 1;
	return all;
}

/* Did kills meet bytes where this mode has them? Copied, they are lost, so this test can fail. */
static bool
has_met(void)
{
	switch (t.mode) {
	case COPY: return t.lost > 0;
	case EXACT: return t.moved > 0 && all_were_hit();
	case SPLICE:
	case SMALL: break;
	}
	return t.moved > 0;
}

/* It is left for waitpid(). */
static bool
has_died(pid_t pid)
{
	siginfo_t info = { 0 };

	return waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == pid;
}

static void
killed_at_random(void **state)
{
	const char *slow = getenv("T_SLOW"), *kills = getenv("T_KILLS"), *seed = getenv("T_SEED");
	int64_t limit_ms = (int64_t)LIMIT_MS * (slow && atoi(slow) > 1 ? atoi(slow) : 1);
	int64_t limit = clock_now_ms() + limit_ms;
	int n_kills = kills ? atoi(kills) : slow ? KILLS / 10 : KILLS;

	if (*(enum mode *)*state == EXACT)
		n_kills *= 3;

	memset(&t, 0, sizeof(t));
	t.mode = *(enum mode *)*state;
	t.next_id = 1;
	t.seed = seed ? strtoull(seed, NULL, 10) : (uint64_t)clock_now_ns() | 1;
	print_message("seed %llu\n", (unsigned long long)t.seed);
	t.shared = mmap(NULL, sizeof(*t.shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_true(t.shared != MAP_FAILED);
	for (int i = 0; i < PIPES; i++) {
		t.pipe_fd[i] = relay_pipe_open(i % 2 ? 65536 : 4096);
		assert_true(t.pipe_fd[i] >= 0);
	}
	/* Few kills meet what they are to meet, and how few depends on the machine: until they have. */
	while ((t.kills < n_kills || !has_met()) && clock_now_ms() < limit) {
		bool is_done = false;

		for (int i = 0; i < PAIRS; i++)
			pair_start(&t.pair[i]);
		while (!is_done) {
			pid_t pid = child_start();
			/* one that dies by itself has the time for it */
			uint64_t turns = (t.mode == EXACT ? 4000 : 30 + rnd(800)) * (slow ? 8 : 1);

			while (turns-- > 0 && !has_died(pid)) {
				is_done = pump();
				if (is_small_mode())
					sched_yield();
			}
			child_kill(pid);
			is_done = pump();
			if (clock_now_ms() > limit + limit_ms)
				fail_msg("it does not come to an end");
		}
	}
	print_message("%d kills, %d pipes with bytes taken over, %d pairs lost, rests %d %d %d\n", t.kills, t.moved,
	    t.lost, t.rests[0], t.rests[1], t.rests[2]);
	if (t.mode != COPY)
		assert_int_equal(t.lost, 0);
	assert_true(has_met());
	if (t.mode == EXACT) {
		for (int call = 0; call < CALL_MAX; call++)
			print_message("call %d: %u died before it, %u behind it\n", call, t.shared->hit[call][0],
			    t.shared->hit[call][1]);
	}
	for (int i = 0; i < PIPES; i++)
		fd_close(&t.pipe_fd[i]);
	munmap(t.shared, sizeof(*t.shared));
}

int
main(void)
{
	static enum mode modes[] = { SPLICE, SMALL, EXACT, COPY };
	const struct CMUnitTest tests[] = {
		{ "killed_at_random", killed_at_random, NULL, NULL, &modes[0] },
		{ "killed_at_random, small messages copied", killed_at_random, NULL, NULL, &modes[1] },
		{ "killed_at_each_call, small messages copied", killed_at_random, NULL, NULL, &modes[2] },
		{ "killed_at_random, copied", killed_at_random, NULL, NULL, &modes[3] },
	};

	signal(SIGPIPE, SIG_IGN);
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
