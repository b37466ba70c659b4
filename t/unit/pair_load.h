/* pair_load.h - what the files of the load program for tests share: meetings of two parties, their streams, totals */
#ifndef PAIR_LOAD_H
#define PAIR_LOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bench.h"

/* How a meeting's streams behave; pair_stream.c has the figures. */
enum manner {
	MANNER_BULK,    /* as fast as it goes, in bursts, both ways */
	MANNER_TRICKLE, /* a few bytes at a time */
	MANNER_A_ENDS,  /* a ends its direction early, b goes on */
	MANNER_B_ENDS,
	MANNER_IDLE,   /* nothing for seconds, then much */
	MANNER_SLOW_A, /* a reads slowly what b has plenty of */
	MANNER_SLOW_B,
	MANNER_BURSTS,   /* any size at any time */
	MANNER_SILENT,   /* a greeting, then nothing until the end */
	MANNER_SHORT,    /* some bytes each way and a clean end */
	MANNER_ANSWERED, /* a ends its direction, b answers all of it, then ends */
	MANNER_RESET,    /* both talk, then a resets */
	MANNER_MAX
};
#define MANNER_KEPT MANNER_SHORT /* those before it last as long as the load */

enum meeting_state {
	MEETING_NONE,
	MEETING_ASKED, /* until both have a byte of the other: who loses its connection comes again */
	MEETING_JOINED,
	MEETING_OVER
};

struct load;
struct meeting;

struct end {
	struct ev ev; /* first: the loop gives it back */
	struct meeting *m;
	struct end *peer;
	char side; /* 'a' 'b' */
	uint64_t seed, sent, got;
	uint64_t quota;                                  /* may be sent now */
	uint64_t total;                                  /* then its direction ends; UINT64_MAX: when the load does */
	int64_t next_ms;                                 /* of its next burst */
	int64_t read_ms;                                 /* reads nothing before it */
	int64_t progress_ms;                             /* when something last came, or became due */
	int64_t dial_ms;                                 /* > 0: comes (again) then */
	uint32_t events;                                 /* armed */
	bool may_dial, is_blocked, has_ended, was_ended; /* ended: its own direction, its peer's as it saw it */
};

struct meeting {
	struct load *load;
	size_t no;
	enum meeting_state state;
	enum manner manner;
	uint8_t token[TOKEN];
	int64_t asked_ms;
	struct end a, b;
};

struct totals {
	size_t asked, paired, lost, unmet, false_ends, wrong, again, done;
	uint64_t bytes;
	int64_t stall_ms;
};

struct load {
	struct conf conf;   /* of bench.h: ports */
	size_t kept;        /* pairs that last as long as the load */
	size_t churn;       /* short ones at the same time */
	size_t churn_total; /* so many short ones, 0: until the end */
	size_t churn_bytes; /* of each direction of a short one, at most */
	uint64_t rate;      /* bytes a second of each busy direction */
	int64_t meet_ms;    /* a meeting takes no longer */
	int64_t end_ms;     /* what has not ended so long after the end hangs */
	uint64_t seed, random;
	int ep;
	bool ahead; /* all tokens first; then all dial at once */
	bool has_said_tokens, has_gone;
	size_t n_tokens;
	bool is_ending;
	int64_t now_ms;
	unsigned source;
	struct meeting *meetings;
	size_t n_meetings;
	size_t churn_started, n_open;
	struct totals kept_totals, churn_totals;
};

/* --- pair_stream.c --- */

/* Any number below `n`. */
uint64_t load_random(struct load *, uint64_t n);

/* Both streams from their start; nobody has dialled. */
void meeting_begin(struct meeting *, enum manner);

/* A party may dial, in so many ms. */
void end_may_dial(struct end *, uint64_t ms);

/* What time alone brings: bursts, slow readers, coming again, deadlines. */
void meeting_tick(struct meeting *);

/* The load is over: tells what has not ended, and closes it. */
void meeting_hung(struct meeting *);

struct totals *meeting_totals(struct meeting *);

/* --- pair_load.c --- */

/* The meeting is over, both sockets are closed. */
void load_on_over(struct meeting *);

#endif
