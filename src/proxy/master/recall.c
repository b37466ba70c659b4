/* recall.c - what `explain` tells of the last brokerings, over an exec
 *
 *   row: session, from, to, stage, reason's word, failed step, why, begun_utc_ns, ms, bytes ab, bytes ba, steps ...
 *
 * Always true: rows are for who reads them. One that another version wrote
 * otherwise, or whose words are unknown here, is forgotten, and costs nothing else.
 */
#include "proxy/master/recall.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hyper/wire/json.h"
#include "proxy/master/tally.h"

#define FIXED 11 /* members before the steps */

static json_t *
row_of(const struct tally_note *n)
{
	json_t *row = json_pack("[s, s, s, i, s, i, s, I, I, I, I]", n->session, n->from, n->to, (int)n->stage,
	    end_reason_word((enum end_reason)n->reason), (int)n->failed, n->why ? n->why : "",
	    (json_int_t)n->begun_utc_ns, (json_int_t)n->ms, (json_int_t)n->bytes[0], (json_int_t)n->bytes[1]);

	for (int i = 0; row && i < BROKER_STEP_MAX; i++)
		if (json_array_append_new(row, json_integer((json_int_t)n->step_ns[i])) < 0) {
			json_decref(row);
			return NULL;
		}
	return row;
}

json_t *
recall_save(void)
{
	json_t *list = json_array(), *row;
	const struct tally_note *n;

	for (unsigned i = TALLY_NOTES; list && i-- > 0;) {
		n = tally_note(i);
		row = n ? row_of(n) : NULL;
		if (row)
			json_array_append_new(list, row);
	}
	return list;
}

static const char *
text_at(const json_t *row, size_t i)
{
	const char *s = json_string_value(json_array_get(row, i));

	return s ? s : "";
}

static int64_t
number_at(const json_t *row, size_t i)
{
	return json_integer_value(json_array_get(row, i));
}

static bool
read_row(const json_t *row, struct tally_note *ret)
{
	struct tally_note n = { .begun_utc_ns = number_at(row, 7), .ms = number_at(row, 8) };
	int reason = 0;

	while (reason < END_REASON_MAX && strcmp(end_reason_word((enum end_reason)reason), text_at(row, 4)) != 0)
		reason++;
	if (json_array_size(row) != FIXED + BROKER_STEP_MAX || reason == END_REASON_MAX || number_at(row, 3) < 0 ||
	    number_at(row, 3) > TALLY_ENDED || number_at(row, 5) < 0 || number_at(row, 5) >= BROKER_STEP_MAX)
		return false;
	snprintf(n.session, sizeof(n.session), "%s", text_at(row, 0));
	snprintf(n.from, sizeof(n.from), "%s", text_at(row, 1));
	snprintf(n.to, sizeof(n.to), "%s", text_at(row, 2));
	n.stage = (uint8_t)number_at(row, 3);
	n.reason = (uint8_t)reason;
	n.failed = (uint8_t)number_at(row, 5);
	n.bytes[0] = (uint64_t)number_at(row, 9);
	n.bytes[1] = (uint64_t)number_at(row, 10);
	for (size_t i = 0; i < BROKER_STEP_MAX; i++)
		n.step_ns[i] = number_at(row, FIXED + i);
	*ret = n;
	return true;
}

void
recall_restore(const json_t *notes)
{
	struct tally_note n;
	const json_t *row;
	size_t i;

	json_array_foreach (notes, i, row)
		if (read_row(row, &n))
			tally_put(&n, text_at(row, 6));
}
