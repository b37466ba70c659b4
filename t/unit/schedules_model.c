/* schedules_model.c - what each message must lead to
 *
 * The model is told of a message at the moment the master handles it, says what must come of it, and then looks. Ends
 * that no message causes (time, a peer that hung up) are judged when they come, and found missing when the master has
 * nothing left to do (schedules_holds.c).
 *
 *  1. A token joins exactly its two connections, once, or ends with one reason (faults.md I2).
 *  2. Each ARRIVED has one answer, of the kind that the model says, in order.
 *  3. A worker is killed for what it did itself.
 *  4. What a worker said before it died is handled.
 */
#include "schedules.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <event2/event.h>

#include "hyper/base/fd.h"
#include "proxy/master/pairing.h"

struct model m;

struct now now;

/* --- counts --- */

size_t
model_count_toks(enum token_state state, int op)
{
	size_t n = 0;

	for (size_t i = 0; i < N_TOKENS; i++)
		n += m.toks[i].state == state && (op < 0 || m.toks[i].op == (unsigned)op);
	return n;
}

size_t
model_count_asking(int op)
{
	size_t n = 0;

	for (size_t i = 0; i < N_TOKENS; i++)
		n += m.toks[i].is_asking && (op < 0 || m.toks[i].op == (unsigned)op);
	return n;
}

size_t
model_count_pairs(int op, int slot)
{
	size_t n = 0;

	for (size_t i = 0; i < m.n_pairs; i++) {
		const struct mpair *p = &m.pairs[i];

		n += p->state != P_DONE && (op < 0 || p->op == (unsigned)op) &&
		     (slot < 0 || (p->state != P_WAITING && p->slot == (unsigned)slot));
	}
	return n;
}

bool
model_is_over(size_t have, enum quota_limit limit)
{
	return m.knobs.quota.max[limit] && have >= m.knobs.quota.max[limit];
}

struct mpair *
model_pair(uint64_t id)
{
	for (size_t i = 0; i < m.n_pairs; i++)
		if (m.pairs[i].id == id)
			return &m.pairs[i];
	return NULL;
}

bool
model_keeps(int c)
{
	for (size_t i = 0; i < N_TOKENS; i++)
		if (m.toks[i].state == T_PARKED && m.toks[i].conn == c)
			return true;
	for (size_t i = 0; i < m.n_pairs; i++)
		if ((m.pairs[i].state != P_DONE || !m.pairs[i].is_judged) &&
		    (m.pairs[i].conn[0] == c || m.pairs[i].conn[1] == c))
			return true;
	return false;
}

bool
model_is_free(int c)
{
	for (size_t i = 0; i < N_SLOTS; i++)
		if (w.conns[c].unread[i])
			return false;
	return !model_keeps(c);
}

/* To the master: dying alone is not known before waitpid() or the channel's end. */
static bool
is_known_dead(const struct proc *p)
{
	return p->was_killed || p->pid == 0;
}

static bool
can_adopt(const struct proc *p)
{
	return p->served && !is_known_dead(p) && !w.is_stopping && w.now_ns >= p->rest_until_ns &&
	       model_count_pairs(-1, (int)p->slot) < m.knobs.max_pairs;
}

static void
answer_add(struct proc *p, const struct answer *a)
{
	MUST(p->n_answers < N_ANSWERS, "answers");
	p->answers[p->n_answers++] = *a;
}

/* --- what the log says --- */

static const char *
word_of(const char *text, const char *key, char ret[64])
{
	const char *at = strstr(text, key);
	size_t n;

	MUST(at, "no %s in: %s", key, text);
	at += strlen(key);
	n = strcspn(at, " ");
	snprintf(ret, 64, "%.*s", (int)(n < 63 ? n : 63), at);
	return ret;
}

static struct tok *
tok_of(const char *text)
{
	char id[64];

	word_of(text, "session=", id);
	for (size_t i = 0; i < N_TOKENS; i++)
		if (m.toks[i].state != T_NONE && strcmp(m.toks[i].id, id) == 0)
			return &m.toks[i];
	schedule_failed("a line about no token of ours: %s", text);
}

static void
on_unpaired(const char *text)
{
	struct tok *t = tok_of(text);
	char reason[64];

	word_of(text, "reason=", reason);
	MUST(t->state == T_ISSUED || t->state == T_PARKED, "a second end: %s", text);
	if (strcmp(reason, end_reason_word(END_EXPIRED)) == 0 || strcmp(reason, end_reason_word(END_DEADLINE)) == 0)
		MUST(t->deadline_ns <= w.now_ns && (*reason == 'd') == t->is_asking, "ended before its time: %s", text);
	else if (strcmp(reason, end_reason_word(END_PEER_GONE)) == 0)
		MUST(t->state == T_PARKED && conn_is_gone(&w.conns[t->conn]), "its peer is there: %s", text);
	else
		MUST((now.what == DO_CANCEL && now.tok == t && strcmp(reason, end_reason_word(now.reason)) == 0) ||
			 (now.what == DO_STOP && strcmp(reason, end_reason_word(END_STOPPED)) == 0),
		    "nobody asked for this end: %s", text);
	t->state = T_ENDED;
}

static void
on_parked(const char *text)
{
	struct tok *t = tok_of(text);

	MUST(now.what == DO_ARRIVED && now.tok == t && now.expect.type == CHAN_PARKED && t->state == T_ISSUED,
	    "parked: %s", text);
	t->state = T_PARKED;
	t->parked_ns = w.now_ns;
	t->conn = now.conn;
}

static void
on_paired(const char *text)
{
	struct tok *t = tok_of(text);

	MUST(now.what == DO_ARRIVED && now.tok == t && now.expect.type == CHAN_PAIR && t->state == T_PARKED,
	    "paired: %s", text);
	MUST(now.expect.pair != 0, "paired without a pair: %s", text);
	t->state = T_PAIRED;
}

/* A pair was made. */
static void
on_pair(const char *text)
{
	struct mpair *p = &m.pairs[m.n_pairs];
	char id[64];

	MUST(now.what == DO_ARRIVED && now.expect.type == CHAN_PAIR && now.expect.pair == 0 && m.n_pairs < N_PAIRS,
	    "a pair: %s", text);
	*p = (struct mpair){ .id = strtoull(word_of(text, "pair=", id), NULL, 10),
		.state = is_known_dead(&w.procs[now.slot]) ? P_WAITING : P_HANDING,
		.is_new = true,
		.slot = now.slot,
		.op = now.tok->op,
		.conn = { now.conn, now.tok->conn },
		.seat = -1,
		.pipe = { -1, -1 },
		.waits_ns = w.now_ns,
		.entered_ns = w.now_ns };
	MUST(p->id && !model_pair(p->id), "its number is in use: %s", text);
	m.n_pairs++;
	now.expect.pair = p->id;
}

static void
pair_leaves(struct mpair *p)
{
	p->seat = -1;
	p->is_given_back = false;
	p->pipe[0] = p->pipe[1] = -1;
	p->entered_ns = w.now_ns;
	if (p->waits_ns == 0)
		p->waits_ns = w.now_ns;
}

static void
on_ended(const char *text)
{
	char id[64], reason[64];
	struct mpair *p = model_pair(strtoull(word_of(text, "pair=", id), NULL, 10));
	bool by_worker = now.what == DO_ENDED;

	word_of(text, "reason=", reason);
	MUST(p && p->state != P_DONE, "a second end: %s", text);
	if (by_worker)
		MUST(now.pair == p && strcmp(reason, end_reason_word(now.reason)) == 0, "ended: %s", text);
	else if (strcmp(reason, end_reason_word(END_STOPPED)) == 0)
		MUST(now.what == DO_FREE || (now.what == DO_LOST && p->must_end && p->reason == END_STOPPED) ||
			 (now.what == DO_MOVED && w.is_stopping) || (now.what == DO_STOP && p->state == P_WAITING),
		    "nobody stopped this pair: %s", text);
	else if (now.what == DO_LOST && now.slot == p->slot && p->must_end)
		MUST(strcmp(reason, end_reason_word(p->reason)) == 0, "with another reason: %s", text);
	else
		MUST(p->state == P_WAITING && strcmp(reason, end_reason_word(END_WORKER_LOST)) == 0 &&
			 w.now_ns - p->waits_ns >= 60000 * MS,
		    "nobody ended this pair: %s", text);
	p->state = P_DONE;
	/* The peers' view of it comes with the descriptors' end, after this line: model_check(). */
	p->is_clean = by_worker || strcmp(reason, end_reason_word(END_CLOSED)) == 0;
	p->is_judged = by_worker;
}

/* Its parts and RESUME are on their way to a worker. */
static void
on_resume(const char *text)
{
	char id[64], no[64];
	struct mpair *p = model_pair(strtoull(word_of(text, "pair=", id), NULL, 10));
	struct proc *proc = &w.procs[strtoul(word_of(text, "worker=", no), NULL, 10) % N_SLOTS];

	MUST(p && p->state == P_WAITING && proc->served && !is_known_dead(proc) && !w.is_stopping &&
		 model_count_pairs(-1, (int)proc->slot) < m.knobs.max_pairs,
	    "no worker for this one: %s", text);
	for (size_t i = 0; i < N_SLOTS; i++)
		MUST(!can_adopt(&w.procs[i]) || model_count_pairs(-1, (int)i) >= model_count_pairs(-1, (int)proc->slot),
		    "worker %zu has fewer pairs: %s", i, text);
	p->state = P_HANDING;
	p->is_new = false;
	p->slot = proc->slot;
	p->entered_ns = w.now_ns;
	if (proc->is_dead)
		return;
	for (int part = 0; part < CHAN_PART_MAX; part++) {
		struct answer a = { .type = CHAN_ADOPT, .pair = p->id, .part = (enum chan_part)part, .first = -1 };

		if (part <= CHAN_PART_SOCKET_B)
			a.first = p->conn[part];
		else if ((a.held = p->held[part - CHAN_PART_PIPE_AB]) == 0)
			continue;
		answer_add(proc, &a);
	}
	answer_add(proc, &(struct answer){ .type = CHAN_RESUME, .pair = p->id, .first = -1 });
}

static const struct {
	const char *event;
	void (*on)(const char *text);
} lines[] = {
	{ "unpaired", on_unpaired },
	{ "parked", on_parked },
	{ "paired", on_paired },
	{ "pair", on_pair },
	{ "ended", on_ended },
	{ "resume", on_resume },
};

bool
model_wants(const char *event)
{
	for (size_t i = 0; i < ARRAY_LEN(lines); i++)
		if (strcmp(lines[i].event, event) == 0)
			return true;
	return false;
}

void
model_on_log(const char *event, const char *text)
{
	for (size_t i = 0; i < ARRAY_LEN(lines); i++)
		if (strcmp(lines[i].event, event) == 0)
			lines[i].on(text);
}

/* --- messages --- */

static struct answer
refused(enum end_reason reason)
{
	return (struct answer){ .type = CHAN_REFUSED, .reason = reason, .first = -1 };
}

static struct answer
expect_second(const struct tok *t, const struct proc *p, int conn)
{
	if (conn == t->conn)
		return refused(END_UNKNOWN_TOKEN);
	if (w.is_stopping)
		return refused(END_DRAINING);
	/* A dead worker's place is elsewhere, if there is any. */
	if (is_known_dead(p) ? model_count_pairs(-1, -1) >= N_SLOTS * m.knobs.max_pairs
			     : model_count_pairs(-1, (int)p->slot) >= m.knobs.max_pairs)
		return refused(END_BUSY);
	if (model_is_over(model_count_pairs((int)t->op, -1), QUOTA_LIMIT_PAIRS))
		return refused(END_QUOTA);
	if (model_is_over(model_count_pairs(-1, -1), QUOTA_LIMIT_PAIRS_ALL))
		return refused(END_BUSY);
	return (struct answer){ .type = CHAN_PAIR, .first = t->conn };
}

/* The one answer that this ARRIVED must get. */
static struct answer
expect_arrived(const struct tok *t, const struct proc *p, int conn)
{
	if (!t || t->deadline_ns <= w.now_ns || (t->state != T_ISSUED && t->state != T_PARKED))
		return refused(END_UNKNOWN_TOKEN);
	if (w.conns[conn].is_given_up)
		return refused(END_DEADLINE);
	if (t->state == T_PARKED)
		return expect_second(t, p, conn);
	if (model_is_over(model_count_toks(T_PARKED, (int)t->op), QUOTA_LIMIT_PARKED))
		return refused(END_QUOTA);
	if (model_is_over(model_count_toks(T_PARKED, -1), QUOTA_LIMIT_PARKED_ALL))
		return refused(END_BUSY);
	return (struct answer){ .type = CHAN_PARKED, .first = -1 };
}

static void
answer_put(struct proc *p, const struct chan_msg *msg)
{
	now.expect.conn = msg->conn;
	if (!p->is_dead)
		answer_add(p, &now.expect);
}

static int
on_arrived(struct proc *p, struct slot *s, const struct chan_msg *msg, int *fd, bool lost)
{
	struct tok *t = NULL;
	enum token_state before;
	int rc, conn = conn_of_socket(*fd);

	for (size_t i = 0; i < N_TOKENS; i++)
		if (m.toks[i].state != T_NONE && memcmp(m.toks[i].token.bytes, msg->token, 32) == 0)
			t = &m.toks[i];
	before = t ? t->state : T_NONE;
	now.tok = t;
	now.conn = conn;
	now.expect = conn < 0 ? refused(END_INTERNAL) : expect_arrived(t, p, conn);
	rc = meet_on_message(m.meet, s, msg, fd, lost);
	if (conn < 0) {
		MUST(rc == -EPROTO, "no TCP socket: %d", rc);
		return rc;
	}
	MUST(rc == 0, "ARRIVED: %d", rc);
	w.conns[conn].unread[p->slot]--;
	if (w.alloc_failed && t && t->state == before) {
		now.expect.type = CHAN_REFUSED;
		now.expect.first = -1;
		now.expect.or_internal = true;
	}
	answer_put(p, msg);
	MUST(now.expect.type != CHAN_PARKED || t->state == T_PARKED, "was not parked");
	MUST(now.expect.type != CHAN_PAIR || t->state == T_PAIRED, "was not paired");
	MUST(now.expect.type != CHAN_REFUSED || !t || t->state == before, "refused, and yet something happened");
	return rc;
}

/* What the master takes from a worker about a pair, or does not. */
static bool
is_right(const struct proc *p, const struct mpair *pair, const struct chan_msg *msg)
{
	if (!pair || pair->slot != p->slot || (pair->state != P_HANDING && pair->state != P_LIVE))
		return false;
	if (msg->type == CHAN_ENDED)
		return true;
	return pair->state == P_HANDING && (msg->type == CHAN_PAIRED || !pair->is_new);
}

/* What was posted while the master read from this worker leaves behind that: the worker cannot know of it. */
static bool
is_unsent(const struct slot *s, uint64_t id)
{
	const struct pair *real = pairing_find(meet_pairs(m.meet), id);

	return real && real->state == PAIR_HANDING && slot_has_queued(s, real->fd[1]);
}

/* PAIRED, ENDED, MOVED. */
static int
on_pair_message(struct proc *p, struct slot *s, const struct chan_msg *msg, int *fd, bool lost)
{
	struct mpair *pair = model_pair(msg->pair);
	bool right = is_right(p, pair, msg) && !is_unsent(s, msg->pair);
	int rc;

	now.what = !right ? DO_NOTHING : msg->type == CHAN_ENDED ? DO_ENDED : DO_MOVED;
	now.pair = pair;
	now.reason = msg->reason;
	if (right && msg->type == CHAN_PAIRED) {
		pair->state = P_LIVE;
		pair->waits_ns = 0;
	} else if (right && msg->type == CHAN_MOVED) {
		pair->state = P_WAITING;
		pair_leaves(pair);
		p->rest_until_ns = w.now_ns + 100 * MS;
	}
	rc = meet_on_message(m.meet, s, msg, fd, lost);
	MUST(rc == (right ? 0 : -EPROTO), "%s of pair %llu: %d", chan_type_name(msg->type),
	    (unsigned long long)msg->pair, rc);
	MUST(!right || msg->type != CHAN_ENDED || pair->state == P_DONE, "no line says that pair %llu ended",
	    (unsigned long long)msg->pair);
	return rc;
}

void
model_allocs_begin(void)
{
	w.alloc_fail = w.alloc_next;
	w.alloc_next = 0;
	w.alloc_failed = false;
}

static int
on_message(struct slot *s, const struct chan_msg *msg, int *fd, bool lost, void *arg)
{
	struct proc *p = proc_of_slot(s);
	int rc;

	(void)arg;
	w.activity++;
	p->n_heard++;
	say_verbose("      master has %s of worker %u\n", chan_type_name(msg->type), p->slot);
	model_allocs_begin();
	now.what = msg->type == CHAN_ARRIVED ? DO_ARRIVED : DO_NOTHING;
	now.slot = p->slot;
	if (msg->type == CHAN_WANT || msg->type == CHAN_FREED) {
		rc = meet_on_message(m.meet, s, msg, fd, lost);
		MUST(rc == 0 || p->is_wrong, "%s: %d", chan_type_name(msg->type), rc);
	} else {
		rc = msg->type == CHAN_ARRIVED ? on_arrived(p, s, msg, fd, lost) : on_pair_message(p, s, msg, fd, lost);
	}
	now.what = DO_NOTHING;
	w.alloc_fail = 0;
	p->is_wrong |= rc < 0;
	return rc;
}

static bool
is_poison(struct mpair *p, const struct proc *proc)
{
	if (proc->status != SIGSEGV)
		return false;
	if (proc->ledger->turn != p->id) {
		p->crashes = 0;
		return false;
	}
	if (p->crashes == 0 || w.now_ns / 1000000000 - p->crash_ns / 1000000000 > 30) {
		p->crashes = 0;
		p->crash_ns = w.now_ns;
	}
	return ++p->crashes >= 5;
}

/* What its ledger says of this pair of a dead worker. */
static void
expect_rescue(struct mpair *p, const struct proc *proc)
{
	const struct relay_seat *seat = p->seat < 0 ? NULL : &worker_ledger_seats(proc->ledger, N_PIPES)[p->seat];

	p->must_end = true;
	if (seat) {
		p->flags = seat->flags;
		p->bytes[0] = seat->bytes_ab;
		p->bytes[1] = seat->bytes_ba;
	}
	p->suspect = proc->ledger->turn == p->id || (!seat && p->state != P_HANDING);
	if (p->flags & RELAY_OVER)
		p->reason = RELAY_OVER_REASON(p->flags);
	else if (w.is_stopping)
		p->reason = END_STOPPED;
	else if ((p->flags & (RELAY_BUFFERED_AB | RELAY_BUFFERED_BA)) || is_poison(p, proc))
		p->reason = END_WORKER_LOST;
	else
		p->must_end = false;
	p->flags &= RELAY_EOF_AB | RELAY_EOF_BA | RELAY_BROKEN_A | RELAY_BROKEN_B;
	if (!p->must_end)
		p->state = P_WAITING;
	pair_leaves(p);
}

static void
on_lost(struct slot *s, int status, void *arg)
{
	struct proc *p = proc_of_slot(s);

	(void)arg;
	w.activity++;
	MUST(p->pid == 0 && p->n_lost++ == 0 && status == p->status, "worker %u is lost, but not dead or lost before",
	    p->slot);
	MUST(p->is_wrong || p->n_heard == p->n_said, "%u of %u messages of the dead worker %u were read", p->n_heard,
	    p->n_said, p->slot);
	for (size_t i = 0; i < m.n_pairs; i++)
		if (m.pairs[i].slot == p->slot && (m.pairs[i].state == P_HANDING || m.pairs[i].state == P_LIVE))
			expect_rescue(&m.pairs[i], p);
	p->served = NULL;
	now.what = DO_LOST;
	now.slot = p->slot;
	meet_on_lost(m.meet, s, status);
	now.what = DO_NOTHING;
	for (size_t i = 0; i < m.n_pairs; i++) {
		MUST(!m.pairs[i].must_end || m.pairs[i].state == P_DONE, "pair %llu should have ended: %s",
		    (unsigned long long)m.pairs[i].id, end_reason_word(m.pairs[i].reason));
		m.pairs[i].must_end = false;
	}
	MUST(model_count_pairs(-1, (int)p->slot) == 0, "a pair of the dead worker %u is still its own", p->slot);
	/* What it had said behind something wrong is not read. */
	for (size_t i = 0; i < N_CONNS; i++)
		w.conns[i].unread[p->slot] = 0;
}

static void
on_serving(struct slot *s, void *arg)
{
	(void)arg;
	w.activity++;
	proc_of_slot(s)->served = s;
	meet_on_serving(m.meet, s);
}

static void
on_room(struct slot *s, void *arg)
{
	(void)arg;
	meet_on_room(m.meet, s);
}

static void
on_ready(void *arg)
{
	(void)arg;
}

static void
on_empty(void *arg)
{
	(void)arg;
	MUST(w.is_stopping && !m.is_empty, "on_empty");
	m.is_empty = true;
}

static void
on_tick(void *arg)
{
	(void)arg;
	meet_on_tick(m.meet);
	quota_tick(m.quota, w.now_ns);
}

const struct slots_ops model_ops = { on_message, on_serving, on_room, on_lost, on_ready, on_empty, on_tick };

/* A pipe with bytes of a pair: all of them, in order. */
static void
pipe_comes_along(struct proc *p, const struct answer *a, uint32_t no, int *fd)
{
	struct mpair *pair = model_pair(a->pair);
	int dir = a->part - CHAN_PART_PIPE_AB, bytes = -1;
	uint8_t buf[64];

	MUST(ioctl(*fd, FIONREAD, &bytes) == 0 && (size_t)bytes == a->held && a->held <= sizeof(buf),
	    "pair %llu: %d bytes instead of %zu", (unsigned long long)a->pair, bytes, a->held);
	MUST(read(*fd, buf, a->held) == bytes && write(*fd, buf, a->held) == bytes, "pipe");
	for (int i = 0; i < bytes; i++)
		MUST(buf[i] == (uint8_t)(pair->id * 2 + (unsigned)dir), "somebody else's bytes");
	MUST(no < N_PIPES && p->pipes[no] < 0, "pipe %u is there already", no);
	p->pipes[no] = *fd;
	p->is_lent[no] = true;
	pair->pipe[dir] = (int)no;
	*fd = -1;
}

static void
check_resume(const struct chan_msg *msg)
{
	const struct mpair *p = model_pair(msg->pair);

	/* nobody reads a byte of these sockets, so what the kernel counts does not add up */
	MUST((msg->flags & ~RELAY_UNSURE) == p->flags && msg->bytes_ab == p->bytes[0] && msg->bytes_ba == p->bytes[1] &&
		 msg->suspect == p->suspect,
	    "pair %llu goes on with flags %x (%x), %llu and %llu bytes, suspect %d (%d)", (unsigned long long)p->id,
	    msg->flags, p->flags, (unsigned long long)msg->bytes_ab, (unsigned long long)msg->bytes_ba, msg->suspect,
	    p->suspect);
}

void
model_on_answer(struct proc *p, const struct chan_msg *msg, int *fd)
{
	const struct answer *a = &p->answers[0];

	MUST(p->n_answers > 0, "an answer that nobody waits for: %s", chan_type_name(msg->type));
	MUST(a->type == msg->type && (a->conn == msg->conn || a->pair) && a->pair == msg->pair,
	    "%s of %llu instead of %s of %llu", chan_type_name(msg->type), (unsigned long long)msg->conn,
	    chan_type_name(a->type), (unsigned long long)a->conn);
	MUST(a->type != CHAN_REFUSED || a->reason == msg->reason || (a->or_internal && msg->reason == END_INTERNAL),
	    "refused with %s instead of %s", end_reason_word(msg->reason), end_reason_word(a->reason));
	MUST(a->first < 0 || conn_of_socket(*fd) == a->first, "pair %llu with connection %d instead of %d",
	    (unsigned long long)msg->pair, conn_of_socket(*fd), a->first);
	MUST(a->type != CHAN_ADOPT || a->part == msg->part, "part %d instead of %d", msg->part, a->part);
	if (a->held)
		pipe_comes_along(p, a, msg->pipe, fd);
	if (a->type == CHAN_RESUME)
		check_resume(msg);
	p->n_answers--;
	memmove(p->answers, p->answers + 1, p->n_answers * sizeof(p->answers[0]));
}

/* The worker's engine begins: journal and seat, the seat's id last. */
void
model_take_seat(struct mpair *p)
{
	struct proc *proc = &w.procs[p->slot];
	struct relay_seat *seats = worker_ledger_seats(proc->ledger, N_PIPES);

	if (p->seat >= 0)
		return;
	for (p->seat = 0; seats[p->seat].pair; p->seat++)
		MUST(p->seat < N_SEATS - 1, "seats");
	for (int i = 0; i < 2; i++) {
		if (p->pipe[i] < 0)
			continue;
		worker_ledger_pipes(proc->ledger)[p->pipe[i]] = p->id << 1 | (unsigned)i;
		proc->is_lent[p->pipe[i]] = false;
	}
	if (proc->ledger->used_seats <= (unsigned)p->seat)
		proc->ledger->used_seats = (unsigned)p->seat + 1;
	seats[p->seat] = (struct relay_seat){ p->id, p->bytes[0], p->bytes[1], p->flags, 0 };
}

/* Late with PAIRED, READY, its end, or its heartbeat. */
bool
model_may_kill(const struct proc *p)
{
	if (p->is_wrong || p->is_dead || p->is_frozen || now.what == DO_FREE)
		return true;
	for (size_t i = 0; i < m.n_pairs; i++)
		if (m.pairs[i].slot == p->slot && m.pairs[i].state == P_HANDING &&
		    w.now_ns - m.pairs[i].entered_ns >= 10000 * MS)
			return true;
	if (!p->is_ready && w.now_ns - p->started_ns >= 15000 * MS)
		return true;
	return w.is_stopping && (now.what == DO_STOP || w.now_ns - w.stop_ns >= POOL_STOP_MS * MS);
}
