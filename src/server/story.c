/* story.c - see the header
 *
 *   UNDER_WAY --TLS with the other operator--> PAIRED --> ENDED
 *       `------ refused, unreachable, late --> FAILED (one reason)
 *
 * Always true: a reference whose story was overwritten since is counted all the same; only its story is forgotten.
 */
#include "server/story.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "hyper/base/clock.h"

#define LIST_MAX 20

static struct story stories[STORIES]; /* touched only as it fills */
static uint64_t last_ref;
static uint64_t counts[STORY_SIDES][END_REASON_MAX + 1];

static const char *const stages[] = { [STORY_UNDER_WAY] = "under way",
	[STORY_FAILED] = "not paired",
	[STORY_PAIRED] = "paired",
	[STORY_ENDED] = "ended" };

/* NULL once it was overwritten. */
static struct story *
story_of(uint64_t ref)
{
	struct story *s = &stories[ref % STORIES];

	return ref != 0 && s->ref == ref ? s : NULL;
}

uint64_t
story_begin(enum story_side side, const char *peer, const char *via, const char *session)
{
	struct story *s = &stories[++last_ref % STORIES];

	*s = (struct story){
		.ref = last_ref, .side = side, .begun_utc_ns = clock_wall_utc_ns(), .begun_ns = clock_now_ns()
	};
	snprintf(s->peer, sizeof(s->peer), "%s", peer);
	snprintf(s->via, sizeof(s->via), "%s", via);
	snprintf(s->session, sizeof(s->session), "%s", session);
	for (int i = 0; i < BROKER_STEP_MAX; i++)
		s->step_ms[i] = -1;
	return s->ref;
}

void
story_session(uint64_t ref, const char *session)
{
	struct story *s = story_of(ref);

	if (s)
		snprintf(s->session, sizeof(s->session), "%s", session);
}

void
story_step(uint64_t ref, enum broker_step step)
{
	struct story *s = story_of(ref);

	if (s)
		s->step_ms[step] = (double)((clock_now_ns() - s->begun_ns) / 1000) / 1e3;
}

void
story_steps(uint64_t ref, const json_t *timeline)
{
	struct story *s = story_of(ref);

	for (int i = 1; s && i < BROKER_STEP_MAX; i++) {
		const json_t *ms = json_object_get(timeline, broker_step_word((enum broker_step)i));

		if (json_is_number(ms) && json_number_value(ms) >= 0)
			s->step_ms[i] = json_number_value(ms);
	}
}

void
story_paired(uint64_t ref)
{
	struct story *s = story_of(ref);

	if (!s || s->stage != STORY_UNDER_WAY)
		return;
	s->stage = STORY_PAIRED;
	counts[s->side][END_REASON_MAX]++;
}

static enum end_reason
reason_of(const char *word)
{
	for (int i = 0; i < END_REASON_MAX; i++)
		if (strcmp(word, end_reason_word((enum end_reason)i)) == 0)
			return (enum end_reason)i;
	return END_INTERNAL;
}

static enum broker_step
step_of(const char *word)
{
	for (int i = 1; i < BROKER_STEP_MAX; i++)
		if (strcmp(word, broker_step_word((enum broker_step)i)) == 0)
			return (enum broker_step)i;
	return STEP_NONE;
}

void
story_failed(uint64_t ref, const char *step, const char *reason, const char *why)
{
	struct story *s = story_of(ref);

	if (!s || s->stage != STORY_UNDER_WAY)
		return;
	s->stage = STORY_FAILED;
	s->failed = step_of(step);
	s->reason = reason_of(reason);
	snprintf(s->why, sizeof(s->why), "%s", why);
	counts[s->side][s->reason]++;
}

void
story_ended(uint64_t ref, enum end_reason reason, const char *why)
{
	struct story *s = story_of(ref);

	if (!s || s->stage != STORY_PAIRED)
		return;
	s->stage = STORY_ENDED;
	s->reason = reason;
	snprintf(s->why, sizeof(s->why), "%s", why);
}

const struct story *
story_get(unsigned i)
{
	return i < STORIES && i < last_ref ? story_of(last_ref - i) : NULL;
}

const char *
story_stage_word(const struct story *s)
{
	return stages[s->stage];
}

const uint64_t *
story_counts(enum story_side side)
{
	return counts[side];
}

/* --- as JSON --- */

static json_t *
steps(const struct story *s)
{
	json_t *list = json_array();

	for (int i = 1; i < BROKER_STEP_MAX; i++)
		if (s->step_ms[i] >= 0)
			json_array_append_new(list, json_pack("{s:i, s:s, s:f}", "step", i, "word",
							broker_step_word((enum broker_step)i), "ms", s->step_ms[i]));
	return list;
}

/* The step that comes next, or the one that failed. */
static const char *
step_word(const struct story *s)
{
	int first = s->side == STORY_A ? STEP_ASKED : STEP_TOLD;

	if (s->stage == STORY_FAILED)
		return s->failed ? broker_step_word(s->failed) : "";
	if (s->stage != STORY_UNDER_WAY || !*s->via)
		return "";
	for (int i = first; i < BROKER_STEP_MAX; i++)
		if (s->step_ms[i] < 0 && (s->side == STORY_A || (i != STEP_PARKED && i != STEP_ANSWERED)))
			return broker_step_word((enum broker_step)i);
	return "";
}

static json_t *
story_json(const char *own, const struct story *s)
{
	bool is_over = s->stage == STORY_FAILED || s->stage == STORY_ENDED;
	char began[CLOCK_RFC3339_MAX];

	clock_rfc3339(s->begun_utc_ns, began);
	return json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:o}", "session", s->session, "side",
	    s->side == STORY_A ? "a" : "b", "from", s->side == STORY_A ? own : s->peer, "to",
	    s->side == STORY_A ? s->peer : own, "via", s->via, "began", began, "stage", stages[s->stage], "reason",
	    is_over ? end_reason_word(s->reason) : "", "step", step_word(s), "why", is_over ? s->why : "", "help",
	    is_over ? end_reason_advice(s->reason) : "", "steps", steps(s));
}

json_t *
story_list(const char *own, const char *what)
{
	json_t *list = json_array();
	const struct story *s;

	for (unsigned i = 0; json_array_size(list) < LIST_MAX && (s = story_get(i)); i++)
		if (strcmp(s->session, what) == 0 || strcmp(s->peer, what) == 0 || strcmp(s->via, what) == 0)
			json_array_append_new(list, story_json(own, s));
	return list;
}
