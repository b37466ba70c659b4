/* hand.c - gives pairs and pipes to workers
 *
 * Always true:
 *  1. Nothing is posted beyond the channel's room; what did not fit waits here
 *     and is tried again when the channel has room, at READY, and by the clock.
 *  2. The parts of a pair are posted in one row, RESUME last.
 *  3. A pair that waits is given to the serving worker with the fewest pairs,
 *     one that has room for it and free numbers for its pipes. As all pipes
 *     together are at most workers x max_pipes, and each worker has numbers for
 *     PIPES_SPARE more than that, there is such a worker once all serve.
 *  4. A pair that waits for WAIT_MS ends with worker_lost.
 *  5. A worker that drains keeps each pair until another one has room for it, and
 *     those whose bytes are in its memory until they are not, or end.
 *  6. A pair is handed over with what its sockets say was delivered, and as UNSURE
 *     where the bytes between them are not those in its pipes: then nobody may ask
 *     that later about a small message (rescue.c).
 *  7. Levelling moves a pair only where it evens out what differs much, so it
 *     comes to rest.
 *
 * Not here: how pairs come to wait (meet.c, rescue.c).
 */
#include "proxy/master/hand.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/ioctl.h>

#include "hyper/base/bug.h"
#include "hyper/base/clock.h"
#include "hyper/base/log.h"
#include "proxy/master/pipes.h"
#include "proxy/master/share.h"

#define WAIT_MS 60000
#define REST_MS 100 /* a worker that could not take a pair gets none before then */

#define MSGS_PER_PAIR 5 /* two sockets, two pipes, RESUME */

/* Levelling: a difference of more than LEVEL_MIN and a quarter of the fuller one's; at most LEVEL_MOVES under way. */
#define LEVEL_MIN   16
#define LEVEL_MOVES 64
#define DRAIN_MOVES 64 /* under way from workers that drain, and waiting */

static unsigned
pipes_of(const struct pair *p)
{
	return (p->pipe_fd[0] >= 0) + (p->pipe_fd[1] >= 0);
}

/* The serving worker with the fewest pairs that can take this one now; NULL: none. */
static struct load *
load_for(struct pairs *all, const struct pair *p, int64_t now_ms)
{
	struct load *best = NULL;

	for (unsigned i = 0; i < all->n_loads; i++) {
		struct load *l = &all->loads[i];

		if (l->slot && !slot_is_ending(l->slot) && l->pairs < all->max_pairs && l->handing < PAIR_HANDING_MAX &&
		    now_ms >= l->rest_until_ms && slot_room(l->slot) >= MSGS_PER_PAIR &&
		    pipes_room(slot_pipes(l->slot)) >= pipes_of(p) && (!best || l->pairs < best->pairs))
			best = l;
	}
	return best;
}

/* A worker that was killed between a write and its note of it left that out of `bytes`. False: what was read from its
 * one socket and not written to the other is not what its pipe holds. */
static bool
dir_adds_up(struct pair *p, int dir)
{
	uint64_t written = 0, between = 0;
	int piped = 0, rc;

	if (p->flags & (dir == 0 ? RELAY_EOF_AB : RELAY_EOF_BA))
		return true;
	rc = relay_flow(p->fd[dir], p->fd[!dir], TOKEN_LEN, &written, &between);
	if (rc == -ENOTCONN)
		return true; /* nothing can be written to it any more: the pair is about to end */
	if (rc == 0 && p->pipe_fd[dir] >= 0 && ioctl(p->pipe_fd[dir], FIONREAD, &piped) < 0)
		rc = -errno;
	if (rc < 0 || between != (uint64_t)piped) {
		static struct log_limit limit;

		log_limited(&limit, LOG_LVL_WARN, "unsure",
		    "pair=%" PRIu64 " session=%s dir=%d flags=%x written=%" PRIu64 " between=%" PRIu64
		    " piped=%d err=\"%s\" why=\"the kernel's counters do not add up: small messages are spliced\"",
		    p->id, p->session, dir, p->flags, written, between, piped, rc < 0 ? strerror(-rc) : "");
		return false;
	}
	p->bytes[dir] = written;
	return true;
}

static void
post_part(struct slot *s, const struct pair *p, enum chan_part part, uint32_t pipe, int fd)
{
	struct chan_msg m = { .type = CHAN_ADOPT, .pair = p->id, .part = (uint8_t)part, .pipe = pipe };

	slot_post(s, &m, fd);
}

static void
hand_pair(struct pairs *all, struct pair *p, struct slot *s)
{
	struct chan_msg m = { .type = CHAN_RESUME, .pair = p->id, .flags = p->flags, .suspect = p->suspect };
	int i, fd, rc;

	p->is_new = false;
	for (i = 0; i < 2; i++)
		if (!dir_adds_up(p, i))
			m.flags |= RELAY_UNSURE;
	m.bytes_ab = p->bytes[0];
	m.bytes_ba = p->bytes[1];
	pairing_enter(all, p, PAIR_HANDING, s, "adopt");
	post_part(s, p, CHAN_PART_SOCKET_A, 0, p->fd[0]);
	post_part(s, p, CHAN_PART_SOCKET_B, 0, p->fd[1]);
	for (i = 0; i < 2; i++) {
		p->pipe_no[i] = CHAN_NO_PIPE;
		fd = p->pipe_fd[i];
		if (fd < 0)
			continue;
		p->pipe_fd[i] = -1;
		all->loose_pipes--;
		rc = pipes_give(slot_pipes(s), fd, &p->pipe_no[i]);
		BUG_ON(rc < 0);
		post_part(s, p, i == 0 ? CHAN_PART_PIPE_AB : CHAN_PART_PIPE_BA, p->pipe_no[i], fd);
	}
	memcpy(m.session, p->session, sizeof(m.session));
	share_fill(all->share, p, s, &m);
	slot_post(s, &m, -1);
	log_info("resume",
	    "pair=%" PRIu64 " session=%s worker=%u flags=%x bytes_ab=%" PRIu64 " bytes_ba=%" PRIu64 " ms=%" PRId64,
	    p->id, p->session, slot_no(s), m.flags, p->bytes[0], p->bytes[1], clock_now_ms() - p->waits_ms);
}

void
hand_waiting(struct pairs *all)
{
	int64_t now_ms = clock_now_ms();
	struct pair *p;
	struct load *l;

	while ((p = TAILQ_FIRST(&all->waiting)) && (p->is_kicked || (l = load_for(all, p, now_ms)))) {
		if (p->is_kicked)
			pairing_end(all, p, END_KICKED, true);
		else
			hand_pair(all, p, l->slot);
	}
}

bool
hand_kick(struct pair *p)
{
	struct chan_msg m = { .type = CHAN_END, .pair = p->id, .reason = END_KICKED };

	pairing_kick(p);
	if (p->slot && slot_room(p->slot) == 0)
		return false;
	if (p->slot)
		slot_post(p->slot, &m, -1);
	return true;
}

/* --- pipes --- */

/* A new pipe that is allowed, or -1. */
static int
pipe_for(const struct pairs *all, const struct hand_conf *conf, const struct pipes *mine)
{
	size_t total = all->loose_pipes;
	int fd;

	for (unsigned i = 0; i < all->n_loads; i++)
		if (all->loads[i].slot)
			total += pipes_count(slot_pipes(all->loads[i].slot));
	if (pipes_count(mine) >= conf->max_pipes || total >= conf->max_pipes * all->n_workers)
		return -1;
	fd = relay_pipe_open(conf->pipe_size);
	return fd < 0 ? -1 : fd;
}

void
hand_pipes(struct pairs *all, const struct hand_conf *conf, struct slot *s)
{
	struct load *l = pairs_load(all, s);
	struct chan_msg m = { .type = CHAN_PIPE };
	int fd;

	while (l->want > 0 && slot_room(s) > 0) {
		fd = pipe_for(all, conf, slot_pipes(s));
		if (fd < 0) {
			m = (struct chan_msg){ .type = CHAN_NOPIPE };
			l->want = 0;
		} else {
			if (pipes_give(slot_pipes(s), fd, &m.pipe) < 0)
				continue; /* cannot be: there are more numbers than max_pipes */
			l->want--;
		}
		slot_post(s, &m, fd);
	}
}

/* --- back from a worker --- */

int
hand_take_back(struct pairs *all, struct pair *p, const struct chan_msg *m)
{
	const uint32_t no[2] = { m->pipe_ab, m->pipe_ba };
	struct pipes *pipes = slot_pipes(p->slot);
	int i;

	if (no[0] == no[1] && no[0] != CHAN_NO_PIPE)
		return -EPROTO;
	for (i = 0; i < 2; i++)
		if (no[i] != CHAN_NO_PIPE &&
		    (pipes_get(pipes, no[i]) < 0 || slot_has_queued(p->slot, pipes_get(pipes, no[i]))))
			return -EPROTO; /* not there, or it cannot have seen it yet */
	if (p->state == PAIR_HANDING)
		pairs_load(all, p->slot)->rest_until_ms = clock_now_ms() + REST_MS;
	p->flags = m->flags & (RELAY_EOF_AB | RELAY_EOF_BA | RELAY_BROKEN_A | RELAY_BROKEN_B);
	p->bytes[0] = m->bytes_ab;
	p->bytes[1] = m->bytes_ba;
	for (i = 0; i < 2; i++) {
		p->pipe_no[i] = CHAN_NO_PIPE;
		if (no[i] == CHAN_NO_PIPE)
			continue;
		p->pipe_fd[i] = pipes_take(pipes, no[i]);
		all->loose_pipes++;
	}
	pairing_enter(all, p, PAIR_WAITING, NULL, "moved");
	return 0;
}

/* --- by the clock --- */

static void
end_those_who_waited(struct pairs *all, int64_t now_ms)
{
	struct pair *p, *next;

	for (p = TAILQ_FIRST(&all->waiting); p; p = next) {
		next = TAILQ_NEXT(p, link);
		if (p->is_kicked || now_ms - p->waits_ms >= WAIT_MS)
			pairing_end(all, p, END_WORKER_LOST, true);
	}
}

static void
doom_those_who_do_not_answer(struct load *l, int64_t now_ms)
{
	const struct pair *handing = TAILQ_FIRST(&l->of_state[PAIR_HANDING]);
	const struct pair *moving = TAILQ_FIRST(&l->of_state[PAIR_MOVING]);

	if (handing && now_ms - handing->entered_ms >= PAIR_ANSWER_MS)
		slot_doom(handing->slot, "no answer to PAIR or RESUME");
	else if (moving && now_ms - moving->entered_ms >= PAIR_ANSWER_MS)
		slot_doom(moving->slot, "no answer to MOVE");
}

static void
post_moves(struct pairs *all, struct load *from, size_t n, const char *why)
{
	struct pair *p;

	for (; n > 0 && slot_room(from->slot) > 0 && (p = TAILQ_FIRST(&from->of_state[PAIR_LIVE])); n--) {
		struct chan_msg m = { .type = CHAN_MOVE, .pair = p->id };

		slot_post(from->slot, &m, -1);
		pairing_enter(all, p, PAIR_MOVING, NULL, why);
	}
}

static void
level(struct pairs *all)
{
	struct load *most = NULL, *least = NULL;
	size_t gap, n;

	for (unsigned i = 0; i < all->n_loads; i++) {
		struct load *l = &all->loads[i];

		if (!l->slot || slot_is_ending(l->slot))
			continue;
		if (!most || l->pairs > most->pairs)
			most = l;
		if (!least || l->pairs < least->pairs)
			least = l;
	}
	if (!most || most == least || !TAILQ_EMPTY(&all->waiting))
		return;
	gap = most->pairs - least->pairs;
	if (gap <= LEVEL_MIN || gap * 4 <= most->pairs || most->moving >= LEVEL_MOVES)
		return;
	n = LEVEL_MOVES - most->moving;
	post_moves(all, most, n < gap / 2 ? n : gap / 2, "level");
}

/* Pairs that workers which stay could take now. */
static size_t
room_elsewhere(const struct pairs *all)
{
	size_t room = 0;

	for (unsigned i = 0; i < all->n_loads; i++) {
		const struct load *l = &all->loads[i];
		size_t pairs, pipes;

		if (!l->slot || slot_is_ending(l->slot) || l->pairs >= all->max_pairs)
			continue;
		pairs = all->max_pairs - l->pairs;
		pipes = pipes_room(slot_pipes(l->slot)) / 2;
		room += pairs < pipes ? pairs : pipes;
	}
	return room;
}

void
hand_drain(struct pairs *all)
{
	size_t under_way = 0, room;
	struct pair *p;
	unsigned i;

	for (i = 0; i < all->n_loads; i++)
		under_way += all->loads[i].moving;
	TAILQ_FOREACH (p, &all->waiting, link)
		under_way++;
	for (i = 0; i < all->n_loads; i++) {
		struct load *l = &all->loads[i];
		size_t before = l->moving;

		if (!l->slot || !slot_is_draining(l->slot) || l->pairs == 0)
			continue;
		room = room_elsewhere(all);
		room = room < DRAIN_MOVES ? room : DRAIN_MOVES;
		if (room > under_way)
			post_moves(all, l, room - under_way, "drain");
		under_way += l->moving - before;
	}
}

void
hand_empty(struct pairs *all)
{
	for (unsigned i = 0; i < all->n_loads; i++)
		if (all->loads[i].slot && slot_is_draining(all->loads[i].slot))
			post_moves(all, &all->loads[i], SIZE_MAX, "upgrade");
}

void
hand_tick(struct pairs *all, bool may_level)
{
	int64_t now_ms = clock_now_ms();

	end_those_who_waited(all, now_ms);
	for (unsigned i = 0; i < all->n_loads; i++)
		if (all->loads[i].slot)
			doom_those_who_do_not_answer(&all->loads[i], now_ms);
	hand_waiting(all);
	hand_drain(all);
	if (may_level)
		level(all);
}
