/* test_pending.c - one id is in flight once for each client, and a user's second one gets an id of its own */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "server/pending.h"

static void
test_keys(void **state)
{
	static const struct {
		const char *client, *id;
		int rc;
	} cases[] = {
		{ "hd-1", "hd-2.echo(1)", 0 }, { "hd-1", "hd-2.echo(1)", -EEXIST }, { "hd-1", "hd-2.echo(2)", 0 },
		{ "hd-3", "hd-2.echo(1)", 0 },       /* another client may use the same id */
		{ "hd-3", "hd-2.echo(1)", -EEXIST }, /* and twice neither */
		{ "hd-4", "hd-2.echo(1)", -ENOSPC }, /* the fourth of three */
	};
	struct pending_key *keys[6] = { NULL };
	struct pending *set = pending_new(3);

	(void)state;
	for (size_t i = 0; i < 6; i++) {
		struct pending_key *key = NULL;

		assert_int_equal(pending_add(set, cases[i].client, cases[i].id, &key), cases[i].rc);
		assert_int_equal(key != NULL, cases[i].rc == 0);
		keys[i] = key;
	}
	assert_int_equal(pending_count(set), 3);
	pending_remove(set, keys[0]);
	keys[0] = NULL;
	assert_int_equal(pending_add(set, "hd-1", "hd-2.echo(1)", &keys[0]), 0);
	for (size_t i = 0; i < 6; i++)
		pending_remove(set, keys[i]);
	assert_int_equal(pending_count(set), 0);
	pending_free(set);
	pending_free(NULL);
}

/* A user's requests with one and the same id: what each has on the wire. */
static void
test_edge(void **state)
{
	static const struct {
		const char *user, *wire;
	} cases[] = {
		{ "hd-2.echo(1)", "hd-2.echo(1)" },
		{ "hd-2.echo(1)", "hd-2.echo(1~2)" },
		{ "hd-2.echo(1~3)", "hd-2.echo(1~3)" },
		{ "hd-2.echo(1)", "hd-2.echo(1~4)" }, /* ~3 is a user's own */
		{ "a.b.echo(x y)", "a.b.echo(x y)" },
		{ "a.b.echo(x y)", "a.b.echo(x y~5)" },
	};
	struct pending_key *keys[6] = { NULL };
	struct pending *set = pending_new(100);

	(void)state;
	for (size_t i = 0; i < 6; i++) {
		char *id = strdup(cases[i].user);
		struct address addr, again;

		assert_int_equal(address_parse(id, &addr), 0);
		assert_int_equal(pending_add_edge(set, "hd-1", &id, &addr, &keys[i]), 0);
		assert_string_equal(id, cases[i].wire);
		/* the parsed address is that of the new id */
		assert_int_equal(address_parse(id, &again), 0);
		assert_string_equal(addr.id, again.id);
		assert_string_equal(addr.operator, again.operator);
		address_fini(&again);
		address_fini(&addr);
		free(id);
	}
	for (size_t i = 0; i < 6; i++)
		pending_remove(set, keys[i]);
	pending_free(set);
}

static void
test_edge_full(void **state)
{
	struct pending_key *first = NULL, *key = NULL;
	struct pending *set = pending_new(1);
	char *id = strdup("hd-2.echo(1)");
	struct address addr;

	(void)state;
	assert_int_equal(address_parse(id, &addr), 0);
	assert_int_equal(pending_add(set, "hd-1", id, &first), 0);
	assert_int_equal(pending_add_edge(set, "hd-1", &id, &addr, &key), -ENOSPC);
	assert_null(key);
	assert_string_equal(id, "hd-2.echo(1)");
	assert_string_equal(addr.id, "1");
	address_fini(&addr);
	free(id);
	pending_remove(set, first);
	pending_remove(set, NULL);
	pending_free(set);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_keys),
		cmocka_unit_test(test_edge),
		cmocka_unit_test(test_edge_full),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
