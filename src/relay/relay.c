/* relay.c - the engine: pairs in lines, one turn each, pipes promised to those who wait longest
 *
 * Always true:
 *  1. A pair is in one line at most: with work left (RUN), without a pipe (WAIT), to
 *     be freed (GONE). queue_enter() alone moves it.
 *  2. Idle pipes that are promised to the head of the waiting line go to nobody
 *     else, so who lacks one gets its turn however busy the others are.
 *  3. Nobody waits for a pipe for longer than WANT_MS: then a buffer will do.
 *  4. Who is held by its group's limit (HELD) waits in that group's line (group.c).
 *
 * Events only note facts: readable, writable, broken. EPOLLHUP and EPOLLRDHUP may
 * come together with the last data and are never believed before a read returned
 * 0. pair_turn() alone (move.c) decides what moves.
 *
 * Not here: who may meet whom (the broker), deadlines before pairing (worker).
 */
#include "hyper/relay/relay.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>

#include "hyper/base/bug.h"
#include "hyper/base/clock.h"
#include "hyper/base/fd.h"
#include "relay/engine.h"

#define RUN_PAIRS    32   /* of those with work left in one call; then it is the turn of the caller's other work */
#define WANT_MS      1000 /* an answer to on_want comes within, and one of "none" holds for as long */
#define HOT_MS       2    /* since the turn before this one */
#define OLD_NEWS_MAX 8    /* events in a row of what is known already, then such are not wanted */
#define TRIM_MS      5000 /* idle pipes that nobody needed for so long are closed */

/* --- lines ----------------------------------------------------------------- */

static struct pair_list *
line_of(struct relay *r, struct relay_pair *p, enum pair_queue queue)
{
	return queue == Q_HELD ? group_line(p->group) : &r->line[queue];
}

void
queue_enter(struct relay *r, struct relay_pair *p, enum pair_queue to)
{
	enum pair_queue from = p->queue;

	if (from == to)
		return; /* it keeps its place */
	if (from != Q_NONE)
		TAILQ_REMOVE(line_of(r, p, from), p, line);
	if (p->promised && to != Q_RUN) {
		p->promised = false;
		r->pool.n_kept--;
	}
	if (to != Q_NONE)
		TAILQ_INSERT_TAIL(line_of(r, p, to), p, line);
	p->queue = (uint8_t)to;
	if (from == Q_HELD || to == Q_HELD) {
		r->n_held += to == Q_HELD ? 1 : (size_t)-1;
		group_line_changed(r, p->group);
	}
	if (TAILQ_EMPTY(&r->line[Q_WAIT]))
		r->wait_ms = 0;
	else if (r->wait_ms == 0)
		r->wait_ms = r->now_ms;
}

void
want_set(struct relay *r, struct relay_pair *p, int dir, bool wants)
{
	if (!(p->wants & BIT(dir)) == !wants)
		return;
	p->wants ^= BIT(dir);
	r->n_wants += wants ? 1 : (size_t)-1;
}

/* Whoever waits longest comes next, as many as there are pipes for; all of them when a buffer has to do. */
static void
wake_waiting(struct relay *r)
{
	bool all = r->conf.makes_pipes || r->now_ms < r->none_ms;
	struct relay_pair *p;

	while ((p = TAILQ_FIRST(&r->line[Q_WAIT])) && (all || r->pool.n_idle > r->pool.n_kept)) {
		queue_enter(r, p, Q_RUN);
		if (r->pool.n_idle > r->pool.n_kept) {
			p->promised = true;
			r->pool.n_kept++;
		}
	}
}

/* Those who wait and were not asked for before. */
static void
ask_for_pipes(struct relay *r)
{
	size_t n = r->n_wants;

	if (TAILQ_EMPTY(&r->line[Q_WAIT]) || n <= r->n_asked)
		return;
	n -= r->n_asked;
	r->n_asked += n;
	r->conf.on_want(n, r->arg);
}

/* --- time limits ------------------------------------------------------------ */

void
pair_touch(struct relay *r, struct relay_pair *p)
{
	vanished_leaves(r, p);
	TAILQ_REMOVE(&r->alive[p->is_half], p, all);
	p->active_ms = r->now_ms;
	p->is_half = p->state != PAIR_BOTH;
	__atomic_store_n(&p->seat->active_s, (uint32_t)(r->now_ms / 1000), __ATOMIC_RELAXED);
	TAILQ_INSERT_TAIL(&r->alive[p->is_half], p, all);
	vanished_note(r, p);
}

/* When the pair that was active longest ago has to end; active_ms may be older than the truth by the grain. */
static int64_t
list_next_ms(const struct relay *r, int half)
{
	const struct relay_pair *p = TAILQ_FIRST(&r->alive[half]);

	return p && r->timeout_ms[half] > 0 ? p->active_ms + r->timeout_ms[half] + r->grain_ms : INT64_MAX;
}

/* RUN_PAIRS at once: thousands that fell silent together end turn by turn. It is not silent whom we let wait. */
static void
end_silent(struct relay *r)
{
	static const enum end_reason reasons[] = { END_IDLE, END_HALF_CLOSED };

	for (int half = 0; half < 2; half++)
		for (int n = 0; n < RUN_PAIRS && list_next_ms(r, half) <= r->now_ms; n++) {
			struct relay_pair *p = TAILQ_FIRST(&r->alive[half]);

			if (p->queue == Q_HELD)
				pair_touch(r, p);
			else
				pair_end(r, p, reasons[half], "timeout");
		}
}

static void
limits_init(struct relay *r)
{
	r->timeout_ms[0] = r->conf.idle_timeout_ms;
	r->timeout_ms[1] =
	    r->conf.half_closed_timeout_ms > 0 ? r->conf.half_closed_timeout_ms : r->conf.idle_timeout_ms;
	r->grain_ms = 1000;
	for (int half = 0; half < 2; half++)
		if (r->timeout_ms[half] > 0 && r->timeout_ms[half] / 8 < r->grain_ms)
			r->grain_ms = r->timeout_ms[half] / 8;
}

int64_t
relay_next_ms(const struct relay *r)
{
	int64_t next = list_next_ms(r, 0), half = list_next_ms(r, 1), held = groups_next_ms(r),
		look = doubts_next_ms(r);

	next = half < next ? half : next;
	next = look < next ? look : next;
	next = held < next ? held : next;
	next = vanished_next_ms(r) < next ? vanished_next_ms(r) : next;
	if (r->wait_ms > 0 && r->wait_ms + WANT_MS < next)
		next = r->wait_ms + WANT_MS;
	return next;
}

/* --- the loop -------------------------------------------------------------- */

static void
look_at_clock(struct relay *r)
{
	int64_t before = r->now_ms;

	if (!r->is_late)
		return;
	r->now_ms = clock_now_ms();
	r->is_late = false;
	r->is_hot = r->now_ms - before <= HOT_MS;
}

/* The kernel gave up after its keepalive probes, or its retransmissions. */
static bool
is_vanishing(int err)
{
	return err == ETIMEDOUT || err == EHOSTUNREACH || err == ENETUNREACH;
}

/* A peer that goes on sending into a pair whose other peer does not read wakes us for each segment. After a few that
 * changed nothing we listen no more until what is there was read (pair_turn()). */
static void
side_heard(struct relay *r, struct side *s, uint32_t events)
{
	bool is_news = !s->readable || (events & ~(uint32_t)(EPOLLIN | (s->writable ? EPOLLOUT : 0)));

	if (is_news || side_pair(s)->queue == Q_RUN)
		s->old_news = 0;
	else if (++s->old_news == OLD_NEWS_MAX)
		(void)side_listen(r, s, false); /* else they only cost time */
}

void
relay_on_event(struct relay *r, struct relay_item *item, uint32_t events)
{
	struct side *s = (struct side *)item;
	struct relay_pair *p = side_pair(s);

	BUG_ON(item->tag != RELAY_TAG);
	if (p->state == PAIR_GONE)
		return; /* ended by an earlier event of this batch */
	look_at_clock(r);
	turn_note(r, p->id);
	side_heard(r, s, events);
	if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR | EPOLLPRI))
		s->readable = true;
	if (events & (EPOLLOUT | EPOLLHUP | EPOLLERR))
		s->writable = true;
	if (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR))
		s->hup = true;
	if (events & EPOLLPRI)
		s->urgent = true;
	if (events & EPOLLERR) {
		/* Noted first: once it is taken, nobody after us could see it. */
		side_failed(p, s);
		s->vanished |= is_vanishing(sock_take_error(s->fd));
	}
	pair_turn(r, p);
	turn_note(r, 0);
}

static void
free_gone(struct relay *r)
{
	struct relay_pair *p;

	while ((p = TAILQ_FIRST(&r->line[Q_GONE]))) {
		TAILQ_REMOVE(&r->line[Q_GONE], p, line);
		free(p);
	}
}

/* Those that were queued before; who queues itself again comes after the next look at epoll. */
static void
run_queued(struct relay *r)
{
	struct relay_pair *p, *last = TAILQ_LAST(&r->line[Q_RUN], pair_list);
	size_t left = RUN_PAIRS;
	bool is_last = !last;

	while (!is_last && left-- > 0 && (p = TAILQ_FIRST(&r->line[Q_RUN]))) {
		is_last = p == last;
		turn_note(r, p->id);
		/* To the end of the line before its turn: pair_turn() leaves it there, or takes it out. */
		TAILQ_REMOVE(&r->line[Q_RUN], p, line);
		TAILQ_INSERT_TAIL(&r->line[Q_RUN], p, line);
		pair_turn(r, p);
	}
	turn_note(r, 0);
}

static void
check_deadlines(struct relay *r)
{
	if (r->wait_ms > 0 && r->now_ms - r->wait_ms >= WANT_MS)
		relay_pipe_none(r);
	if (r->now_ms - r->trim_ms >= TRIM_MS) {
		carrier_pool_trim(&r->pool);
		r->trim_ms = r->now_ms;
	}
}

bool
relay_run(struct relay *r)
{
	bool more;

	look_at_clock(r);
	free_gone(r);
	check_deadlines(r);
	end_silent(r);
	vanished_run(r);
	doubts_run(r);
	wake_waiting(r);
	run_queued(r);
	more = groups_run(r);
	wake_waiting(r);
	ask_for_pipes(r);
	r->is_late = true;
	return more || !TAILQ_EMPTY(&r->line[Q_RUN]);
}

/* --- pipes ----------------------------------------------------------------- */

int
relay_pipe_give(struct relay *r, uint32_t no, int fd)
{
	struct carrier *c = NULL;
	int err;

	err = carrier_adopt(&r->pool, no, fd, 0, &c);
	if (err < 0)
		return err;
	if (c) {
		carrier_put(&r->pool, c); /* bytes of nobody: it is closed */
		return -EINVAL;
	}
	if (r->n_asked > 0)
		r->n_asked--;
	r->none_ms = 0;
	wake_waiting(r);
	return 0;
}

void
relay_pipe_none(struct relay *r)
{
	r->now_ms = clock_now_ms();
	r->n_asked = 0;
	r->none_ms = r->now_ms + WANT_MS;
	wake_waiting(r);
}

void
relay_orphan(struct relay *r)
{
	r->conf.makes_pipes = r->pool.makes_pipes = true;
	wake_waiting(r);
}

/* --- the engine ------------------------------------------------------------ */

/* How exactly active_ms was kept is part of it: nobody ends too early because that was coarser before. */
static void
limits_change(struct relay *r)
{
	int64_t grain_ms = r->grain_ms, late_ms;
	struct relay_pair *p;

	limits_init(r);
	late_ms = grain_ms - r->grain_ms;
	for (int half = 0; half < 2 && late_ms > 0; half++)
		TAILQ_FOREACH (p, &r->alive[half], all)
			p->active_ms = p->active_ms + late_ms < r->now_ms ? p->active_ms + late_ms : r->now_ms;
}

void
relay_apply(struct relay *r, const struct relay_conf *conf)
{
	const struct relay_keep was = r->conf.keep;
	struct relay_pair *p;

	r->now_ms = clock_now_ms();
	r->pool.pipe_size = r->conf.pipe_size = conf->pipe_size;
	r->pool.copy_mode = r->conf.copy_mode = conf->copy_mode;
	r->pool.max_idle = conf->copy_mode ? 0 : r->conf.max_pipes; /* nobody will want them */
	r->conf.copy_small = conf->copy_small;
	r->conf.idle_timeout_ms = conf->idle_timeout_ms;
	r->conf.half_closed_timeout_ms = conf->half_closed_timeout_ms;
	r->conf.keep = conf->keep;
	limits_change(r);
	if (was.user_timeout_ms != r->conf.keep.user_timeout_ms)
		vanished_changed(r);
	for (int half = 0; half < 2; half++)
		TAILQ_FOREACH (p, &r->alive[half], all) {
			sock_rekeep(p->side[A].fd, &was, &r->conf.keep);
			sock_rekeep(p->side[B].fd, &was, &r->conf.keep);
		}
}

struct relay *
relay_new(const struct relay_conf *conf, relay_on_end on_end, void *arg)
{
	struct relay *r = calloc(1, sizeof(*r));

	if (!r)
		return NULL;
	r->conf = *conf;
	r->on_end = on_end;
	r->arg = arg;
	r->pool.max_idle = conf->max_pipes;
	r->pool.pipe_size = conf->pipe_size;
	r->pool.copy_mode = conf->copy_mode;
	r->pool.makes_pipes = conf->makes_pipes;
	r->pool.on_gone = conf->on_pipe_gone;
	r->pool.arg = arg;
	r->now_ms = r->trim_ms = clock_now_ms();
	TAILQ_INIT(&r->alive[0]);
	TAILQ_INIT(&r->alive[1]);
	TAILQ_INIT(&r->held);
	limits_init(r);
	vanished_init(r);
	for (size_t i = 0; i < ARRAY_LEN(r->line); i++)
		TAILQ_INIT(&r->line[i]);
	r->n_buckets = 16;
	r->buckets = calloc(r->n_buckets, sizeof(*r->buckets));
	if (!r->buckets || ledger_init(r, &conf->ledger) < 0) {
		relay_free(r);
		return NULL;
	}
	return r;
}

void
relay_pair_close(struct relay *r, uint64_t id, enum end_reason reason)
{
	struct relay_pair *p = pair_find(r, id);

	BUG_ON(reason == END_CLOSED);
	if (p)
		pair_end(r, p, reason, "asked for");
}

void
relay_close_all(struct relay *r, enum end_reason reason)
{
	struct relay_pair *p;

	BUG_ON(reason == END_CLOSED); /* only the peers can end a pair cleanly */
	for (int i = 0; i < 2; i++)
		while ((p = TAILQ_FIRST(&r->alive[i])))
			pair_end(r, p, reason, "close_all");
}

void
relay_free(struct relay *r)
{
	if (!r)
		return;
	relay_close_all(r, END_STOPPED);
	free_gone(r);
	BUG_ON(r->groups || r->n_held > 0);
	carrier_pool_fini(&r->pool);
	ledger_fini(r);
	free(r->buckets);
	free(r);
}

struct relay_counts
relay_counts(const struct relay *r)
{
	return (struct relay_counts){
		.pairs = r->n_pairs,
		.pipes_used = r->pool.n_used,
		.pipes_idle = r->pool.n_idle,
		.waiting = r->n_wants,
		.groups = group_count(r),
		.held = r->n_held,
		.buffered = r->buffered,
		.bytes = r->bytes,
	};
}
