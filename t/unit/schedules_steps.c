/* schedules_steps.c - the steps that a schedule is made of: what peers, workers, requests and time do
 *
 * A step that has nothing to act on does nothing, so each shorter schedule is one as well. The numbers `a` and `b` choose
 * whom it acts on, and how.
 */
#include "schedules.h"

#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "hyper/base/bytes.h"
#include "hyper/base/fd.h"

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
	w.conns[conn].unread[p->slot]++;
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

		if (!model_is_free(c) || w.conns[c].is_reset || w.conns[c].is_spoiled)
			continue;
		say_arrived(p, c, t->state == T_NONE || b % 29 == 28 ? nothing : t->token.bytes);
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

/* What does a worker for whom the answer comes too late: nobody knows in which order the master sees it. */
static void
do_give_up(unsigned a, unsigned b)
{
	for (unsigned i = 0; i < N_CONNS; i++) {
		int c = (int)((a + i) % N_CONNS);

		if (model_is_free(c) || model_keeps(c) || w.conns[c].is_reset || w.conns[c].is_given_up)
			continue;
		conn_give_up(&w.conns[c], "spd"[b % 3]);
		say_verbose("      connection %d\n", c);
		return;
	}
}

void
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

/* A pair of a living worker, in this state; one whose parts it has all read. */
static struct mpair *
pair_in(unsigned a, enum mpair_state state, bool needs_seat)
{
	for (size_t i = 0; i < m.n_pairs; i++) {
		struct mpair *p = &m.pairs[(a + i) % m.n_pairs];
		const struct proc *proc = &w.procs[p->slot];

		if (p->state == state && !p->is_given_back && proc->pid && !proc->is_dead && proc->n_answers == 0 &&
		    (!needs_seat || p->seat >= 0))
			return p;
	}
	return NULL;
}

static struct relay_seat *
seat_of(const struct mpair *p)
{
	return &worker_ledger_seats(w.procs[p->slot].ledger, N_PIPES)[p->seat];
}

static void
say_pair(const struct mpair *p, enum chan_type type, enum end_reason reason)
{
	struct chan_msg msg = { .type = type, .gen = w.procs[p->slot].gen, .pair = p->id, .reason = reason };

	msg.pipe_ab = p->pipe[0] < 0 ? CHAN_NO_PIPE : (uint32_t)p->pipe[0];
	msg.pipe_ba = p->pipe[1] < 0 ? CHAN_NO_PIPE : (uint32_t)p->pipe[1];
	msg.flags = p->flags;
	msg.bytes_ab = p->bytes[0];
	msg.bytes_ba = p->bytes[1];
	proc_say(&w.procs[p->slot], &msg, -1);
}

static void
do_paired(unsigned a, unsigned b)
{
	struct mpair *p = pair_in(a, P_HANDING, false);

	if (!p)
		return;
	model_take_seat(p);
	if (b % 8)
		say_pair(p, CHAN_PAIRED, END_CLOSED);
}

/* All that a pipe holds goes to the peer; it is back in the pool. */
static void
drain_pipe(struct mpair *p, int dir)
{
	struct proc *proc = &w.procs[p->slot];
	uint8_t buf[64];

	if (p->pipe[dir] < 0)
		return;
	MUST(read(proc->pipes[p->pipe[dir]], buf, sizeof(buf)) == (ssize_t)p->held[dir], "a pipe lost bytes");
	*(dir ? &seat_of(p)->bytes_ba : &seat_of(p)->bytes_ab) += p->held[dir];
	worker_ledger_pipes(proc->ledger)[p->pipe[dir]] = 0;
	p->held[dir] = 0;
	p->pipe[dir] = -1;
}

static void
do_fill(unsigned a, unsigned b)
{
	struct mpair *p = pair_in(a, P_LIVE, true);
	int dir = (int)(b % 2);
	uint8_t buf[64];

	if (!p || p->pipe[dir] >= 0 || p->held[dir])
		return;
	memset(buf, (int)(p->id * 2 + (unsigned)dir), sizeof(buf));
	for (uint32_t no = 0; no < N_PIPES; no++) {
		struct proc *proc = &w.procs[p->slot];
		uint64_t *journal = worker_ledger_pipes(proc->ledger);

		if (proc->pipes[no] < 0 || journal[no] || proc->is_lent[no])
			continue;
		journal[no] = p->id << 1 | (unsigned)dir;
		p->held[dir] = b / 2 % 9; /* 0: it died before it could */
		p->pipe[dir] = p->held[dir] ? (int)no : -1;
		MUST(write(proc->pipes[no], buf, p->held[dir]) == (ssize_t)p->held[dir], "write");
		return;
	}
}

static void
do_drain(unsigned a, unsigned b)
{
	struct mpair *p = pair_in(a, P_LIVE, true);

	if (p)
		drain_pipe(p, (int)(b % 2));
}

static void
do_half_closed(unsigned a, unsigned b)
{
	struct mpair *p = pair_in(a, P_LIVE, true);

	if (p)
		seat_of(p)->flags |= b % 2 ? RELAY_EOF_AB : RELAY_BROKEN_B;
}

static void
do_ended(unsigned a, unsigned b)
{
	struct mpair *p = pair_in(a, P_LIVE, true);
	enum end_reason reason = b % 2 ? END_CLOSED : END_RESET;

	if (!p)
		return;
	drain_pipe(p, 0);
	drain_pipe(p, 1);
	seat_of(p)->flags |= RELAY_OVER | (uint32_t)reason << 16;
	/* In between a worker dies: its seat tells. */
	if (b / 2 % 4)
		say_pair(p, CHAN_ENDED, reason);
	else
		proc_die(&w.procs[p->slot], SIGKILL);
}

static void
do_not_paired(unsigned a, unsigned b)
{
	struct mpair *p = pair_in(a, P_HANDING, false);

	if (!p || p->seat >= 0)
		return;
	if (p->is_new) {
		say_pair(p, CHAN_ENDED, b % 2 ? END_DEADLINE : END_BUSY);
		return;
	}
	/* It could not take it: as it came, so it goes, and its own descriptors are closed. */
	say_pair(p, CHAN_MOVED, END_CLOSED);
	p->is_given_back = true;
	for (int i = 0; i < 2; i++)
		if (p->pipe[i] >= 0)
			fd_close(&w.procs[p->slot].pipes[p->pipe[i]]);
}

static void
do_want(unsigned a, unsigned b)
{
	struct proc *p = serving(a);
	struct chan_msg msg = { .type = CHAN_WANT, .n = 1 + b % 3 };

	if (!p)
		return;
	msg.gen = p->gen;
	proc_say(p, &msg, -1);
}

static void
do_freed(unsigned a, unsigned b)
{
	struct proc *p = serving(a);
	struct chan_msg msg = { .type = CHAN_FREED };

	for (uint32_t i = 0; p && i < N_PIPES; i++) {
		uint32_t no = (b + i) % N_PIPES;

		if (p->pipes[no] < 0 || p->is_lent[no] || worker_ledger_pipes(p->ledger)[no])
			continue;
		msg.gen = p->gen;
		msg.pipe = no;
		fd_close(&p->pipes[no]);
		proc_say(p, &msg, -1);
		return;
	}
}

/* Between two turns or in the middle of one, with bytes in a buffer or none. */
static void
do_die(unsigned a, unsigned b)
{
	struct mpair *pair = pair_in(a, P_LIVE, true);
	struct proc *p = pair && b / 64 % 2 ? &w.procs[pair->slot] : living(a);

	if (!p)
		return;
	if (pair && pair->slot == p->slot && b / 2 % 2)
		p->ledger->turn = pair->id;
	if (pair && pair->slot == p->slot && b / 4 % 8 == 0)
		seat_of(pair)->flags |= b / 32 % 2 ? RELAY_BUFFERED_AB : RELAY_BUFFERED_BA;
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
	struct chan_msg msg = { .type = b % 3 == 0 ? CHAN_MOVED : b % 3 == 1 ? CHAN_PAIRED : CHAN_ENDED };
	const struct mpair *pair = m.n_pairs ? &m.pairs[b / 3 % m.n_pairs] : NULL;

	if (!p)
		return;
	/* What is right, or may be when it is read, belongs to other steps. */
	if (pair && pair->state != P_DONE && (msg.type != CHAN_ENDED || pair->slot == p->slot) &&
	    (pair->state != P_LIVE || pair->slot != p->slot))
		return;
	msg.gen = p->gen;
	msg.pair = pair ? pair->id : 77;
	msg.pipe_ab = msg.pipe_ba = CHAN_NO_PIPE;
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
	static const int64_t by[] = { 1, 1, 100, 100, 500, 600, 2000, 5000, 11000, 16000, 20000, 61000 };

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

/* A request, both parties at once, and their worker joins them: what other steps need, and seldom find by chance. */
static void
do_meet(unsigned a, unsigned b)
{
	unsigned t = a % N_TOKENS;

	model_issue(t);
	do_arrive(a, t);
	do_arrive(b, t);
	pump();
	for (unsigned i = 0; i < N_SLOTS; i++)
		do_read(i, 1);
	do_paired(m.n_pairs ? (unsigned)m.n_pairs - 1 : 0, 1);
	pump();
}

/* X(name, how often, what it does) */
#define STEPS(X)                                                                           \
	X(issue, 100, "a request")                                                         \
	X(arrive, 260, "a connection with a token, at a worker")                           \
	X(meet, 80, "a pair from its request on")                                          \
	X(pump, 240, "the master does what there is to do")                                \
	X(read, 140, "a worker reads what it was sent, gets ready, or stops when told so") \
	X(paired, 80, "a worker has joined a pair")                                        \
	X(ended, 50, "a pair is over")                                                     \
	X(not_paired, 20, "a pair could not be joined")                                    \
	X(answer, 50, "A has its answer")                                                  \
	X(cancel, 20, "B refuses")                                                         \
	X(fill, 60, "bytes are read into a pipe")                                          \
	X(drain, 20, "and written out")                                                    \
	X(half_closed, 10, "a stream ends")                                                \
	X(want, 20, "a worker asks for pipes")                                             \
	X(freed, 8, "a worker closes a pipe")                                              \
	X(die, 60, "a worker dies")                                                        \
	X(reap, 50, "the master looks for dead workers")                                   \
	X(stray, 20, "a worker speaks of any pair")                                        \
	X(wrong, 10, "a worker sends what it must not")                                    \
	X(same, 20, "the parked connection comes again")                                   \
	X(give_up, 20, "a worker gives up a connection before it was answered")            \
	X(clock, 60, "time passes")                                                        \
	X(peer_resets, 30, "a peer resets")                                                \
	X(peer_finishes, 20, "a peer ends its stream")                                     \
	X(peer_sends, 20, "a peer sends a byte")                                           \
	X(alloc, 20, "an allocation will fail")                                            \
	X(freeze, 8, "a worker's heart stops")                                             \
	X(spawn_fails, 8, "starts of workers will fail")                                   \
	X(stop, 5, "the program stops")

const struct op ops[] = {
#define X(name, weight, what) { #name, what, weight, do_##name },
	STEPS(X)
#undef X
};
const size_t n_ops = ARRAY_LEN(ops);
