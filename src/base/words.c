/* words.c - the words of words.h as tables */
#include "hyper/base/words.h"

#include "hyper/base/attr.h"

static const struct {
	const char *word, *help;
} end_tab[] = {
#define X(n, word, help) { word, help },
	END_REASONS(X)
#undef X
};

static const char *const step_tab[BROKER_STEP_MAX] = {
#define X(n, num, word, help) [num] = word,
	BROKER_STEPS(X)
#undef X
};

_Static_assert(ARRAY_LEN(end_tab) == END_REASON_MAX, "one row for each reason");

const char *
end_reason_word(enum end_reason r)
{
	return (unsigned)r < END_REASON_MAX ? end_tab[r].word : "?";
}

const char *
end_reason_help(enum end_reason r)
{
	return (unsigned)r < END_REASON_MAX ? end_tab[r].help : "?";
}

const char *
broker_step_word(enum broker_step s)
{
	return (unsigned)s < BROKER_STEP_MAX && step_tab[s] ? step_tab[s] : "?";
}
