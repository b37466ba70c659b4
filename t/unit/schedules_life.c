/* schedules_life.c - requests as brokering.c makes them, and the start and the end of a schedule
 *
 * A's answer is given where its session ends, or later (struct knobs): session.h permits both.
 */
#include "schedules.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "hyper/base/fd.h"
#include "proxy/shared/toktab_layout.h"

static const char *const op_names[] = { "a-0", "a-1" };
#define N_OPS ARRAY_LEN(op_names)

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
	if (model_is_over(
		model_count_toks(T_ISSUED, (int)op) + model_count_toks(T_PARKED, (int)op), QUOTA_LIMIT_TOKENS) ||
	    model_is_over(model_count_asking((int)op), QUOTA_LIMIT_OUTSTANDING) ||
	    model_is_over(model_count_asking(-1), QUOTA_LIMIT_INCOMING))
		return -EDQUOT;
	return model_count_toks(T_ISSUED, -1) + model_count_toks(T_PARKED, -1) >= m.knobs.table_slots ? -ENOSPC : 0;
}

void
model_issue(unsigned i)
{
	struct tok *t = &m.toks[i], new = { .conn = -1, .op = i % N_OPS };
	struct session_new ask = { .from = op_names[new.op], .to = "b", .channel = "c", .life_ns = LIFE_NS };
	struct quota_no no;
	struct session *s;
	int rc, expect = expect_issue(new.op);

	if (t->state == T_ISSUED || t->state == T_PARKED || t->is_asking || w.is_stopping)
		return;
	m.n_tokens++;
	memcpy(new.token.bytes, &m.knobs.seed, sizeof(m.knobs.seed));
	memcpy(new.token.bytes + sizeof(m.knobs.seed), &m.n_tokens, sizeof(m.n_tokens));
	token_hash(&new.token, new.hash);
	token_session(&new.token, new.id);
	ask.token = &new.token;
	ask.asked_ns = w.now_ns;
	ask.ask = t;
	model_allocs_begin();
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
	struct slots_conf conf = { .workers = N_SLOTS, .table_fd = -1, .n_pipes = N_PIPES, .n_seats = N_SEATS };
	const struct meet_conf meet = { .workers = N_SLOTS,
		.max_pairs = knobs->max_pairs,
		.max_pipes = MAX_PIPES,
		.pipe_size = 4096,
		.copy_mode = knobs->copy_mode };
	size_t before = fds_open();

	m = (struct model){ .knobs = *knobs };
	world_start(knobs->seed);
	m.quota = quota_new(&knobs->quota);
	MUST(m.quota && toktab_new(knobs->table_slots, &m.table) == 0, "table");
	MUST(sessions_new(w.base, m.table, m.quota, on_session_end, on_session_parked, NULL, &m.sessions) == 0,
	    "sessions");
	m.map = mmap(NULL, MAP_SIZE, PROT_READ, MAP_SHARED, toktab_fd(m.table), 0);
	MUST(m.map != MAP_FAILED && m.map->size <= MAP_SIZE, "mmap");
	m.meet = meet_new(m.sessions, m.quota, &meet);
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
	MUST(model_count_pairs(-1, -1) == 0, "a pair is left");
	slots_free(m.slots);
	for (size_t i = 0; i < N_SLOTS; i++) {
		if (w.procs[i].pid)
			proc_die(&w.procs[i], 0);
		if (w.procs[i].ledger)
			munmap(w.procs[i].ledger, worker_ledger_size(N_PIPES, N_SEATS));
	}
	now.what = DO_NOTHING;
	model_check();
	sessions_free(m.sessions);
	quota_free(m.quota);
	toktab_free(m.table);
	munmap(m.map, MAP_SIZE);
	memset(w.procs, 0, sizeof(w.procs));
}
