/* test_state.c - the master's state over an exec: there and back, and everything else refused */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "hyper/base/attr.h"
#include "hyper/wire/mpjson.h"
#include "proxy/master/state.h"

static struct listeners_named listeners[] = {
	{ "127.0.0.1:4711", { .fd = { 3 }, .n = 1, .port = 4711 } },
	{ "localhost:0", { .fd = { 4, 5 }, .n = 2, .port = 9 } },
};
static struct session_saved sessions[] = {
	{ .id = "0123456789ab",
	    .from = "hd-1",
	    .to = "hd-2",
	    .channel = "grpc_server",
	    .hash = { 1, 2, 255 },
	    .parked_fd = -1,
	    .issued_ns = 7,
	    .deadline_ns = 8,
	    .asked_ns = 6 },
	{ .id = "ba9876543210",
	    .from = "",
	    .to = "\xc3\xa4",
	    .parked_fd = 6,
	    .first_worker = 3,
	    .deadline_ns = INT64_MAX },
};
static struct state_pair pairs[] = {
	{ .as = { .id = 9,
	      .since_ms = 5,
	      .fd = { 7, 8 },
	      .pipe_fd = { -1, 9 },
	      .bytes = { 1, 1ull << 60 },
	      .flags = RELAY_EOF_AB | RELAY_BROKEN_B,
	      .suspect = true,
	      .crashes = 4,
	      .crash_s = UINT32_MAX,
	      .last_worker = 2,
	      .session = "0123456789ab" },
	    .from = "hd-1",
	    .to = "hd-2" },
};
static pid_t left[] = { 4711 };

static struct state
example(void)
{
	struct state s = { .began_ms = 1,
		.last_pair = 99,
		.upgrades = 2,
		.listeners = listeners,
		.n_listeners = ARRAY_LEN(listeners),
		.sessions = sessions,
		.n_sessions = ARRAY_LEN(sessions),
		.pairs = pairs,
		.n_pairs = ARRAY_LEN(pairs),
		.left = left,
		.n_left = ARRAY_LEN(left) };

	return s;
}

static void
packed(uint8_t **ret, size_t *ret_len)
{
	struct state s = example();

	s.counters = json_pack("{s:i}", "paired", 17);
	assert_int_equal(state_pack(&s, ret, ret_len), 0);
	json_decref(s.counters);
}

static void
test_there_and_back(void **arg)
{
	char err[STATE_ERR_MAX];
	struct state s;
	uint8_t *data;
	size_t len, i;

	(void)arg;
	packed(&data, &len);
	assert_int_equal(state_unpack(data, len, &s, err), 0);
	free(data);
	assert_int_equal(s.began_ms, 1);
	assert_int_equal(s.last_pair, 99);
	assert_int_equal(s.upgrades, 2);
	assert_int_equal(s.n_listeners, ARRAY_LEN(listeners));
	assert_memory_equal(s.listeners, listeners, sizeof(listeners));
	assert_int_equal(s.n_sessions, ARRAY_LEN(sessions));
	for (i = 0; i < s.n_sessions; i++) {
		struct session_saved got = s.sessions[i];

		assert_string_equal(got.from, sessions[i].from);
		assert_string_equal(got.to, sessions[i].to);
		got.from = sessions[i].from;
		got.to = sessions[i].to;
		assert_memory_equal(&got, &sessions[i], sizeof(got));
	}
	assert_int_equal(s.n_pairs, ARRAY_LEN(pairs));
	assert_string_equal(s.pairs[0].from, "hd-1");
	assert_string_equal(s.pairs[0].to, "hd-2");
	assert_memory_equal(&s.pairs[0].as, &pairs[0].as, sizeof(pairs[0].as));
	assert_int_equal(s.n_left, 1);
	assert_int_equal(s.left[0], 4711);
	assert_int_equal(json_integer_value(json_object_get(s.counters, "paired")), 17);
	state_fini(&s);
}

/* Sets the value at `path` ("pairs 0 9") and looks what becomes of it. */
static int
unpack_with(const char *path, json_t *value, char err[STATE_ERR_MAX])
{
	struct state s;
	json_t *root, *at;
	uint8_t *data;
	char *word, *rest, copy[64], *next;
	size_t len;
	int rc;

	packed(&data, &len);
	assert_int_equal(mpjson_unpack(data, len, &root), 0);
	free(data);
	snprintf(copy, sizeof(copy), "%s", path);
	word = strtok_r(copy, " ", &rest);
	for (at = root; (next = strtok_r(NULL, " ", &rest)); word = next)
		at = json_is_array(at) ? json_array_get(at, strtoul(word, NULL, 10)) : json_object_get(at, word);
	if (json_is_array(at))
		assert_int_equal(json_array_set_new(at, strtoul(word, NULL, 10), value), 0);
	else
		assert_int_equal(json_object_set_new(at, word, value), 0);
	assert_int_equal(mpjson_pack(root, &data, &len), 0);
	json_decref(root);
	rc = state_unpack(data, len, &s, err);
	free(data);
	if (rc == 0)
		state_fini(&s);
	return rc;
}

static void
test_refused(void **arg)
{
	static const struct {
		const char *path, *json, *why;
	} cases[] = {
		{ "what", "\"something else\"", "no state of a proxy" },
		{ "version", "2", "version 2, this program reads version 1" },
		{ "version", "\"1\"", "no state of a proxy" },
		{ "began_ms", "-1", "began_ms" },
		{ "last_pair", "null", "last_pair" },
		{ "upgrades", "1.5", "upgrades" },
		{ "listeners", "{}", "listeners" },
		{ "listeners", "[0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0]", "listeners" }, /* more than there are */
		{ "listeners 0 0", "\"\"", "listeners" },
		{ "listeners 0 1", "0", "listeners" },
		{ "listeners 0 1", "65536", "listeners" },
		{ "listeners 0 2", "2", "listeners" },
		{ "listeners 0 2", "2147483648", "listeners" },
		{ "sessions 0 0", "\"0123456789\"", "sessions" },
		{ "sessions 0 4", "\"00\"", "sessions" },
		{ "sessions 0 4", "\"zz02ff0000000000000000000000000000000000000000000000000000000000\"", "sessions" },
		{ "sessions 0 5", "0", "sessions" },
		{ "sessions 0 6", "65536", "sessions" },
		{ "sessions 0 8", "-1", "sessions" },
		{ "sessions 0 10", "-2", "sessions" },
		{ "sessions 0", "[]", "sessions" },
		{ "pairs 0 0", "0", "pairs" },
		{ "pairs 0 6", "-1", "pairs" },
		{ "pairs 0 8", "64", "pairs" },
		{ "pairs 0 9", "-1", "pairs" },
		{ "pairs 0 11", "1", "pairs" },
		{ "pairs 0 13", "1", "pairs" },
		{ "pairs 0 14", "256", "pairs" },
		{ "pairs 0 15", "4294967296", "pairs" },
		{ "pairs 0 10", "7", "twice" },
		{ "pairs 0 12", "3", "twice" },
		{ "left 0", "1", "left" },
		{ "left 0", "true", "left" },
		{ "counters", "[1]", "counters" },
		{ "counters paired", "-1", "counters" },
	};
	char err[STATE_ERR_MAX];

	(void)arg;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		json_t *v = json_loads(cases[i].json, JSON_DECODE_ANY, NULL);

		print_message("%s = %s\n", cases[i].path, cases[i].json);
		assert_non_null(v);
		assert_int_equal(unpack_with(cases[i].path, v, err), -EPROTO);
		assert_non_null(strstr(err, cases[i].why));
	}
	/* the way of changing it changes nothing by itself; what is unknown is another version's counter */
	assert_int_equal(unpack_with("pairs 0 0", json_integer(9), err), 0);
	assert_int_equal(unpack_with("counters unheard_of", json_integer(9), err), 0);
}

/* No byte more or less, and none changed, does more than be refused or give other values in range. */
static void
test_damaged(void **arg)
{
	char err[STATE_ERR_MAX];
	struct state s;
	uint8_t *data, *copy;
	size_t len, i, accepted = 0;
	unsigned seed = 4711;

	(void)arg;
	packed(&data, &len);
	copy = malloc(len + 1);
	assert_non_null(copy);
	for (i = 0; i < len; i++) {
		uint8_t *cut = malloc(i + 1); /* exact: a sanitizer sees a byte too much */

		assert_non_null(cut);
		memcpy(cut, data, i);
		assert_int_equal(state_unpack(cut, i, &s, err), -EPROTO);
		free(cut);
	}
	memcpy(copy, data, len);
	copy[len] = 0;
	assert_int_equal(state_unpack(copy, len + 1, &s, err), -EPROTO);
	for (i = 0; i < 20000; i++) {
		size_t n = 1 + (size_t)rand_r(&seed) % 4;

		memcpy(copy, data, len);
		while (n-- > 0)
			copy[(size_t)rand_r(&seed) % len] = (uint8_t)rand_r(&seed);
		if (state_unpack(copy, len, &s, err) == 0) {
			accepted++;
			state_fini(&s);
		}
	}
	assert_in_range(accepted, 1, 19999);
	for (i = 0; i < 20000; i++) {
		size_t n = (size_t)rand_r(&seed) % len;

		for (size_t k = 0; k < n; k++)
			copy[k] = (uint8_t)rand_r(&seed);
		assert_int_equal(state_unpack(copy, n, &s, err), -EPROTO);
	}
	free(copy);
	free(data);
}

/* More than its reader takes is refused by its writer, while the old program still serves. */
static void
test_too_much(void **arg)
{
	struct state s = example();
	uint8_t *data;
	size_t len;

	(void)arg;
	s.n_pairs = MPJSON_VALUES_MAX / 10;
	assert_int_equal(state_pack(&s, &data, &len), -EMSGSIZE);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_there_and_back),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_damaged),
		cmocka_unit_test(test_too_much),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
