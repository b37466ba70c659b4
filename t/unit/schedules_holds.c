/* schedules_holds.c - what must hold after each step, and when the master has nothing left to do
 *
 *  1. Records in use = issued + parked = what the model counts (faults.md I4); each quota is the model's number.
 *  2. Descriptors open are those that the model can name (I3).
 *  3. The table's chains hold each live record once, in its bucket; the next deadline is the earliest.
 *  4. Nobody waits whose time is over, whose peer is gone, or whose worker never answers.
 */
#include "schedules.h"

#include <string.h>

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

void
model_check(void)
{
	struct toktab_counts c = toktab_counts(m.table);
	size_t issued = model_count_toks(T_ISSUED, -1), parked = model_count_toks(T_PARKED, -1);
	int64_t next = INT64_MAX;

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
		 quota_held(m.quota, QUOTA_PAIRS) == model_count_pairs(-1, -1, false),
	    "quotas: tokens %zu parked %zu outstanding %zu pairs %zu", quota_held(m.quota, QUOTA_TOKENS),
	    quota_held(m.quota, QUOTA_PARKED), quota_held(m.quota, QUOTA_OUTSTANDING),
	    quota_held(m.quota, QUOTA_PAIRS));
}

void
model_settled(void)
{
	size_t fds = m.fds_before + model_count_toks(T_PARKED, -1) + 2 * model_count_pairs(-1, -1, false);

	for (size_t i = 0; i < N_TOKENS; i++) {
		const struct tok *t = &m.toks[i];

		MUST((t->state != T_ISSUED && t->state != T_PARKED) || t->deadline_ns > w.now_ns, "%s never expires",
		    t->id);
		MUST(t->state != T_PARKED || !conn_is_gone(&w.conns[t->conn]), "%s waits for a peer that is gone",
		    t->id);
	}
	for (size_t i = 0; i < N_SLOTS; i++) {
		const struct proc *p = &w.procs[i];

		MUST(!p->pid || !p->is_wrong || p->is_dead, "worker %zu is wrong and lives", i);
		fds += p->pid && !p->is_dead ? 2 : 0;
	}
	for (size_t i = 0; i < m.n_pairs; i++)
		MUST(!m.pairs[i].is_handing || w.procs[m.pairs[i].slot].is_dead ||
			 w.now_ns - m.pairs[i].since_ns < 10500 * MS,
		    "pair %llu was never answered", (unsigned long long)m.pairs[i].id);
	for (size_t i = 0; i < N_CONNS; i++)
		fds -= w.conns[i].is_reset;
	MUST(fds_open() == fds, "%zu descriptors are open instead of %zu", fds_open(), fds);
	check_chains();
}
