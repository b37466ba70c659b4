/* worker.h - what the files of a worker share: the worker, its connections, its messages
 *
 *      worker.c    start, loop, listeners, stats page
 *      conns.c     from accept to the answer of the master
 *      rates.c     connections per remote address
 *      sources.c   bad ones, and those without a token, per remote address
 *      pairs.c     joined sockets: names for the log, exactly one ENDED or MOVED each
 *      lent.c    shared memory that a successor goes on from; pipes that come and go
 *      channel.c   messages to and from the master
 *
 * Private to src/proxy/worker. One process, one loop, no locks.
 */
#ifndef HYPER_PROXY_WORKER_WORKER_H
#define HYPER_PROXY_WORKER_WORKER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "hyper/base/attr.h"
#include "hyper/base/idmap.h"
#include "hyper/base/slab.h"
#include "hyper/base/words.h"
#include "hyper/proxy/toktab.h"
#include "hyper/proxy/worker_abi.h"
#include "hyper/relay/relay.h"
#include "hyper/wire/chanmsg.h"
#include "hyper/wire/token.h"
#include "proxy/worker/rates.h"
#include "proxy/worker/sources.h"

#define WORKER_LISTENERS  (WORKER_FD_LISTENER_MAX - WORKER_FD_LISTENER + 1)
#define WORKER_TURN       16   /* accepts, or messages, in one turn of the loop */
#define WORKER_WAIT_MAX   256  /* connections that wait for the master: about what a channel's buffer holds */
#define WORKER_ANSWER_MS  5000 /* for the master to answer ARRIVED */
#define WORKER_IDLE_PIPES 64

/* First member of all that our epoll set points to; others have RELAY_TAG. */
struct item {
	uint32_t tag;
};
enum item_tag { ITEM_CHANNEL = 1, ITEM_LISTENER, ITEM_CONN };

#define WRK_BIT(s) (1u << (s))

/*   STARTING --SETTINGS--> SERVING --DRAIN--> DRAINING --nothing left--> DRAINED --STOP--> DONE
 *       |                     |                  |                         |             ^  ^
 *       |---------------------+------------------+--------- STOP ----------'-------------'  |
 *       `---------------------+-- channel's end -+--> ORPHANED ---- last pair's end --------'  */
#define WORKER_STATES(X)                                                                                      \
	X(STARTING, WRK_BIT(WRK_SERVING) | WRK_BIT(WRK_DRAINING) | WRK_BIT(WRK_ORPHANED) | WRK_BIT(WRK_DONE)) \
	X(SERVING, WRK_BIT(WRK_DRAINING) | WRK_BIT(WRK_ORPHANED) | WRK_BIT(WRK_DONE))                         \
	X(DRAINING, WRK_BIT(WRK_DRAINED) | WRK_BIT(WRK_ORPHANED) | WRK_BIT(WRK_DONE))                         \
	X(DRAINED, WRK_BIT(WRK_ORPHANED) | WRK_BIT(WRK_DONE))                                                 \
	X(ORPHANED, WRK_BIT(WRK_DONE))                                                                        \
	X(DONE, 0)

enum worker_state {
#define X(n, to) WRK_##n,
	WORKER_STATES(X)
#undef X
};

struct worker;
struct out;

/* What something has to say to the master, made when it can be sent and not before. */
struct out_kind {
	/* The next message, and its descriptor (borrowed) or -1. `*ret` is all zero. */
	void (*make)(struct worker *, struct out *, struct chan_msg *ret, int *ret_fd);
	/* That was sent, or there is nobody left to send it to. True: there is more to say. May free `o` when not.
	 * NULL: nothing to do, nothing more. */
	bool (*sent)(struct worker *, struct out *);
};

/* A place in the queue to the master. It is part of what it speaks about, so
 * that queueing never fails and the queue is bounded. */
struct out {
	TAILQ_ENTRY(out) link;
	const struct out_kind *kind;
	bool queued;
};
TAILQ_HEAD(out_list, out);

struct conn;
struct pair;
TAILQ_HEAD(conn_list, conn);

struct listener {
	struct item item;
	int fd;
	bool armed;
};

struct worker {
	unsigned slot;
	uint32_t gen;
	enum worker_state state;
	int exit_code;
	int epoll_fd;
	int64_t now_ms; /* of this turn */
	struct worker_stats *stats;
	struct toktab *table;
	struct relay *relay; /* from the first SETTINGS on */
	struct chan_settings settings;

	struct listener listeners[WORKER_LISTENERS];
	size_t n_listeners;
	int64_t accept_after_ms; /* paused until then: no descriptors were free */
	int64_t look_after_ms;   /* accepts without being woken, once a second */
	uint64_t accepted, accept_errors;

	/* conns.c */
	struct conn_list fresh;   /* token not known yet, oldest first */
	struct conn_list waiting; /* ARRIVED queued or sent, oldest first */
	struct conn_list gone;    /* freed at the start of the next turn */
	size_t n_fresh, n_waiting;
	bool retry; /* a look-up met the writer: try again soon */
	uint64_t next_conn;
	uint64_t refused[END_REASON_MAX];
	struct rates rates;
	struct sources sources;

	/* pairs.c */
	struct idmap pairs;
	struct slab pair_memory;
	uint64_t pairs_total;
	size_t n_unlimited;           /* pairs whose operator is known and has no limit of bytes a second here */
	struct pair *spare;           /* for the answer to a pair for whose struct there is no memory */
	struct relay_bundle adopting; /* parts that have come of the pair that RESUME will name; id 0 none */
	unsigned adopting_has;        /* bits of enum chan_part */
	bool adopting_lost;           /* one of them came without its descriptor */

	/* lent.c */
	struct worker_ledger *ledger;
	uint32_t n_pipes, n_seats; /* of its head, checked once */
	uint32_t *freed;           /* numbers of pipes that we closed and have not said so: a ring of n_pipes */
	uint32_t freed_first, n_freed;
	size_t want; /* pipes to be asked for */
	struct out pipes_out;

	/* channel.c */
	struct item chan_item;
	int chan_fd;
	int reserve_fd;        /* given up for the time of a receive near the limit: it has room for a descriptor */
	int top_fd;            /* the highest number of a descriptor so far */
	int64_t recv_after_ms; /* not read until then: no descriptor is free */
	int64_t send_after_ms; /* back-pressure */
	struct out_list outbox;
	struct out ready_out, drained_out;
};

/* worker.c */
void worker_enter(struct worker *, enum worker_state to, const char *why);
int worker_watch(struct worker *, int fd, uint32_t events, struct item *) ATTR_MUST_USE;
void worker_unwatch(struct worker *, int fd);
void worker_close_listeners(struct worker *);
void worker_name(const struct worker *, char ret[32]);

/* conns.c */
void conns_init(struct worker *);
/* w->settings are new. */
void conns_on_settings(struct worker *);
void conns_accept(struct worker *, struct listener *);
void conn_on_event(struct worker *, struct item *);
/* Deadlines, look-ups to be tried again, memory of the last turn. */
void conns_tick(struct worker *);
/* When conns_tick() has something to do at the latest; INT64_MAX never. */
int64_t conns_next_ms(const struct worker *);
/* The answers to ARRIVED. An unknown number is a late answer and no error. */
void conn_on_parked(struct worker *, uint64_t conn);
void conn_on_refused(struct worker *, uint64_t conn, enum end_reason);
/* Takes the socket of a waiting connection for its pair; -1 when it is gone. */
int conn_take(struct worker *, uint64_t conn);
void conns_drop_all(struct worker *, enum end_reason);
void conns_fini(struct worker *);

/* pairs.c; PAIR, ADOPT, RESUME, MOVE, END. Descriptors are given. 0; -EPROTO: this cannot come now; -ENOMEM. */
int pairs_init(struct worker *) ATTR_MUST_USE;
int pairs_join(struct worker *, const struct chan_msg *, int first_fd) ATTR_MUST_USE;
int pairs_adopt(struct worker *, const struct chan_msg *, int fd, bool lost) ATTR_MUST_USE;
int pairs_resume(struct worker *, const struct chan_msg *) ATTR_MUST_USE;
int pairs_move(struct worker *, const struct chan_msg *) ATTR_MUST_USE;
int pairs_end(struct worker *, const struct chan_msg *) ATTR_MUST_USE;
/* RATE */
void pairs_rate(struct worker *, uint64_t asker, uint64_t rate);
void pairs_on_end(const struct relay_end *, void *worker);
void pairs_fini(struct worker *);

/* lent.c */
int lent_init(struct worker *) ATTR_MUST_USE;
struct relay_ledger lent_ledger(const struct worker *);
/* relay_conf */
void lent_on_want(size_t n, void *worker);
void lent_on_pipe_gone(uint32_t no, void *worker);
/* PIPE (the descriptor is given) and NOPIPE. 0 or -EPROTO. */
int lent_on_pipe(struct worker *, uint32_t no, int fd, bool lost) ATTR_MUST_USE;
void lent_on_nopipe(struct worker *);
void lent_fini(struct worker *);

/* channel.c */
int channel_init(struct worker *) ATTR_MUST_USE;
/* Reads what is there; -EPROTO: the master is wrong, stop. */
int channel_on_event(struct worker *) ATTR_MUST_USE;
/* Queues it, or does nothing when it is queued already. */
void channel_put(struct worker *, struct out *);
void channel_cancel(struct worker *, struct out *);
/* A descriptor of this number was opened. */
void channel_saw_fd(struct worker *, int fd);
/* Reads again after a pause. */
void channel_tick(struct worker *);
/* Sends what can be sent now. */
void channel_flush(struct worker *);
/* Before the exit: waits up to a second for the outbox to empty. */
void channel_flush_last(struct worker *);
int64_t channel_next_ms(const struct worker *);
/* The master does not take our messages: accept nothing more. */
bool channel_is_blocked(const struct worker *);
void channel_fini(struct worker *);

#endif
