/* test_backoff.c - which deaths of workers count, how long the pause after them is, what is said of them */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "hyper/base/attr.h"
#include "hyper/base/bug.h"
#include "proxy/master/backoff.h"

#define EXITED(code) ((code) << 8)

static void
test_which_count(void **state)
{
	static const struct {
		struct backoff_death d; /* status, lived_ms, has_served, is_at_fault */
		bool is_crash;
		const char *says;
	} t[] = {
		{ { EXITED(127), 1, false, false }, true, "could not be executed" },
		{ { EXITED(1), 1, false, false }, true, "its own lines" },
		{ { EXITED(0), 1, true, false }, true, "its own lines" },
		{ { SIGSEGV, 1, false, false }, true, "it crashed" },
		{ { SIGSEGV, 20000, true, false }, true, "it crashed" },
		{ { SIGSEGV, BACKOFF_LIVED_MS, true, false }, false, "it crashed" },
		{ { SIGSYS, 1, false, false }, true, "a system call was forbidden" },
		{ { SIGKILL, 1, false, false }, true, "too little memory" },
		{ { SIGKILL, 1, true, false }, false, NULL },
		{ { SIGTERM, 1, true, false }, false, NULL },
		{ { SIGKILL, 1, true, true }, true, "worker_killed" },
		{ { SIGKILL, 1, false, true }, true, "worker_killed" },
		{ { SIGKILL, BACKOFF_LIVED_MS, true, true }, false, "worker_killed" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(t); i++) {
		if (backoff_is_crash(&t[i].d) != t[i].is_crash)
			fail_msg("case %zu: is_crash is %d", i, !t[i].is_crash);
		if (t[i].says && !strstr(backoff_hint(&t[i].d), t[i].says))
			fail_msg("case %zu: \"%s\" has no \"%s\"", i, backoff_hint(&t[i].d), t[i].says);
	}
}

static void
test_pauses(void **state)
{
	static const int64_t ms[] = { 100, 100, 200, 400, 800, 1600, 3200, 6400, 10000, 10000 };
	unsigned n;

	(void)state;
	for (n = 0; n < ARRAY_LEN(ms); n++) {
		assert_int_equal(backoff_ms(n, 0), ms[n]);
		assert_in_range(backoff_ms(n, UINT32_MAX), ms[n], ms[n] + ms[n] / 4);
		if (n > 1) /* slots do not start in step */
			assert_true(backoff_ms(n, UINT32_MAX) > ms[n]);
	}
	assert_int_equal(backoff_ms(UINT32_MAX, 0), 10000);
}

/* One line for each longer pause, and none for ever. */
static void
test_steps(void **state)
{
	unsigned n, steps = 0;

	(void)state;
	for (n = 0; n < 1000; n++) {
		bool grew = n > 0 && backoff_ms(n, 0) > backoff_ms(n - 1, 0);

		assert_int_equal(backoff_is_step(n), grew);
		steps += grew;
	}
	assert_int_equal(steps, 7);
	assert_false(backoff_is_step(UINT32_MAX));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_which_count),
		cmocka_unit_test(test_pauses),
		cmocka_unit_test(test_steps),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
