/* test_rescue.c - what becomes of a dead worker's pairs, by what is in its ledger; and of pairs that nobody takes
 *
 * rescue.c, hand.c, pairing.c, pipes.c and ledger.c are the real ones, as are sockets, pipes and ledgers. Slots, the
 * clock and the log are this file's: a "worker" is a row in `slots`, which dies when the test says so.
 *
 * Size: one stage for all of them, which is half of it.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "hyper/base/attr.h"
#include "hyper/base/fd.h"
#include "hyper/base/log.h"
#include "hyper/proxy/worker_abi.h"
#include "hyper/wire/chanmsg.h"
#include "proxy/master/hand.h"
#include "proxy/master/ledger.h"
#include "proxy/master/pairing.h"
#include "proxy/master/pipes.h"
#include "proxy/master/rescue.h"

#define N_SLOTS 2
#define N_PIPES 8
#define N_SEATS 8
#define MAX_LOG 64

/* --- what is played --- */

struct slot {
	unsigned no;
	struct ledger *ledger;
	struct worker_ledger *map; /* as its worker has it */
	struct pipes *pipes;
	size_t room;
	unsigned n_posted[32]; /* by type */
	struct chan_msg last;
	const char *doomed;
	bool is_ending;
};

static struct slot slots[N_SLOTS];
static struct pairs *all;
static struct quota *quota;
static struct quota_op *op;
static int64_t now_ms = 1000000;
static uint64_t over[MAX_LOG]; /* pairs, and why */
static char why[MAX_LOG][32];
static size_t n_over;

int
clock_gettime(clockid_t id, struct timespec *ts)
{
	(void)id;
	ts->tv_sec = now_ms / 1000;
	ts->tv_nsec = now_ms % 1000 * 1000000;
	return 0;
}

void
log_line(enum log_level level, const char *event, const char *fmt, ...)
{
	char text[512];
	unsigned long id;
	const char *at;
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (level == LOG_LVL_BUG)
		fprintf(stderr, "%s %s\n", event, text);
	if (strcmp(event, "ended") != 0 || n_over == MAX_LOG)
		return;
	at = strstr(text, "reason=");
	if (sscanf(text, "pair=%lu", &id) != 1 || !at)
		fail_msg("ended: %s", text);
	over[n_over] = id;
	sscanf(at, "reason=%31s", why[n_over++]);
}

void
log_limited(struct log_limit *limit, enum log_level level, const char *event, const char *fmt, ...)
{
	(void)limit;
	(void)level;
	(void)event;
	(void)fmt;
}

void
log_flush(void)
{
}

uint64_t
log_dropped(void)
{
	return 0;
}

unsigned
slot_no(const struct slot *s)
{
	return s->no;
}

bool
slot_is_ending(const struct slot *s)
{
	return s->is_ending;
}

size_t
slot_room(const struct slot *s)
{
	return s->room;
}

void
slot_post(struct slot *s, struct chan_msg *m, int pass_fd)
{
	s->last = *m;
	assert_true(s->room > 0);
	assert_int_equal(chan_has_fd(m->type), pass_fd >= 0);
	s->room--;
	s->n_posted[m->type]++;
}

void
slot_doom(struct slot *s, const char *reason)
{
	s->doomed = reason;
}

const struct ledger *
slot_ledger(const struct slot *s)
{
	return s->ledger;
}

struct pipes *
slot_pipes(struct slot *s)
{
	return s->pipes;
}

/* --- the stage --- */

static void
slot_begin(struct slot *s)
{
	int fd;

	*s = (struct slot){ .no = (unsigned)(s - slots), .room = 1000, .pipes = pipes_new(N_PIPES) };
	assert_non_null(s->pipes);
	assert_int_equal(ledger_new(N_PIPES, N_SEATS, &fd, &s->ledger), 0);
	s->map = mmap(NULL, worker_ledger_size(N_PIPES, N_SEATS), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_ptr_not_equal(s->map, MAP_FAILED);
	s->map->used_seats = N_SEATS;
	close(fd);
}

static void
slot_end(struct slot *s)
{
	munmap(s->map, worker_ledger_size(N_PIPES, N_SEATS));
	ledger_free(s->ledger);
	pipes_free(s->pipes);
}

static int
setup(void **state)
{
	struct quota_conf conf = { .max = { 0 } };
	struct quota_op *to;
	struct quota_no no;

	(void)state;
	n_over = 0;
	quota = quota_new(&conf);
	assert_int_equal(quota_ask(quota, "a", "b", 0, &op, &to, &no), 0);
	all = pairs_new(quota, N_SLOTS, 32);
	assert_non_null(all);
	for (size_t i = 0; i < N_SLOTS; i++) {
		slot_begin(&slots[i]);
		all->loads[i].slot = &slots[i];
	}
	return 0;
}

static int
teardown(void **state)
{
	(void)state;
	pairs_free(all);
	for (size_t i = 0; i < N_SLOTS; i++)
		slot_end(&slots[i]);
	quota_free(quota);
	return 0;
}

/* A process dies and another one lives in its slot. */
static void
lose(struct slot *s, bool crashed)
{
	all->loads[s->no].slot = NULL;
	rescue_pairs(all, s, crashed);
	assert_int_equal(all->loads[s->no].pairs, 0);
	slot_end(s);
	slot_begin(s);
	all->loads[s->no].slot = s;
}

static void
tcp_pair(int *ret_srv, int *ret_cli)
{
	struct sockaddr_in sa = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int l = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	socklen_t len = sizeof(sa);

	assert_int_equal(bind(l, (struct sockaddr *)&sa, sizeof(sa)), 0);
	assert_int_equal(listen(l, 1), 0);
	assert_int_equal(getsockname(l, (struct sockaddr *)&sa, &len), 0);
	*ret_cli = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(connect(*ret_cli, (struct sockaddr *)&sa, sizeof(sa)), 0);
	*ret_srv = fd_accept(l);
	assert_true(*ret_srv >= 0);
	close(l);
}

/* A pair that lives at `s`; its peers' ends in ret_cli, which may be NULL. */
static struct pair *
live_pair(struct slot *s, int ret_cli[2])
{
	struct pair *p;
	int cli;

	assert_int_equal(
	    pairing_new(all, &(struct pairing_of){ .op = op, .session = "0123456789ab", .to = "hd-2" }, &p), 0);
	for (int i = 0; i < 2; i++) {
		tcp_pair(&p->fd[i], &cli);
		if (ret_cli)
			ret_cli[i] = cli;
		else
			close(cli);
	}
	if (s) {
		pairing_enter(all, p, PAIR_HANDING, s, "test");
		pairing_enter(all, p, PAIR_LIVE, NULL, "test");
	}
	return p;
}

/* A pipe with so many bytes in it that this worker has. */
static uint32_t
lend(struct slot *s, size_t bytes)
{
	char data[64] = "payload";
	int fd = relay_pipe_open(4096);
	uint32_t no;

	assert_true(fd >= 0);
	if (bytes)
		assert_int_equal(write(fd, data, bytes), bytes);
	assert_int_equal(pipes_give(s->pipes, fd, &no), 0);
	return no;
}

static struct relay_seat *
seat_of(struct slot *s, unsigned i)
{
	return &worker_ledger_seats(s->map, N_PIPES)[i];
}

static void
journal(struct slot *s, uint32_t no, uint64_t pair, int dir)
{
	worker_ledger_pipes(s->map)[no] = pair << 1 | (unsigned)dir;
}

/* Why a pair ended; NULL: it did not. */
static const char *
end_of(uint64_t id)
{
	for (size_t i = 0; i < n_over; i++)
		if (over[i] == id)
			return why[i];
	return NULL;
}

/* What a peer sees: 'r'eset, 'e'nd, 'n'othing. */
static char
seen_by(int cli)
{
	char c;
	ssize_t n = recv(cli, &c, 1, MSG_DONTWAIT);

	return n == 0 ? 'e' : n < 0 && errno == ECONNRESET ? 'r' : 'n';
}

/* --- the ledger's word --- */

static void
seats_decide(void **state)
{
	static const struct {
		const char *what;
		uint32_t flags;
		const char *ends; /* NULL: it goes on */
		char seen;
	} rows[] = {
		{ "nothing special", 0, NULL, 'n' },
		{ "half closed", RELAY_EOF_AB, NULL, 'n' },
		{ "an error was taken", RELAY_BROKEN_B, NULL, 'n' },
		{ "over, clean", RELAY_OVER | END_CLOSED << 16 | RELAY_EOF_AB | RELAY_EOF_BA, "closed", 'e' },
		{ "over by reset", RELAY_OVER | END_RESET << 16, "reset", 'r' },
		{ "over for no reason that exists", RELAY_OVER | 0xffffu << 16, "worker_lost", 'r' },
		{ "over for the first number that is no reason", RELAY_OVER | END_REASON_MAX << 16, "worker_lost",
		    'r' },
		{ "bytes in its memory", RELAY_BUFFERED_AB, "worker_lost", 'r' },
		{ "in the other direction", RELAY_BUFFERED_BA | RELAY_EOF_AB, "worker_lost", 'r' },
		{ "flags that nobody knows", 0xff80, NULL, 'n' },
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		int cli[2];
		struct pair *p;
		uint64_t id;

		setup(state);
		p = live_pair(&slots[0], cli);
		id = p->id;
		*seat_of(&slots[0], 3) =
		    (struct relay_seat){ .pair = id, .bytes_ab = 5, .bytes_ba = 6, .flags = rows[i].flags };
		lose(&slots[0], false);
		if (rows[i].ends && (!end_of(id) || strcmp(end_of(id), rows[i].ends) != 0))
			fail_msg("%s: ends with %s", rows[i].what, end_of(id) ? end_of(id) : "nothing");
		if (!rows[i].ends && (end_of(id) || p->state != PAIR_WAITING || p->bytes[0] != 5 || p->bytes[1] != 6))
			fail_msg("%s: does not go on", rows[i].what);
		if (!rows[i].ends)
			assert_int_equal(p->flags, rows[i].flags & 15);
		if (seen_by(cli[0]) != rows[i].seen || seen_by(cli[1]) != rows[i].seen)
			fail_msg("%s: a peer sees %c", rows[i].what, seen_by(cli[0]));
		close(cli[0]);
		close(cli[1]);
		teardown(state);
	}
}

/* A pipe belongs to the pair that the journal names, if that is its worker's and there is something in it. */
static void
pipes_are_checked(void **state)
{
	struct pair *mine = live_pair(&slots[0], NULL), *other = live_pair(&slots[1], NULL);
	uint32_t full = lend(&slots[0], 7), empty = lend(&slots[0], 0), foreign = lend(&slots[0], 7);

	(void)state;
	seat_of(&slots[0], 0)->pair = mine->id;
	seat_of(&slots[0], 1)->pair = other->id; /* which is not its own */
	seat_of(&slots[0], 1)->bytes_ab = 99;
	seat_of(&slots[0], 1)->flags = RELAY_OVER | END_RESET << 16;
	journal(&slots[0], full, mine->id, 1);
	journal(&slots[0], empty, mine->id, 0);
	journal(&slots[0], foreign, other->id, 0);
	for (uint32_t no = 3; no < N_PIPES; no++) /* numbers that it has not got */
		journal(&slots[0], no, mine->id, 0);
	lose(&slots[0], false);
	assert_int_equal(mine->state, PAIR_WAITING);
	assert_int_equal(mine->pipe_fd[0], -1);
	assert_true(mine->pipe_fd[1] >= 0);
	assert_int_equal(all->loose_pipes, 1);
	assert_int_equal(other->state, PAIR_LIVE);
	assert_int_equal(other->flags, 0);
	assert_int_equal(other->bytes[0], 0);
	assert_int_equal(other->pipe_fd[0], -1);
}

/* Bytes of one of them would be lost or come twice. */
static void
two_pipes_of_one_direction(void **state)
{
	struct pair *p = live_pair(&slots[0], NULL);
	uint64_t id = p->id;

	(void)state;
	seat_of(&slots[0], 0)->pair = id;
	journal(&slots[0], lend(&slots[0], 7), id, 0);
	journal(&slots[0], lend(&slots[0], 9), id, 0);
	lose(&slots[0], false);
	assert_string_equal(end_of(id), "worker_lost");
	assert_int_equal(all->loose_pipes, 0);
}

/* A pair that was under way to the dead worker, which had not begun: what the master knew holds, whatever else is there. */
static void
handed_but_not_begun(void **state)
{
	struct pair *p = live_pair(&slots[1], NULL);
	uint32_t no;

	(void)state;
	p->flags = 0;
	seat_of(&slots[1], 0)->pair = p->id;
	seat_of(&slots[1], 0)->flags = RELAY_EOF_BA;
	seat_of(&slots[1], 0)->bytes_ab = 11;
	no = lend(&slots[1], 11);
	journal(&slots[1], no, p->id, 0);
	lose(&slots[1], false);
	slots[1].room = 0;
	hand_waiting(all);
	assert_int_equal(p->state, PAIR_HANDING);
	assert_ptr_equal(p->slot, &slots[0]);
	assert_int_equal(slots[0].n_posted[CHAN_ADOPT], 3);
	assert_int_equal(slots[0].n_posted[CHAN_RESUME], 1);
	assert_int_equal(all->loose_pipes, 0);
	journal(&slots[0], p->pipe_no[0], p->id, 1); /* without a seat it means nothing */
	slots[0].room = 0;
	lose(&slots[0], false);
	assert_int_equal(p->state, PAIR_WAITING);
	assert_int_equal(p->flags, RELAY_EOF_BA);
	assert_int_equal(p->bytes[0], 11);
	assert_true(p->pipe_fd[0] >= 0);
	assert_int_equal(p->pipe_fd[1], -1);
	assert_false(p->suspect);
}

/* --- a message that was in its hands --- */

static void
exactly(int fd, char *ret, size_t n)
{
	for (size_t got = 0; got < n;) {
		ssize_t r = recv(fd, ret + got, n - got, 0);

		assert_true(r > 0 || errno == EAGAIN);
		got += r > 0 ? (size_t)r : 0;
	}
}

/* A pair whose parties have sent their tokens, which were read. */
static struct pair *
begun_pair(struct slot *s, int ret_cli[2])
{
	struct pair *p = live_pair(s, ret_cli);
	char token[TOKEN_LEN] = "";

	for (int i = 0; i < 2; i++) {
		assert_int_equal(send(ret_cli[i], token, TOKEN_LEN, 0), TOKEN_LEN);
		exactly(p->fd[i], token, TOKEN_LEN);
	}
	return p;
}

/* A sends "abcdefghij", of which the worker read and sent so much; what its ledger says, and what B gets in the end. */
static void
copies_are_told_apart(void **state)
{
	static const struct {
		const char *what;
		size_t was_read, sent;
		uint64_t noted;   /* in the seat */
		int64_t len;      /* in the copy place, -1: nothing begun */
		size_t piped;     /* of it, in a pipe of the journal */
		uint32_t flags;   /* of the seat */
		const char *gets; /* from the pipe that goes on, NULL: worker_lost */
		bool other_turn, other_pair;
	} rows[] = {
		{ "before recv", 0, 0, 0, 0, 0, 0, "", false, false },
		{ "behind recv, not noted", 10, 0, 0, 0, 0, 0, "abcdefghij", false, false },
		{ "before send", 10, 0, 0, 10, 0, 0, "abcdefghij", false, false },
		{ "behind send of a part", 10, 4, 0, 10, 0, 0, "efghij", false, false },
		{ "that was noted", 10, 4, 4, 10, 0, 0, "efghij", false, false },
		{ "one byte is left", 10, 9, 9, 10, 0, 0, "j", false, false },
		{ "all was sent", 10, 10, 0, 10, 0, 0, "", false, false },
		{ "all was noted", 10, 10, 10, 10, 0, 0, "", false, false },
		{ "the rest is in a pipe", 10, 4, 4, 10, 6, 0, "efghij", false, false },
		{ "none was sent and all is in a pipe", 10, 0, 0, 10, 10, 0, "abcdefghij", false, false },
		{ "it read no more than that", 3, 1, 1, 3, 0, 0, "bc", false, false },
		{ "no message, a pipe", 10, 4, 4, -1, 6, 0, "efghij", false, false },
		{ "part of the rest is in a pipe", 10, 4, 4, 10, 5, 0, NULL, false, false },
		{ "more was sent than it had", 10, 4, 4, 3, 0, 0, NULL, false, false },
		{ "something was sent before it had it", 10, 4, 0, 0, 0, 0, NULL, false, false },
		{ "more was delivered than sent", 10, 4, 5, 10, 0, 0, NULL, false, false },
		{ "a length beyond the place", 10, 4, 4, RELAY_COPY_MAX + 1, 0, 0, NULL, false, false },
		{ "an earlier message is missing", 10, 4, 4, 5, 0, 0, NULL, false, false },
		{ "urgent data may have left the stream", 10, 4, 4, 10, 0, RELAY_UNSURE, NULL, false, false },
		{ "its stream had ended", 10, 4, 4, 10, 0, RELAY_EOF_AB, NULL, false, false },
		{ "it was another one's turn", 10, 4, 4, 10, 0, 0, NULL, true, false },
		{ "a pair of another worker's", 10, 10, 10, 10, 0, 0, "", false, true },
		{ "the other stream had ended", 10, 4, 4, 10, 0, RELAY_EOF_BA, "efghij", false, false },
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		const char *text = "abcdefghij";
		char buf[16] = "";
		struct pair *p, *other;
		int cli[2], none[2];
		uint64_t id;
		uint32_t no;
		ssize_t n = 0;

		setup(state);
		p = begun_pair(&slots[0], cli);
		other = begun_pair(&slots[1], none);
		id = p->id;
		assert_int_equal(send(cli[0], text, 10, 0), 10);
		exactly(p->fd[0], buf, rows[i].was_read);
		assert_int_equal(send(p->fd[1], text, rows[i].sent, 0), rows[i].sent);
		*seat_of(&slots[0], 2) =
		    (struct relay_seat){ .pair = id, .bytes_ab = rows[i].noted, .flags = rows[i].flags };
		slots[0].map->turn = rows[i].other_turn ? id + 77 : id;
		no = lend(&slots[0], 0);
		if (rows[i].piped > 0) {
			assert_int_equal(
			    write(pipes_get(slots[0].pipes, no), text + rows[i].sent, rows[i].piped), rows[i].piped);
			journal(&slots[0], no, id, 0);
		}
		if (rows[i].len >= 0) {
			slots[0].map->copy.owner = (rows[i].other_pair ? other->id : id) << 1;
			slots[0].map->copy.len = (uint32_t)rows[i].len;
			memset(slots[0].map->copy.data, '?', RELAY_COPY_MAX);
			memcpy(slots[0].map->copy.data, text, rows[i].was_read);
		}
		lose(&slots[0], false);
		assert_int_equal(other->state, PAIR_LIVE);
		if (!rows[i].gets) {
			if (!end_of(id) || strcmp(end_of(id), "worker_lost") != 0 || all->loose_pipes != 0)
				fail_msg("%s: %s", rows[i].what, end_of(id) ? end_of(id) : "it goes on");
		} else {
			if (p->state != PAIR_WAITING)
				fail_msg("%s: does not go on", rows[i].what);
			memset(buf, 0, sizeof(buf));
			if (p->pipe_fd[0] >= 0)
				n = read(p->pipe_fd[0], buf, sizeof(buf));
			if (n != (ssize_t)strlen(rows[i].gets) || strcmp(buf, rows[i].gets) != 0)
				fail_msg("%s: %zd bytes \"%s\"", rows[i].what, n, buf);
			assert_int_equal(all->loose_pipes, n > 0);
			assert_int_equal(p->flags, rows[i].flags);
		}
		for (int k = 0; k < 2; k++) {
			close(cli[k]);
			close(none[k]);
		}
		teardown(state);
	}
}

/* Who goes on is told what was delivered, to the byte, and whether all adds up. */
static void
handed_with_exact_sums(void **state)
{
	int cli[2];
	struct pair *p = begun_pair(&slots[1], cli);
	char buf[16];
	uint32_t no = lend(&slots[1], 0);

	(void)state;
	assert_int_equal(send(cli[0], "abcdefghij", 10, 0), 10);
	exactly(p->fd[0], buf, 10);
	assert_int_equal(send(p->fd[1], buf, 7, 0), 7);
	assert_int_equal(write(pipes_get(slots[1].pipes, no), buf + 7, 3), 3);
	*seat_of(&slots[1], 0) = (struct relay_seat){ .pair = p->id, .bytes_ab = 2 }; /* killed before it noted five */
	journal(&slots[1], no, p->id, 0);
	lose(&slots[1], false);
	slots[1].room = 0;
	hand_waiting(all);
	assert_int_equal(p->state, PAIR_HANDING);
	assert_int_equal(slots[0].last.bytes_ab, 7);
	assert_int_equal(slots[0].last.flags, 0);
	/* a byte that nobody accounts for */
	lose(&slots[0], false);
	assert_int_equal(send(p->fd[1], buf, 1, 0), 1);
	slots[0].room = 0;
	slots[1].room = 1000;
	hand_waiting(all);
	assert_int_equal(slots[1].last.flags, RELAY_UNSURE);
	assert_int_equal(p->flags, 0);
	close(cli[0]);
	close(cli[1]);
}

/* --- poison --- */

/* Its worker dies, and the next one has it. True: it lives on. */
static bool
dies_in_turn(struct pair **p, uint64_t turn, bool crashed)
{
	struct slot *s = (*p)->slot;
	uint64_t id = (*p)->id;

	seat_of(s, 0)->pair = id;
	s->map->turn = turn;
	lose(s, crashed);
	if (end_of(id)) {
		assert_string_equal(end_of(id), "worker_lost");
		return false;
	}
	assert_int_equal((*p)->suspect, turn == id);
	hand_waiting(all);
	assert_int_equal((*p)->state, PAIR_HANDING);
	pairing_enter(all, *p, PAIR_LIVE, NULL, "test");
	return true;
}

static void
poison_ends_at_the_fifth_crash(void **state)
{
	struct pair *p = live_pair(&slots[0], NULL);

	(void)state;
	for (int i = 0; i < 4; i++) {
		assert_true(dies_in_turn(&p, p->id, true));
		now_ms += 7000;
	}
	assert_false(dies_in_turn(&p, p->id, true));
	assert_int_equal(n_over, 1);
}

static void
poison_is_nothing_else(void **state)
{
	static const struct {
		const char *what;
		int64_t apart_ms;
		int other_at; /* this crash came in another one's turn; -1 none */
		bool crashed;
	} rows[] = {
		{ "killed, not crashed", 100, -1, false },
		{ "in 40 s, not in 30", 10000, -1, true },
		{ "not in a row", 100, 3, true },
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct pair *p;

		setup(state);
		p = live_pair(&slots[0], NULL);
		for (int k = 0; k < 6; k++) {
			if (!dies_in_turn(&p, k == rows[i].other_at ? p->id + 1 : p->id, rows[i].crashed))
				fail_msg("%s: ended at %d", rows[i].what, k);
			now_ms += rows[i].apart_ms;
		}
		teardown(state);
	}
}

/* --- waiting, moving, pipes --- */

static void
waits_for_sixty_seconds(void **state)
{
	struct pair *p = live_pair(&slots[0], NULL), *young;
	uint64_t id = p->id;

	(void)state;
	all->loads[1].slot = NULL; /* nobody serves */
	all->loads[0].slot = NULL;
	rescue_pairs(all, &slots[0], false);
	now_ms += 30000;
	young = live_pair(NULL, NULL);
	now_ms += 29999;
	hand_tick(all, false);
	assert_null(end_of(id));
	now_ms += 1;
	hand_tick(all, false);
	assert_string_equal(end_of(id), "worker_lost");
	assert_null(end_of(young->id));
	all->loads[1].slot = &slots[1];
	hand_tick(all, false);
	assert_int_equal(young->state, PAIR_HANDING);
	now_ms += PAIR_ANSWER_MS - 1;
	hand_tick(all, false);
	assert_null(slots[1].doomed);
	now_ms += 1;
	hand_tick(all, false);
	assert_non_null(slots[1].doomed);
}

/* At max_pipes, of one worker and of all: NOPIPE, once, and nobody waits for what will not come. */
static void
no_more_pipes(void **state)
{
	const struct hand_conf conf = { .max_pipes = 3, .pipe_size = 4096 };
	struct load *l = &all->loads[0];

	(void)state;
	l->want = 2;
	hand_pipes(all, &conf, &slots[0]);
	assert_int_equal(slots[0].n_posted[CHAN_PIPE], 2);
	assert_int_equal(slots[0].n_posted[CHAN_NOPIPE], 0);
	l->want = 5;
	hand_pipes(all, &conf, &slots[0]);
	assert_int_equal(slots[0].n_posted[CHAN_PIPE], 3);
	assert_int_equal(slots[0].n_posted[CHAN_NOPIPE], 1);
	assert_int_equal(l->want, 0);
	/* pipes that wait with their pairs count for all */
	all->loose_pipes = 2;
	all->loads[1].want = 3;
	hand_pipes(all, &conf, &slots[1]);
	assert_int_equal(slots[1].n_posted[CHAN_PIPE], 1);
	assert_int_equal(slots[1].n_posted[CHAN_NOPIPE], 1);
	all->loose_pipes = 0;
	/* a full channel is no reason to say there is none */
	slots[1].room = 0;
	all->loads[1].want = 1;
	hand_pipes(all, &conf, &slots[1]);
	assert_int_equal(all->loads[1].want, 1);
}

static void
levels_and_rests(void **state)
{
	struct load *from = &all->loads[0];
	size_t moves = 0;

	(void)state;
	for (int i = 0; i < 30; i++)
		live_pair(&slots[0], NULL);
	for (int i = 0; i < 3; i++) {
		struct pair *p;

		hand_tick(all, true);
		while ((p = TAILQ_FIRST(&from->of_state[PAIR_MOVING]))) {
			struct chan_msg m = {
				.type = CHAN_MOVED, .pair = p->id, .pipe_ab = CHAN_NO_PIPE, .pipe_ba = CHAN_NO_PIPE
			};

			moves++;
			assert_int_equal(hand_take_back(all, p, &m), 0);
			hand_waiting(all);
			assert_ptr_equal(p->slot, &slots[1]);
			pairing_enter(all, p, PAIR_LIVE, NULL, "test");
		}
	}
	assert_int_equal(moves, 15);
	assert_int_equal(slots[0].n_posted[CHAN_MOVE], 15);
	assert_int_equal(from->pairs, 15);
}

/* --- anything at all --- */

static uint64_t seed;

static uint64_t
draw(uint64_t n)
{
	seed = seed * 6364136223846793005u + 1442695040888963407u;
	return (seed >> 33) % n;
}

/* Often something that could be meant. */
static uint64_t
any_number(uint64_t of)
{
	switch (draw(4)) {
	case 0: return draw(16);
	case 1: return draw(of) << draw(40);
	case 2: return ~draw(4);
	default: return draw(of);
	}
}

static void
scribble(struct slot *s)
{
	uint64_t *words = (uint64_t *)s->map;

	for (size_t i = 0; i < sizeof(*s->map) / 8; i++) /* the head as well */
		words[i] = any_number(16);
	for (uint32_t no = 0; no < N_PIPES; no++)
		worker_ledger_pipes(s->map)[no] = any_number(24);
	for (unsigned i = 0; i < N_SEATS; i++)
		*seat_of(s, i) = (struct relay_seat){ .pair = any_number(12),
			.bytes_ab = any_number(1000),
			.bytes_ba = any_number(1000),
			.flags = (uint32_t)(draw(2) ? draw(8) : any_number(1u << 31)) };
}

/* The master lives, its own sums are right, and nobody else's pair is touched. */
static void
hostile_ledger(void **state)
{
	size_t before = 0;

	for (unsigned round = 0; round < 2000; round++) {
		struct pair *theirs[3];
		unsigned n_mine = 4;
		size_t loose = 0;

		seed = round + 1;
		setup(state);
		for (int i = 0; i < 3; i++)
			theirs[i] = live_pair(&slots[1], NULL);
		for (unsigned i = 0; i < n_mine; i++)
			live_pair(&slots[0], NULL);
		for (int i = 0; i < 6; i++)
			lend(&slots[draw(3) == 0], draw(2) * 8);
		scribble(&slots[0]);
		lose(&slots[0], draw(2));
		for (int i = 0; i < 3; i++) {
			assert_ptr_equal(pairing_find(all, theirs[i]->id), theirs[i]);
			assert_int_equal(theirs[i]->state, PAIR_LIVE);
			assert_int_equal(theirs[i]->flags | theirs[i]->bytes[0] | theirs[i]->bytes[1], 0);
			assert_int_equal(theirs[i]->pipe_fd[0] & theirs[i]->pipe_fd[1], -1);
		}
		for (struct pair *p = TAILQ_FIRST(&all->waiting); p; p = TAILQ_NEXT(p, link)) {
			loose += (unsigned)((p->pipe_fd[0] >= 0) + (p->pipe_fd[1] >= 0));
			assert_int_equal(p->flags & ~15u, 0);
			n_mine--;
		}
		assert_int_equal(n_mine, n_over);
		assert_int_equal(loose, all->loose_pipes);
		hand_waiting(all);
		teardown(state);
		if (round == 0)
			before = fd_count();
		assert_int_equal(fd_count(), before);
	}
}

int
main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(seats_decide),
		T(pipes_are_checked),
		T(two_pipes_of_one_direction),
		T(handed_but_not_begun),
		cmocka_unit_test(copies_are_told_apart),
		T(handed_with_exact_sums),
		T(poison_ends_at_the_fifth_crash),
		cmocka_unit_test(poison_is_nothing_else),
		T(waits_for_sixty_seconds),
		T(no_more_pipes),
		T(levels_and_rests),
		cmocka_unit_test(hostile_ledger),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
