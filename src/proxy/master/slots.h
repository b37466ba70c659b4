/* slots.h - the worker slots: starting, watching, replacing and stopping worker processes
 *
 *   IDLE --fork--> STARTING --READY--> SERVING --fewer--> DRAINING --DRAINED--> STOPPING
 *    ^                |                   |  `-------stop----+--------------------^ |
 *    |                `-- late, wrong, no heartbeat, late ---+--------------------+-+--> DOOMED (SIGKILL sent)
 *    `----------------------- waitpid says it is gone ---------------------------------------'
 */
#ifndef HYPER_PROXY_MASTER_SLOTS_H
#define HYPER_PROXY_MASTER_SLOTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "hyper/base/attr.h"
#include "hyper/net/listen.h"
#include "hyper/wire/chanmsg.h"

struct event_base;
struct ledger;
struct pipes;
struct slots;
struct slot;

#define SLOTS_MAX 256 /* public.workers' maximum */

struct slots_conf {
	unsigned workers;                  /* at most SLOTS_MAX */
	int table_fd;                      /* borrowed until slots_free() */
	const struct listeners *listeners; /* borrowed until slots_free() or slots_stop() */
	struct chan_settings settings;
	uint32_t n_pipes, n_seats; /* of each worker's ledger */
};

struct slots_ops {
	/* All but READY. *fd as in chan_ops. 0, or -EPROTO: this worker is wrong
	 * and gets killed. */
	int (*on_message)(struct slot *, const struct chan_msg *, int *fd, bool lost, void *arg);
	/* It said READY. */
	void (*on_serving)(struct slot *, void *arg);
	/* slot_room() had become scarce and is there again. */
	void (*on_room)(struct slot *, void *arg);
	/* The process is gone, everything it had sent was delivered before. Its ledger and pipes go after this.
	 * `status` of waitpid(). */
	void (*on_lost)(struct slot *, int status, void *arg);
	/* Once: every slot serves. */
	void (*on_ready)(void *arg);
	/* Once, after slots_stop(): the last process is gone. */
	void (*on_empty)(void *arg);
	/* Every half second, for what else has deadlines. */
	void (*on_tick)(void *arg);
};

/* Starts the workers. 0 with *ret taken, or -errno untouched. */
int slots_new(struct event_base *, const struct slots_conf *, const struct slots_ops *, void *arg,
    struct slots **ret) ATTR_MUST_USE;

/* Kills and reaps what is left. NULL is fine. */
void slots_free(struct slots *);

/* A child may have ended: waitpid for each slot. */
void slots_reap(struct slots *);

/* A reload: who lives gets the settings, in place. Missing workers are started; those beyond `workers` accept
 * no more, and stop once they have nothing left (the pairs' owner moves them away, hand.h). No slot waits any longer
 * for the end of its pause. */
void slots_apply(struct slots *, const struct chan_settings *, unsigned workers);

/* Before an exec of ourselves: while on, no process is started, and each accepts no more, comes to its end and exits once
 * its pairs are away. Off: everything goes on with new processes. Nothing while it stops. */
void slots_hold(struct slots *, bool on);
/* Processes that are there; up to `cap` of their pids into `ret`. */
size_t slots_left(const struct slots *, pid_t *ret, size_t cap);
bool slots_has_pid(const struct slots *, pid_t);

/* STOP to all, SIGKILL after POOL_STOP_MS, at once with `now`. on_empty follows, from
 * the loop or, without any process, before this returns. */
#define POOL_STOP_MS 2000
void slots_stop(struct slots *, bool now);

/* Descriptor 2 is another one now (log_reopen): LOG to all. */
void slots_log(struct slots *);

/* "pid,pid,..." of the living workers. */
void slots_pids(const struct slots *, char *ret, size_t cap);

/* What can be seen of slot i. Pointers are borrowed until control returns to the loop. */
struct slot_view {
	unsigned no;
	uint32_t gen;
	int pid;                          /* 0 none */
	const char *state;                /* static */
	int64_t age_ms;                   /* of the process */
	unsigned crashes;                 /* in a row (backoff.h) */
	int64_t starts_in_ms;             /* without a process: 0 it does not start, or at once */
	const struct worker_stats *stats; /* a sibling's, read field by field; NULL without a process */
	const struct ledger *ledger;      /* likewise */
};
unsigned slots_count(const struct slots *);
void slots_view(const struct slots *, unsigned i, struct slot_view *ret);

/* Of processes that are gone: how many there were beyond the first of each slot, and what they had counted. */
struct slots_past {
	uint64_t restarts;
	uint64_t accepted, accept_errors;
	uint64_t refused[END_REASON_MAX];
};
const struct slots_past *slots_past(const struct slots *);
/* As tally_each(). */
void slots_past_each(struct slots *, void (*each)(const char *name, uint64_t *value, void *arg), void *arg);

/* Number of the slot in all logs, and its generation. */
unsigned slot_no(const struct slot *);
uint32_t slot_gen(const struct slot *);

/* A message to the worker; nothing when it is gone. pass_fd as in chan_post(). */
void slot_post(struct slot *, struct chan_msg *, int pass_fd);
bool slot_has_queued(const struct slot *, int pass_fd);

/* Is it told to drain, to stop, or worse? Then it must not get anything new. */
bool slot_is_ending(const struct slot *);

/* Does it bring what it has begun to its end, for one of fewer workers? */
bool slot_is_draining(const struct slot *);

/* Is it known to be dead, or as good as dead? We may still be reading what it had sent. */
bool slot_is_gone(const struct slot *);

/* Messages that may be posted now without being answers; 0 when it is gone. */
size_t slot_room(const struct slot *);

/* Of its process, which lives or was just lost; never NULL in a callback. */
const struct ledger *slot_ledger(const struct slot *);
struct pipes *slot_pipes(struct slot *);

/* This worker is wrong or does not answer: SIGKILL. */
void slot_doom(struct slot *, const char *why);

#endif
