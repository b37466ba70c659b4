/* test_words.c - every reason and step has one word of its own */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "hyper/base/words.h"

static void
test_reasons(void **state)
{
	(void)state;
	for (int i = 0; i < END_REASON_MAX; i++) {
		const char *w = end_reason_word((enum end_reason)i);

		assert_true(strlen(w) > 1 && strspn(w, "abcdefghijklmnopqrstuvwxyz_") == strlen(w));
		assert_true(strlen(end_reason_help((enum end_reason)i)) > 10);
		if (strlen(end_reason_advice((enum end_reason)i)) <= 10)
			fail_msg("%s: no advice", w);
		for (int j = 0; j < i; j++)
			assert_string_not_equal(w, end_reason_word((enum end_reason)j));
	}
	assert_string_equal(end_reason_word(END_EXPIRED), "expired");
	assert_string_equal(end_reason_word(END_REASON_MAX), "?");
	assert_string_equal(end_reason_word((enum end_reason) - 1), "?");
	assert_string_equal(end_reason_help(END_REASON_MAX), "?");
	assert_string_equal(end_reason_advice(END_REASON_MAX), "?");
}

static void
test_steps(void **state)
{
	static const char *const words[] = { "?", "asked", "issued", "told", "parked", "confirmed", "answered",
		"paired", "secured", "?", "?" };

	(void)state;
	for (int i = 0; i < 11; i++)
		assert_string_equal(broker_step_word((enum broker_step)i), words[i]);
	assert_int_equal(STEP_SECURED, 8);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_reasons),
		cmocka_unit_test(test_steps),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
