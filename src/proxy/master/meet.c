/* meet.c - who meets whom
 *
 * Always true:
 *  1. Each ARRIVED of a worker that lives gets exactly one answer: PARKED, PAIR
 *     or REFUSED.
 *  2. A parked socket has one owner: its session until the pair is made, the pair
 *     from then on (pairing.h). The second party's is the pair's from its ARRIVED on.
 *  3. A worker that dies, with an answer on its way or none, takes nobody with
 *     it: who is parked stays, who is paired goes on elsewhere (rescue.c).
 *  4. One connection cannot meet itself: its cookie is compared.
 *  5. A refusal for want of room or over a quota changes nothing: the record stays
 *     as it is, issued or parked, until its time is over. So who was refused may
 *     come again, and who waits gets no blame for it.
 *  6. A worker shows the token itself, which is in no table and no log: one that
 *     has been taken over cannot claim sockets by the hashes that it can read.
 *
 * Not here: records and their time (session.c), the pairs themselves (pairing.c),
 * giving them to workers (hand.c), which message is permitted (slots.c).
 */
#include "proxy/master/meet.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "hyper/base/bug.h"
#include "hyper/base/clock.h"
#include "hyper/base/fd.h"
#include "hyper/base/log.h"
#include "hyper/wire/token.h"
#include "proxy/master/hand.h"
#include "proxy/master/pairing.h"
#include "proxy/master/pipes.h"
#include "proxy/master/rescue.h"
#include "proxy/master/share.h"

#define FIRST_PIPES 4 /* that a worker gets unasked */

struct meet {
	struct sessions *sessions;
	struct hand_conf hand;
	bool copy_mode;
	struct pairs *pairs;
	struct share *share;
};

static void
set_hand(struct meet *m, const struct meet_conf *conf)
{
	m->copy_mode = conf->copy_mode;
	m->hand = (struct hand_conf){ .max_pipes = m->copy_mode ? 0 : conf->max_pipes, .pipe_size = conf->pipe_size };
}

struct meet *
meet_new(struct sessions *sessions, struct quota *quota, const struct meet_conf *conf)
{
	struct meet *m = calloc(1, sizeof(*m));

	if (!m)
		return NULL;
	m->sessions = sessions;
	set_hand(m, conf);
	m->pairs = pairs_new(quota, conf->workers, conf->max_pairs);
	m->share = share_new(conf->operator_rate, conf->workers);
	if (!m->pairs || !m->share) {
		meet_free(m);
		return NULL;
	}
	m->pairs->share = m->share;
	return m;
}

void
meet_free(struct meet *m)
{
	if (!m)
		return;
	pairs_free(m->pairs);
	share_free(m->share);
	free(m);
}

void
meet_apply(struct meet *m, const struct meet_conf *conf)
{
	set_hand(m, conf);
	pairs_apply(m->pairs, conf->workers, conf->max_pairs);
	share_apply(m->share, conf->operator_rate, conf->workers);
	hand_waiting(m->pairs);
	hand_drain(m->pairs);
}

void
meet_stop(struct meet *m)
{
	struct pair *p;

	m->pairs->is_stopping = true;
	while ((p = TAILQ_FIRST(&m->pairs->waiting)))
		pairing_end(m->pairs, p, END_STOPPED, true);
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

/* PAIR to the worker that has the second party's socket. */
static void
hand_to_its_worker(struct meet *m, struct pair *p, struct slot *s, uint64_t conn)
{
	struct chan_msg msg = { .type = CHAN_PAIR, .conn = conn, .pair = p->id };

	memcpy(msg.session, p->session, sizeof(msg.session));
	p->is_new = true;
	pairing_enter(m->pairs, p, PAIR_HANDING, s, "pair");
	share_fill(m->share, p, s, &msg);
	slot_post(s, &msg, p->fd[1]);
}

/* For one whose worker is dead: would all workers together be full? */
static bool
pairs_are_many(const struct meet *m)
{
	return m->pairs->by_id.n >= m->pairs->max_pairs * m->pairs->n_workers;
}

static void
pair_second(struct meet *m, struct slot *s, uint64_t conn, struct session *ses, int *fd)
{
	const struct load *load = pairs_load(m->pairs, s);
	const struct pairing_of of = { .op = ses->a, .session = ses->id, .to = ses->to, .note = ses->note };
	bool is_lost = slot_is_gone(s);
	struct pair *p;
	int rc;

	/* The record stays parked: the same party may try again, at another worker. */
	if (m->pairs->is_stopping || (slot_is_ending(s) && !slot_is_draining(s) && !is_lost)) {
		answer_refused(s, conn, END_DRAINING);
		return;
	}
	if (is_lost ? pairs_are_many(m) : load->handing >= PAIR_HANDING_MAX || load->pairs >= m->pairs->max_pairs) {
		answer_refused(s, conn, END_BUSY);
		return;
	}
	rc = pairing_new(m->pairs, &of, &p);
	if (rc < 0) {
		answer_refused(s, conn, reason_of(rc));
		return;
	}
	log_info("pair", "session=%s pair=%" PRIu64 " worker=%u first_worker=%u from=%s to=%s ms=%.3f", p->session,
	    p->id, slot_no(s), ses->first_worker, ses->from, ses->to, (double)(clock_now_ns() - ses->asked_ns) / 1e6);
	p->last_worker = (uint16_t)slot_no(s);
	p->fd[0] = *fd;
	*fd = -1;
	p->fd[1] = session_pair(ses);
	if (is_lost)
		hand_waiting(m->pairs);
	else
		hand_to_its_worker(m, p, s, conn);
}

static int
on_arrived(struct meet *m, struct slot *s, const struct chan_msg *msg, int *fd, bool lost)
{
	enum fd_tcp look = FD_TCP_OPEN;
	struct session *ses = NULL;
	struct token token;
	uint8_t hash[32];

	/* A sibling that sends anything else is wrong, not unlucky; one whose connection is over is not wrong. */
	if (!lost && (look = fd_tcp_look(*fd)) == FD_TCP_NONE)
		return -EPROTO;
	if (!lost) {
		memcpy(token.bytes, msg->token, sizeof(token.bytes));
		token_hash(&token, hash);
		explicit_bzero(&token, sizeof(token));
		ses = session_find(m->sessions, hash);
	}
	if (lost)
		answer_refused(s, msg->conn, END_BUSY);
	else if (!ses)
		answer_refused(s, msg->conn, END_UNKNOWN_TOKEN);
	else if (look == FD_TCP_SHUT)
		answer_refused(
		    s, msg->conn, END_DEADLINE); /* it waited too long for us: that is not the other party's fault */
	else if (ses->state == SESSION_ISSUED)
		park_first(s, msg->conn, ses, fd);
	else if (is_same_socket(ses->parked_fd, *fd))
		answer_refused(s, msg->conn, END_UNKNOWN_TOKEN);
	else
		pair_second(m, s, msg->conn, ses, fd);
	return 0;
}

/* --- what a worker says of its pairs --- */

/* The worker's pair; one whose PAIR or ADOPT it cannot have seen yet is not. */
static struct pair *
pair_of(struct meet *m, const struct slot *s, uint64_t id)
{
	struct pair *p = pairing_find(m->pairs, id);

	if (!p || p->slot != s || (p->state == PAIR_HANDING && slot_has_queued(s, p->fd[1])))
		return NULL;
	return p;
}

static int
on_paired(struct meet *m, struct pair *p)
{
	/* As an answer to MOVE: it stays. */
	if (p->state != PAIR_HANDING && p->state != PAIR_MOVING)
		return -EPROTO;
	p->is_new = false;
	p->pipe_no[0] = p->pipe_no[1] = CHAN_NO_PIPE;
	pairing_enter(m->pairs, p, PAIR_LIVE, NULL, "PAIRED");
	return 0;
}

static int
on_ended(struct meet *m, struct pair *p, const struct chan_msg *msg)
{
	p->bytes[0] = msg->bytes_ab;
	p->bytes[1] = msg->bytes_ba;
	if (msg->reason != END_RESET)
		p->is_kicked = false; /* the worker knows; what it cannot know is that the reset was ours */
	pairing_end(m->pairs, p, msg->reason, false);
	return 0;
}

static int
on_moved(struct meet *m, struct pair *p, const struct chan_msg *msg)
{
	if (p->state != PAIR_MOVING && !(p->state == PAIR_HANDING && !p->is_new))
		return -EPROTO;
	if (hand_take_back(m->pairs, p, msg) < 0)
		return -EPROTO;
	if (m->pairs->is_stopping)
		pairing_end(m->pairs, p, END_STOPPED, true);
	return 0;
}

static int
on_pair_message(struct meet *m, struct slot *s, const struct chan_msg *msg)
{
	struct pair *p = pair_of(m, s, msg->pair);
	int rc;

	if (!p)
		return -EPROTO;
	rc = msg->type == CHAN_PAIRED  ? on_paired(m, p)
	     : msg->type == CHAN_ENDED ? on_ended(m, p, msg)
				       : on_moved(m, p, msg);
	if (rc == 0) {
		hand_waiting(m->pairs);
		if (msg->type != CHAN_PAIRED) /* a pair that just stayed is tried again by the clock */
			hand_drain(m->pairs);
	}
	return rc;
}

/* --- what it says of its pipes --- */

static int
on_want(struct meet *m, struct slot *s, uint32_t n)
{
	struct load *l = pairs_load(m->pairs, s);

	if (!l->slot)
		return 0; /* dead: it had said so before */
	l->want = n > m->hand.max_pipes - l->want ? m->hand.max_pipes : l->want + n;
	if (l->want == 0)
		l->want = 1; /* copy mode has none to give: the answer is NOPIPE */
	hand_pipes(m->pairs, &m->hand, s);
	return 0;
}

static int
on_freed(struct slot *s, uint32_t no)
{
	int fd = pipes_get(slot_pipes(s), no);

	/* One that is still on its way to it would be sent by a number that is somebody else's then. */
	if (fd < 0 || slot_has_queued(s, fd))
		return -EPROTO;
	fd = pipes_take(slot_pipes(s), no);
	fd_close(&fd);
	return 0;
}

/* --- slots_ops --- */

int
meet_on_message(struct meet *m, struct slot *s, const struct chan_msg *msg, int *fd, bool lost)
{
	switch ((int)msg->type) {
	case CHAN_ARRIVED: return on_arrived(m, s, msg, fd, lost);
	case CHAN_WANT: return on_want(m, s, msg->n);
	case CHAN_FREED: return on_freed(s, msg->pipe);
	default: return on_pair_message(m, s, msg);
	}
}

void
meet_on_serving(struct meet *m, struct slot *s)
{
	struct load *l = pairs_load(m->pairs, s);

	l->slot = s;
	l->rest_until_ms = 0;
	l->want = m->hand.max_pipes < FIRST_PIPES ? m->hand.max_pipes : FIRST_PIPES;
	hand_pipes(m->pairs, &m->hand, s);
	hand_waiting(m->pairs);
}

void
meet_on_room(struct meet *m, struct slot *s)
{
	hand_pipes(m->pairs, &m->hand, s);
	hand_waiting(m->pairs);
}

void
meet_on_lost(struct meet *m, struct slot *s, int status)
{
	struct load *l = pairs_load(m->pairs, s);
	int sig = WIFSIGNALED(status) ? WTERMSIG(status) : 0;

	l->slot = NULL;
	l->want = 0;
	rescue_pairs(m->pairs, s, sig == SIGSEGV || sig == SIGBUS || sig == SIGABRT || sig == SIGILL || sig == SIGFPE);
	BUG_ON(l->pairs != 0);
	hand_waiting(m->pairs);
}

struct pairs *
meet_pairs(struct meet *m)
{
	return m->pairs;
}

void
meet_on_tick(struct meet *m)
{
	hand_tick(m->pairs, !m->copy_mode && !m->pairs->is_stopping);
	share_tick(m->share, m->pairs, clock_now_ms());
}
