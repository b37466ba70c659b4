/* tally.c - see the header
 *
 * Always true: a reference whose note was overwritten since is counted all the
 * same; only its story is forgotten.
 */
#include "proxy/master/tally.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hyper/base/clock.h"

#define NS_PER_SEC 1e9
#define WHY_MAX    300 /* more of a text is not kept */

static struct tally counts;
static struct tally_note notes[TALLY_NOTES]; /* touched only as it fills */
static uint64_t last_ref;

const struct tally *
tally_get(void)
{
	return &counts;
}

static struct tally_note *
note_new(const char *session, const char *from, const char *to)
{
	struct tally_note *n = &notes[++last_ref % TALLY_NOTES];

	free(n->why);
	*n = (struct tally_note){ .ref = last_ref, .begun_utc_ns = clock_wall_utc_ns() };
	snprintf(n->session, sizeof(n->session), "%s", session);
	snprintf(n->from, sizeof(n->from), "%s", from);
	snprintf(n->to, sizeof(n->to), "%s", to);
	for (int i = 0; i < BROKER_STEP_MAX; i++)
		n->step_ns[i] = -1;
	return n;
}

/* NULL once it was overwritten. */
static struct tally_note *
note_of(uint64_t ref)
{
	struct tally_note *n = &notes[ref % TALLY_NOTES];

	return ref != 0 && n->ref == ref ? n : NULL;
}

uint64_t
tally_begin(const char *session, const char *from, const char *to)
{
	struct tally_note *n = note_new(session, from, to);

	n->stage = TALLY_BROKERING;
	n->step_ns[STEP_ASKED] = 0;
	return n->ref;
}

/* Where in `notes` what was put is, by its session: slot + 1, 0 none; the next free one where that is taken. */
#define RECALL_SLOTS (4 * TALLY_NOTES)
static uint16_t recalled[RECALL_SLOTS];
_Static_assert(TALLY_NOTES < UINT16_MAX, "recalled");

/* Ids are random hexadecimal digits. */
static unsigned
recall_slot(const char *session)
{
	return (unsigned)strtoul(session + strlen(session) / 2, NULL, 16) % RECALL_SLOTS;
}

void
tally_put(const struct tally_note *as, const char *why)
{
	struct tally_note *n = note_new("", "", "");
	uint64_t ref = n->ref;

	*n = *as;
	n->ref = ref;
	n->why = *why ? strndup(why, WHY_MAX) : NULL;
	if (ref > TALLY_NOTES) /* called for more than there are: never, but the table must not get full */
		return;
	for (unsigned i = recall_slot(n->session);; i = (i + 1) % RECALL_SLOTS)
		if (!recalled[i]) {
			recalled[i] = (uint16_t)(ref % TALLY_NOTES + 1);
			return;
		}
}

uint64_t
tally_resume(const char *session, const char *from, const char *to)
{
	for (unsigned i = recall_slot(session); recalled[i]; i = (i + 1) % RECALL_SLOTS) {
		const struct tally_note *n = &notes[recalled[i] - 1];

		if (strcmp(n->session, session) == 0 && (n->stage == TALLY_BROKERING || n->stage == TALLY_PAIR))
			return n->ref;
	}
	return tally_begin(session, from, to);
}

static void
set_failed(struct tally_note *n, enum broker_step failed, const char *why)
{
	n->failed = (uint8_t)failed;
	free(n->why);
	n->why = why && *why ? strndup(why, WHY_MAX) : NULL; /* without memory the reason alone is told */
}

void
tally_refused(const char *session, const char *from, const char *to, enum end_reason reason, enum broker_step failed,
    const char *why)
{
	struct tally_note *n = note_new(session, from, to);

	n->stage = TALLY_REFUSED;
	n->reason = (uint8_t)reason;
	set_failed(n, failed, why);
	n->step_ns[STEP_ASKED] = 0;
	counts.brokerings[reason]++;
}

void
tally_failed(uint64_t ref, enum broker_step failed, const char *why)
{
	struct tally_note *n = note_of(ref);

	if (n)
		set_failed(n, failed, why);
}

void
tally_step(uint64_t ref, enum broker_step step, int64_t ns)
{
	struct tally_note *n = note_of(ref);

	if (n)
		n->step_ns[step] = ns;
}

void
tally_unpaired(uint64_t ref, enum end_reason reason)
{
	struct tally_note *n = note_of(ref);

	counts.brokerings[reason]++;
	if (!n)
		return;
	n->stage = TALLY_UNPAIRED;
	n->reason = (uint8_t)reason;
	if (!n->failed)
		n->failed = n->step_ns[STEP_PARKED] < 0 ? STEP_PARKED : STEP_PAIRED;
}

void
tally_paired(uint64_t ref, int64_t wait_ns)
{
	struct tally_note *n = note_of(ref);

	counts.brokerings[END_REASON_MAX]++;
	metrics_observe(&counts.wait, (double)wait_ns / NS_PER_SEC);
	if (n)
		n->stage = TALLY_PAIR;
}

void
tally_ended(uint64_t ref, enum end_reason reason, const uint64_t bytes[2], int64_t ms)
{
	struct tally_note *n = note_of(ref);

	counts.pairs[reason]++;
	counts.bytes[0] += bytes[0];
	counts.bytes[1] += bytes[1];
	metrics_observe(&counts.duration, (double)ms / 1e3);
	if (!n)
		return;
	n->stage = TALLY_ENDED;
	n->reason = (uint8_t)reason;
	n->bytes[0] = bytes[0];
	n->bytes[1] = bytes[1];
	n->ms = ms;
}

void
tally_reload(bool ok)
{
	counts.reloads++;
	counts.reloads_failed += !ok;
	counts.last_reload_failed = !ok;
}

void
tally_selftest(void)
{
	counts.selftests++;
}

const struct tally_note *
tally_note(unsigned i)
{
	return i < TALLY_NOTES && i < last_ref ? &notes[(last_ref - i) % TALLY_NOTES] : NULL;
}

/* --- over an exec --- */

static void
hist_each(const char *name, struct metrics_hist *h, void (*each)(const char *, uint64_t *, void *), void *arg)
{
	uint64_t micros = (uint64_t)(h->sum * 1e6);
	char key[64];

	for (int i = 0; i <= METRICS_BUCKETS; i++) {
		snprintf(key, sizeof(key), "%s_bucket_%d", name, i);
		each(key, &h->bucket[i], arg);
	}
	snprintf(key, sizeof(key), "%s_micros", name);
	each(key, &micros, arg);
	h->sum = (double)micros / 1e6;
}

void
tally_each(void (*each)(const char *name, uint64_t *value, void *arg), void *arg)
{
	char key[64];

	for (int i = 0; i < END_REASON_MAX; i++) {
		snprintf(key, sizeof(key), "brokerings_%s", end_reason_word((enum end_reason)i));
		each(key, &counts.brokerings[i], arg);
		snprintf(key, sizeof(key), "pairs_%s", end_reason_word((enum end_reason)i));
		each(key, &counts.pairs[i], arg);
	}
	each("paired", &counts.brokerings[END_REASON_MAX], arg);
	each("bytes_ab", &counts.bytes[0], arg);
	each("bytes_ba", &counts.bytes[1], arg);
	each("selftests", &counts.selftests, arg);
	each("reloads", &counts.reloads, arg);
	each("reloads_failed", &counts.reloads_failed, arg);
	hist_each("wait", &counts.wait, each, arg);
	hist_each("duration", &counts.duration, each, arg);
}
