/* schedules_model.c - what each message must lead to
 *
 * Size: one model of one state; its halves would share all of it.
 *
 * The model is told of a message at the moment the master handles it, says what must come of it, and then looks. Ends
 * that no message causes (time, a peer that hung up) are judged when they come, and found missing when the master has
 * nothing left to do (schedules_holds.c).
 *
 *  1. A token joins exactly its two connections, once, or ends with one reason (faults.md I2).
 *  2. Each ARRIVED has one answer, of the kind that the model says, in order.
 *  3. A worker is killed for what it did itself.
 *  4. What a worker said before it died is handled.
 *  5. A pair whose worker died is given to another one, with both of its sockets.
 */
#include "schedules.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <event2/event.h>

#include "hyper/base/fd.h"
#include "proxy/shared/toktab_layout.h"

struct model m;

/* What the master is doing: whose log lines are to be expected. */
enum doing { DO_NOTHING, DO_ARRIVED, DO_ENDED, DO_LOST, DO_CANCEL, DO_STOP, DO_FREE };
static struct {
	enum doing what;
	struct tok *tok;
	struct mpair *pair;
	unsigned slot;
	int conn;
	enum end_reason reason;
	struct answer expect;
} now;

static const char *const op_names[] = { "a-0", "a-1" };
#define N_OPS ARRAY_LEN(op_names)

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
model_count_pairs(int op, int slot, bool only_handing)
{
	size_t n = 0;

	for (size_t i = 0; i < m.n_pairs; i++) {
		const struct mpair *p = &m.pairs[i];

		n += !p->is_done && (op < 0 || p->op == (unsigned)op) &&
		     (slot < 0 || (!p->is_waiting && p->slot == (unsigned)slot)) && (!only_handing || p->is_handing);
	}
	return n;
}

static bool
is_over(size_t have, enum quota_limit limit)
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

static void
conn_is_free(int c)
{
	if (c >= 0)
		w.conns[c].is_used = false;
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
	if (strcmp(reason, end_reason_word(END_EXPIRED)) == 0)
		MUST(t->deadline_ns <= w.now_ns, "ended before its time: %s", text);
	else if (strcmp(reason, end_reason_word(END_PEER_GONE)) == 0)
		MUST(t->state == T_PARKED && conn_is_gone(&w.conns[t->conn]), "its peer is there: %s", text);
	else
		MUST((now.what == DO_CANCEL && now.tok == t && strcmp(reason, end_reason_word(now.reason)) == 0) ||
			 (now.what == DO_STOP && strcmp(reason, end_reason_word(END_STOPPED)) == 0),
		    "nobody asked for this end: %s", text);
	if (t->state == T_PARKED)
		conn_is_free(t->conn);
	t->state = T_ENDED;
}

static void
on_parked(const char *text)
{
	struct tok *t = tok_of(text);

	MUST(now.what == DO_ARRIVED && now.tok == t && now.expect.type == CHAN_PARKED && t->state == T_ISSUED,
	    "parked: %s", text);
	t->state = T_PARKED;
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
		.is_handing = true,
		.slot = now.slot,
		.op = now.tok->op,
		.first = now.tok->conn,
		.second = now.conn,
		.since_ns = w.now_ns };
	MUST(p->id && !model_pair(p->id), "its number is in use: %s", text);
	m.n_pairs++;
	now.expect.pair = p->id;
}

static void
on_ended(const char *text)
{
	char id[64], reason[64];
	struct mpair *p = model_pair(strtoull(word_of(text, "pair=", id), NULL, 10));

	word_of(text, "reason=", reason);
	MUST(p && !p->is_done, "a second end: %s", text);
	if (now.what == DO_ENDED)
		MUST(now.pair == p && strcmp(reason, end_reason_word(now.reason)) == 0, "ended: %s", text);
	else if (strcmp(reason, end_reason_word(END_WORKER_LOST)) == 0)
		MUST(p->is_waiting && w.now_ns - p->since_ns >= 60000 * MS, "it need not end yet: %s", text);
	else
		MUST((now.what == DO_FREE || (now.what == DO_STOP && p->is_waiting) ||
			 (now.what == DO_LOST && now.slot == p->slot && w.is_stopping)) &&
			 strcmp(reason, end_reason_word(END_STOPPED)) == 0,
		    "nobody ended this pair: %s", text);
	p->is_done = true;
	p->is_handing = p->is_waiting = false;
	if (now.what != DO_ENDED)
		w.conns[p->first].is_spent = w.conns[p->second].is_spent = true;
	conn_is_free(p->first);
	conn_is_free(p->second);
}

/* A pair goes on at another worker. */
static void
on_resume(const char *text)
{
	char word[64];
	struct mpair *p = model_pair(strtoull(word_of(text, "pair=", word), NULL, 10));
	unsigned slot = (unsigned)strtoul(word_of(text, "worker=", word), NULL, 10);

	MUST(p && !p->is_done && slot < N_SLOTS, "resume: %s", text);
	MUST(p->is_waiting || (now.what == DO_LOST && p->slot == now.slot) || now.what == DO_ARRIVED,
	    "it has a worker: %s", text);
	p->is_waiting = false;
	p->is_handing = true;
	p->slot = slot;
	p->since_ns = w.now_ns;
	MUST(model_count_pairs(-1, (int)slot, false) <= m.knobs.max_pairs, "more than max_pairs: %s", text);
}

static const struct {
	const char *event;
	void (*on)(const char *text);
} lines[] = {
	{ "resume", on_resume },
	{ "unpaired", on_unpaired },
	{ "parked", on_parked },
	{ "paired", on_paired },
	{ "pair", on_pair },
	{ "ended", on_ended },
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
	if (model_count_pairs(-1, (int)p->slot, false) >= m.knobs.max_pairs)
		return refused(END_BUSY);
	if (is_over(model_count_pairs((int)t->op, -1, false), QUOTA_LIMIT_PAIRS))
		return refused(END_QUOTA);
	if (is_over(model_count_pairs(-1, -1, false), QUOTA_LIMIT_PAIRS_ALL))
		return refused(END_BUSY);
	return (struct answer){ .type = CHAN_PAIR, .first = t->conn };
}

/* The one answer that this ARRIVED must get. */
static struct answer
expect_arrived(const struct tok *t, const struct proc *p, int conn)
{
	if (!t || t->deadline_ns <= w.now_ns || (t->state != T_ISSUED && t->state != T_PARKED))
		return refused(END_UNKNOWN_TOKEN);
	if (t->state == T_PARKED)
		return expect_second(t, p, conn);
	if (is_over(model_count_toks(T_PARKED, (int)t->op), QUOTA_LIMIT_PARKED))
		return refused(END_QUOTA);
	if (is_over(model_count_toks(T_PARKED, -1), QUOTA_LIMIT_PARKED_ALL))
		return refused(END_BUSY);
	return (struct answer){ .type = CHAN_PARKED, .first = -1 };
}

static void
answer_put(struct proc *p, const struct chan_msg *msg)
{
	now.expect.conn = msg->conn;
	MUST(p->n_answers < N_ANSWERS, "answers");
	if (!p->is_dead)
		p->answers[p->n_answers++] = now.expect;
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
	if (w.alloc_failed && t && t->state == before) {
		now.expect.type = CHAN_REFUSED;
		now.expect.or_internal = true;
	}
	answer_put(p, msg);
	MUST(now.expect.type != CHAN_PARKED || t->state == T_PARKED, "was not parked");
	MUST(now.expect.type != CHAN_PAIR || t->state == T_PAIRED, "was not paired");
	MUST(now.expect.type != CHAN_REFUSED || !t || t->state == before, "refused, and yet something happened");
	if (now.expect.type == CHAN_REFUSED && (!t || t->state != T_PARKED || t->conn != conn))
		conn_is_free(conn);
	return rc;
}

/* PAIRED or ENDED. */
static int
on_pair_message(struct proc *p, struct slot *s, const struct chan_msg *msg, int *fd, bool lost)
{
	struct mpair *pair = model_pair(msg->pair);
	bool is_right = pair && !pair->is_done && !pair->is_waiting && pair->slot == p->slot &&
			(msg->type == CHAN_ENDED || pair->is_handing);
	int rc;

	now.what = msg->type == CHAN_ENDED && is_right ? DO_ENDED : DO_NOTHING;
	now.pair = pair;
	now.reason = msg->reason;
	rc = meet_on_message(m.meet, s, msg, fd, lost);
	MUST(rc == (is_right ? 0 : -EPROTO), "%s of pair %llu: %d", chan_type_name(msg->type),
	    (unsigned long long)msg->pair, rc);
	if (is_right) {
		pair->is_handing = false;
		pair->since_ns = w.now_ns;
		MUST(msg->type != CHAN_ENDED || pair->is_done, "no line says that pair %llu ended",
		    (unsigned long long)msg->pair);
	}
	return rc;
}

static void
allocs_begin(void)
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
	allocs_begin();
	now.what = msg->type == CHAN_ARRIVED ? DO_ARRIVED : DO_NOTHING;
	now.slot = p->slot;
	rc = msg->type == CHAN_ARRIVED ? on_arrived(p, s, msg, fd, lost) : on_pair_message(p, s, msg, fd, lost);
	now.what = DO_NOTHING;
	w.alloc_fail = 0;
	p->is_wrong |= rc < 0;
	return rc;
}

static void
on_serving(struct slot *s, void *arg)
{
	(void)arg;
	meet_on_serving(m.meet, s);
}

static void
on_room(struct slot *s, void *arg)
{
	(void)arg;
	meet_on_room(m.meet, s);
}

static bool
is_awaited(void *arg)
{
	(void)arg;
	return meet_has_waiting(m.meet);
}

/* Before the master looks: those that this worker had wait for another one. */
static void
pairs_wait(unsigned slot)
{
	for (size_t k = 0; k < m.n_pairs; k++) {
		struct mpair *p = &m.pairs[k];

		if (p->is_done || p->is_waiting || p->slot != slot)
			continue;
		p->is_waiting = true;
		p->is_handing = false;
		p->since_ns = w.now_ns;
	}
}

static void
on_lost(struct slot *s, int status, void *arg)
{
	struct proc *p = proc_of_slot(s);

	(void)arg;
	w.activity++;
	MUST(p->is_dead && p->n_lost++ == 0, "worker %u is lost, but not dead or lost before", p->slot);
	MUST(p->is_wrong || p->n_heard == p->n_said, "%u of %u messages of the dead worker %u were read", p->n_heard,
	    p->n_said, p->slot);
	now.what = DO_LOST;
	now.slot = p->slot;
	pairs_wait(p->slot);
	meet_on_lost(m.meet, s, status);
	now.what = DO_NOTHING;
	MUST(model_count_pairs(-1, (int)p->slot, false) == 0, "a pair of the dead worker %u lives", p->slot);
	/* What it had not said before it died. */
	for (size_t i = 0; i < N_CONNS; i++) {
		bool is_kept = false;

		for (size_t k = 0; k < N_TOKENS; k++)
			is_kept |= m.toks[k].state == T_PARKED && m.toks[k].conn == (int)i;
		for (size_t k = 0; k < m.n_pairs; k++)
			is_kept |= !m.pairs[k].is_done && (m.pairs[k].first == (int)i || m.pairs[k].second == (int)i);
		if (w.conns[i].slot == p->slot && !is_kept)
			conn_is_free((int)i);
	}
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

const struct slots_ops model_ops = { on_message, on_serving, on_room, on_lost, is_awaited, on_ready, on_empty,
	on_tick };

void
model_on_answer(struct proc *p, const struct chan_msg *msg, int fd)
{
	const struct answer *a = &p->answers[0];
	const struct mpair *pair;

	if (msg->type == CHAN_ADOPT || msg->type == CHAN_RESUME) {
		pair = model_pair(msg->pair);
		MUST(pair, "%s of no pair", chan_type_name(msg->type));
		if (msg->type == CHAN_ADOPT)
			MUST(msg->part == p->parts++ &&
				 conn_of_socket(fd) == (msg->part == CHAN_PART_SOCKET_A ? pair->second : pair->first),
			    "part %u of pair %llu", msg->part, (unsigned long long)msg->pair);
		else
			MUST(p->parts == 2, "%d parts of pair %llu", p->parts, (unsigned long long)msg->pair);
		if (msg->type == CHAN_RESUME)
			p->parts = 0;
		return;
	}
	MUST(p->n_answers > 0, "an answer that nobody waits for: %s", chan_type_name(msg->type));
	MUST(a->type == msg->type && a->conn == msg->conn, "%s of %llu instead of %s of %llu",
	    chan_type_name(msg->type), (unsigned long long)msg->conn, chan_type_name(a->type),
	    (unsigned long long)a->conn);
	MUST(a->type != CHAN_REFUSED || a->reason == msg->reason || (a->or_internal && msg->reason == END_INTERNAL),
	    "refused with %s instead of %s", end_reason_word(msg->reason), end_reason_word(a->reason));
	if (a->type == CHAN_PAIR)
		MUST(a->pair == msg->pair && conn_of_socket(fd) == a->first,
		    "pair %llu with connection %d instead of %d", (unsigned long long)msg->pair, conn_of_socket(fd),
		    a->first);
	p->n_answers--;
	memmove(p->answers, p->answers + 1, p->n_answers * sizeof(p->answers[0]));
}

/* Late with PAIRED, READY, its end, or its heartbeat. */
bool
model_may_kill(const struct proc *p)
{
	if (p->is_wrong || p->is_dead || p->is_frozen || now.what == DO_FREE)
		return true;
	for (size_t i = 0; i < m.n_pairs; i++)
		if (m.pairs[i].slot == p->slot && m.pairs[i].is_handing && w.now_ns - m.pairs[i].since_ns >= 10000 * MS)
			return true;
	if (!p->is_ready && w.now_ns - p->started_ns >= 15000 * MS)
		return true;
	return w.is_stopping && (now.what == DO_STOP || w.now_ns - w.stop_ns >= POOL_STOP_MS * MS);
}

/* --- requests --- */

static void
on_session_end(struct session *s, enum end_reason reason, void *arg)
{
	struct tok *t = s->ask;

	(void)arg;
	(void)reason;
	MUST(t && t->is_asking && t->session == s && t->state == T_ENDED, "an end for somebody else's request");
	if (m.knobs.answers_at_once)
		model_answer((unsigned)(t - m.toks));
}

static void
on_session_parked(struct session *s, void *arg)
{
	struct tok *t = s->ask;

	(void)arg;
	MUST(t && t->is_asking && t->session == s && t->state == T_PARKED, "parked for somebody else's request");
}

static int
expect_issue(unsigned op)
{
	if (is_over(model_count_toks(T_ISSUED, (int)op) + model_count_toks(T_PARKED, (int)op), QUOTA_LIMIT_TOKENS) ||
	    is_over(model_count_asking((int)op), QUOTA_LIMIT_OUTSTANDING) ||
	    is_over(model_count_asking(-1), QUOTA_LIMIT_INCOMING))
		return -EDQUOT;
	return model_count_toks(T_ISSUED, -1) + model_count_toks(T_PARKED, -1) >= m.knobs.table_slots ? -ENOSPC : 0;
}

void
model_issue(unsigned i)
{
	static uint64_t n;
	struct tok *t = &m.toks[i], new = { .conn = -1, .op = i % N_OPS };
	struct session_new ask = { .from = op_names[new.op], .to = "b", .channel = "c", .life_ns = LIFE_NS };
	struct quota_no no;
	struct session *s;
	int rc, expect = expect_issue(new.op);

	if (t->state == T_ISSUED || t->state == T_PARKED || t->is_asking || w.is_stopping)
		return;
	n++;
	memcpy(new.token.bytes, &n, sizeof(n));
	token_hash(&new.token, new.hash);
	token_session(&new.token, new.id);
	ask.token = &new.token;
	ask.asked_ns = w.now_ns;
	ask.ask = t;
	allocs_begin();
	rc = session_issue(m.sessions, &ask, &s, &no);
	MUST(rc == expect || (rc == -ENOMEM && w.alloc_failed), "issue: %d instead of %d", rc, expect);
	w.alloc_fail = 0;
	if (rc < 0)
		return;
	*t = new;
	t->state = T_ISSUED;
	t->is_asking = true;
	t->session = s;
	t->deadline_ns = w.now_ns + LIFE_NS;
}

void
model_answer(unsigned i)
{
	struct tok *t = &m.toks[i];

	if (!t->is_asking)
		return;
	t->is_asking = false;
	session_answered(t->session);
	if (t->state == T_PAIRED || t->state == T_ENDED)
		t->session = NULL;
}

/* As when B refuses: A is told, then the token ends. */
void
model_cancel(unsigned i)
{
	struct tok *t = &m.toks[i];

	if (!t->is_asking || (t->state != T_ISSUED && t->state != T_PARKED))
		return;
	model_answer(i);
	now.what = DO_CANCEL;
	now.tok = t;
	now.reason = END_REFUSED;
	session_end(t->session, END_REFUSED);
	now.what = DO_NOTHING;
	MUST(t->state == T_ENDED, "was cancelled and did not end");
}

/* --- start and end --- */

void
model_start(const struct knobs *knobs)
{
	struct slots_conf conf = { .workers = N_SLOTS, .table_fd = -1, .n_pipes = 4, .n_seats = 4 };
	const struct meet_conf mc = { .workers = N_SLOTS, .max_pairs = knobs->max_pairs, .copy_mode = true };
	size_t before = fds_open();

	m = (struct model){ .knobs = *knobs };
	w.is_stopping = false;
	m.quota = quota_new(&knobs->quota);
	MUST(m.quota && toktab_new(knobs->table_slots, &m.table) == 0, "table");
	MUST(sessions_new(w.base, m.table, m.quota, on_session_end, on_session_parked, NULL, &m.sessions) == 0,
	    "sessions");
	m.map = mmap(NULL, MAP_SIZE, PROT_READ, MAP_SHARED, toktab_fd(m.table), 0);
	MUST(m.map != MAP_FAILED && m.map->size <= MAP_SIZE, "mmap");
	m.meet = meet_new(m.sessions, m.quota, &mc);
	m.fds_before = fds_open();
	MUST(m.meet && m.fds_before == before + 2, "the memfd and the epoll of parked sockets, no more");
	MUST(slots_new(w.base, &conf, &model_ops, NULL, &m.slots) == 0, "slots");
}

void
model_stop(bool at_once)
{
	if (w.is_stopping && !at_once)
		return;
	now.what = DO_STOP;
	if (!w.is_stopping)
		w.stop_ns = w.now_ns;
	w.is_stopping = true;
	sessions_end_all(m.sessions, END_STOPPED);
	meet_stop(m.meet);
	slots_stop(m.slots, at_once);
	now.what = DO_NOTHING;
}

void
model_finish(bool abruptly, bool at_once)
{
	if (!abruptly) {
		model_stop(at_once);
		for (int i = 0; i < 4; i++) {
			for (size_t k = 0; k < N_SLOTS; k++)
				if (w.procs[k].pid && !w.procs[k].is_dead)
					proc_read(&w.procs[k]);
			for (size_t k = 0; k < N_SLOTS; k++)
				if (w.procs[k].is_told_to_stop)
					proc_die(&w.procs[k], 0);
			pump();
			slots_reap(m.slots);
			w.now_ns += 1000 * MS;
		}
		MUST(m.is_empty, "it does not stop");
		model_check();
		model_settled();
	}
	now.what = DO_STOP;
	sessions_end_all(m.sessions, END_STOPPED);
	for (unsigned i = 0; i < N_TOKENS; i++)
		model_answer(i);
	now.what = DO_FREE;
	meet_free(m.meet);
	MUST(model_count_pairs(-1, -1, false) == 0, "a pair is left");
	slots_free(m.slots);
	for (size_t i = 0; i < N_SLOTS; i++)
		if (w.procs[i].pid)
			fd_close(&w.procs[i].chan);
	now.what = DO_NOTHING;
	model_check();
	sessions_free(m.sessions);
	quota_free(m.quota);
	toktab_free(m.table);
	munmap(m.map, MAP_SIZE);
	memset(w.procs, 0, sizeof(w.procs));
}
