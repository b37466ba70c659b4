/* rescue.c - reads a dead worker's ledger and says of each of its pairs what is to be done
 *
 *      seat says OVER        the end it was about to have, with its reason
 *      seat says BUFFERED    bytes died with the worker: worker_lost, both peers reset
 *      its small message's     the rest is told from the sockets' counters and put into a pipe (relay_rest());
 *      turn was in progress    where they do not fit together, worker_lost: nobody may get a wrong byte
 *      it killed RESCUE_CRASHES workers in a row: likewise
 *      else                  WAITING: another worker goes on, with the pipes that hold bytes
 *
 * Always true:
 *  1. Only waitpid() leads here: no process but ours has these descriptors now.
 *  2. The ledger is a sibling's: a seat or a pipe that names a pair which was
 *     not this worker's, or a number it did not have, is not there.
 *  3. Where a pair has no seat, what the master itself knew still holds: the
 *     worker stores the seat's id last, and touches nothing before.
 *  4. A pipe that is empty is nobody's, whatever the ledger says. One that
 *     stays behind with bytes of a pair that goes on would be bytes lost: so a
 *     pair that two pipes claim is not continued.
 *
 * Not here: who goes on (hand.c).
 */
#include "proxy/master/rescue.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "hyper/base/clock.h"
#include "hyper/base/fd.h"
#include "hyper/base/log.h"
#include "hyper/wire/chanmsg.h"
#include "proxy/master/ledger.h"
#include "proxy/master/pipes.h"

#define RESCUE_CRASHES   5
#define RESCUE_CRASHES_S 30 /* within so many seconds */

#define KEEP_FLAGS (RELAY_EOF_AB | RELAY_EOF_BA | RELAY_BROKEN_A | RELAY_BROKEN_B)

static struct pair *
pair_of(struct pairs *all, const struct slot *s, uint64_t id)
{
	struct pair *p = id ? pairing_find(all, id) : NULL;

	return p && p->slot == s ? p : NULL;
}

static void
read_seats(struct pairs *all, struct slot *s)
{
	const struct ledger *l = slot_ledger(s);
	struct relay_seat seat;
	struct pair *p;

	for (uint32_t i = 0; i < ledger_seats(l); i++) {
		if (!ledger_seat(l, i, &seat) || !(p = pair_of(all, s, seat.pair)))
			continue;
		p->was_seen = true;
		p->flags = seat.flags;
		p->bytes[0] = seat.bytes_ab;
		p->bytes[1] = seat.bytes_ba;
		/* what it had when it was handed over is in the journal now */
		p->pipe_no[0] = p->pipe_no[1] = CHAN_NO_PIPE;
	}
}

/* The pipe of this number holds what was read for a direction of the pair. */
static void
take_pipe(struct pairs *all, struct pair *p, int dir, struct pipes *pipes, uint32_t no)
{
	int bytes = 0;

	if (pipes_get(pipes, no) < 0 || ioctl(pipes_get(pipes, no), FIONREAD, &bytes) < 0 || bytes <= 0)
		return;
	if (p->pipe_fd[dir] >= 0) {
		log_error("ledger", "pair=%" PRIu64 " why=\"two pipes of one direction\"", p->id);
		p->flags |= RELAY_BUFFERED_AB;
		return;
	}
	p->pipe_fd[dir] = pipes_take(pipes, no);
	all->loose_pipes++;
}

static void
read_pipes(struct pairs *all, struct slot *s)
{
	const struct ledger *l = slot_ledger(s);
	struct pipes *pipes = slot_pipes(s);

	for (uint32_t no = 0; no < pipes_made(pipes); no++) {
		uint64_t entry = pipes_get(pipes, no) >= 0 ? ledger_entry(l, no) : 0;
		struct pair *p = pair_of(all, s, entry >> 1);

		/* Without a seat while HANDING: the worker has not begun, the journal can only be of another life. */
		if (p && (p->was_seen || p->state != PAIR_HANDING))
			take_pipe(all, p, (int)(entry & 1), pipes, no);
	}
}

/* An empty pipe that the dead worker had, or a new one: -1. */
static int
empty_pipe(struct pipes *pipes)
{
	int bytes, fd;

	for (uint32_t no = 0; no < pipes_made(pipes); no++)
		if (pipes_get(pipes, no) >= 0 && ioctl(pipes_get(pipes, no), FIONREAD, &bytes) == 0 && bytes == 0)
			return pipes_take(pipes, no);
	fd = relay_pipe_open(0);
	return fd < 0 ? -1 : fd;
}

/* What is left goes where the next worker finds it, all at once. */
static bool
keep_rest(struct pairs *all, struct pair *p, int dir, const uint8_t *rest, size_t len)
{
	int fd = empty_pipe(slot_pipes(p->slot));

	if (fd < 0 || write(fd, rest, len) != (ssize_t)len) {
		fd_close(&fd);
		return false;
	}
	p->pipe_fd[dir] = fd;
	all->loose_pipes++;
	return true;
}

static bool
rescue_copy(struct pairs *all, struct pair *p, int dir, const struct relay_copy *c)
{
	struct relay_rest_of of = {
		.from_fd = p->fd[dir], .to_fd = p->fd[!dir], .skip = TOKEN_LEN, .delivered = p->bytes[dir]
	};
	const uint8_t *rest = NULL;
	size_t len = 0;
	int piped = 0, rc = 0;

	if (p->pipe_fd[dir] >= 0 && ioctl(p->pipe_fd[dir], FIONREAD, &piped) < 0)
		rc = -errno;
	of.piped = (size_t)piped;
	if (rc == 0)
		rc = relay_rest(c, &of, &rest, &len);
	if (rc == 0 && len > 0 && !keep_rest(all, p, dir, rest, len))
		rc = -ENOBUFS;
	if (rc < 0)
		log_error("copy",
		    "pair=%" PRIu64 " session=%s dir=%d err=\"%s\" why=\"what is left of a message is unknown\"", p->id,
		    p->session, dir, strerror(-rc));
	else
		log_info(
		    "copy", "pair=%" PRIu64 " session=%s dir=%d rest=%zu piped=%d", p->id, p->session, dir, len, piped);
	return rc == 0;
}

/* The one message that was in the worker's hands, if the rest of the ledger says so too. */
static void
read_copy(struct pairs *all, struct slot *s, uint64_t turn)
{
	const struct relay_copy *c = ledger_copy(slot_ledger(s));
	uint64_t owner = __atomic_load_n(&c->owner, __ATOMIC_ACQUIRE);
	struct pair *p = pair_of(all, s, owner >> 1);
	int dir = (int)(owner & 1);
	uint32_t not_with = RELAY_UNSURE | (dir == 0 ? RELAY_EOF_AB : RELAY_EOF_BA);

	if (!p || !p->was_seen || p->flags & (RELAY_OVER | RELAY_BUFFERED_AB | RELAY_BUFFERED_BA))
		return;
	if (p->id != turn || p->flags & not_with || !rescue_copy(all, p, dir, c))
		p->flags |= RELAY_BUFFERED_AB;
}

/* Has this pair killed one worker too many? */
static bool
is_poison(struct pair *p, uint64_t turn, bool crashed)
{
	uint32_t now_s = (uint32_t)(clock_now_ms() / 1000);

	if (!crashed)
		return false;
	if (p->id != turn) {
		p->crashes = 0;
		return false;
	}
	if (p->crashes == 0 || now_s - p->crash_s > RESCUE_CRASHES_S) {
		p->crashes = 0;
		p->crash_s = now_s;
	}
	return ++p->crashes >= RESCUE_CRASHES;
}

/* Both streams had ended. Whoever closes last must not turn that into a reset, as a dead worker's sockets would. */
static void
finish(struct pair *p)
{
	const struct linger off = { 0 };

	for (int i = 0; i < 2; i++) {
		(void)!shutdown(p->fd[i], SHUT_WR);
		(void)!setsockopt(p->fd[i], SOL_SOCKET, SO_LINGER, &off, sizeof(off));
	}
}

static void
rescue_pair(struct pairs *all, struct pair *p, uint64_t turn, bool crashed)
{
	struct slot *s = p->slot;

	if (!p->was_seen && p->state == PAIR_HANDING)
		for (int i = 0; i < 2; i++)
			take_pipe(all, p, i, slot_pipes(s), p->pipe_no[i]);
	/* A seat that was left with nothing said about it: over, or given back, a moment ago. */
	p->suspect = p->id == turn || (!p->was_seen && p->state != PAIR_HANDING);
	if (p->flags & RELAY_OVER) {
		enum end_reason reason = RELAY_OVER_REASON(p->flags);

		reason = (unsigned)reason < END_REASON_MAX ? reason : END_WORKER_LOST;
		if (reason == END_CLOSED)
			finish(p);
		pairing_end(all, p, reason, reason != END_CLOSED);
	} else if (all->is_stopping) {
		pairing_end(all, p, END_STOPPED, true);
	} else if (p->flags & (RELAY_BUFFERED_AB | RELAY_BUFFERED_BA)) {
		pairing_end(all, p, END_WORKER_LOST, true);
	} else if (is_poison(p, turn, crashed)) {
		log_error("poison", "pair=%" PRIu64 " session=%s crashes=%d why=\"its workers crashed in its turn\"",
		    p->id, p->session, RESCUE_CRASHES);
		pairing_end(all, p, END_WORKER_LOST, true);
	} else {
		p->flags &= KEEP_FLAGS;
		p->was_seen = false;
		p->pipe_no[0] = p->pipe_no[1] = CHAN_NO_PIPE;
		pairing_enter(all, p, PAIR_WAITING, NULL, "worker lost");
	}
}

void
rescue_pairs(struct pairs *all, struct slot *s, bool crashed)
{
	static const enum pair_state states[] = { PAIR_LIVE, PAIR_MOVING, PAIR_HANDING };
	struct load *l = pairs_load(all, s);
	uint64_t turn = ledger_turn(slot_ledger(s));
	size_t n = l->pairs;
	struct pair *p;

	read_seats(all, s);
	read_pipes(all, s);
	read_copy(all, s, turn);
	for (size_t i = 0; i < sizeof(states) / sizeof(states[0]); i++)
		while ((p = TAILQ_FIRST(&l->of_state[states[i]])))
			rescue_pair(all, p, turn, crashed);
	if (n > 0)
		log_info("rescue", "worker=%u pairs=%zu turn=%" PRIu64 " crashed=%d", slot_no(s), n, turn, crashed);
}
