/* meet.c - who meets whom
 *
 * Always true:
 *  1. Each ARRIVED gets exactly one answer: PARKED, PAIR or REFUSED.
 *  2. A parked socket has one owner: its session until PAIR is posted, the pair
 *     until the worker says PAIRED, the worker from then on. If that worker dies
 *     in between, both sockets of the pair are gone: the second one was its own.
 *  3. Each pair has one `ended` line: from ENDED, or `worker_lost`.
 *  4. Nothing is handed to a worker that is known to be dead: who is parked stays.
 *  5. One connection cannot meet itself: its cookie is compared.
 *  6. A pair counts for the operator A that asked for it, from its creation to its `ended` line.
 *  7. A refusal for want of room or over a quota changes nothing: the record stays
 *     as it is, issued or parked, until its time is over. So who was refused may
 *     come again, and who waits gets no blame for it.
 *
 * Not here: records and their time (session.c), which message is permitted (slots.c).
 */
#include "proxy/master/meet.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/socket.h>

#define HASH_NONFATAL_OOM 1
#include <uthash.h>

#include "hyper/base/bug.h"
#include "hyper/base/clock.h"
#include "hyper/base/fd.h"
#include "hyper/base/log.h"

#define BIT(s) (1u << (s))

/* A worker answers PAIR in its next turn. One that beats and yet does not is broken. */
#define HANDING_MS 10000
/* Pairs of one worker that wait for PAIRED: about what a UNIX socket takes (faults.md "in flight"). */
#define HANDING_MAX 256

#define PAIR_STATES(X)                              \
	X(HANDING, BIT(PAIR_LIVE) | BIT(PAIR_DONE)) \
	X(LIVE, BIT(PAIR_DONE))                     \
	X(DONE, 0)

enum pair_state {
#define X(n, to) PAIR_##n,
	PAIR_STATES(X)
#undef X
	    PAIR_STATE_MAX
};

static const struct {
	const char *name;
	unsigned to;
} pair_tab[] = {
#define X(n, to) { #n, to },
	PAIR_STATES(X)
#undef X
};

struct pair {
	uint64_t id;
	enum pair_state state;
	struct slot *slot;
	struct quota_op *op; /* A's counts, borrowed while this pair is one of them */
	int first_fd;        /* HANDING: our copy of the first party's socket; else -1 */
	char session[SESSION_ID_MAX];
	int64_t since_ms;
	TAILQ_ENTRY(pair) handing; /* while HANDING, oldest first */
	UT_hash_handle hh;         /* by id */
};

/* Per worker slot; grows with the highest number seen. */
struct load {
	size_t pairs, handing;
};

struct meet {
	struct sessions *sessions;
	struct quota *quota;
	size_t max_pairs;
	uint64_t last_id;
	struct pair *pairs;
	TAILQ_HEAD(, pair) handing;
	struct load *loads;
	size_t n_loads;
};

struct meet *
meet_new(struct sessions *sessions, struct quota *quota, size_t max_pairs)
{
	struct meet *m = calloc(1, sizeof(*m));

	if (!m)
		return NULL;
	m->sessions = sessions;
	m->quota = quota;
	m->max_pairs = max_pairs;
	TAILQ_INIT(&m->handing);
	return m;
}

/* NULL when out of memory. */
static struct load *
load_of(struct meet *m, const struct slot *s)
{
	size_t n = slot_no(s) + 1;
	struct load *grown;

	if (n > m->n_loads) {
		grown = realloc(m->loads, n * sizeof(*grown));
		if (!grown)
			return NULL;
		memset(grown + m->n_loads, 0, (n - m->n_loads) * sizeof(*grown));
		m->loads = grown;
		m->n_loads = n;
	}
	return &m->loads[slot_no(s)];
}

/* The only place that writes p->state after its creation. */
static void
pair_enter(struct meet *m, struct pair *p, enum pair_state to)
{
	BUG_ON(!(pair_tab[p->state].to & BIT(to)));
	log_debug("pair_state", "pair=%" PRIu64 " %s>%s", p->id, pair_tab[p->state].name, pair_tab[to].name);
	if (p->state == PAIR_HANDING) {
		TAILQ_REMOVE(&m->handing, p, handing);
		m->loads[slot_no(p->slot)].handing--;
		fd_close(&p->first_fd);
	}
	if (to == PAIR_DONE) {
		m->loads[slot_no(p->slot)].pairs--;
		quota_give(m->quota, p->op, QUOTA_PAIRS);
		HASH_DEL(m->pairs, p);
	}
	p->state = to;
}

/* Logs the end and frees. `end` NULL: the worker died, nobody knows how much was delivered. */
static void
pair_end(struct meet *m, struct pair *p, const struct chan_msg *end)
{
	if (end)
		log_info("ended",
		    "pair=%" PRIu64 " session=%s worker=%u reason=%s bytes_ab=%" PRIu64 " bytes_ba=%" PRIu64
		    " ms=%" PRIu64,
		    p->id, p->session, slot_no(p->slot), end_reason_word(end->reason), end->bytes_ab, end->bytes_ba,
		    end->ms);
	else
		log_info("ended", "pair=%" PRIu64 " session=%s worker=%u reason=%s bytes_ab=? bytes_ba=? ms=%lld",
		    p->id, p->session, slot_no(p->slot), end_reason_word(END_WORKER_LOST),
		    (long long)(clock_now_ms() - p->since_ms));
	pair_enter(m, p, PAIR_DONE);
	free(p);
}

void
meet_free(struct meet *m)
{
	struct pair *p, *next;

	if (!m)
		return;
	HASH_ITER (hh, m->pairs, p, next)
		pair_end(m, p, NULL);
	free(m->loads);
	free(m);
}

/* --- ARRIVED --- */

static void
answer_refused(struct slot *s, uint64_t conn, enum end_reason reason)
{
	static struct log_limit limits[END_REASON_MAX];
	struct chan_msg m = { .type = CHAN_REFUSED, .conn = conn, .reason = reason };

	/* With a live token and a full house anybody can cause these as fast as he dials. */
	log_limited(&limits[reason], LOG_LVL_INFO, "refused", "conn=%" PRIu64 " worker=%u reason=%s", conn, slot_no(s),
	    end_reason_word(reason));
	slot_post(s, &m, -1);
}

static bool
is_same_socket(int a, int b)
{
	uint64_t ca = 0, cb = 1;
	socklen_t la = sizeof(ca), lb = sizeof(cb);

	return getsockopt(a, SOL_SOCKET, SO_COOKIE, &ca, &la) == 0 &&
	       getsockopt(b, SOL_SOCKET, SO_COOKIE, &cb, &lb) == 0 && ca == cb;
}

static enum end_reason
reason_of(int rc)
{
	return rc == -EDQUOT ? END_QUOTA : rc == -EBUSY ? END_BUSY : END_INTERNAL;
}

static void
park_first(struct slot *s, uint64_t conn, struct session *ses, int *fd)
{
	struct chan_msg m = { .type = CHAN_PARKED, .conn = conn };
	int rc = session_park(ses, *fd, slot_no(s));

	*fd = -1;
	if (rc < 0)
		answer_refused(s, conn, reason_of(rc));
	else
		slot_post(s, &m, -1);
}

/* 0 with *ret borrowed, -EDQUOT, -EBUSY or -ENOMEM. */
static int
pair_new(struct meet *m, struct slot *s, struct load *load, const struct session *ses, struct pair **ret)
{
	int rc = quota_take(m->quota, ses->a, QUOTA_PAIRS);
	struct pair *p;

	if (rc < 0)
		return rc;
	p = calloc(1, sizeof(*p));
	if (!p)
		goto out;
	p->id = m->last_id + 1;
	p->slot = s;
	p->first_fd = -1;
	p->since_ms = clock_now_ms();
	memcpy(p->session, ses->id, sizeof(p->session));
	HASH_ADD(hh, m->pairs, id, sizeof(p->id), p);
	if (!p->hh.tbl) { /* HASH_NONFATAL_OOM */
		free(p);
		goto out;
	}
	p->op = ses->a;
	m->last_id = p->id;
	TAILQ_INSERT_TAIL(&m->handing, p, handing);
	load->handing++;
	load->pairs++;
	*ret = p;
	return 0;
out:
	quota_give(m->quota, ses->a, QUOTA_PAIRS);
	return -ENOMEM;
}

static void
pair_second(struct meet *m, struct slot *s, uint64_t conn, struct session *ses)
{
	struct chan_msg msg = { .type = CHAN_PAIR, .conn = conn };
	struct load *load = load_of(m, s);
	struct pair *p;
	int rc;

	/* The record stays parked: the same party may try again, at another worker. */
	if (slot_is_gone(s) || slot_is_ending(s)) {
		answer_refused(s, conn, slot_is_gone(s) ? END_WORKER_LOST : END_DRAINING);
		return;
	}
	if (!load || load->handing >= HANDING_MAX || load->pairs >= m->max_pairs) {
		answer_refused(s, conn, load ? END_BUSY : END_INTERNAL);
		return;
	}
	rc = pair_new(m, s, load, ses, &p);
	if (rc < 0) {
		answer_refused(s, conn, reason_of(rc));
		return;
	}
	log_info("pair", "session=%s pair=%" PRIu64 " worker=%u first_worker=%u from=%s to=%s ms=%.3f", p->session,
	    p->id, slot_no(s), ses->first_worker, ses->from, ses->to, (double)(clock_now_ns() - ses->asked_ns) / 1e6);
	p->first_fd = session_pair(ses);
	msg.pair = p->id;
	memcpy(msg.session, p->session, sizeof(msg.session));
	slot_post(s, &msg, p->first_fd);
}

static int
on_arrived(struct meet *m, struct slot *s, const struct chan_msg *msg, int *fd, bool lost)
{
	struct session *ses = lost ? NULL : session_find(m->sessions, msg->hash);

	/* A sibling that sends anything else is wrong, not unlucky. */
	if (!lost && !fd_is_tcp(*fd))
		return -EPROTO;
	if (lost)
		answer_refused(s, msg->conn, END_BUSY);
	else if (!ses)
		answer_refused(s, msg->conn, END_UNKNOWN_TOKEN);
	else if (fd_is_shut(*fd))
		answer_refused(
		    s, msg->conn, END_DEADLINE); /* it waited too long for us: that is not the other party's fault */
	else if (ses->state == SESSION_ISSUED)
		park_first(s, msg->conn, ses, fd);
	else if (is_same_socket(ses->parked_fd, *fd))
		answer_refused(s, msg->conn, END_UNKNOWN_TOKEN);
	else
		pair_second(m, s, msg->conn, ses);
	return 0;
}

/* --- PAIRED, ENDED --- */

/* The worker's pair; one whose PAIR it cannot have seen yet is not. */
static struct pair *
pair_find(struct meet *m, const struct slot *s, uint64_t id)
{
	struct pair *p;

	HASH_FIND(hh, m->pairs, &id, sizeof(id), p);
	if (!p || p->slot != s || (p->state == PAIR_HANDING && slot_has_queued(s, p->first_fd)))
		return NULL;
	return p;
}

static int
on_paired(struct meet *m, struct slot *s, uint64_t id)
{
	struct pair *p = pair_find(m, s, id);

	if (!p || p->state != PAIR_HANDING)
		return -EPROTO;
	pair_enter(m, p, PAIR_LIVE);
	return 0;
}

int
meet_on_message(struct meet *m, struct slot *s, const struct chan_msg *msg, int *fd, bool lost)
{
	struct pair *p;

	if (msg->type == CHAN_ARRIVED)
		return on_arrived(m, s, msg, fd, lost);
	if (msg->type == CHAN_PAIRED)
		return on_paired(m, s, msg->pair);
	p = pair_find(m, s, msg->pair);
	if (!p)
		return -EPROTO;
	pair_end(m, p, msg);
	return 0;
}

void
meet_on_lost(struct meet *m, struct slot *s)
{
	struct pair *p, *next;

	HASH_ITER (hh, m->pairs, p, next)
		if (p->slot == s)
			pair_end(m, p, NULL);
}

void
meet_on_tick(struct meet *m)
{
	int64_t now = clock_now_ms();
	struct pair *p;

	TAILQ_FOREACH (p, &m->handing, handing) {
		if (now - p->since_ms < HANDING_MS)
			break;
		slot_doom(p->slot, "no answer to PAIR");
	}
}
