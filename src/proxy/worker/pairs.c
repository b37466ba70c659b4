/* pairs.c - the pairs of this worker: their names in the log, and exactly one ENDED or MOVED for each
 *
 *      PAIR ----------------------> PAIRED ... ENDED
 *      ADOPT.. RESUME ------------> PAIRED ... ENDED, or MOVED at once: it cannot go on here
 *      MOVE ----------------------> MOVED, or PAIRED: it stays, bytes of it are in our memory
 *      END -----------------------> ENDED, with the master's reason
 *
 * Always true:
 *  1. Every PAIR and RESUME that came is answered: PAIRED and later ENDED or
 *     MOVED; or ENDED (PAIR) or MOVED (RESUME) alone when nothing could be joined.
 *  2. What a pair still has to say is in its struct, so reporting never fails
 *     for want of memory. The struct lives until its last message has left.
 *  3. The parts of one pair come in one row: at most one is incomplete.
 *  4. The seat of a pair that is over or given back stays as it is until the
 *     master has been told: should we die before, it reads there what to do.
 *  5. The master holds duplicates of all descriptors of a pair. Closing ours
 *     says nothing to the peers; shutdown() and connect(AF_UNSPEC) do (src/relay).
 *
 * Not here: bytes (src/relay), why the two may meet (the master's broker).
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "hyper/base/bug.h"
#include "hyper/base/fd.h"
#include "hyper/base/log.h"
#include "proxy/worker/worker.h"

#define BIT(n) (1u << (n))

#define NO_SEAT UINT32_MAX

/* What a pair has to say, in this order. */
enum { SAY_PAIRED, SAY_ENDED, SAY_MOVED, SAY_MAX };

struct pair {
	union {
		uint64_t id;
		struct idmap_item item;
	};
	struct out out;
	char session[SESSION_ID_MAX];
	uint8_t says;    /* bits of SAY_* */
	uint8_t reason;  /* of ENDED */
	bool is_limited; /* one of its operator's group in the engine */
	uint32_t seat;   /* kept as it is until the master has been told; NO_SEAT */
	union {
		uint64_t asker; /* while it lives */
		uint64_t bytes_ab;
	};
	uint64_t bytes_ba;
	union {
		int64_t ms; /* of ENDED */
		struct {
			uint32_t flags, pipe[2];
		} moved;
	};
};
_Static_assert(END_REASON_MAX <= UINT8_MAX, "struct pair");
_Static_assert(sizeof(struct pair) <= 112, "an idle pair is cheap");

static struct pair *
pair_of(struct out *o)
{
	return (struct pair *)((char *)o - offsetof(struct pair, out));
}

static void
pair_make(struct worker *w, struct out *o, struct chan_msg *ret, int *ret_fd)
{
	const struct pair *p = pair_of(o);

	(void)w;
	(void)ret_fd;
	ret->pair = p->id;
	ret->bytes_ab = p->bytes_ab;
	ret->bytes_ba = p->bytes_ba;
	if (p->says & BIT(SAY_PAIRED)) {
		ret->type = CHAN_PAIRED;
	} else if (p->says & BIT(SAY_ENDED)) {
		ret->type = CHAN_ENDED;
		ret->reason = (enum end_reason)p->reason;
		ret->ms = (uint64_t)p->ms;
	} else {
		ret->type = CHAN_MOVED;
		ret->flags = p->moved.flags;
		ret->pipe_ab = p->moved.pipe[0];
		ret->pipe_ba = p->moved.pipe[1];
	}
}

static bool
pair_sent(struct worker *w, struct out *o)
{
	struct pair *p = pair_of(o);
	uint8_t first = p->says & (uint8_t)-p->says;

	p->says &= (uint8_t)~first;
	if (p->says)
		return true;
	if (first == BIT(SAY_PAIRED))
		return false;
	if (p->seat != NO_SEAT && w->relay)
		relay_seat_done(w->relay, p->seat);
	if (w->spare)
		slab_put(&w->pair_memory, p);
	else
		w->spare = p;
	return false;
}

static const struct out_kind pair_kind = { pair_make, pair_sent };

static void
pair_say(struct worker *w, struct pair *p, unsigned what)
{
	p->says |= (uint8_t)BIT(what);
	channel_put(w, &p->out);
}

/* The last thing that happens to a pair; it is in w->pairs no more. */
static void
pair_report(struct worker *w, struct pair *p, const struct relay_end *end)
{
	log_info("ended", "pair=%" PRIu64 " session=%s reason=%s bytes_ab=%" PRIu64 " bytes_ba=%" PRIu64 " ms=%" PRId64,
	    p->id, p->session, end_reason_word(end->reason), end->bytes_ab, end->bytes_ba, end->ms);
	p->reason = (uint8_t)end->reason;
	p->bytes_ab = end->bytes_ab;
	p->bytes_ba = end->bytes_ba;
	p->ms = end->ms;
	pair_say(w, p, SAY_ENDED);
}

/* Likewise: it is the master's again. The numbers of its pipes are those of this worker. */
static void
pair_give_back(struct worker *w, struct pair *p, const struct relay_bundle *b, const char *why)
{
	log_info("moved", "pair=%" PRIu64 " session=%s why=\"%s\"", p->id, p->session, why);
	p->bytes_ab = b->bytes_ab;
	p->bytes_ba = b->bytes_ba;
	p->moved.flags = b->flags;
	for (int i = 0; i < 2; i++)
		p->moved.pipe[i] = b->pipe[i].fd < 0 ? CHAN_NO_PIPE : b->pipe[i].no;
	pair_say(w, p, SAY_MOVED);
}

static struct pair *
pair_find(struct worker *w, uint64_t id)
{
	return idmap_find(&w->pairs, id);
}

static void
pair_remove(struct worker *w, struct pair *p)
{
	idmap_remove(&w->pairs, &p->item);
	w->n_unlimited -= p->asker != 0 && !p->is_limited;
}

void
pairs_on_end(const struct relay_end *end, void *arg)
{
	struct worker *w = arg;
	struct pair *p = pair_find(w, end->id);

	BUG_ON(!p);
	pair_remove(w, p);
	p->seat = end->seat;
	pair_report(w, p, end);
}

int
pairs_init(struct worker *w)
{
	w->pair_memory = (struct slab)SLAB_OF(struct pair);
	w->spare = slab_get(&w->pair_memory);
	return w->spare ? idmap_init(&w->pairs) : -ENOMEM;
}

/* Even without memory there is one, to answer with, and *ret_poor says so. NULL when that one is in use as well. */
static struct pair *
pair_new(struct worker *w, const struct chan_msg *msg, bool *ret_poor)
{
	struct pair *p = slab_get(&w->pair_memory);

	*ret_poor = !p;
	if (!p) {
		p = w->spare;
		w->spare = NULL;
	}
	if (!p)
		return NULL;
	memset(p, 0, sizeof(*p));
	p->id = msg->pair;
	p->seat = NO_SEAT;
	p->out.kind = &pair_kind;
	memcpy(p->session, msg->session, sizeof(p->session));
	p->session[sizeof(p->session) - 1] = '\0';
	return p;
}

static void
pair_limit(struct worker *w, struct pair *p, uint64_t rate)
{
	if (relay_pair_join(w->relay, p->id, p->asker, rate) < 0) {
		log_warn("pair",
		    "pair=%" PRIu64 " what=\"its operator's limit of bytes a second\" err=\"out of memory\"", p->id);
		return;
	}
	p->is_limited = true;
	w->n_unlimited--;
}

void
pairs_rate(struct worker *w, uint64_t asker, uint64_t rate)
{
	struct pair *p;

	relay_group_rate(w->relay, asker, rate);
	/* a limit that is new: it holds for those that had none */
	if (rate == 0 || w->n_unlimited == 0)
		return;
	for (p = idmap_next(&w->pairs, NULL); p; p = idmap_next(&w->pairs, p))
		if (p->asker == asker && !p->is_limited)
			pair_limit(w, p, rate);
}

static void
pair_begins(struct worker *w, struct pair *p, const struct chan_msg *msg)
{
	p->asker = msg->asker;
	w->n_unlimited += p->asker != 0;
	if (msg->asker && msg->rate)
		pair_limit(w, p, msg->rate);
	w->pairs_total++;
	pair_say(w, p, SAY_PAIRED);
}

/* --- two that meet --------------------------------------------------------- */

/* O_NONBLOCK belongs to the socket and was set when a worker accepted it. A socket of PAIR is not looked at: a sibling that
 * lies keeps a duplicate and could take it off a moment later; who blocks is found by the missing heartbeat. One that
 * has served for long may come from an older program. */
static int
be_nonblock(int fd)
{
	int flags = fcntl(fd, F_GETFL);

	if (flags < 0)
		return -errno;
	return flags & O_NONBLOCK ? 0 : fd_set_nonblock(fd);
}

/* 0, or why they cannot be joined. Both descriptors are given when it is 0 or END_INTERNAL. */
static int
pair_join(struct worker *w, struct pair *p, int *second_fd, int *first_fd, enum end_reason *ret_reason)
{
	int err;

	*ret_reason = *second_fd < 0 ? END_DEADLINE : END_BUSY;
	if (*second_fd < 0 || *first_fd < 0) /* the answer came after WORKER_ANSWER_MS, or without its descriptor */
		return -ENOTCONN;
	*ret_reason = END_INTERNAL;
	idmap_add(&w->pairs, &p->item);
	err = relay_pair_new(w->relay, p->id, *second_fd, *first_fd);
	*second_fd = *first_fd = -1;
	if (err < 0)
		pair_remove(w, p);
	return err;
}

int
pairs_join(struct worker *w, const struct chan_msg *msg, int first_fd)
{
	int second_fd = conn_take(w, msg->conn), err = 0;
	struct relay_end end = { .id = msg->pair, .reason = END_INTERNAL };
	bool is_known = pair_find(w, msg->pair), poor = false;
	struct pair *p = is_known ? NULL : pair_new(w, msg, &poor);

	if (p)
		err = poor ? -ENOMEM : pair_join(w, p, &second_fd, &first_fd, &end.reason);
	if (!p || err < 0) {
		fd_close(&first_fd);
		fd_close(&second_fd);
	}
	if (!p)
		return is_known ? -EPROTO : -ENOMEM;
	if (err < 0) {
		if (err != -ENOTCONN)
			log_warn("pair", "pair=%" PRIu64 " err=\"%s\"", p->id, strerror(-err));
		pair_report(w, p, &end);
		return 0;
	}
	pair_begins(w, p, msg);
	log_info(
	    "paired", "pair=%" PRIu64 " conn=%" PRIu64 " session=%s worker=%u", p->id, msg->conn, p->session, w->slot);
	return 0;
}

/* --- one that goes on here ------------------------------------------------- */

static void
adopting_begin(struct worker *w, uint64_t id)
{
	w->adopting = (struct relay_bundle){ .id = id, .fd = { -1, -1 }, .pipe = { { .fd = -1 }, { .fd = -1 } } };
	w->adopting_has = 0;
	w->adopting_lost = false;
}

static void
adopting_close(struct worker *w)
{
	for (int i = 0; i < 2 && w->adopting.id; i++) {
		fd_close(&w->adopting.fd[i]);
		fd_close(&w->adopting.pipe[i].fd);
	}
	w->adopting.id = 0;
}

int
pairs_adopt(struct worker *w, const struct chan_msg *msg, int fd, bool lost)
{
	struct relay_bundle *b = &w->adopting;

	if (b->id == 0 && !pair_find(w, msg->pair))
		adopting_begin(w, msg->pair);
	if (b->id == 0 || b->id != msg->pair || w->adopting_has & BIT(msg->part)) {
		fd_close(&fd);
		return -EPROTO;
	}
	w->adopting_has |= BIT(msg->part);
	w->adopting_lost |= lost;
	if (msg->part == CHAN_PART_SOCKET_A || msg->part == CHAN_PART_SOCKET_B) {
		b->fd[msg->part == CHAN_PART_SOCKET_B] = fd;
	} else {
		b->pipe[msg->part == CHAN_PART_PIPE_BA].no = msg->pipe;
		b->pipe[msg->part == CHAN_PART_PIPE_BA].fd = fd;
	}
	return 0;
}

/* 0 or -errno; the parts are given in any case. */
static int
pair_adopt(struct worker *w, struct pair *p)
{
	int err = w->adopting_lost ? -EMFILE : 0;

	if (err == 0)
		err = be_nonblock(w->adopting.fd[0]);
	if (err == 0)
		err = be_nonblock(w->adopting.fd[1]);
	if (err < 0)
		return err;
	idmap_add(&w->pairs, &p->item);
	err = relay_pair_adopt(w->relay, &w->adopting);
	w->adopting.id = 0;
	if (err < 0)
		pair_remove(w, p);
	return err;
}

int
pairs_resume(struct worker *w, const struct chan_msg *msg)
{
	const unsigned sockets = BIT(CHAN_PART_SOCKET_A) | BIT(CHAN_PART_SOCKET_B);
	struct relay_bundle *b = &w->adopting, before;
	struct pair *p;
	bool poor;
	int err;

	if (b->id == 0 || b->id != msg->pair || (w->adopting_has & sockets) != sockets)
		return -EPROTO;
	p = pair_new(w, msg, &poor);
	if (!p)
		return -ENOMEM;
	b->flags = msg->flags;
	b->bytes_ab = msg->bytes_ab;
	b->bytes_ba = msg->bytes_ba;
	b->suspect = msg->suspect;
	before = *b; /* whose descriptors are not ours any more: what is given back are numbers */
	for (int i = 0; i < 2; i++)
		before.pipe[i].fd = w->adopting_has & BIT(CHAN_PART_PIPE_AB + i) ? 0 : -1;
	err = poor ? -ENOMEM : pair_adopt(w, p);
	adopting_close(w);
	if (err < 0) {
		log_warn("pair", "pair=%" PRIu64 " what=adopt err=\"%s\"", p->id, strerror(-err));
		pair_give_back(w, p, &before, "not possible here");
		return 0;
	}
	pair_begins(w, p, msg);
	log_info("resumed", "pair=%" PRIu64 " session=%s worker=%u flags=%x bytes_ab=%" PRIu64 " bytes_ba=%" PRIu64,
	    p->id, p->session, w->slot, msg->flags, msg->bytes_ab, msg->bytes_ba);
	return 0;
}

/* --- and one that leaves --------------------------------------------------- */

int
pairs_move(struct worker *w, const struct chan_msg *msg)
{
	struct pair *p = pair_find(w, msg->pair);
	struct relay_bundle b;
	int err;

	if (!p)
		return 0; /* over already: ENDED is on its way or was read */
	err = relay_pair_release(w->relay, p->id, &b);
	if (err < 0) {
		log_debug("stays", "pair=%" PRIu64 " err=\"%s\"", p->id, strerror(-err));
		pair_say(w, p, SAY_PAIRED);
		return 0;
	}
	pair_remove(w, p);
	p->seat = b.seat;
	pair_give_back(w, p, &b, "asked for");
	return 0;
}

int
pairs_end(struct worker *w, const struct chan_msg *msg)
{
	if (msg->reason == END_CLOSED) /* only the peers can end a pair cleanly */
		return -EPROTO;
	relay_pair_close(w->relay, msg->pair, msg->reason); /* an unknown one is over already, or was given back */
	return 0;
}

void
pairs_fini(struct worker *w)
{
	BUG_ON(w->pairs.n != 0);
	adopting_close(w);
	slab_put(&w->pair_memory, w->spare);
	idmap_fini(&w->pairs);
	slab_fini(&w->pair_memory);
}
