/* schedules_holds.c - what must hold after each step, and when the master has nothing left to do
 *
 *  1. Records in use = issued + parked = what the model counts (faults.md I4); each quota is the model's number.
 *  2. Descriptors open are those that the model can name (I3).
 *  3. The table's chains hold each live record once, in its bucket; the next deadline is the earliest.
 *  4. Nobody waits whose time is over, whose peer is gone, or whose worker never answers.
 */
#include "schedules.h"

#include <poll.h>
#include <string.h>

#include "proxy/master/pipes.h"
#include "proxy/shared/toktab_layout.h"

/* Each chain, and each record by it. */
static void
check_chains(void)
{
	const struct toktab_head *head = m.map;
	struct toktab_bucket *buckets;
	struct toktab_record *records;
	size_t seen = 0, live = 0;

	buckets = (struct toktab_bucket *)((char *)head + head->buckets_off);
	records = (struct toktab_record *)((char *)head + head->records_off);
	for (uint32_t b = 0; b < head->buckets; b++) {
		MUST(buckets[b].seq % 2 == 0, "bucket %u is half written", b);
		for (uint32_t at = buckets[b].head; at; at = records[at - 1].next) {
			const struct toktab_body *body = (const struct toktab_body *)records[at - 1].body;
			uint32_t first;

			memcpy(&first, body->hash, sizeof(first)); /* little-endian here */
			MUST(at <= head->slots && ++seen <= head->slots, "a ring in bucket %u", b);
			MUST(body->state != TOKTAB_FREE && (first & (head->buckets - 1)) == b,
			    "record %u is in the wrong chain", at - 1);
		}
	}
	for (uint32_t i = 0; i < head->slots; i++) {
		MUST(records[i].seq % 2 == 0, "record %u is half written", i);
		live += ((const struct toktab_body *)records[i].body)->state != TOKTAB_FREE;
	}
	MUST(seen == live, "%zu records in chains, %zu live", seen, live);
}

static void
check_token(const struct tok *t)
{
	bool is_live = t->state == T_ISSUED || t->state == T_PARKED;
	struct session *s = session_find(m.sessions, t->hash);

	MUST(!s == !(is_live && t->deadline_ns > w.now_ns), "session %s is %sthere", t->id, s ? "" : "not ");
	if (!s)
		return;
	MUST(s == t->session && s->state == (t->state == T_PARKED ? SESSION_PARKED : SESSION_ISSUED) &&
		 s->deadline_ns == t->deadline_ns && (s->parked_fd >= 0) == (t->state == T_PARKED),
	    "session %s is not what it should be", t->id);
}

/* Descriptors of pipes: the workers' and the master's, those of pairs that wait. */
static size_t
count_pipes(void)
{
	size_t n = 0;

	for (size_t i = 0; i < N_SLOTS; i++) {
		const struct proc *p = &w.procs[i];

		for (size_t k = 0; k < N_PIPES; k++)
			n += p->pid && p->pipes[k] >= 0;
		if (p->pid && p->served)
			n += pipes_count(slot_pipes(p->served));
	}
	for (size_t i = 0; i < m.n_pairs; i++)
		if (m.pairs[i].state == P_WAITING)
			n += (m.pairs[i].held[0] > 0) + (m.pairs[i].held[1] > 0);
	return n;
}

/* Who has read all knows the same pipes as the master. */
static void
check_pipes(const struct proc *p)
{
	struct pollfd in = { p->chan, POLLIN, 0 };
	size_t n = 0;

	if (!p->pid || p->is_dead || !p->served || poll(&in, 1, 0) != 0)
		return;
	for (size_t i = 0; i < N_PIPES; i++)
		n += p->pipes[i] >= 0;
	MUST(n == pipes_count(slot_pipes(p->served)), "worker %u has %zu pipes, the master thinks %u", p->slot, n,
	    pipes_count(slot_pipes(p->served)));
}

static void
check_pair_settled(const struct mpair *p)
{
	const struct proc *proc = &w.procs[p->slot];

	MUST(p->state != P_HANDING || proc->is_dead || w.now_ns - p->entered_ns < 10500 * MS,
	    "pair %llu was never answered", (unsigned long long)p->id);
	if (p->state != P_WAITING)
		return;
	MUST(w.now_ns - p->waits_ns < 60500 * MS || w.now_ns - p->entered_ns <= 500 * MS, "pair %llu waits for ever",
	    (unsigned long long)p->id);
	for (size_t i = 0; i < N_SLOTS; i++) {
		proc = &w.procs[i];
		MUST(!proc->served || proc->is_dead || w.is_stopping || w.now_ns < proc->rest_until_ns + 500 * MS ||
			 model_count_pairs(-1, (int)i) >= m.knobs.max_pairs,
		    "pair %llu waits, and worker %zu has room", (unsigned long long)p->id, i);
	}
}

/* A pair that ended: its peers saw a reset, or nothing that its worker did not do. */
static void
judge_pair(struct mpair *p)
{
	if (p->state != P_DONE || p->is_judged)
		return;
	p->is_judged = true;
	for (int i = 0; i < 2; i++) {
		struct conn *c = &w.conns[p->conn[i]];

		if (p->is_clean)
			c->is_spoiled = true; /* its end was passed on */
		else
			MUST(conn_saw_reset(c), "pair %llu ended, and a peer does not know", (unsigned long long)p->id);
	}
}

void
model_check(void)
{
	struct toktab_counts c = toktab_counts(m.table);
	size_t issued = model_count_toks(T_ISSUED, -1), parked = model_count_toks(T_PARKED, -1);
	int64_t next = INT64_MAX;

	for (size_t i = 0; i < m.n_pairs; i++)
		judge_pair(&m.pairs[i]);
	for (size_t i = 0; i < N_TOKENS; i++) {
		const struct tok *t = &m.toks[i];

		if (t->state == T_NONE)
			continue;
		check_token(t);
		if ((t->state == T_ISSUED || t->state == T_PARKED) && t->deadline_ns < next)
			next = t->deadline_ns;
	}
	MUST(c.issued == issued && c.parked == parked, "%zu issued and %zu parked instead of %zu and %zu", c.issued,
	    c.parked, issued, parked);
	MUST(toktab_next_deadline_ns(m.table) == next, "the next deadline is not the earliest");
	MUST(quota_held(m.quota, QUOTA_TOKENS) == issued + parked && quota_held(m.quota, QUOTA_PARKED) == parked &&
		 quota_held(m.quota, QUOTA_OUTSTANDING) == model_count_asking(-1) &&
		 quota_held(m.quota, QUOTA_INCOMING) == model_count_asking(-1) &&
		 quota_held(m.quota, QUOTA_PAIRS) == model_count_pairs(-1, -1),
	    "quotas: tokens %zu parked %zu outstanding %zu pairs %zu", quota_held(m.quota, QUOTA_TOKENS),
	    quota_held(m.quota, QUOTA_PARKED), quota_held(m.quota, QUOTA_OUTSTANDING),
	    quota_held(m.quota, QUOTA_PAIRS));
}

void
model_settled(void)
{
	size_t fds = m.fds_before + model_count_toks(T_PARKED, -1) + 2 * model_count_pairs(-1, -1) + count_pipes();

	for (size_t i = 0; i < N_TOKENS; i++) {
		const struct tok *t = &m.toks[i];

		MUST((t->state != T_ISSUED && t->state != T_PARKED) || t->deadline_ns > w.now_ns, "%s never expires",
		    t->id);
		MUST(t->state != T_PARKED || w.now_ns - t->parked_ns < 100 * MS || !conn_is_gone(&w.conns[t->conn]),
		    "%s waits for a peer that is gone", t->id);
	}
	for (size_t i = 0; i < N_SLOTS; i++) {
		const struct proc *p = &w.procs[i];

		MUST(!p->pid || !p->is_wrong || p->is_dead, "worker %zu is wrong and lives", i);
		fds += p->pid && !p->is_dead ? 2 : 0;
		check_pipes(p);
	}
	for (size_t i = 0; i < m.n_pairs; i++)
		check_pair_settled(&m.pairs[i]);
	for (size_t i = 0; i < N_CONNS; i++)
		fds -= w.conns[i].is_reset;
	MUST(fds_open() == fds, "%zu descriptors are open instead of %zu", fds_open(), fds);
	check_chains();
}
