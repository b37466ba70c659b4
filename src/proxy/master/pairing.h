/* pairing.h - the pairs: two sockets each, what is known of them, and who moves their bytes
 *
 *      WAITING --PAIR, ADOPT..--> HANDING --PAIRED--> LIVE --MOVE--> MOVING
 *       ^  ^                        |  |              | |  <-PAIRED-'  |
 *       |  `-- MOVED, worker lost --'--+--------------'-+--------------'
 *       |                              |                |
 *       `---- deadline, stop ----------`---- ENDED, over, lost ---> DONE
 *
 * The master keeps duplicates of both sockets from the arrival of each to the
 * end of the pair, and of every pipe: a worker's death costs no byte.
 */
#ifndef HYPER_PROXY_MASTER_PAIRING_H
#define HYPER_PROXY_MASTER_PAIRING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "hyper/base/attr.h"
#include "hyper/base/idmap.h"
#include "hyper/base/slab.h"
#include "hyper/base/words.h"
#include "hyper/relay/relay.h"
#include "hyper/wire/token.h"
#include "proxy/master/quota.h"
#include "proxy/master/slots.h"

/* A worker answers PAIR, RESUME and MOVE in its next turn. One that beats and yet does not is broken. */
#define PAIR_ANSWER_MS 10000
/* Pairs of one worker that wait for PAIRED: about what a UNIX socket takes (faults.md "in flight"). */
#define PAIR_HANDING_MAX 256

#define PAIR_STATES(X)                                                  \
	X(WAITING, PAIR_BIT(HANDING) | PAIR_BIT(DONE))                  \
	X(HANDING, PAIR_BIT(LIVE) | PAIR_BIT(WAITING) | PAIR_BIT(DONE)) \
	X(LIVE, PAIR_BIT(MOVING) | PAIR_BIT(WAITING) | PAIR_BIT(DONE))  \
	X(MOVING, PAIR_BIT(LIVE) | PAIR_BIT(WAITING) | PAIR_BIT(DONE))  \
	X(DONE, 0)
#define PAIR_BIT(s) (1u << PAIR_##s)

enum pair_state {
#define X(n, to) PAIR_##n,
	PAIR_STATES(X)
#undef X
	    PAIR_STATE_MAX
};

struct pair {
	union {
		uint64_t id;
		struct idmap_item item;
	};
	struct slot *slot;      /* whose it is; NULL while WAITING */
	struct quota_op *op;    /* A's counts, borrowed while this pair is one of them */
	TAILQ_ENTRY(pair) link; /* in the list of its state */
	int64_t since_ms;       /* created */
	int64_t entered_ms;     /* this state */
	int64_t waits_ms;       /* without a worker that moves its bytes since then; 0 it has one */
	int fd[2];              /* a: second party, b: first party; owned until DONE */
	/* What the sockets do not tell, for the next worker. Valid while WAITING and HANDING. With a seat the bytes are as
	 * view.c saw them there last. */
	uint64_t bytes[2];
	uint32_t flags;        /* RELAY_EOF_*, RELAY_BROKEN_*; in rescue.c all of the seat's */
	int pipe_fd[2];        /* WAITING: with bytes of a to b, b to a; owned; -1 none */
	uint32_t pipe_no[2];   /* HANDING: the same pipe's number in `slot`'s table, which owns it; CHAN_NO_PIPE none */
	uint64_t shared_bytes; /* share.c: of both directions, at its last look */
	bool suspect;
	bool was_seen;   /* rescue.c: it has a seat */
	bool is_new;     /* HANDING by PAIR, not by ADOPT */
	bool is_kicked;  /* whatever ends it now, this is why */
	uint8_t state;   /* enum pair_state */
	uint8_t crashes; /* in a row, of workers in the middle of its turn */
	uint16_t last_worker;
	uint32_t crash_s; /* the first of them */
	char session[SESSION_ID_MAX];
	bool is_seated; /* view.c, while it looks: a seat names it */
	const char *to; /* names.h; may be NULL for want of memory */
	uint64_t note;  /* tally.h */
};
_Static_assert(sizeof(struct pair) <= 176, "an idle pair is cheap");
TAILQ_HEAD(pair_list, pair);

/* One worker slot. */
struct load {
	struct slot *slot; /* NULL while its process does not serve */
	size_t pairs;      /* HANDING, LIVE and MOVING */
	size_t handing, moving;
	struct pair_list of_state[PAIR_STATE_MAX]; /* HANDING, LIVE, MOVING, the oldest first */
	size_t want;                               /* pipes it asked for and did not get yet */
	int64_t rest_until_ms;                     /* it could not take a pair: none before then */
};

struct pairs {
	struct quota *quota;
	size_t max_pairs; /* of each worker */
	uint64_t last_id;
	struct idmap by_id;
	struct slab memory;
	struct pair_list waiting;
	size_t loose_pipes;  /* owned by pairs that wait */
	struct share *share; /* borrowed; NULL: no limit of an operator's bytes a second */
	bool is_stopping;
	unsigned n_workers; /* as the settings say */
	unsigned n_loads;   /* slots that ever had a process are below; at most SLOTS_MAX */
	struct load loads[SLOTS_MAX];
};

/* `quota` is borrowed until pairs_free(). NULL when out of memory; taken. */
struct pairs *pairs_new(struct quota *, unsigned workers, size_t max_pairs);
void pairs_free(struct pairs *);

/* A reload: `workers` counts those to come; `max_pairs` of each holds for new pairs. */
void pairs_apply(struct pairs *, unsigned workers, size_t max_pairs);

struct load *pairs_load(struct pairs *, const struct slot *);
/* NULL when there is none. */
struct pair *pairing_find(struct pairs *, uint64_t id);

/* WAITING, for the operator `op`. Both sockets are given on success only. 0 with *ret
 * borrowed until its end, -EDQUOT, -EBUSY or -ENOMEM. */
struct pairing_of {
	struct quota_op *op;
	const char *session, *to; /* copied */
	uint64_t note;
};
int pairing_new(struct pairs *, const struct pairing_of *, struct pair **ret) ATTR_MUST_USE;

/* Its end will have the reason KICKED; the caller resets the sockets. */
void pairing_kick(struct pair *);

/* Whom it joins, `to` "?" where that is not known. Borrowed. */
const char *pairing_from(const struct pair *);
const char *pairing_to(const struct pair *);

/* WAITING, as it was before an exec: id, since_ms, fd, pipe_fd, bytes, flags, session and what is known of its crashes
 * are copied from `as`, whose descriptors are given on success only. 0, -EEXIST, -ENOMEM. */
int pairing_restore(struct pairs *, const struct pair *as, const char *from, const char *to) ATTR_MUST_USE;

/* The only function that changes the state. `slot`: the new owner, for HANDING; else NULL: no change, or none when WAITING. */
void pairing_enter(struct pairs *, struct pair *, enum pair_state to, struct slot *slot, const char *why);

/* -> DONE: its one `ended` line, its descriptors closed, freed. With `reset` both peers see
 * a reset; else what the worker did to the sockets stands. */
void pairing_end(struct pairs *, struct pair *, enum end_reason, bool reset);

#endif
