/* session.c - one token's life, beside its record in the table
 *
 * Always true:
 *  1. A session is in `by_slot` exactly while its record is in the table; so
 *     records in use = issued + parked = sessions in those two states.
 *  2. The token's time counts from its creation. One timer, set to the table's
 *     next deadline, ends it, whatever became of the call to B.
 *  3. Each session ends once: a `paired` line or an `unpaired` line with its reason.
 *  4. The token itself is not kept here, and no line shows it.
 *  5. Of A's quota it holds a token while ISSUED or PARKED, a parked socket while
 *     PARKED, a request (and one to B) until A was answered; each is given back
 *     where that ends: session_enter(), session_answered().
 *
 * Not here: who may meet whom (meet.c), the answer to A (brokering.c).
 */
#include "proxy/master/session.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <event2/event.h>

#include "hyper/base/bug.h"
#include "hyper/base/clock.h"
#include "hyper/base/fd.h"
#include "hyper/base/log.h"
#include "hyper/net/listen.h"
#include "proxy/master/park.h"
#include "proxy/master/tally.h"

#define BIT(s)     (1u << (s))
#define NS_PER_MS  1000000
#define NS_PER_SEC 1000000000

static const struct {
	const char *name;
	unsigned to;
} session_tab[] = {
#define X(n, to) { #n, to },
	SESSION_STATES(X)
#undef X
};

struct sessions {
	struct toktab *table;
	struct quota *quota;
	struct park *park;
	struct event *expiry;
	size_t n_slots;
	sessions_on_end on_end;
	sessions_on_parked on_parked;
	void *arg;
	struct session *by_slot[];
};

static void
session_free(struct session *s)
{
	free(s->from);
	free(s->to);
	free(s);
}

/* The only place that writes s->state; it keeps the table, the list and the watch in step. */
static void
session_enter(struct session *s, enum session_state to)
{
	struct sessions *all = s->all;

	BUG_ON(!(session_tab[s->state].to & BIT(to)));
	log_debug("session_state", "session=%s %s>%s", s->id, session_tab[s->state].name, session_tab[to].name);
	if (s->state == SESSION_PARKED) {
		park_remove(all->park, &s->park);
		quota_give(all->quota, s->a, QUOTA_PARKED);
	}
	if (to == SESSION_PARKED) {
		toktab_park(all->table, s->slot, s->parked_fd);
	} else {
		toktab_release(all->table, s->slot);
		all->by_slot[s->slot] = NULL;
		quota_give(all->quota, s->a, QUOTA_TOKENS);
	}
	s->state = to;
}

static void
arm_expiry(struct sessions *all)
{
	int64_t next = toktab_next_deadline_ns(all->table), left = next - clock_now_ns();
	struct timeval tv;

	if (next == INT64_MAX) {
		evtimer_del(all->expiry);
		return;
	}
	/* rounded up: an early wake-up would find nothing expired and spin until the deadline */
	left = left > 0 ? left + 999 : 0;
	tv.tv_sec = left / NS_PER_SEC;
	tv.tv_usec = left % NS_PER_SEC / 1000;
	evtimer_add(all->expiry, &tv);
}

static void
on_expiry(evutil_socket_t fd, short what, void *arg)
{
	struct sessions *all = arg;
	struct toktab_rec rec;

	(void)fd;
	(void)what;
	while (toktab_expired(all->table, clock_now_ns(), &rec)) {
		BUG_ON(rec.slot >= all->n_slots || !all->by_slot[rec.slot]);
		/* A that still waits for its answer: B's side was too late with its own, which is another fault */
		session_end(all->by_slot[rec.slot], all->by_slot[rec.slot]->ask ? END_DEADLINE : END_EXPIRED);
	}
	arm_expiry(all);
}

static void
on_gone(uint32_t key, int fd, void *arg)
{
	struct sessions *all = arg;
	struct session *s = key < all->n_slots ? all->by_slot[key] : NULL;

	BUG_ON(!s || s->parked_fd != fd);
	session_end(s, END_PEER_GONE);
}

int
sessions_new(struct event_base *base, struct toktab *table, struct quota *quota, sessions_on_end on_end,
    sessions_on_parked on_parked, void *arg, struct sessions **ret)
{
	size_t n = toktab_counts(table).slots;
	struct sessions *all = calloc(1, sizeof(*all) + n * sizeof(all->by_slot[0]));
	int rc;

	if (!all)
		return -ENOMEM;
	all->table = table;
	all->quota = quota;
	all->n_slots = n;
	all->on_end = on_end;
	all->on_parked = on_parked;
	all->arg = arg;
	all->expiry = evtimer_new(base, on_expiry, all);
	rc = all->expiry ? park_new(base, on_gone, all, &all->park) : -ENOMEM;
	if (rc < 0) {
		sessions_free(all);
		return rc;
	}
	*ret = all;
	return 0;
}

void
sessions_free(struct sessions *all)
{
	if (!all)
		return;
	park_free(all->park);
	if (all->expiry)
		event_free(all->expiry);
	free(all);
}

static int
session_insert(struct session *s, const struct session_new *n)
{
	struct toktab_rec rec = { .parked_fd = -1, .issued_ns = clock_now_ns() };
	uint32_t gen;
	int rc;

	token_hash(n->token, rec.hash);
	rec.deadline_ns = rec.issued_ns + n->life_ns;
	snprintf(rec.from, sizeof(rec.from), "%s", n->from);
	snprintf(rec.to, sizeof(rec.to), "%s", n->to);
	snprintf(rec.channel, sizeof(rec.channel), "%s", n->channel);
	rc = toktab_issue(s->all->table, &rec, &s->slot, &gen);
	if (rc < 0)
		return rc;
	s->deadline_ns = rec.deadline_ns;
	s->all->by_slot[s->slot] = s;
	arm_expiry(s->all);
	return 0;
}

/* 0, or -errno with nothing held. */
static int
session_begin(struct session *s, const struct session_new *n, struct quota_no *ret_no)
{
	struct quota *q = s->all->quota;
	int rc;

	s->from = strdup(n->from);
	s->to = strdup(n->to);
	if (!s->from || !s->to)
		return -ENOMEM;
	rc = quota_ask(q, n->from, n->to, clock_now_ns(), &s->a, &s->b, ret_no);
	if (rc < 0)
		return rc;
	rc = session_insert(s, n);
	if (rc < 0) {
		quota_answered(q, s->a, s->b);
		quota_give(q, s->a, QUOTA_TOKENS);
	}
	return rc;
}

int
session_issue(struct sessions *all, const struct session_new *n, struct session **ret, struct quota_no *ret_no)
{
	struct session *s = calloc(1, sizeof(*s));
	int i, rc;

	if (!s)
		return -ENOMEM;
	s->all = all;
	s->ask = n->ask;
	s->asked_ns = n->asked_ns;
	s->parked_fd = -1;
	for (i = 0; i < BROKER_STEP_MAX; i++)
		s->step_ns[i] = -1;
	token_session(n->token, s->id);
	rc = session_begin(s, n, ret_no);
	if (rc < 0) {
		session_free(s);
		return rc;
	}
	s->step_ns[STEP_ASKED] = 0;
	s->note = tally_begin(s->id, s->from, s->to);
	log_info(broker_step_word(STEP_ASKED), "session=%s from=%s to=%s channel=%s ms=0", s->id, s->from, s->to,
	    n->channel);
	session_step(s, STEP_ISSUED, "");
	*ret = s;
	return 0;
}

struct session *
session_find(struct sessions *all, const uint8_t hash[32])
{
	struct toktab_rec rec;

	/* -EAGAIN is for readers only: nobody writes while the writer looks */
	if (toktab_find(all->table, hash, clock_now_ns(), &rec) < 0)
		return NULL;
	BUG_ON(rec.slot >= all->n_slots || !all->by_slot[rec.slot]);
	return all->by_slot[rec.slot];
}

static void
peer_text(int fd, char ret[LOG_ADDR_MAX])
{
	struct sockaddr_storage sa;
	socklen_t len = sizeof(sa);

	snprintf(ret, LOG_ADDR_MAX, "?");
	if (getpeername(fd, (struct sockaddr *)&sa, &len) == 0)
		log_addr(&sa, true, ret);
}

int
session_park(struct session *s, int fd, unsigned worker)
{
	struct sessions *all = s->all;
	char peer[LOG_ADDR_MAX], more[LOG_ADDR_MAX + 32];
	int rc = quota_take(all->quota, s->a, QUOTA_PARKED);

	if (rc < 0) {
		fd_close(&fd);
		return rc;
	}
	park_add(all->park, &s->park, fd, s->slot);
	s->parked_fd = fd;
	s->first_worker = worker;
	session_enter(s, SESSION_PARKED);
	peer_text(fd, peer);
	snprintf(more, sizeof(more), " worker=%u peer=%s", worker, peer);
	session_step(s, STEP_PARKED, more);
	if (s->ask)
		all->on_parked(s, all->arg);
	return 0;
}

int
session_pair(struct session *s)
{
	int fd;

	session_enter(s, SESSION_PAIRED);
	fd = s->parked_fd;
	s->parked_fd = -1;
	session_step(s, STEP_PAIRED, "");
	tally_paired(s->note, s->step_ns[STEP_PAIRED]);
	if (!s->ask)
		session_free(s);
	return fd;
}

void
session_end(struct session *s, enum end_reason reason)
{
	struct sessions *all = s->all;

	session_enter(s, SESSION_ENDED);
	tally_unpaired(s->note, reason);
	log_info("unpaired", "session=%s from=%s to=%s reason=%s ms=%.3f", s->id, s->from, s->to,
	    end_reason_word(reason), (double)(clock_now_ns() - s->asked_ns) / NS_PER_MS);
	fd_finish(&s->parked_fd);
	if (s->ask)
		all->on_end(s, reason, all->arg);
	else
		session_free(s);
}

void
sessions_end_all(struct sessions *all, enum end_reason reason)
{
	size_t i;

	for (i = 0; i < all->n_slots; i++)
		if (all->by_slot[i])
			session_end(all->by_slot[i], reason);
	arm_expiry(all);
}

void
session_answered(struct session *s)
{
	BUG_ON(!s->ask);
	s->ask = NULL;
	quota_answered(s->all->quota, s->a, s->b);
	if (s->state == SESSION_PAIRED || s->state == SESSION_ENDED)
		session_free(s);
}

void
session_step(struct session *s, enum broker_step step, const char *more)
{
	s->step_ns[step] = clock_now_ns() - s->asked_ns;
	tally_step(s->note, step, s->step_ns[step]);
	/* not a double: its formatting was a tenth of the line's cost, and there are seven for each pair */
	log_info(broker_step_word(step), "session=%s from=%s to=%s ms=%lld.%03lld%s", s->id, s->from, s->to,
	    (long long)(s->step_ns[step] / NS_PER_MS), (long long)(s->step_ns[step] / 1000 % 1000), more);
}

void
sessions_each(const struct sessions *all, void (*each)(const struct session *, void *arg), void *arg)
{
	for (size_t i = 0; i < all->n_slots; i++)
		if (all->by_slot[i])
			each(all->by_slot[i], arg);
}

/* --- over an exec --- */

void
sessions_counts_each(struct sessions *all, void (*each)(const char *name, uint64_t *value, void *arg), void *arg)
{
	quota_counts_each(all->quota, each, arg);
}

size_t
sessions_save(const struct sessions *all, struct session_saved *ret, size_t cap)
{
	size_t i, n = 0;

	for (i = 0; i < all->n_slots; i++) {
		const struct session *s = all->by_slot[i];
		struct session_saved *v;
		struct toktab_rec rec;

		if (!s || n++ >= cap)
			continue;
		v = &ret[n - 1];
		toktab_get(all->table, s->slot, &rec);
		*v = (struct session_saved){ .from = s->from,
			.to = s->to,
			.parked_fd = s->parked_fd,
			.first_worker = s->first_worker,
			.issued_ns = rec.issued_ns,
			.deadline_ns = rec.deadline_ns,
			.asked_ns = s->asked_ns };
		memcpy(v->hash, rec.hash, sizeof(v->hash));
		memcpy(v->channel, rec.channel, sizeof(v->channel));
		memcpy(v->id, s->id, sizeof(v->id));
		memcpy(v->step_ns, s->step_ns, sizeof(v->step_ns));
	}
	return n;
}

/* Its record, and what it holds of the quota. 0, or -errno with nothing held. */
static int
session_restore_held(struct session *s, const struct session_saved *v)
{
	struct toktab_rec rec = { .parked_fd = -1, .issued_ns = v->issued_ns, .deadline_ns = v->deadline_ns };
	struct sessions *all = s->all;
	uint32_t gen;
	int rc;

	memcpy(rec.hash, v->hash, sizeof(rec.hash));
	snprintf(rec.from, sizeof(rec.from), "%s", v->from);
	snprintf(rec.to, sizeof(rec.to), "%s", v->to);
	memcpy(rec.channel, v->channel, sizeof(rec.channel));
	s->from = strdup(v->from);
	s->to = strdup(v->to);
	s->a = s->from && s->to ? quota_restore(all->quota, v->from, QUOTA_TOKENS) : NULL;
	if (!s->a)
		return -ENOMEM;
	rc = toktab_issue(all->table, &rec, &s->slot, &gen);
	if (rc < 0)
		quota_give(all->quota, s->a, QUOTA_TOKENS);
	return rc;
}

int
session_restore(struct sessions *all, const struct session_saved *v)
{
	struct session *s = calloc(1, sizeof(*s));
	int rc, fd = v->parked_fd;

	if (!s) {
		fd_close(&fd);
		return -ENOMEM;
	}
	*s = (struct session){ .all = all,
		.parked_fd = -1,
		.first_worker = v->first_worker,
		.asked_ns = v->asked_ns,
		.deadline_ns = v->deadline_ns };
	memcpy(s->id, v->id, sizeof(s->id));
	memcpy(s->step_ns, v->step_ns, sizeof(s->step_ns));
	rc = session_restore_held(s, v);
	if (rc < 0) {
		fd_close(&fd);
		session_free(s);
		return rc;
	}
	s->note = tally_resume(s->id, s->from, s->to);
	all->by_slot[s->slot] = s;
	arm_expiry(all);
	if (fd < 0)
		return 0;
	park_add(all->park, &s->park, fd, s->slot);
	/* not by session_park(): no limit of now undoes what was parked before */
	BUG_ON(quota_restore(all->quota, s->from, QUOTA_PARKED) != s->a);
	s->parked_fd = fd;
	session_enter(s, SESSION_PARKED);
	return 0;
}

void
sessions_end_asked(struct sessions *all, enum end_reason reason)
{
	size_t i;

	for (i = 0; i < all->n_slots; i++)
		if (all->by_slot[i] && all->by_slot[i]->ask)
			session_end(all->by_slot[i], reason);
	arm_expiry(all);
}

int64_t
sessions_retry_ms(const struct sessions *all)
{
	int64_t left = toktab_next_deadline_ns(all->table) - clock_now_ns();

	if (left < NS_PER_MS)
		return 1;
	return left > (int64_t)60 * NS_PER_SEC ? 60000 : (left + NS_PER_MS - 1) / NS_PER_MS;
}
