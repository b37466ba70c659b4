/* story.h - the last connections that this server tried to make or was asked to make, each with its steps and its end
 *
 * For `hyper explain`, the status page and the metrics. One list for the process, as the log is.
 */
#ifndef SERVER_STORY_H
#define SERVER_STORY_H

#include <stdint.h>

#include <jansson.h>

#include "hyper/base/words.h"
#include "hyper/wire/token.h"

#define STORIES        512 /* that are remembered, the oldest is forgotten first */
#define STORY_NAME_MAX 64  /* operator names are cut to this here */
#define STORY_WHY_MAX  200

/* Who asked for the connection: this server (A), or a proxy for another operator (B). */
enum story_side { STORY_A, STORY_B, STORY_SIDES };
enum story_stage { STORY_UNDER_WAY, STORY_FAILED, STORY_PAIRED, STORY_ENDED };

struct story {
	uint64_t ref;
	enum story_side side;
	enum story_stage stage;
	enum broker_step failed; /* FAILED */
	enum end_reason reason;  /* FAILED, ENDED */
	char session[SESSION_ID_MAX];
	char peer[STORY_NAME_MAX], via[STORY_NAME_MAX]; /* via "": dialled directly */
	char why[STORY_WHY_MAX];
	int64_t begun_utc_ns, begun_ns;
	double step_ms[BROKER_STEP_MAX]; /* since it began; below 0: not reached */
};

/* Its reference for what follows, never 0; all below take 0 and do nothing. Texts are copied. */
uint64_t story_begin(enum story_side, const char *peer, const char *via, const char *session);
void story_session(uint64_t ref, const char *session);
void story_step(uint64_t ref, enum broker_step);        /* reached now */
void story_steps(uint64_t ref, const json_t *timeline); /* step word -> ms; NULL is fine */
void story_paired(uint64_t ref);
/* The first end counts. `reason` and `step` are words; one that is none of ours is `internal`, or no step. */
void story_failed(uint64_t ref, const char *step, const char *reason, const char *why);
void story_ended(uint64_t ref, enum end_reason, const char *why); /* of a paired one; else nothing */

/* The i-th newest, 0 the newest; NULL beyond the last. Borrowed until the next call that writes. */
const struct story *story_get(unsigned i);
const char *story_stage_word(const struct story *);

/* How many ended so, [END_REASON_MAX]: were made. */
const uint64_t *story_counts(enum story_side);

/* Those of a session or an operator, the newest first, as objects; `own` is this operator. Taken; NULL when out of memory. */
json_t *story_list(const char *own, const char *what);

#endif
