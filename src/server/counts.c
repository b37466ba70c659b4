/* counts.c - see the header
 *
 * Not here: what is true now (show.c asks the parts), connections (story.c).
 */
#include "server/counts.h"

#include <string.h>

#include "hyper/wire/json.h"

static struct counts counts;

static const char *const from_words[] = {
#define X(n, word) word,
	COUNTS_FROMS(X)
#undef X
};

const struct counts *
counts_get(void)
{
	return &counts;
}

uint64_t
counts_calls(void)
{
	uint64_t n = 0;

	for (int from = 0; from < COUNTS_FROM_MAX; from++)
		for (int i = 0; from != COUNTS_SELF && i < COUNTS_RESULTS; i++)
			n += counts.calls[from][i];
	return n;
}

/* A word of ours, whoever said it: a stranger's own text never becomes a label. */
static int
result_of(const struct rpc_answer *a)
{
	const char *reason = json_is_object(a->data) ? json_str(a->data, "reason") : NULL;

	if (a->code == 0)
		return COUNTS_OK;
	for (int i = 0; reason && i < END_REASON_MAX; i++)
		if (strcmp(reason, end_reason_word((enum end_reason)i)) == 0)
			return i;
	return COUNTS_ERROR;
}

void
counts_call(enum counts_from from, const struct rpc_answer *answer, int64_t ns)
{
	counts.calls[from][result_of(answer)]++;
	if (from != COUNTS_SELF)
		metrics_observe(&counts.duration, (double)ns / 1e9);
}

const char *
counts_from_word(int from)
{
	return from_words[from];
}

const char *
counts_result_word(int result)
{
	return result == COUNTS_OK ? "ok" : result == COUNTS_ERROR ? "error" : end_reason_word((enum end_reason)result);
}
