/* engine.h - what the files of src/relay share: a pair, its sides, the engine
 *
 * relay.c (engine, loop, queues), pair.c (life of a pair), move.c (bytes),
 * doubt.c (is a socket empty), group.c (limits of several pairs together),
 * vanished.c (peers that are gone), sock.c (sockets), ledger.c (seats), carrier.c
 * (pipes), rest.c (what a dead engine left). Private to src/relay.
 */
#ifndef HYPER_RELAY_ENGINE_H
#define HYPER_RELAY_ENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "hyper/base/attr.h"
#include "hyper/relay/relay.h"
#include "relay/carrier.h"

#define BIT(s) (1u << (s))

#define DOUBTS_MAX 256 /* sockets that may wait for a look; more are looked at on the spot */

/*            .--eof of a--> ONLY_BA --eof of b--.
 *   BOTH ----+                                  +--> NONE --closed--> GONE
 *            `--eof of b--> ONLY_AB --eof of a--'                       ^
 *     `--------------- reset, stop, failure, released ------------------'
 * The name says which direction is open. NONE lasts until the end of the turn. */
#define PAIR_STATES(X)                                                  \
	X(BOTH, BIT(PAIR_ONLY_AB) | BIT(PAIR_ONLY_BA) | BIT(PAIR_GONE)) \
	X(ONLY_AB, BIT(PAIR_NONE) | BIT(PAIR_GONE))                     \
	X(ONLY_BA, BIT(PAIR_NONE) | BIT(PAIR_GONE))                     \
	X(NONE, BIT(PAIR_GONE))                                         \
	X(GONE, 0)

enum pair_state {
#define X(n, to) PAIR_##n,
	PAIR_STATES(X)
#undef X
};

/* Where a pair is lined up; the same link for all. */
enum pair_queue {
	Q_NONE, /* it waits for an event */
	Q_RUN,  /* work is left over from its last turn */
	Q_WAIT, /* it waits for a pipe */
	Q_GONE, /* to be freed */
	Q_HELD  /* its group's limit is used up; this line is the group's */
};

enum { A, B }; /* sides; also the directions that start there: A is ab, B is ba */

struct side {
	struct relay_item item; /* first: what epoll gives back */
	int fd;
	uint8_t index : 1;    /* A or B: where in its pair it is */
	uint8_t old_news : 4; /* events in a row that said what was known */
	bool readable : 1, writable : 1;
	bool broken : 1;   /* reset or dead; what it sent before is still passed on */
	bool urgent : 1;   /* splice(2) stops at TCP urgent data for ever (Linux 6.18): read it by copying */
	bool hup : 1;      /* an event spoke of an end: read until that is found */
	bool vanished : 1; /* broken because nothing was heard of it */
	bool deaf : 1;     /* epoll tells nothing of bytes: it is readable, and nobody can take them yet */
	bool doubted : 1;  /* it may hold bytes of which no event will tell; then it is in r->doubts */
	bool listed : 1;   /* it is in r->doubts */
	bool stale : 1;    /* doubted since before the last look at epoll */
	uint16_t stuck;    /* vanished.c: since when an acknowledgement is waited for; 0 none */
};
_Static_assert(offsetof(struct side, item) == 0, "relay_on_event() casts it back");

struct relay_pair {
	TAILQ_ENTRY(relay_pair) all; /* of r->alive, by active_ms */
	TAILQ_ENTRY(relay_pair) line;
	struct relay_pair *next;    /* of the same bucket */
	struct relay_seat *seat;    /* its counters and flags are kept there alone */
	struct carrier *carrier[2]; /* of a direction; NULL while no bytes are in flight */
	struct relay_group *group;  /* NULL: of none */
	uint64_t id;
	int64_t start_ms, active_ms;
	struct side side[2];
	uint8_t state;     /* enum pair_state */
	uint8_t queue;     /* enum pair_queue */
	uint8_t wants;     /* BIT of a direction that found no pipe */
	uint8_t bulk;      /* BIT of a direction whose reads are full: copy_small splices there */
	uint8_t held;      /* BIT of a direction that its group's limit stopped */
	uint8_t lead : 1;  /* the direction that comes first in its next turn, where both share a limit */
	bool is_half : 1;  /* one of its streams has ended: in which list it is */
	bool promised : 1; /* an idle pipe is kept for its next turn */
	bool is_open : 1;  /* bytes of it may be on their way: vanished.c looks at it */
	uint8_t tiny[2];   /* reads of a direction to be looked after on the spot: its segments filled a pipe's slots */
};
_Static_assert(sizeof(struct relay_pair) <= 128, "an idle pair is to be cheap");

TAILQ_HEAD(pair_list, relay_pair);
TAILQ_HEAD(group_list, relay_group);

struct relay {
	struct relay_conf conf;
	relay_on_end on_end;
	void *arg;
	struct carrier_pool pool;

	struct pair_list alive[2]; /* whole and half closed; the one that was active longest ago first */
	struct pair_list line[Q_GONE + 1];
	struct relay_pair **buckets; /* alive, by id */
	size_t n_buckets, n_pairs;
	struct relay_group *groups; /* by number */
	struct group_list held;     /* those in whose line somebody waits */
	size_t n_held;              /* pairs in their lines */
	size_t n_wants;             /* directions that found no pipe */
	size_t n_asked;             /* pipes asked for and not answered */
	int64_t wait_ms;            /* since when somebody waits for a pipe; 0 nobody */
	int64_t none_ms;            /* until then nobody waits for one */

	struct relay_ledger ledger;
	void *private_ledger; /* unless it is the caller's */
	size_t private_size;
	uint32_t *left_seats; /* numbers of seats that were used and left */
	uint32_t n_left, next_seat;

	int64_t timeout_ms[2]; /* of these lists; 0 never */
	int64_t grain_ms;      /* how exactly active_ms is kept */
	int64_t now_ms, trim_ms;
	bool is_late;            /* now_ms is of an earlier turn */
	bool is_hot;             /* the turn before this one was just now */
	size_t n_open;           /* pairs that are open */
	struct relay_pair *look; /* the next one to be looked at, of alive[look_list] */
	int look_list;           /* -1: between two rounds */
	int64_t look_ms, look_began_ms;
	bool doubts_marked; /* those that were in it at doubts_ms are stale */
	size_t n_doubts;
	int64_t doubts_ms;           /* when they are looked at */
	uint64_t doubts[DOUBTS_MAX]; /* whose sockets may not be empty: dir_owner() */
	uint64_t bytes, buffered;
};

static inline struct relay_pair *
side_pair(struct side *s)
{
	return (struct relay_pair *)((char *)(s - s->index) - offsetof(struct relay_pair, side));
}

static inline bool
pair_is_broken(const struct relay_pair *p)
{
	return p->side[A].broken || p->side[B].broken;
}

/* What the journal says of a pipe that holds bytes of this direction. */
static inline uint64_t
dir_owner(const struct relay_pair *p, int dir)
{
	return p->id << 1 | (uint64_t)dir;
}

/* --- relay.c --- */

/* The only place that moves a pair between the queues. */
void queue_enter(struct relay *, struct relay_pair *, enum pair_queue);

/* Notes that a direction found no pipe, or needs none any more. */
void want_set(struct relay *, struct relay_pair *, int dir, bool wants);

/* Bytes were delivered, or a stream has ended: its time starts again. */
void pair_touch(struct relay *, struct relay_pair *);

/* --- pair.c --- */

/* Whether epoll tells of bytes that come; ends and errors it tells in any case. Told again, it tells at once of bytes
 * that are there. 0 or -errno. */
int side_listen(struct relay *, struct side *, bool on);

/* The only place that writes p->state. */
void pair_enter(struct relay_pair *, enum pair_state to, const char *why);
void pair_end(struct relay *, struct relay_pair *, enum end_reason, const char *why);
struct relay_pair *pair_find(const struct relay *, uint64_t id);

/* --- doubt.c --- */

/* After a read of n bytes, at most `want`, into its carrier: is there more, or must one look by reading again? No: an
 * event will tell when more comes. */
bool side_has_more(struct relay *, struct relay_pair *, int dir, size_t want, size_t n);

void doubts_run(struct relay *);
int64_t doubts_next_ms(const struct relay *); /* INT64_MAX never */

/* --- group.c --- */

/* The line in which a pair of this group waits for its limit. A change of it is told afterwards. */
struct pair_list *group_line(struct relay_group *);
void group_line_changed(struct relay *, struct relay_group *);

/* What the pair may read in this turn in both directions together is known between these two. */
void group_turn_begin(struct relay *, struct relay_pair *);
size_t group_left(const struct relay_pair *);
void group_spend(struct relay_pair *, int dir, size_t n);

/* Those who waited go on, as far as the limits permit and for a bounded number of turns. True: more could. */
bool groups_run(struct relay *);

/* When groups_run() has something to do; INT64_MAX never. */
int64_t groups_next_ms(const struct relay *);

size_t group_count(const struct relay *);

/* The pair ends or moves. */
void group_leave(struct relay *, struct relay_pair *);

/* --- move.c --- */

/* Everything that a pair can do now, within its budget. It may be GONE afterwards. */
void pair_turn(struct relay *, struct relay_pair *);

/* It stays readable, so that one more turn passes on what came before. */
void side_break(struct side *);

/* The same, noted in the seat. */
void side_failed(struct relay_pair *, struct side *);

/* --- vanished.c --- */

void vanished_init(struct relay *);
/* keep.user_timeout_ms is another one: the time that nothing was heard begins anew. */
void vanished_changed(struct relay *);
/* Bytes were delivered, or it is new: it is open. */
void vanished_note(struct relay *, struct relay_pair *);
/* It is about to leave its place in r->alive. */
void vanished_leaves(struct relay *, struct relay_pair *);
/* It is over. */
void vanished_forget(struct relay *, struct relay_pair *);
/* Looks at some, whose peer may have vanished: these end. */
void vanished_run(struct relay *);
int64_t vanished_next_ms(const struct relay *);

/* --- sock.c --- */

/* True: it was so already. Else an urgent byte may have left its stream before. */
bool sock_tune(int fd, const struct relay_keep *);

/* Of a socket that was tuned: what differs between the two. */
void sock_rekeep(int fd, const struct relay_keep *was, const struct relay_keep *now);

/* Taking the error from the socket is what makes a reset known even while its direction is stalled. An errno, 0 none. */
int sock_take_error(int fd);

/* It is a connection no more, and not because both streams ended: for one whose earlier owner may
 * have taken the error. `fin_sent`: the end of what we send was passed on to it. */
bool sock_was_reset(int fd, bool fin_sent);

/* Both streams have ended: what is still on its way arrives, then their ends. */
void sock_finish(int *fd);

/* --- ledger.c --- */

/* 0 or -ENOMEM. */
int ledger_init(struct relay *, const struct relay_ledger *) ATTR_MUST_USE;
void ledger_fini(struct relay *);

/* A free seat with its counters and flags; `pair` is stored last. NULL when all are taken. */
struct relay_seat *seat_take(struct relay *, uint64_t id, uint64_t bytes_ab, uint64_t bytes_ba, uint32_t flags);
void seat_leave(struct relay *, uint32_t seat);

static inline uint32_t
seat_number(const struct relay *r, const struct relay_seat *seat)
{
	return (uint32_t)(seat - r->ledger.seats);
}

static inline void
seat_flags(struct relay_seat *seat, uint32_t set, uint32_t clear)
{
	__atomic_store_n(&seat->flags, (seat->flags & ~clear) | set, __ATOMIC_RELEASE);
}

/* A small message of this direction is about to be read into the copy place. The calls in between are the order for a
 * reader who comes after our death; release is what says so to the compiler. */
static inline struct relay_copy *
copy_begin(struct relay *r, uint64_t owner)
{
	struct relay_copy *c = r->ledger.copy;

	__atomic_store_n(&c->len, 0, __ATOMIC_RELAXED);
	__atomic_store_n(&c->owner, owner, __ATOMIC_RELEASE);
	return c;
}

static inline void
copy_filled(struct relay_copy *c, size_t n)
{
	__atomic_store_n(&c->len, (uint32_t)n, __ATOMIC_RELEASE);
}

/* Nothing of it is here any more. */
static inline void
copy_end(struct relay_copy *c)
{
	__atomic_store_n(&c->owner, 0, __ATOMIC_RELEASE);
}

static inline void
turn_note(struct relay *r, uint64_t id)
{
	__atomic_store_n(r->ledger.turn, id, __ATOMIC_RELEASE);
}

#endif
