/* explain.c - where a brokering stands or how it ended, why, and what to do about it
 *
 *   stage        reason   step                        why            help
 *   refused      why      asked or issued             what A read    what to do
 *   under way    -        the one that comes next     -              -
 *   not paired   why      the one that was not made   what A read, or who did not come
 *   paired       -        -                           -              -
 *   ended        of the pair                          bytes, time    what to do
 *
 * Always true: reasons and steps are the words of words.h, the same as in the
 * log, the metrics and A's error.
 */
#include "proxy/master/explain.h"

#include <stdio.h>
#include <string.h>

#include "hyper/base/clock.h"
#include "hyper/base/words.h"
#include "hyper/net/admin.h"
#include "hyper/wire/json.h"
#include "proxy/master/tally.h"

#define STORIES_MAX 20

static const char *const stages[] = { [TALLY_REFUSED] = "refused",
	[TALLY_BROKERING] = "under way",
	[TALLY_UNPAIRED] = "not paired",
	[TALLY_PAIR] = "paired",
	[TALLY_ENDED] = "ended" };

/* Only B can come before A has its token; who came after that this proxy cannot know. */
static bool
was_first_b(const struct tally_note *n)
{
	int64_t answered = n->step_ns[STEP_ANSWERED], parked = n->step_ns[STEP_PARKED];

	return parked >= 0 && (answered < 0 || parked <= answered);
}

/* Which of the two came too late, or not at all. */
static const char *
who_is_late(const struct tally_note *n)
{
	if (n->step_ns[STEP_PARKED] < 0)
		return "B too late: the target agreed, but neither its token nor the asker's arrived in time";
	if (was_first_b(n))
		return "A too late: the target's token arrived, the asker's did not";
	return "A or B too late: one token arrived in time, the other did not; the one whose log has no step paired";
}

static const char *
why_of(const struct tally_note *n)
{
	if (n->why)
		return n->why;
	if (n->stage == TALLY_UNPAIRED && n->reason == END_EXPIRED)
		return who_is_late(n);
	return end_reason_help((enum end_reason)n->reason);
}

static enum broker_step
step_of(const struct tally_note *n)
{
	if (n->stage == TALLY_REFUSED || n->stage == TALLY_UNPAIRED)
		return (enum broker_step)n->failed;
	if (n->stage == TALLY_BROKERING)
		for (int i = STEP_ASKED; i <= STEP_PAIRED; i++)
			if (n->step_ns[i] < 0)
				return (enum broker_step)i;
	return STEP_NONE;
}

static json_t *
steps(const struct tally_note *n)
{
	json_t *list = json_array();

	for (int i = 1; i < BROKER_STEP_MAX; i++)
		if (n->step_ns[i] >= 0)
			json_array_append_new(
			    list, json_pack("{s:i, s:s, s:f}", "step", i, "word", broker_step_word((enum broker_step)i),
				      "ms", (double)(n->step_ns[i] / 1000) / 1e3));
	return list;
}

static json_t *
story(const struct tally_note *n)
{
	bool is_over = n->stage == TALLY_REFUSED || n->stage == TALLY_UNPAIRED || n->stage == TALLY_ENDED;
	enum end_reason reason = (enum end_reason)n->reason;
	enum broker_step step = step_of(n);
	char began[CLOCK_RFC3339_MAX];

	clock_rfc3339(n->begun_utc_ns, began);
	return json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:o, s:I, s:I, s:I}", "session", n->session,
	    "from", n->from, "to", n->to, "began", began, "stage", stages[n->stage], "reason",
	    is_over ? end_reason_word(reason) : "", "step", step ? broker_step_word(step) : "", "why",
	    is_over ? why_of(n) : "", "help", is_over ? end_reason_advice(reason) : "", "steps", steps(n), "bytes_ab",
	    (json_int_t)n->bytes[0], "bytes_ba", (json_int_t)n->bytes[1], "ms", (json_int_t)n->ms);
}

json_t *
explain(const json_t *args)
{
	const char *what = json_str(args, "what");
	json_t *stories = json_array();
	const struct tally_note *n;

	if (!what || !*what) {
		json_decref(stories);
		return admin_error("explain: expected a session id or an operator's name");
	}
	for (unsigned i = 0; json_array_size(stories) < STORIES_MAX && (n = tally_note(i)); i++)
		if (strcmp(n->session, what) == 0 || strcmp(n->from, what) == 0 || strcmp(n->to, what) == 0)
			json_array_append_new(stories, story(n));
	if (json_array_size(stories) > 0)
		return json_pack("{s:b, s:o}", "ok", 1, "stories", stories);
	json_decref(stories);
	return admin_error(
	    "explain: nothing of %s among the last %d brokerings: look for it in older logs", what, TALLY_NOTES);
}
