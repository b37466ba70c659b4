/* session.h - one token's life: from requestConnection to the pair or another end
 *
 *   ISSUED --first socket--> PARKED --second socket--> PAIRED
 *      `-------------------------`---- any reason ----> ENDED
 *
 * PAIRED and ENDED have no record in the table any more. A session is freed
 * there, or, where A still waits for its answer, when that was given.
 */
#ifndef HYPER_PROXY_MASTER_SESSION_H
#define HYPER_PROXY_MASTER_SESSION_H

#include <stddef.h>
#include <stdint.h>

#include "hyper/base/attr.h"
#include "hyper/base/words.h"
#include "hyper/proxy/toktab.h"
#include "hyper/wire/token.h"
#include "proxy/master/park.h"
#include "proxy/master/quota.h"

struct event_base;
struct sessions;

#define SESSION_STATES(X)                                   \
	X(ISSUED, BIT(SESSION_PARKED) | BIT(SESSION_ENDED)) \
	X(PARKED, BIT(SESSION_PAIRED) | BIT(SESSION_ENDED)) \
	X(PAIRED, 0)                                        \
	X(ENDED, 0)

enum session_state {
#define X(n, to) SESSION_##n,
	SESSION_STATES(X)
#undef X
	    SESSION_STATE_MAX
};

struct session { /* written by session.c only */
	struct sessions *all;
	enum session_state state;
	char id[SESSION_ID_MAX]; /* what logs and both ends show instead of the token */
	char *from, *to;         /* operators A and B */
	struct quota_op *a, *b;  /* their counts; `b` until A was answered, `a` until it is over as well */
	uint32_t slot;           /* in the table, while ISSUED or PARKED */
	int parked_fd;           /* owned while PARKED, else -1 */
	unsigned first_worker;   /* slot number of the worker that accepted it */
	struct park_item park;   /* while PARKED */
	void *ask;               /* whose answer is owed; NULL once A was answered */
	int64_t asked_ns, deadline_ns;
	uint64_t note;                    /* tally.h */
	int64_t step_ns[BROKER_STEP_MAX]; /* since asked; -1 not reached */
};

/* The session ended without a pair, with A not answered yet: session_answered() is owed. */
typedef void (*sessions_on_end)(struct session *, enum end_reason, void *arg);

/* A first socket was parked, with A not answered yet. */
typedef void (*sessions_on_parked)(struct session *, void *arg);

/* `table` and `quota` are borrowed until sessions_free(). 0 with *ret taken, or -errno untouched. */
int sessions_new(struct event_base *, struct toktab *table, struct quota *quota, sessions_on_end, sessions_on_parked,
    void *arg, struct sessions **ret) ATTR_MUST_USE;
/* All sessions must have ended. NULL is fine. */
void sessions_free(struct sessions *);

/* As tally_each(): refusals of the quota. */
void sessions_counts_each(struct sessions *, void (*each)(const char *name, uint64_t *value, void *arg), void *arg);

/* A new record. Names are copied. asked_ns: when the request had come. 0 with
 * *ret borrowed until its end (`ask` set) or untouched with -EDQUOT or -EBUSY
 * (quota_ask(); *ret_no says which limit), -ENOSPC (table full), -ENOMEM, -EEXIST. */
struct session_new {
	const struct token *token; /* borrowed until return; only its hash and session id are kept */
	const char *from, *to, *channel;
	int64_t asked_ns;
	int64_t life_ns; /* of the token, from now on */
	void *ask;       /* whose answer is owed; never NULL */
};
int session_issue(
    struct sessions *, const struct session_new *, struct session **ret, struct quota_no *ret_no) ATTR_MUST_USE;

/* The live session of a hash (expired is none), NULL when there is none. */
struct session *session_find(struct sessions *, const uint8_t hash[32]);

/* ISSUED -> PARKED: the socket is given, also on failure. 0, -EDQUOT (too many
 * parked by A), -EBUSY (by all), -errno: it stays ISSUED. */
int session_park(struct session *, int fd, unsigned worker) ATTR_MUST_USE;

/* PARKED -> PAIRED: returns the parked socket (taken). The session may be freed by this. */
int session_pair(struct session *);

/* Any live state -> ENDED, logged; the parked socket is closed. May free it. */
void session_end(struct session *, enum end_reason);
void sessions_end_all(struct sessions *, enum end_reason);

/* A has its answer (or nobody to give it to): frees a session that is over. */
void session_answered(struct session *);

/* One log line for a step, and its time for the timeline. `more` is further key=value text. */
void session_step(struct session *, enum broker_step, const char *more);

/* Calls `each` for every live one (ISSUED, PARKED); it must not change them. */
void sessions_each(const struct sessions *, void (*each)(const struct session *, void *arg), void *arg);
/* What of a live session goes over an exec; texts are borrowed. */
struct session_saved {
	char id[SESSION_ID_MAX];
	const char *from, *to;
	char channel[TOKTAB_NAME_MAX];
	uint8_t hash[32];
	int parked_fd; /* -1: ISSUED */
	unsigned first_worker;
	int64_t issued_ns, deadline_ns, asked_ns; /* CLOCK_MONOTONIC */
	int64_t step_ns[BROKER_STEP_MAX];
};
/* Up to `cap` into `ret`, until the next change. How many there are. */
size_t sessions_save(const struct sessions *, struct session_saved *ret, size_t cap);
/* A record again, ISSUED or PARKED; nobody waits for an answer. The socket is given, also on failure. 0 or -errno. */
int session_restore(struct sessions *, const struct session_saved *) ATTR_MUST_USE;

/* Ends those whose A still waits for its answer, which is owed then as in sessions_on_end. */
void sessions_end_asked(struct sessions *, enum end_reason);

/* Milliseconds until the next token expires, for a retry hint; at least 1. */
int64_t sessions_retry_ms(const struct sessions *);

#endif
