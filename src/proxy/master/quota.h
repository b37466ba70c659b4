/* quota.h - what one operator may hold of the proxy, and what all may hold together
 *
 *   requestConnection  token  outstanding (of the asker), incoming (of the target), both rates
 *   a socket parks     parked (of the asker), max_parked
 *   a pair             pairs (of the asker), max_pairs_total
 *
 * The asker, A, is who its hyper says it is: `_client.name`. What B's party
 * brings counts for A too, since A's token let it in.
 */
#ifndef HYPER_PROXY_MASTER_QUOTA_H
#define HYPER_PROXY_MASTER_QUOTA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "hyper/base/attr.h"

/* X(NAME, setting in `public`, what is counted). Man page, messages and logs use the setting's name. */
#define QUOTA_LIMITS(X)                                                            \
	X(TOKENS, max_tokens_per_operator, "tokens that are not used yet")         \
	X(OUTSTANDING, max_outstanding_per_operator, "requests without an answer") \
	X(INCOMING, max_outstanding_per_target, "requests without an answer")      \
	X(RATE_FROM, request_rate_per_operator, "requests a second")               \
	X(RATE_TO, request_rate_per_target, "requests a second")                   \
	X(PARKED, max_parked_per_operator, "parked connections")                   \
	X(PARKED_ALL, max_parked, "parked connections")                            \
	X(PAIRS, max_pairs_per_operator, "pairs")                                  \
	X(PAIRS_ALL, max_pairs_total, "pairs")                                     \
	X(NAMES, table_slots, "operator names in use")

enum quota_limit {
#define X(n, setting, what) QUOTA_LIMIT_##n,
	QUOTA_LIMITS(X)
#undef X
	    QUOTA_LIMIT_MAX
};

/* What is held, and counted until it is given back. */
enum quota_kind { QUOTA_TOKENS, QUOTA_OUTSTANDING, QUOTA_INCOMING, QUOTA_PARKED, QUOTA_PAIRS, QUOTA_KIND_MAX };

/* As whom the proxy tests itself; no operator can have this name. Limits of one operator do not hold for it, those of all
 * do; of each kind it may hold so many. */
#define QUOTA_SELF     "@selftest"
#define QUOTA_SELF_MAX 16

struct quota;
struct quota_op; /* an operator; borrowed while something of it is held */

struct quota_conf {
	size_t max[QUOTA_LIMIT_MAX]; /* 0: no limit. Rates: at most QUOTA_RATE_MAX */
};
#define QUOTA_RATE_MAX 1000000

/* Who met which limit. */
struct quota_no {
	enum quota_limit limit;
	size_t max;
	int64_t retry_ms; /* 0 not known */
};

/* NULL when out of memory; taken. `conf` is copied. */
struct quota *quota_new(const struct quota_conf *conf);
/* NULL is fine. */
void quota_free(struct quota *);

/* A reload: what is held stays held, also over a new limit; nothing is added to it then. */
void quota_apply(struct quota *, const struct quota_conf *conf);
/* How many of what is held now would be over `max` (0: none); 0 for rates and NAMES. */
size_t quota_over(const struct quota *, enum quota_limit, size_t max);

/* A request: holds TOKENS and OUTSTANDING of `from` and INCOMING of `to`. 0;
 * -EDQUOT (the limit of an operator), -EBUSY (of all) with *ret_no, which are
 * counted and logged here and use up no rate; -ENOMEM. */
int quota_ask(struct quota *, const char *from, const char *to, int64_t now_ns, struct quota_op **ret_from,
    struct quota_op **ret_to, struct quota_no *ret_no) ATTR_MUST_USE;
/* Gives OUTSTANDING and INCOMING back. */
void quota_answered(struct quota *, struct quota_op *from, struct quota_op *to);

/* One more PARKED or PAIRS of an operator. 0, -EDQUOT, -EBUSY as above. */
int quota_take(struct quota *, struct quota_op *, enum quota_kind) ATTR_MUST_USE;
/* Gives back what was held: TOKENS, PARKED, PAIRS. The last one ends the borrowing. */
void quota_give(struct quota *, struct quota_op *, enum quota_kind);

/* Holds one more whatever the limits say: it was held before the program executed itself anew. The operator, borrowed
 * while it holds something; NULL when out of memory, or of names. */
struct quota_op *quota_restore(struct quota *, const char *name, enum quota_kind);
const char *quota_name(const struct quota_op *);

/* Now and then: forgets those who hold nothing and whose rate is whole again. */
void quota_tick(struct quota *, int64_t now_ns);

/* Is it QUOTA_SELF? */
bool quota_is_self(const struct quota_op *);

/* Its number, never used again; not 0. */
uint64_t quota_number(const struct quota_op *);

size_t quota_held(const struct quota *, enum quota_kind);
size_t quota_names(const struct quota *);
uint64_t quota_refused(const struct quota *, enum quota_limit);
/* As tally_each(). */
void quota_counts_each(struct quota *, void (*each)(const char *name, uint64_t *value, void *arg), void *arg);
/* Name of the setting; what it counts. Static. */
const char *quota_setting(enum quota_limit);
const char *quota_what(enum quota_limit);

/* One `totals` line: refusals by limit, and what is still held. */
void quota_log_totals(const struct quota *);

#endif
