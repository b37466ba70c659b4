/* counts.h - calls that the message server has answered since its start, for metrics and the status page
 *
 * One for the process, as the log is: whoever answers one says so here, once.
 */
#ifndef SERVER_COUNTS_H
#define SERVER_COUNTS_H

#include <stdint.h>

#include "hyper/base/words.h"
#include "hyper/net/metrics.h"
#include "hyper/wire/rpc.h"

/* X(NAME, "word") who asked */
#define COUNTS_FROMS(X)                                                     \
	X(APPLICATION, "application") /* the own operator's, by JSON-RPC */ \
	X(OPERATOR, "operator")       /* another one */                     \
	X(SELF, "self")               /* this server, for a call that needs it */

enum counts_from {
#define X(n, word) COUNTS_##n,
	COUNTS_FROMS(X)
#undef X
	    COUNTS_FROM_MAX
};

/* An end reason, or one of these two. */
#define COUNTS_OK      END_REASON_MAX
#define COUNTS_ERROR   (END_REASON_MAX + 1) /* whoever was called said no, in its own words */
#define COUNTS_RESULTS (END_REASON_MAX + 2)

struct counts {
	uint64_t calls[COUNTS_FROM_MAX][COUNTS_RESULTS];
	struct metrics_hist duration; /* of those of applications and operators */
};
const struct counts *counts_get(void);
uint64_t counts_calls(void); /* all together, but for SELF */

void counts_call(enum counts_from, const struct rpc_answer *, int64_t ns);

const char *counts_from_word(int from);
const char *counts_result_word(int result);

#endif
