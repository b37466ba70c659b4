/* pairs.c - the pairs of this worker: their names in the log, and exactly one ENDED for each
 *
 * Always true:
 *  1. Every PAIR that came is answered: PAIRED and later ENDED, or ENDED alone
 *     when nothing could be joined.
 *  2. Both messages are part of the pair's struct, so reporting an end never
 *     fails for want of memory. The struct lives until ENDED has left.
 *
 * Not here: bytes (src/relay), why the two may meet (the master's broker).
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define HASH_NONFATAL_OOM 1
#include <uthash.h>

#include "hyper/base/bug.h"
#include "hyper/base/fd.h"
#include "hyper/base/log.h"
#include "proxy/worker/worker.h"

struct pair {
	uint64_t id;
	char session[SESSION_ID_MAX];
	struct out paired, ended;
	UT_hash_handle hh;
};

static void
ended_done(struct out *o)
{
	free((char *)o - offsetof(struct pair, ended));
}

/* The last thing that happens to a pair; it is in w->pairs no more. */
static void
pair_report(struct worker *w, struct pair *p, const struct relay_end *end)
{
	log_info("ended", "pair=%" PRIu64 " session=%s reason=%s bytes_ab=%" PRIu64 " bytes_ba=%" PRIu64 " ms=%" PRId64,
	    p->id, p->session, end_reason_word(end->reason), end->bytes_ab, end->bytes_ba, end->ms);
	p->ended.fd = -1;
	p->ended.done = ended_done;
	p->ended.msg = (struct chan_msg){
		.type = CHAN_ENDED,
		.pair = p->id,
		.reason = end->reason,
		.bytes_ab = end->bytes_ab,
		.bytes_ba = end->bytes_ba,
		.ms = (uint64_t)end->ms,
	};
	channel_put(w, &p->ended);
}

void
pairs_on_end(const struct relay_end *end, void *arg)
{
	struct worker *w = arg;
	struct pair *p;

	HASH_FIND(hh, w->pairs, &end->id, sizeof(end->id), p);
	BUG_ON(!p);
	HASH_DEL(w->pairs, p);
	w->n_pairs--;
	pair_report(w, p, end);
}

/* Nothing could be joined. Frees both descriptors. */
static void
pair_fail(struct worker *w, struct pair *p, int *a_fd, int *b_fd, enum end_reason reason)
{
	struct relay_end end = { .id = p->id, .reason = reason };

	fd_close(a_fd);
	fd_close(b_fd);
	pair_report(w, p, &end);
}

static struct pair *
pair_new(const struct chan_msg *msg)
{
	struct pair *p = calloc(1, sizeof(*p));

	if (!p)
		return NULL;
	p->id = msg->pair;
	memcpy(p->session, msg->session, sizeof(p->session));
	p->session[sizeof(p->session) - 1] = '\0';
	p->paired.fd = -1;
	p->paired.msg = (struct chan_msg){ .type = CHAN_PAIRED, .pair = msg->pair };
	return p;
}

static bool
pair_add(struct worker *w, struct pair *p)
{
	size_t before = HASH_COUNT(w->pairs);

	HASH_ADD(hh, w->pairs, id, sizeof(p->id), p);
	return HASH_COUNT(w->pairs) > before; /* uthash leaves it out when there is no memory */
}

/* Even without memory PAIR is answered; once at a time, which is often enough. */
static int
pair_without_memory(struct worker *w, const struct chan_msg *msg)
{
	if (w->no_pair.queued)
		return -ENOMEM;
	log_warn("pair", "pair=%" PRIu64 " session=%s err=\"out of memory\"", msg->pair, msg->session);
	w->no_pair.fd = -1;
	w->no_pair.msg = (struct chan_msg){ .type = CHAN_ENDED, .pair = msg->pair, .reason = END_INTERNAL };
	channel_put(w, &w->no_pair);
	return 0;
}

int
pairs_join(struct worker *w, const struct chan_msg *msg, int first_fd)
{
	int second_fd = conn_take(w, msg->conn), err;
	struct pair *p;

	HASH_FIND(hh, w->pairs, &msg->pair, sizeof(msg->pair), p);
	if (p || !(p = pair_new(msg))) {
		fd_close(&first_fd);
		fd_close(&second_fd);
		return p ? -EPROTO : pair_without_memory(w, msg);
	}
	if (second_fd < 0 || first_fd < 0) {
		/* The answer came after WORKER_ANSWER_MS, or without its descriptor. */
		pair_fail(w, p, &second_fd, &first_fd, second_fd < 0 ? END_DEADLINE : END_BUSY);
		return 0;
	}
	if (fd_set_nonblock(first_fd) < 0 || !pair_add(w, p)) {
		pair_fail(w, p, &second_fd, &first_fd, END_INTERNAL);
		return 0;
	}
	err = relay_pair_new(w->relay, p->id, second_fd, first_fd);
	if (err < 0) {
		second_fd = first_fd = -1;
		HASH_DEL(w->pairs, p);
		log_warn("pair", "pair=%" PRIu64 " err=\"%s\"", p->id, strerror(-err));
		pair_fail(w, p, &second_fd, &first_fd, END_INTERNAL);
		return 0;
	}
	w->n_pairs++;
	w->pairs_total++;
	channel_put(w, &p->paired);
	log_info(
	    "paired", "pair=%" PRIu64 " conn=%" PRIu64 " session=%s worker=%u", p->id, msg->conn, p->session, w->slot);
	return 0;
}

void
pairs_fini(struct worker *w)
{
	BUG_ON(w->n_pairs != 0 || w->pairs);
}
