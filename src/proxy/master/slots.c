/* slots.c - the worker slots: one state machine for each process
 *
 * Always true:
 *  1. A slot in IDLE has no process and no channel; in every other state it has
 *     a pid that waitpid() has not returned yet, so a signal to it can only
 *     reach our own child.
 *  2. A message outside of its row in `rules` costs the worker its life.
 *  3. A slot whose workers crash one after the other starts the next one after a pause that grows: backoff.c.
 *     Where no slot serves or is starting the next one starts within 0.1 s, whatever its pause is (keep_one()): a proxy
 *     without any worker is of no use to anybody, and one that gets READY serves somebody. Only where none gets READY any
 *     more does this pause grow in the same way, by one step each time that the last one is dead again.
 *  4. on_lost comes once for each process, after all that it had sent.
 *  5. Slots from conf.workers on are those that a reload took away: no process is
 *     started in them, and one that serves there drains. All loops go to n_used.
 *
 * The heartbeat is judged by our own ticks, not by its age: after the master or
 * the whole machine stood still, an old beat says nothing about the worker.
 *
 * Size: one state machine; its messages, processes, heartbeat and numbers all change or read the same struct.
 *
 * Not here: what ARRIVED, PAIRED and ENDED mean (meet.c).
 */
#include "proxy/master/slots.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <event2/event.h>

#include "hyper/base/bug.h"
#include "hyper/base/bytes.h"
#include "hyper/base/clock.h"
#include "hyper/base/fd.h"
#include "hyper/base/log.h"
#include "proxy/master/backoff.h"
#include "proxy/master/chan.h"
#include "proxy/master/ledger.h"
#include "proxy/master/pipes.h"
#include "proxy/master/spawn.h"

#define BIT(s) (1u << (s))

#define READY_MS 15000 /* from fork to READY; an ASan build on a busy machine needs 2 s */

/* faults.md says warn at 1 s and kill at 3 s. A worker beats once a second, so
 * a beat may honestly be 1 s old: the limits are one beat later. */
#define TICK_MS    500
#define WARN_TICKS 4 /* 2.0 s */
#define KILL_TICKS 8 /* 4.0 s */

#define SLOT_STATES(X)                                                                          \
	X(IDLE, BIT(SLOT_STARTING))                                                             \
	X(STARTING, BIT(SLOT_SERVING) | BIT(SLOT_STOPPING) | BIT(SLOT_DOOMED) | BIT(SLOT_IDLE)) \
	X(SERVING, BIT(SLOT_DRAINING) | BIT(SLOT_STOPPING) | BIT(SLOT_DOOMED) | BIT(SLOT_IDLE)) \
	X(DRAINING, BIT(SLOT_STOPPING) | BIT(SLOT_DOOMED) | BIT(SLOT_IDLE))                     \
	X(STOPPING, BIT(SLOT_DOOMED) | BIT(SLOT_IDLE))                                          \
	X(DOOMED, BIT(SLOT_IDLE))

enum slot_state {
#define X(n, to) SLOT_##n,
	SLOT_STATES(X)
#undef X
	    SLOT_STATE_MAX
};

static const struct {
	const char *name;
	unsigned to;
} slot_tab[] = {
#define X(n, to) { #n, to },
	SLOT_STATES(X)
#undef X
};

struct slot {
	struct slots *slots;
	unsigned no;
	uint32_t gen; /* of the process that lives or lived last; 0 before the first */
	enum slot_state state;
	pid_t pid;                        /* 0 in IDLE */
	struct chan *chan;                /* NULL in IDLE, and once the worker closed it or was wrong */
	const struct worker_stats *stats; /* NULL in IDLE, as the next two */
	struct ledger *ledger;
	struct pipes *pipes;
	uint64_t beat;  /* last heartbeat seen */
	unsigned ticks; /* since it changed */
	int64_t started_ms;
	unsigned crashes;    /* in a row (backoff.h) */
	int64_t due_ms;      /* IDLE: when the timer starts it; INT64_MAX: nothing does */
	bool has_served;     /* this process said READY */
	bool is_at_fault;    /* and was killed by us for what it did or did not do */
	bool owes_settings;  /* new ones wait for room in its channel */
	struct event *timer; /* IDLE: start; STARTING: READY is late; STOPPING: the end is late */
};

struct slots {
	struct event_base *base;
	struct slots_conf conf;
	const struct slots_ops *ops;
	void *arg;
	struct event *tick;
	unsigned n_used;  /* slots that ever had a process are below */
	bool was_ready;   /* on_ready was called */
	bool is_stopping; /* no process is started any more */
	bool was_empty;   /* on_empty was called */
	unsigned barren;  /* so often none served nor was starting any more, without a READY between */
	struct slots_past past;
	bool is_held; /* slots_hold() */
	struct slot slots[SLOTS_MAX];
};

static void
slot_arm(struct slot *s, int64_t ms)
{
	const struct timeval tv = { ms / 1000, ms % 1000 * 1000 };

	if (evtimer_add(s->timer, &tv) < 0)
		log_error("timer", "worker=%u why=\"out of memory\"", s->no);
	s->due_ms = clock_now_ms() + ms;
}

static int64_t
pause_ms(unsigned crashes)
{
	uint32_t r;

	random_bytes(&r, sizeof(r));
	return backoff_ms(crashes, r);
}

static bool
is_any_there(const struct slots *p)
{
	for (unsigned i = 0; i < p->n_used; i++)
		if (p->slots[i].state == SLOT_STARTING || p->slots[i].state == SLOT_SERVING)
			return true;
	return false;
}

/* Where no slot serves or is starting, the one that is due next starts soon. (invariant 3) */
static void
keep_one(struct slots *p)
{
	struct slot *next = NULL;
	int64_t ms;
	unsigned i;

	if (p->is_stopping || p->is_held || is_any_there(p))
		return;
	for (i = 0; i < p->n_used; i++) {
		struct slot *s = &p->slots[i];

		if (s->state == SLOT_IDLE && i < p->conf.workers && (!next || s->due_ms < next->due_ms))
			next = s;
	}
	ms = pause_ms(p->barren);
	if (next && next->due_ms > clock_now_ms() + ms)
		slot_arm(next, ms);
}

/* The only place that writes s->state. */
static void
slot_enter(struct slot *s, enum slot_state to, const char *why)
{
	BUG_ON(!(slot_tab[s->state].to & BIT(to)));
	log_debug("worker_state", "worker=%u gen=%u pid=%d %s>%s why=\"%s\"", s->no, s->gen, (int)s->pid,
	    slot_tab[s->state].name, slot_tab[to].name, why);
	s->state = to;
	evtimer_del(s->timer);
	s->due_ms = INT64_MAX;
	if (to != SLOT_IDLE) /* who comes there says himself when he starts again */
		keep_one(s->slots);
}

void
slot_doom(struct slot *s, const char *why)
{
	if (s->state == SLOT_IDLE || s->state == SLOT_DOOMED)
		return;
	log_error("worker_killed", "worker=%u pid=%d gen=%u why=\"%s\"", s->no, (int)s->pid, s->gen, why);
	kill(s->pid, SIGKILL);
	s->is_at_fault = true;
	slot_enter(s, SLOT_DOOMED, why);
}

/* --- messages --- */

/* Pairs are moved away by meet.c; what has begun to come in ends here. */
static void
slot_drain(struct slot *s)
{
	struct chan_msg m = { .type = CHAN_DRAIN };

	slot_enter(s, SLOT_DRAINING, s->slots->is_held ? "upgrade" : "fewer workers");
	log_info("worker_drains", "worker=%u pid=%d gen=%u", s->no, (int)s->pid, s->gen);
	slot_post(s, &m, -1);
}

static int
on_ready_msg(struct slot *s, const struct chan_msg *m, int *fd, bool lost)
{
	struct slots *p = s->slots;
	unsigned i;

	(void)fd;
	(void)lost;
	if (m->pid != (uint32_t)s->pid)
		return -EPROTO;
	slot_enter(s, SLOT_SERVING, "READY");
	s->has_served = true;
	p->barren = 0;
	log_info("worker_ready", "worker=%u pid=%d gen=%u ms=%lld", s->no, (int)s->pid, s->gen,
	    (long long)(clock_now_ms() - s->started_ms));
	p->ops->on_serving(s, p->arg);
	if (p->is_held || s->no >= p->conf.workers)
		slot_drain(s);
	for (i = 0; i < p->conf.workers; i++)
		if (p->slots[i].state != SLOT_SERVING)
			return 0;
	if (!p->was_ready) {
		p->was_ready = true;
		p->ops->on_ready(p->arg);
	}
	return 0;
}

static int
on_drained_msg(struct slot *s, const struct chan_msg *m, int *fd, bool lost)
{
	struct chan_msg stop = { .type = CHAN_STOP };

	(void)m;
	(void)fd;
	(void)lost;
	slot_enter(s, SLOT_STOPPING, "DRAINED");
	slot_arm(s, POOL_STOP_MS);
	slot_post(s, &stop, -1);
	return 0;
}

static int
on_upper_msg(struct slot *s, const struct chan_msg *m, int *fd, bool lost)
{
	return s->slots->ops->on_message(s, m, fd, lost, s->slots->arg);
}

/* What a worker may say, and when (docs/ipc.md). DOOMED: it said so before it died. */
#define ALIVE (BIT(SLOT_SERVING) | BIT(SLOT_DRAINING) | BIT(SLOT_STOPPING) | BIT(SLOT_DOOMED))
static const struct rule {
	enum chan_type type;
	unsigned from; /* bits of slot_state */
	int (*serve)(struct slot *, const struct chan_msg *, int *fd, bool lost);
} rules[] = {
	{ CHAN_READY, BIT(SLOT_STARTING), on_ready_msg },
	{ CHAN_DRAINED, BIT(SLOT_DRAINING), on_drained_msg },
	{ CHAN_ARRIVED, ALIVE, on_upper_msg },
	{ CHAN_PAIRED, ALIVE, on_upper_msg },
	{ CHAN_ENDED, ALIVE, on_upper_msg },
	{ CHAN_WANT, ALIVE, on_upper_msg },
	{ CHAN_FREED, ALIVE, on_upper_msg },
	{ CHAN_MOVED, ALIVE, on_upper_msg },
};

static int
on_message(const struct chan_msg *m, int *fd, bool lost, void *arg)
{
	struct slot *s = arg;
	size_t i;

	/* Each process has a channel of its own, so no older generation can speak here. */
	if (m->gen != s->gen)
		return -EPROTO;
	for (i = 0; i < ARRAY_LEN(rules); i++)
		if (rules[i].type == m->type && rules[i].from & BIT(s->state))
			return rules[i].serve(s, m, fd, lost);
	/* One that was told to stop or killed meanwhile: READY or DRAINED comes late, and what follows is still read. */
	return (m->type == CHAN_READY || m->type == CHAN_DRAINED) &&
		       (s->state == SLOT_STOPPING || s->state == SLOT_DOOMED)
		   ? 0
		   : -EPROTO;
}

static void
on_chan_end(const char *why, void *arg)
{
	struct slot *s = arg;

	chan_free(s->chan);
	s->chan = NULL;
	if (why) {
		slot_doom(s, why);
	} else if (s->state == SLOT_STARTING || s->state == SLOT_SERVING || s->state == SLOT_DRAINING) {
		/* It is dead most likely, which waitpid() will tell; one that lives without a channel is of no use. */
		kill(s->pid, SIGKILL);
		slot_enter(s, SLOT_DOOMED, "channel closed");
	}
}

/* Now, or when the channel has room: only the latest ones count. */
static void
slot_settings(struct slot *s)
{
	struct chan_msg m = { .type = CHAN_SETTINGS, .settings = s->slots->conf.settings };

	s->owes_settings = slot_room(s) == 0;
	if (!s->owes_settings)
		slot_post(s, &m, -1);
}

static void
on_chan_room(void *arg)
{
	struct slot *s = arg;

	if (s->owes_settings)
		slot_settings(s);
	if (s->state == SLOT_SERVING || s->state == SLOT_DRAINING)
		s->slots->ops->on_room(s, s->slots->arg);
}

static const struct chan_ops chan_ops = { on_message, on_chan_end, on_chan_room };

/* --- processes --- */

static void
slot_fini(struct slot *s)
{
	chan_free(s->chan);
	s->chan = NULL;
	spawn_stats_free(s->stats);
	s->stats = NULL;
	ledger_free(s->ledger);
	s->ledger = NULL;
	pipes_free(s->pipes);
	s->pipes = NULL;
}

static int
slot_memory(struct slot *s, struct spawn *spawn)
{
	int rc = spawn_stats_new(&spawn->stats_fd, &s->stats);

	if (rc == 0)
		rc = ledger_new(s->slots->conf.n_pipes, s->slots->conf.n_seats, &spawn->ledger_fd, &s->ledger);
	if (rc < 0)
		return rc;
	s->pipes = pipes_new(s->slots->conf.n_pipes);
	return s->pipes ? 0 : -ENOMEM;
}

/* Channel, shared memory and process; on failure nothing of it is left. */
static int
slot_spawn(struct slot *s)
{
	struct slots *p = s->slots;
	struct spawn spawn = {
		.slot = s->no, .gen = s->gen + 1, .table_fd = p->conf.table_fd, .stats_fd = -1, .ledger_fd = -1
	};
	int pair[2] = { -1, -1 }, rc;
	pid_t pid;

	spawn.listeners = p->conf.listeners;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) < 0)
		return -errno;
	spawn.channel_fd = pair[1];
	s->chan = chan_new(p->base, pair[0], &chan_ops, s);
	rc = s->chan ? slot_memory(s, &spawn) : -ENOMEM;
	if (rc == 0)
		rc = spawn_worker(&spawn, &pid);
	fd_close(&spawn.stats_fd);
	fd_close(&spawn.ledger_fd);
	fd_close(&pair[1]);
	if (rc < 0) {
		slot_fini(s);
		return rc;
	}
	s->gen++;
	s->pid = pid;
	return 0;
}

/* A start after a while that grows; `was_barren`: nobody was served since the last one. */
static void
slot_start_later(struct slot *s, bool was_barren)
{
	struct slots *p = s->slots;

	slot_arm(s, pause_ms(s->crashes));
	if (was_barren && !is_any_there(p))
		p->barren++;
	keep_one(p);
}

static void
slot_start(struct slot *s)
{
	struct chan_msg m = { .type = CHAN_SETTINGS, .settings = s->slots->conf.settings };
	int rc = slot_spawn(s);

	if (rc < 0) {
		s->crashes++;
		slot_start_later(s, true);
		log_error("worker_not_started", "worker=%u err=\"%s\" retry_ms=%lld", s->no, strerror(-rc),
		    (long long)(s->due_ms - clock_now_ms()));
		return;
	}
	s->started_ms = clock_now_ms();
	s->beat = 0;
	s->ticks = 0;
	s->has_served = s->is_at_fault = false;
	s->owes_settings = false;
	slot_enter(s, SLOT_STARTING, "fork");
	slot_arm(s, READY_MS);
	slot_post(s, &m, -1);
}

static void
on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct slot *s = arg;

	(void)fd;
	(void)what;
	if (s->state == SLOT_IDLE)
		slot_start(s);
	else if (s->state == SLOT_STARTING)
		slot_doom(s, "no READY in time");
	else if (s->state == SLOT_STOPPING)
		slot_doom(s, "did not stop in time");
}

static void
check_empty(struct slots *p)
{
	unsigned i;

	for (i = 0; i < p->n_used; i++)
		if (p->slots[i].state != SLOT_IDLE)
			return;
	if (p->is_stopping && !p->was_empty) {
		p->was_empty = true;
		p->ops->on_empty(p->arg);
	}
}

static unsigned
n_serving(const struct slots *p)
{
	unsigned n = 0;

	for (unsigned i = 0; i < p->n_used; i++)
		n += p->slots[i].state == SLOT_SERVING;
	return n;
}

/* The next one, after a death that nobody wanted. */
static void
slot_again(struct slot *s, const struct backoff_death *death)
{
	s->crashes = backoff_is_crash(death) ? s->crashes + 1 : 0;
	slot_start_later(s, !death->has_served);
	if (s->crashes && backoff_is_step(s->crashes))
		log_warn("worker_pause",
		    "worker=%u crashes=%u retry_ms=%lld serving=%u why=\"%s\" do=\"a reload starts the next one at "
		    "once\"",
		    s->no, s->crashes, (long long)(s->due_ms - clock_now_ms()), n_serving(s->slots),
		    backoff_hint(death));
}

/* Counters outlive the process that counted. */
static void
add_to_past(struct slot *s)
{
	struct slots_past *past = &s->slots->past;

	past->restarts += !s->slots->is_stopping && s->state != SLOT_STOPPING;
	past->accepted += __atomic_load_n(&s->stats->accepted, __ATOMIC_RELAXED);
	past->accept_errors += __atomic_load_n(&s->stats->accept_errors, __ATOMIC_RELAXED);
	for (size_t i = 0; i < END_REASON_MAX; i++)
		past->refused[i] += __atomic_load_n(&s->stats->refused[i], __ATOMIC_RELAXED);
}

static void
slot_reaped(struct slot *s, int status)
{
	struct backoff_death death = { .status = status, .lived_ms = clock_now_ms() - s->started_ms };
	struct slots *p = s->slots;
	bool is_wanted; /* its end */

	if (s->chan)
		chan_drain(s->chan);
	is_wanted = s->state == SLOT_STOPPING;
	log_line(p->is_stopping || is_wanted ? LOG_LVL_INFO : LOG_LVL_WARN, "worker_exited",
	    "worker=%u pid=%d gen=%u %s=%d ms=%lld", s->no, (int)s->pid, s->gen,
	    WIFSIGNALED(status) ? "signal" : "status", WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status),
	    (long long)death.lived_ms);
	p->ops->on_lost(s, status, p->arg);
	add_to_past(s);
	s->pid = 0;
	slot_fini(s);
	slot_enter(s, SLOT_IDLE, "exited");
	if (p->is_stopping || p->is_held || s->no >= p->conf.workers)
		return;
	if (is_wanted) { /* more workers again, meanwhile */
		slot_start(s);
		return;
	}
	death.has_served = s->has_served;
	death.is_at_fault = s->is_at_fault;
	slot_again(s, &death);
}

void
slots_reap(struct slots *p)
{
	unsigned i;
	int status;

	for (i = 0; i < p->n_used; i++) {
		struct slot *s = &p->slots[i];

		if (s->pid > 0 && waitpid(s->pid, &status, WNOHANG) == s->pid)
			slot_reaped(s, status);
	}
	check_empty(p);
}

/* --- heartbeat --- */

static void
slot_check_beat(struct slot *s)
{
	uint64_t beat = __atomic_load_n(&s->stats->heartbeat_ns, __ATOMIC_RELAXED);

	if (beat != s->beat) {
		if (s->ticks >= WARN_TICKS)
			log_info("worker_awake", "worker=%u pid=%d gen=%u", s->no, (int)s->pid, s->gen);
		s->beat = beat;
		s->ticks = 0;
		return;
	}
	s->ticks++;
	if (s->ticks == WARN_TICKS)
		log_warn(
		    "worker_silent", "worker=%u pid=%d gen=%u ms=%d", s->no, (int)s->pid, s->gen, WARN_TICKS * TICK_MS);
	if (s->ticks >= KILL_TICKS)
		slot_doom(s, "no heartbeat");
}

static void
on_tick(evutil_socket_t fd, short what, void *arg)
{
	struct slots *p = arg;
	unsigned i;

	(void)fd;
	(void)what;
	for (i = 0; i < p->n_used; i++) {
		struct slot *s = &p->slots[i];

		if (s->state == SLOT_SERVING || s->state == SLOT_DRAINING)
			slot_check_beat(s);
		if (s->crashes && s->state == SLOT_SERVING && clock_now_ms() - s->started_ms >= BACKOFF_LIVED_MS) {
			log_info("worker_settled", "worker=%u pid=%d gen=%u crashes=%u", s->no, (int)s->pid, s->gen,
			    s->crashes);
			s->crashes = 0;
		}
	}
	p->ops->on_tick(p->arg);
}

/* --- the slots --- */

static int
slots_init(struct slots *p)
{
	const struct timeval tv = { 0, TICK_MS * 1000 };
	unsigned i;

	p->tick = event_new(p->base, -1, EV_PERSIST, on_tick, p);
	if (!p->tick || event_add(p->tick, &tv) < 0)
		return -ENOMEM;
	for (i = 0; i < SLOTS_MAX; i++) {
		struct slot *s = &p->slots[i];

		s->slots = p;
		s->no = i;
		s->timer = evtimer_new(p->base, on_timer, s);
		if (!s->timer)
			return -ENOMEM;
	}
	return 0;
}

int
slots_new(
    struct event_base *base, const struct slots_conf *conf, const struct slots_ops *ops, void *arg, struct slots **ret)
{
	struct slots *p = calloc(1, sizeof(*p));
	unsigned i;

	BUG_ON(conf->workers > SLOTS_MAX);

	if (!p)
		return -ENOMEM;
	p->base = base;
	p->conf = *conf;
	p->ops = ops;
	p->arg = arg;
	if (slots_init(p) < 0) {
		slots_free(p);
		return -ENOMEM;
	}
	p->n_used = conf->workers;
	for (i = 0; i < conf->workers; i++)
		slot_start(&p->slots[i]);
	*ret = p;
	return 0;
}

void
slots_apply(struct slots *p, const struct chan_settings *settings, unsigned workers)
{
	unsigned i;

	BUG_ON(workers > SLOTS_MAX || p->is_stopping);
	p->conf.settings = *settings;
	p->conf.workers = workers;
	if (p->n_used < workers)
		p->n_used = workers;
	for (i = 0; i < p->n_used; i++) {
		struct slot *s = &p->slots[i];

		if (s->state == SLOT_IDLE && i >= workers) {
			evtimer_del(s->timer);
			s->due_ms = INT64_MAX;
			s->crashes = 0;
		} else if (s->state == SLOT_IDLE) /* whatever it waits for: what crashed it may be repaired */
			slot_start(s);
		else if (s->state == SLOT_STARTING || s->state == SLOT_SERVING || s->state == SLOT_DRAINING)
			slot_settings(s);
		if (s->state == SLOT_SERVING && i >= workers)
			slot_drain(s);
	}
}

void
slots_hold(struct slots *p, bool on)
{
	unsigned i;

	if (p->is_stopping || p->is_held == on)
		return;
	p->is_held = on;
	for (i = 0; i < p->n_used; i++) {
		struct slot *s = &p->slots[i];

		if (on && s->state == SLOT_IDLE)
			evtimer_del(s->timer);
		else if (on && s->state == SLOT_SERVING)
			slot_drain(s);
		else if (!on && s->state == SLOT_IDLE && i < p->conf.workers)
			slot_start(s);
	}
}

size_t
slots_left(const struct slots *p, pid_t *ret, size_t cap)
{
	size_t n = 0;
	unsigned i;

	for (i = 0; i < p->n_used; i++)
		if (p->slots[i].pid > 0 && n++ < cap)
			ret[n - 1] = p->slots[i].pid;
	return n;
}

bool
slots_has_pid(const struct slots *p, pid_t pid)
{
	for (unsigned i = 0; i < p->n_used; i++)
		if (p->slots[i].pid == pid)
			return true;
	return false;
}

void
slots_free(struct slots *p)
{
	unsigned i;

	if (!p)
		return;
	for (i = 0; i < SLOTS_MAX; i++) {
		struct slot *s = &p->slots[i];

		if (s->pid > 0) {
			kill(s->pid, SIGKILL);
			waitpid(s->pid, NULL, 0);
		}
		slot_fini(s);
		if (s->timer)
			event_free(s->timer);
	}
	if (p->tick)
		event_free(p->tick);
	free(p);
}

void
slots_stop(struct slots *p, bool now)
{
	struct chan_msg m = { .type = CHAN_STOP };
	unsigned i;

	p->is_stopping = true;
	for (i = 0; i < p->n_used; i++) {
		struct slot *s = &p->slots[i];

		if (s->state == SLOT_IDLE) {
			evtimer_del(s->timer);
		} else if (now) {
			slot_doom(s, "stop now");
		} else if (s->state == SLOT_STARTING || s->state == SLOT_SERVING || s->state == SLOT_DRAINING) {
			slot_enter(s, SLOT_STOPPING, "stop");
			slot_arm(s, POOL_STOP_MS);
			slot_post(s, &m, -1);
		}
	}
	check_empty(p);
}

void
slots_log(struct slots *p)
{
	struct chan_msg m = { .type = CHAN_LOG };
	unsigned i;

	for (i = 0; i < p->n_used; i++)
		/* one that is queued will take along what descriptor 2 is then */
		if (p->slots[i].state != SLOT_IDLE && !slot_has_queued(&p->slots[i], STDERR_FILENO))
			slot_post(&p->slots[i], &m, STDERR_FILENO);
}

void
slots_pids(const struct slots *p, char *ret, size_t cap)
{
	size_t len = 0;
	unsigned i;

	ret[0] = '\0';
	for (i = 0; i < p->n_used && len + 16 < cap; i++)
		if (p->slots[i].pid > 0)
			len += (size_t)snprintf(ret + len, cap - len, "%s%d", len ? "," : "", (int)p->slots[i].pid);
}

unsigned
slot_no(const struct slot *s)
{
	return s->no;
}

uint32_t
slot_gen(const struct slot *s)
{
	return s->gen;
}

void
slot_post(struct slot *s, struct chan_msg *m, int pass_fd)
{
	m->gen = s->gen;
	if (s->chan)
		chan_post(s->chan, m, pass_fd);
}

bool
slot_has_queued(const struct slot *s, int pass_fd)
{
	return s->chan && chan_has_queued(s->chan, pass_fd);
}

bool
slot_is_ending(const struct slot *s)
{
	return s->state != SLOT_SERVING;
}

bool
slot_is_gone(const struct slot *s)
{
	return s->state == SLOT_DOOMED || !s->chan || chan_is_dead(s->chan);
}

bool
slot_is_draining(const struct slot *s)
{
	return s->state == SLOT_DRAINING;
}

size_t
slot_room(const struct slot *s)
{
	bool is_there = s->state == SLOT_STARTING || s->state == SLOT_SERVING || s->state == SLOT_DRAINING;

	return is_there && s->chan ? chan_room(s->chan) : 0;
}

const struct ledger *
slot_ledger(const struct slot *s)
{
	return s->ledger;
}

struct pipes *
slot_pipes(struct slot *s)
{
	return s->pipes;
}

unsigned
slots_count(const struct slots *p)
{
	return p->n_used;
}

void
slots_view(const struct slots *p, unsigned i, struct slot_view *ret)
{
	const struct slot *s = &p->slots[i];

	*ret = (struct slot_view){
		.no = s->no,
		.gen = s->gen,
		.pid = (int)s->pid,
		.state = slot_tab[s->state].name,
		.age_ms = s->pid > 0 ? clock_now_ms() - s->started_ms : 0,
		.crashes = s->crashes,
		.starts_in_ms = s->pid == 0 && s->due_ms != INT64_MAX ? s->due_ms - clock_now_ms() : 0,
		.stats = s->stats,
		.ledger = s->ledger,
	};
}

void
slots_past_each(struct slots *p, void (*each)(const char *name, uint64_t *value, void *arg), void *arg)
{
	char key[64];

	each("restarts", &p->past.restarts, arg);
	each("accepted", &p->past.accepted, arg);
	each("accept_errors", &p->past.accept_errors, arg);
	for (int i = 0; i < END_REASON_MAX; i++) {
		snprintf(key, sizeof(key), "refused_%s", end_reason_word((enum end_reason)i));
		each(key, &p->past.refused[i], arg);
	}
}

const struct slots_past *
slots_past(const struct slots *p)
{
	return &p->past;
}
