/* relay.h - the splice engine: two connected sockets in, bytes moved, one end reason out
 *
 * Needs base only; it is tested without the proxy. It has no loop of its own:
 * it arms its sockets in the caller's epoll set, the caller calls back.
 *
 * A pair is a bundle of descriptors: two sockets, and pipes with what they
 * hold. Who keeps duplicates of all of them and reads the engine's ledger can
 * let another engine go on when this one's process was killed: no byte is lost,
 * since payload is in pipes, or in the ledger's copy place (relay_rest()), except
 * where a seat says BUFFERED.
 *
 *      process 1                      the keeper                    process 2
 *      relay_pair_new()    ledger     duplicates of                 relay_pair_adopt()
 *      ... killed -------> seats ---> sockets and pipes ----------> goes on
 *                          pipes
 */
#ifndef HYPER_RELAY_RELAY_H
#define HYPER_RELAY_RELAY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "hyper/base/attr.h"
#include "hyper/base/words.h"

struct relay; /* pool of pipes, limits, mode; one per worker */
struct relay_pair;

/* --- the ledger ------------------------------------------------------------ */

/* Of relay_seat.flags. EOF, BUFFERED and OVER are stored before the deed: who goes on does it (again), which does no harm. */
#define RELAY_EOF_AB             (1u << 0) /* the end of the stream from a was passed on to b */
#define RELAY_EOF_BA             (1u << 1)
#define RELAY_BROKEN_A           (1u << 2) /* an error was taken from that socket: what looks like an end is none */
#define RELAY_BROKEN_B           (1u << 3)
#define RELAY_BUFFERED_AB        (1u << 4) /* payload from a is, or is about to be, in user memory: it dies with the process */
#define RELAY_BUFFERED_BA        (1u << 5)
#define RELAY_OVER               (1u << 6) /* ended for the reason RELAY_OVER_REASON(); its sockets may not be shut or reset yet */
#define RELAY_UNSURE             (1u << 7) /* relay_rest() may not be asked about it: its small messages are spliced, too */
#define RELAY_OVER_REASON(flags) ((enum end_reason)((flags) >> 16))

/* One pair, written by its engine alone with plain atomic stores. */
struct relay_seat {
	uint64_t pair;     /* 0: free. Stored last when the seat is taken, first when it is left */
	uint64_t bytes_ab; /* delivered */
	uint64_t bytes_ba;
	uint32_t flags;    /* RELAY_* */
	uint32_t active_s; /* CLOCK_MONOTONIC, when its last byte was delivered */
};
_Static_assert(sizeof(struct relay_seat) == 32, "docs/shm.md");

/* A small message on its way through user memory (copy_small). Stored in this order, each before what comes behind it:
 * len 0, owner, recv() into data, len, send(), what is left into a pipe, owner 0. */
#define RELAY_COPY_MAX 4096
struct relay_copy {
	uint64_t owner; /* pair << 1 | direction; 0: nothing is here */
	uint32_t len;   /* 0: recv() has not come back, or nobody could say so any more */
	uint32_t reserved;
	uint8_t data[RELAY_COPY_MAX];
};
_Static_assert(sizeof(struct relay_copy) == 16 + RELAY_COPY_MAX, "docs/shm.md");

/* Where an engine writes down what it does, so that somebody can go on after it was killed. Ids are below
 * 2^63 and never 0. All pointers are borrowed until relay_free(). `turn` NULL: the engine uses private memory. */
struct relay_ledger {
	uint64_t *turn;  /* the pair whose turn is in progress; 0 between turns */
	uint64_t *pipes; /* [n_pipes] 0: empty and in the pool; else pair << 1 | direction (0: a to b) */
	struct relay_seat *seats;
	uint32_t n_pipes, n_seats; /* pipe numbers are below n_pipes; no more than n_seats pairs at once */
	uint64_t *used_seats;      /* seats from this one on were never taken */
	struct relay_copy *copy;
};

/* --- an engine ------------------------------------------------------------- */

struct relay_conf {
	int epoll_fd;     /* borrowed until relay_free() */
	size_t pipe_size; /* bytes asked for with F_SETPIPE_SZ; falls back when not permitted */
	size_t max_pipes; /* pool: idle pipes kept for good; more are closed when nobody used them for some seconds */
	bool copy_mode;   /* read and write through a buffer instead of splice */
	/* Messages below RELAY_COPY_MAX are read and sent through the ledger's copy place, which costs less than two
	 * splices. Where there is no pipe for what may be left they are spliced. */
	bool copy_small;
	bool makes_pipes;           /* pipes are made here. False: they come by relay_pipe_give() */
	struct relay_ledger ledger; /* all zero: private memory */

	bool holds_seats; /* the seat of a pair that ended or was released stays as it was until relay_seat_done() */

	/* A pair over which nothing was delivered for so long ends (IDLE; HALF_CLOSED when one of its streams has
	 * ended, by idle_timeout_ms too where the other one is 0). 0: never. At most an eighth later, or a second. */
	int64_t idle_timeout_ms, half_closed_timeout_ms;
	struct relay_keep { /* when a peer that vanished is noticed; idle_s 0: as fd_notice_vanished() says */
		int idle_s, interval_s; /* TCP_KEEPIDLE, TCP_KEEPINTVL */
		int count;              /* TCP_KEEPCNT */
		int user_timeout_ms;    /* bytes are on their way, and nothing was heard; 0: the kernel decides */
	} keep;

	/* The pool is empty and n more pipes would be used: the directions that lack one wait. Called once a turn
	 * from relay_run(), and again only for more. Answer with relay_pipe_give() or relay_pipe_none(), also later. */
	void (*on_want)(size_t n, void *arg);
	/* The engine closed this given pipe: its pair ended with bytes in it, or nobody used it for long. */
	void (*on_pipe_gone)(uint32_t no, void *arg);
};

/* Exactly one for each pair, after which the pair is gone and both descriptors
 * are closed. bytes_ab: delivered from a to b. Called from relay_on_event(),
 * relay_run() and relay_pair_close(), never from relay_pair_new() or relay_pair_adopt(). */
struct relay_end {
	uint64_t id;
	enum end_reason reason; /* CLOSED, RESET, VANISHED, STOPPED, INTERNAL, IDLE, HALF_CLOSED */
	uint64_t bytes_ab, bytes_ba;
	int64_t ms;    /* since this engine has it */
	uint32_t seat; /* for relay_seat_done() */
};
typedef void (*relay_on_end)(const struct relay_end *, void *arg);

/* NULL when out of memory; taken. `arg` is for all three callbacks. */
struct relay *relay_new(const struct relay_conf *, relay_on_end, void *arg);

/* Pairs that still live are closed (END_STOPPED, reported). NULL is fine. */
void relay_free(struct relay *);

/* What `conf` says of pipe_size, copy_mode, copy_small, time-outs and keepalive holds from now on, the rest is not looked
 * at. Time-outs and keepalive: also for pairs that live. Copying: for what moves next; what a pipe or a buffer holds
 * leaves it as it came. */
void relay_apply(struct relay *, const struct relay_conf *);

/* Who answered on_want is gone: from now on the engine makes its pipes itself. */
void relay_orphan(struct relay *);

/* --- pairs ----------------------------------------------------------------- */

/* Joins two connected, non-blocking sockets; both are given, also on failure (then reset).
 * 0, -ENOSPC (no free seat) or -errno. */
int relay_pair_new(struct relay *, uint64_t id, int a_fd, int b_fd) ATTR_MUST_USE;

/* A pair as one engine leaves it and another one takes it up. */
struct relay_bundle {
	uint64_t id;
	int fd[2];     /* sockets a and b */
	bool suspect;  /* its turn was in progress when its engine died: what the seat says may be one step behind */
	uint32_t seat; /* where relay_pair_release() leaves it */
	uint64_t bytes_ab, bytes_ba;
	uint32_t flags; /* of the seat; neither OVER nor BUFFERED */
	struct {
		uint32_t no;
		int fd; /* -1: no pipe with bytes of this direction */
	} pipe[2];      /* of direction ab and ba */
};

/* Goes on with a pair that no other engine works on any more. All descriptors are given, also on failure:
 * then they are closed without a trace on the wire, as long as somebody else holds duplicates. A pipe that is
 * empty after all goes to the pool. 0, -EINVAL (OVER, BUFFERED, an id or a pipe that is in use), -ENOSPC (no free seat), -errno. */
int relay_pair_adopt(struct relay *, const struct relay_bundle *) ATTR_MUST_USE;

/* --- for who goes on after a killed engine ----------------------------------- */

/* One direction, by its two sockets, which nobody else reads or writes now. `skip`: bytes that were read from
 * `from_fd` before it was joined. *ret_written: put into `to_fd` since it was accepted; *ret_between: read and not written.
 * 0, -ENOTCONN (to_fd is closed), -EPROTO (more was written than read), or as tcpsum.h says. */
int relay_flow(int from_fd, int to_fd, uint64_t skip, uint64_t *ret_written, uint64_t *ret_between) ATTR_MUST_USE;

struct relay_rest_of {
	int from_fd, to_fd;
	uint64_t skip;      /* as above */
	uint64_t delivered; /* as its seat has it, exactly so before this message */
	size_t piped;       /* bytes in the direction's pipe */
};

/* What was left of the message in a dead engine's copy place, whose owner is this direction: *ret_len bytes at *ret, which
 * points into it; 0: nothing, or it is in the pipe. -EPROTO: the numbers do not fit together, nobody knows; -errno. */
int
relay_rest(const struct relay_copy *, const struct relay_rest_of *, const uint8_t **ret, size_t *ret_len) ATTR_MUST_USE;

/* Gives up a living pair, without on_end: our descriptors are closed without a trace on the wire, which needs
 * somebody else to hold duplicates; its seat is left (holds_seats: kept), pipes with bytes stay journaled until
 * their number is given again, as does one that was closed with bytes in it: never take it for an empty one. *ret is what relay_pair_adopt() wants, with the pipes' numbers (`fd` 0 where there is one, else -1), and
 * both sockets -1. 0, -ENOENT, or -EBUSY (bytes in user memory: not now). */
int relay_pair_release(struct relay *, uint64_t id, struct relay_bundle *ret) ATTR_MUST_USE;

/* With holds_seats, after the keeper was told of the end or the release: the seat is free for others. */
void relay_seat_done(struct relay *, uint32_t seat);

/* Ends one pair (an unknown one is passed over), or all, with a reason other than CLOSED; reported, at once. */
void relay_pair_close(struct relay *, uint64_t id, enum end_reason);
void relay_close_all(struct relay *, enum end_reason);

/* --- groups: a limit on what several pairs move together ---------------------- */

/* Bytes of both directions count, when they are read. A pair that has to wait holds neither pipe nor buffer; those of
 * one group take turns, a few bytes each. What a group may save up is a quarter of a second of its rate, or 64 KiB. */
#define RELAY_BURST_MIN 65536

/* The pair is from now on one of this group, and no more of another one; 0: of none. A group that did not exist
 * begins with `rate` bytes a second (0: no limit); it is gone after its last pair. 0, -ENOENT (no such pair) or -ENOMEM. */
int relay_pair_join(struct relay *, uint64_t id, uint64_t group, uint64_t rate) ATTR_MUST_USE;

/* From now on; a group without pairs is none and is passed over. */
void relay_group_rate(struct relay *, uint64_t group, uint64_t rate);

/* --- pipes ----------------------------------------------------------------- */

/* One descriptor that is both ends of a new, empty pipe (opened through /proc, O_RDWR), of `size` bytes or what the
 * kernel permits: taken, or -errno. */
int relay_pipe_open(size_t size) ATTR_MUST_USE;

/* What every socket of a pair gets, for those that are accepted from this listener: they inherit it, which saves a
 * system call for each option. Whose SO_RCVLOWAT is changed must set it back to 1 before the socket is joined. */
void relay_tune_listener(int fd, const struct relay_keep *);

/* An empty pipe as relay_pipe_open() makes them, number `no`; given. Who waits for one goes on.
 * 0, or -EINVAL (a number that does not exist or is here already; the descriptor is closed). */
int relay_pipe_give(struct relay *, uint32_t no, int fd) ATTR_MUST_USE;

/* There are no more pipes now: who waits goes on with a buffer (BUFFERED, counted), and so does for a second
 * who finds the pool empty. */
void relay_pipe_none(struct relay *);

/* --- the loop -------------------------------------------------------------- */

/* Every epoll_event.data.ptr that the relay armed starts with this tag, so
 * that the caller's loop can tell its own items from ours. */
struct relay_item {
	uint32_t tag; /* RELAY_TAG */
};
#define RELAY_TAG 0x524c4159u

/* An event of one of our sockets. */
void relay_on_event(struct relay *, struct relay_item *, uint32_t events);

/* Pairs whose turn budget was used up go on here; call once per turn of the
 * loop, before waiting. True: call again without waiting. */
bool relay_run(struct relay *);

/* When relay_run() has something to do without an event: CLOCK_MONOTONIC, INT64_MAX never. Wait no longer. */
int64_t relay_next_ms(const struct relay *);

struct relay_counts {
	size_t pairs;
	size_t pipes_used, pipes_idle; /* a pair without bytes in flight holds none */
	size_t waiting;                /* directions that wait for a pipe */
	size_t groups, held;           /* groups; pairs that wait for their group's limit */
	uint64_t buffered;             /* times that a buffer stood in for a pipe, since the start */
	uint64_t bytes;                /* delivered since the start */
};
struct relay_counts relay_counts(const struct relay *);

#endif
