/* tally.h - what the master counted since its start, and the last brokerings by name, for metrics and `explain`
 *
 * One for the process, as the log is: whoever ends something says so here, once.
 */
#ifndef HYPER_PROXY_MASTER_TALLY_H
#define HYPER_PROXY_MASTER_TALLY_H

#include <stdbool.h>
#include <stdint.h>

#include "hyper/base/words.h"
#include "hyper/net/metrics.h"
#include "hyper/wire/token.h"

#define TALLY_NOTES    1024 /* brokerings that are remembered, the oldest is forgotten first */
#define TALLY_NAME_MAX 64   /* operator names are cut to this here */

/* How far it has come. */
enum tally_stage { TALLY_REFUSED, TALLY_BROKERING, TALLY_UNPAIRED, TALLY_PAIR, TALLY_ENDED };

struct tally_note {
	uint64_t ref; /* 0 none */
	char session[SESSION_ID_MAX];
	char from[TALLY_NAME_MAX], to[TALLY_NAME_MAX];
	uint8_t stage;  /* enum tally_stage */
	uint8_t reason; /* enum end_reason; of REFUSED, UNPAIRED and ENDED */
	uint8_t failed; /* enum broker_step; of REFUSED and UNPAIRED: the step that was not reached */
	char *why;      /* what A was told of it, NULL nothing; owned */
	int64_t begun_utc_ns;
	int64_t step_ns[BROKER_STEP_MAX]; /* since asked; -1 not reached */
	uint64_t bytes[2];                /* ENDED: a to b, b to a */
	int64_t ms;                       /* ENDED: life of the pair */
};

struct tally {
	uint64_t brokerings[END_REASON_MAX + 1]; /* refused or ended without a pair, by reason; the last: paired */
	uint64_t pairs[END_REASON_MAX];          /* ended */
	uint64_t bytes[2];                       /* of ended pairs */
	uint64_t reloads_failed, reloads;
	uint64_t selftests;
	bool last_reload_failed;
	struct metrics_hist wait;     /* from asked to paired */
	struct metrics_hist duration; /* of ended pairs */
};
const struct tally *tally_get(void);

/* A brokering begins; its reference for what follows. Names are copied. */
uint64_t tally_begin(const char *session, const char *from, const char *to);
/* One that began before the program executed itself anew: what recall.c put, or as tally_begin(). */
uint64_t tally_resume(const char *session, const char *from, const char *to);
/* A note as it was then, newer than all others; ref and why are its own. Nothing is counted. */
void tally_put(const struct tally_note *, const char *why);
/* One that got no token: all as far as known. */
void tally_refused(
    const char *session, const char *from, const char *to, enum end_reason, enum broker_step failed, const char *why);
/* A was told that it failed, at this step; its end follows. `why` is copied, NULL nothing. */
void tally_failed(uint64_t ref, enum broker_step failed, const char *why);
void tally_step(uint64_t ref, enum broker_step, int64_t ns);
void tally_unpaired(uint64_t ref, enum end_reason);
void tally_paired(uint64_t ref, int64_t wait_ns);
void tally_ended(uint64_t ref, enum end_reason, const uint64_t bytes[2], int64_t ms);
void tally_reload(bool ok);
void tally_selftest(void);

/* Calls `each` for every counter with a name that stays; it may set it: counters outlive the program (state.h). */
void tally_each(void (*each)(const char *name, uint64_t *value, void *arg), void *arg);

/* The i-th newest note, 0 the newest; NULL beyond the last. Borrowed until the next call that writes. */
const struct tally_note *tally_note(unsigned i);

#endif
