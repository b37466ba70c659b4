/* test_chanmsg.c - channel messages: their bytes, and that nothing else is taken for one */
#include "hyper/wire/chanmsg.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "hyper/base/log.h"

#define B(...) (const uint8_t[]){ __VA_ARGS__ }, sizeof((const uint8_t[]){ __VA_ARGS__ })
#define ONES32 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1
#define ONES24 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1
#define ONES(x)   \
	{         \
		x \
	}

/* One of each type with its bytes, as docs/ipc.md has them. */
static const struct {
	struct chan_msg msg;
	const uint8_t *bytes;
	size_t len;
	bool fd;
} messages[] = {
	{ { .type = CHAN_READY, .gen = 7, .pid = 4711 }, B(0x94, 2, 1, 7, 0xcd, 0x12, 0x67), false },
	{ { .type = CHAN_SETTINGS,
	      .gen = 7,
	      .settings = { 10000, 100, 65536, 0, 5, 1000, 0, true, LOG_LVL_DEBUG, 256, 300, 9, true, 1000, 7, 15, 5, 3,
		  200, LOG_FORMAT_JSON, LOG_IP_PREFIX, LOG_TO_FILE } },
	    B(0xdc, 0, 25, 2, 2, 7, 0xcd, 0x27, 0x10, 100, 0xce, 0, 1, 0, 0, 0, 5, 0xcd, 0x03, 0xe8, 0, 0xc3, 4, 0xcd,
		1, 0, 0xcd, 1, 44, 9, 0xc3, 0xcd, 3, 0xe8, 7, 15, 5, 3, 0xcc, 200, 1, 1, 1),
	    false },
	{ { .type = CHAN_ARRIVED, .gen = 7, .conn = 1, .token = ONES(ONES32) }, B(0x95, 2, 3, 7, 1, 0xc4, 32, ONES32),
	    true },
	{ { .type = CHAN_PARKED, .gen = 7, .conn = 200 }, B(0x94, 2, 4, 7, 0xcc, 200), false },
	{ { .type = CHAN_ENDED,
	      .gen = 0,
	      .pair = UINT64_MAX,
	      .reason = END_RESET,
	      .bytes_ab = 1,
	      .bytes_ba = 2,
	      .ms = 3 },
	    B(0x98, 2, 5, 0, 0xcf, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 1, 2, 3), false },
	{ { .type = CHAN_PAIR, .gen = 7, .conn = 1, .pair = 2, .session = "0123456789ab", .asker = 5, .rate = 100 },
	    B(0x98, 2, 6, 7, 1, 2, 0xac, '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 5, 100), true },
	{ { .type = CHAN_PAIRED, .gen = UINT32_MAX, .pair = 2 }, B(0x94, 2, 7, 0xce, 255, 255, 255, 255, 2), false },
	{ { .type = CHAN_REFUSED, .gen = 7, .conn = 1, .reason = END_INTERNAL }, B(0x95, 2, 8, 7, 1, END_INTERNAL),
	    false },
	{ { .type = CHAN_DRAINED, .gen = 7 }, B(0x93, 2, 9, 7), false },
	{ { .type = CHAN_DRAIN, .gen = 7 }, B(0x93, 2, 10, 7), false },
	{ { .type = CHAN_STOP, .gen = 7 }, B(0x93, 2, 12, 7), false },
	{ { .type = CHAN_WANT, .gen = 7, .n = 5 }, B(0x94, 2, 11, 7, 5), false },
	{ { .type = CHAN_FREED, .gen = 7, .pipe = 200 }, B(0x94, 2, 13, 7, 0xcc, 200), false },
	{ { .type = CHAN_PIPE, .gen = 7, .pipe = 6 }, B(0x94, 2, 14, 7, 6), true },
	{ { .type = CHAN_MOVED,
	      .gen = 7,
	      .pair = 9,
	      .flags = 3,
	      .bytes_ab = 1,
	      .bytes_ba = 2,
	      .pipe_ab = 4,
	      .pipe_ba = CHAN_NO_PIPE },
	    B(0x99, 2, 15, 7, 9, 3, 1, 2, 4, 0xce, 255, 255, 255, 255), false },
	{ { .type = CHAN_NOPIPE, .gen = 7 }, B(0x93, 2, 16, 7), false },
	{ { .type = CHAN_ADOPT, .gen = 7, .pair = 9, .part = CHAN_PART_PIPE_BA, .pipe = 4 }, B(0x96, 2, 18, 7, 9, 3, 4),
	    true },
	{ { .type = CHAN_RESUME,
	      .gen = 7,
	      .pair = 9,
	      .session = "ab",
	      .flags = 3,
	      .bytes_ab = 1,
	      .bytes_ba = 2,
	      .suspect = true,
	      .asker = 5,
	      .rate = 100 },
	    B(0x9b, 2, 20, 7, 9, 0xa2, 'a', 'b', 3, 1, 2, 0xc3, 5, 100), false },
	{ { .type = CHAN_MOVE, .gen = 7, .pair = 9 }, B(0x94, 2, 22, 7, 9), false },
	{ { .type = CHAN_END, .gen = 7, .pair = 9, .reason = END_KICKED }, B(0x95, 2, 28, 7, 9, END_KICKED), false },
	{ { .type = CHAN_RATE, .gen = 7, .asker = 5, .rate = 100 }, B(0x95, 2, 24, 7, 5, 100), false },
	{ { .type = CHAN_LOG, .gen = 7 }, B(0x93, 2, 26, 7), true },
};

/* Unpacks a copy on the heap, so that ASan sees a read too far. */
static int
unpack(const uint8_t *bytes, size_t len, struct chan_msg *ret)
{
	uint8_t *copy = malloc(len > 0 ? len : 1);
	int r;

	assert_non_null(copy);
	memcpy(copy, bytes, len);
	r = chan_unpack(copy, len, ret);
	free(copy);
	return r;
}

/* Field by field: padding does not count. */
static void
assert_same(const struct chan_msg *a, const struct chan_msg *b)
{
	assert_int_equal(a->type, b->type);
	assert_int_equal(a->gen, b->gen);
	assert_true(a->conn == b->conn && a->pair == b->pair && a->pid == b->pid && a->reason == b->reason);
	assert_true(a->bytes_ab == b->bytes_ab && a->bytes_ba == b->bytes_ba && a->ms == b->ms);
	assert_memory_equal(a->token, b->token, sizeof a->token);
	assert_true(a->n == b->n && a->pipe == b->pipe && a->pipe_ab == b->pipe_ab && a->pipe_ba == b->pipe_ba);
	assert_true(a->flags == b->flags && a->part == b->part && a->suspect == b->suspect);
	assert_true(a->asker == b->asker && a->rate == b->rate);
	assert_string_equal(a->session, b->session);
	assert_true(a->settings.accept_timeout_ms == b->settings.accept_timeout_ms);
	assert_true(a->settings.max_unauthenticated == b->settings.max_unauthenticated);
	assert_true(a->settings.max_pairs == b->settings.max_pairs);
	assert_true(a->settings.pipe_size == b->settings.pipe_size);
	assert_true(a->settings.per_second == b->settings.per_second);
	assert_true(a->settings.per_minute == b->settings.per_minute);
	assert_true(a->settings.per_hour == b->settings.per_hour);
	assert_int_equal(a->settings.copy_mode, b->settings.copy_mode);
	assert_int_equal(a->settings.log_level, b->settings.log_level);
	assert_true(a->settings.max_per_source == b->settings.max_per_source);
	assert_true(a->settings.max_bad_tokens == b->settings.max_bad_tokens);
	assert_true(a->settings.barred_ms == b->settings.barred_ms);
	assert_int_equal(a->settings.copy_small, b->settings.copy_small);
	assert_true(a->settings.idle_timeout_ms == b->settings.idle_timeout_ms);
	assert_true(a->settings.half_closed_timeout_ms == b->settings.half_closed_timeout_ms);
	assert_int_equal(a->settings.keepalive_idle_s, b->settings.keepalive_idle_s);
	assert_int_equal(a->settings.keepalive_interval_s, b->settings.keepalive_interval_s);
	assert_int_equal(a->settings.keepalive_count, b->settings.keepalive_count);
	assert_true(a->settings.user_timeout_ms == b->settings.user_timeout_ms);
	assert_int_equal(a->settings.log_format, b->settings.log_format);
	assert_int_equal(a->settings.log_ip, b->settings.log_ip);
	assert_int_equal(a->settings.log_to, b->settings.log_to);
}

static void
test_bytes(void **state)
{
	size_t types = 0;

	(void)state;
#define X(n, num, fd) types++;
	CHAN_TYPES(X)
#undef X
	assert_int_equal(ARRAY_LEN(messages), types);
	for (size_t i = 0; i < ARRAY_LEN(messages); i++) {
		uint8_t buf[CHAN_MSG_MAX];
		struct chan_msg got;

		assert_int_equal(chan_pack(&messages[i].msg, buf), messages[i].len);
		assert_memory_equal(buf, messages[i].bytes, messages[i].len);
		memset(&got, 0xa5, sizeof got);
		assert_int_equal(unpack(buf, messages[i].len, &got), 0);
		assert_same(&got, &messages[i].msg);
		assert_int_equal(chan_has_fd(messages[i].msg.type), messages[i].fd);
	}
	assert_string_equal(chan_type_name(CHAN_PAIR), "PAIR");
	assert_string_equal(chan_type_name((enum chan_type)0), "?");
	assert_false(chan_has_fd((enum chan_type)17));
}

/* The largest message of each type fits a datagram. */
static void
test_largest(void **state)
{
	static const enum chan_type types[] = {
#define X(n, num, fd) num,
		CHAN_TYPES(X)
#undef X
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(types); i++) {
		struct chan_msg msg = { .type = types[i],
			.gen = UINT32_MAX,
			.conn = UINT64_MAX,
			.pair = UINT64_MAX,
			.session = "ffffffffffff",
			.reason = END_REASON_MAX - 1,
			.bytes_ab = UINT64_MAX,
			.bytes_ba = UINT64_MAX,
			.ms = UINT64_MAX,
			.pid = UINT32_MAX,
			.n = UINT32_MAX,
			.pipe = UINT32_MAX,
			.pipe_ab = UINT32_MAX,
			.pipe_ba = UINT32_MAX,
			.flags = UINT32_MAX,
			.part = CHAN_PART_MAX - 1,
			.suspect = true,
			.asker = UINT64_MAX,
			.rate = UINT64_MAX,
			.settings = { UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX,
			    UINT64_MAX, true, LOG_LVL_DEBUG, UINT64_MAX, UINT64_MAX, UINT64_MAX, true, UINT64_MAX,
			    UINT64_MAX, INT32_MAX, INT32_MAX, INT32_MAX, INT32_MAX, LOG_FORMAT_JSON, LOG_IP_NONE,
			    LOG_TO_SYSLOG } };
		uint8_t buf[CHAN_MSG_MAX];
		struct chan_msg got;
		int n = chan_pack(&msg, buf);

		assert_in_range(n, 3, CHAN_MSG_MAX);
		assert_int_equal(unpack(buf, (size_t)n, &got), 0);
	}
}

static void
test_pack_refused(void **state)
{
	static const struct chan_msg bad[] = {
		{ .type = 0 },
		{ .type = 17 },
		{ .type = 30 },
		{ .type = CHAN_ADOPT, .part = CHAN_PART_MAX },
		{ .type = CHAN_REFUSED, .reason = END_REASON_MAX },
		{ .type = CHAN_ENDED, .reason = (enum end_reason) - 1 },
		{ .type = CHAN_SETTINGS, .settings = { .log_level = LOG_LVL_DEBUG + 1 } },
		{ .type = CHAN_SETTINGS, .settings = { .log_format = LOG_FORMAT_MAX } },
		{ .type = CHAN_SETTINGS, .settings = { .log_ip = LOG_IP_MAX } },
		{ .type = CHAN_SETTINGS, .settings = { .log_to = LOG_TO_MAX } },
		{ .type = CHAN_PAIR, .session = "a b" },
		{ .type = CHAN_PAIR, .session = "a\n" },
		{ .type = CHAN_PAIR, .session = { 'f', 'f', 'f', 'f', 'f', 'f', 'f', 'f', 'f', 'f', 'f', 'f', 'f' } },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		uint8_t buf[CHAN_MSG_MAX];

		assert_int_equal(chan_pack(&bad[i], buf), -EINVAL);
	}
}

static const struct {
	const char *what;
	const uint8_t *bytes;
	size_t len;
} bad[] = {
	{
	    "nothing",
	    B(0x90),
	},
	{ "no array", B(1) },
	{ "a map", B(0x83, 1, 4, 7, 1, 1, 1) },
	{ "array32 of 2^32 - 1 elements", B(0xdd, 0xff, 0xff, 0xff, 0xff) },
	{ "array16", B(0xdc, 0, 4, 2, 4, 7, 1) },
	{ "array16 of 2^16 - 1 elements", B(0xdc, 0xff, 0xff, 2, 4, 7, 1) },
	{ "array16 of one more than fit", B(0xdc, 0, 28, 2, 4, 7, ONES24, 1) },
	{ "array16 of 27, too many for any", B(0xdc, 0, 27, 2, 4, 7, ONES24) },
	{ "array16, cut", B(0xdc, 0) },
	{ "array32 inside", B(0x94, 2, 4, 7, 0xdd, 0xff, 0xff, 0xff, 0xff) },
	{ "an array inside", B(0x94, 2, 4, 7, 0x91, 1) },
	{ "an empty array inside", B(0x94, 2, 4, 7, 0x90) },
	{ "a map inside", B(0x94, 2, 4, 7, 0x80) },
	{ "nil", B(0x94, 2, 4, 7, 0xc0) },
	{ "the byte that is never used", B(0x94, 2, 4, 7, 0xc1) },
	{ "a float", B(0x94, 2, 4, 7, 0xca, 0, 0, 0, 0) },
	{ "a double", B(0x94, 2, 4, 7, 0xcb, 0, 0, 0, 0, 0, 0, 0, 0) },
	{ "an extension", B(0x94, 2, 4, 7, 0xd4, 1, 1) },
	{ "bin32 of 4 GB", B(0x95, 2, 3, 7, 1, 0xc6, 0xff, 0xff, 0xff, 0xff) },
	{ "str32 of 4 GB", B(0x96, 2, 6, 7, 1, 2, 0xdb, 0xff, 0xff, 0xff, 0xff) },
	{ "bin8 longer than the message", B(0x95, 2, 3, 7, 1, 0xc4, 33, ONES32) },
	{ "a token of 31 bytes", B(0x95, 2, 3, 7, 1, 0xc4, 31, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
				     1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1) },
	{ "a token of 33 bytes", B(0x95, 2, 3, 7, 1, 0xc4, 33, ONES32, 1) },
	{ "a token as a str", B(0x95, 2, 3, 7, 1, 0xd9, 32, ONES32) },
	{ "a session of 13 bytes",
	    B(0x96, 2, 6, 7, 1, 2, 0xad, '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c') },
	{ "a session with NUL", B(0x96, 2, 6, 7, 1, 2, 0xa2, 'a', 0) },
	{ "a session as a bin", B(0x96, 2, 6, 7, 1, 2, 0xc4, 2, 'a', 'b') },
	{ "version 0", B(0x94, 0, 4, 7, 1) },
	{ "version 1", B(0x94, 1, 4, 7, 1) },
	{ "version -1", B(0x94, 0xff, 4, 7, 1) },
	{ "type 0", B(0x93, 2, 0, 7) },
	{ "type 17", B(0x93, 2, 17, 7) },
	{ "a part that does not exist", B(0x96, 2, 18, 7, 9, CHAN_PART_MAX, 4) },
	{ "type 260, 4 in its low byte", B(0x94, 2, 0xcd, 1, 4, 7, 1) },
	{ "a generation of 33 bits", B(0x94, 2, 4, 0xcf, 0, 0, 0, 1, 0, 0, 0, 7, 1) },
	{ "a negative generation", B(0x94, 2, 4, 0xff, 1) },
	{ "a negative connection", B(0x94, 2, 4, 7, 0xff) },
	{ "true as a connection", B(0x94, 2, 4, 7, 0xc3) },
	{ "a field too few", B(0x93, 2, 4, 7) },
	{ "a field too many", B(0x95, 2, 4, 7, 1, 1) },
	{ "two elements", B(0x92, 2, 4) },
	{ "trailing bytes", B(0x94, 2, 4, 7, 1, 0) },
	{ "a second message behind it", B(0x93, 2, 12, 7, 0x93, 2, 12, 7) },
	{ "an end reason that does not exist", B(0x95, 2, 8, 7, 1, END_REASON_MAX) },
	{ "a log level that does not exist", B(0x99, 2, 2, 7, 1, 1, 1, 1, 0xc2, LOG_LVL_DEBUG + 1) },
	{ "1 as a bool", B(0x99, 2, 2, 7, 1, 1, 1, 1, 1, 1) },
	{ "a pid of 33 bits", B(0x94, 2, 1, 7, 0xcf, 0, 0, 0, 1, 0, 0, 0, 0) },
};

static void
test_unpack_refused(void **state)
{
	uint8_t big[CHAN_MSG_MAX + 1] = { 0x94, 2, 4, 7, 0xd9, 250 };
	struct chan_msg got;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		memset(&got, 0xa5, sizeof got);
		if (unpack(bad[i].bytes, bad[i].len, &got) == 0)
			print_message("# accepted: %s\n", bad[i].what);
		assert_int_equal(unpack(bad[i].bytes, bad[i].len, &got), -EPROTO);
		assert_int_equal(got.gen, 0xa5a5a5a5); /* untouched */
	}
	assert_int_equal(unpack(big, 0, &got), -EPROTO);
	assert_int_equal(unpack(big, sizeof big, &got), -EPROTO);
}

/* Integers wider than they need be are the same integers. */
static void
test_wide_integers(void **state)
{
	struct chan_msg got;

	(void)state;
	assert_int_equal(unpack(B(0x94, 0xcc, 2, 0xcd, 0, 4, 0xce, 0, 0, 0, 7, 0xcf, 0, 0, 0, 0, 0, 0, 0, 9), &got), 0);
	assert_int_equal(got.type, CHAN_PARKED);
	assert_int_equal(got.gen, 7);
	assert_int_equal(got.conn, 9);
	assert_int_equal(unpack(B(0x94, 2, 4, 7, 0xd0, 9), &got), 0);
	assert_int_equal(got.conn, 9);
}

#define PARKED(conn) 0x94, 2, 4, 7, conn
#define LOG_MSG      0x93, 2, 26, 7

static const struct {
	const char *what;
	const uint8_t *bytes;
	size_t len;
	int n;
	size_t fds;
} datagrams[] = {
	{ "nothing", NULL, 0, -EPROTO, 0 },
	{ "one", B(PARKED(1)), 1, 0 },
	{ "three, two with a descriptor", B(LOG_MSG, PARKED(2), LOG_MSG), 3, 2 },
	{ "sixteen",
	    B(PARKED(1), PARKED(2), PARKED(3), PARKED(4), PARKED(5), PARKED(6), PARKED(7), PARKED(8), PARKED(9),
		PARKED(10), PARKED(11), PARKED(12), PARKED(13), PARKED(14), PARKED(15), PARKED(16)),
	    16, 0 },
	{ "seventeen",
	    B(PARKED(1), PARKED(2), PARKED(3), PARKED(4), PARKED(5), PARKED(6), PARKED(7), PARKED(8), PARKED(9),
		PARKED(10), PARKED(11), PARKED(12), PARKED(13), PARKED(14), PARKED(15), PARKED(16), PARKED(17)),
	    -EPROTO, 0 },
	{ "the second is cut", B(PARKED(1), 0x94, 2, 4, 7), -EPROTO, 0 },
	{ "garbage behind the first", B(PARKED(1), 0xc1), -EPROTO, 0 },
	{ "the second is of another version", B(PARKED(1), 0x94, 1, 4, 7, 2), -EPROTO, 0 },
};

/* A datagram is taken or refused as a whole, and says how many descriptors belong to it. */
static void
test_datagrams(void **state)
{
	struct chan_msg got[CHAN_DATAGRAM_MSGS];

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(datagrams); i++) {
		uint8_t *copy = malloc(datagrams[i].len > 0 ? datagrams[i].len : 1);
		size_t fds = 0;
		int n;

		assert_non_null(copy);
		if (datagrams[i].len > 0)
			memcpy(copy, datagrams[i].bytes, datagrams[i].len);
		n = chan_unpack_all(copy, datagrams[i].len, got, &fds);
		if (n != datagrams[i].n || fds != datagrams[i].fds)
			fail_msg("%s: %d, %zu descriptors", datagrams[i].what, n, fds);
		for (int k = 0; k < n; k++)
			if (got[k].type == CHAN_PARKED)
				assert_int_equal(got[k].conn, k + 1);
		free(copy);
	}
}

static uint32_t
next_random(uint32_t *state)
{
	*state = *state * UINT32_C(1664525) + UINT32_C(1013904223);
	return *state >> 8;
}

/* Each message cut at each byte, and changed in 2,000 ways: what is taken can be packed again. */
static void
test_mutations(void **state)
{
	uint8_t copy[CHAN_MSG_MAX], again[CHAN_MSG_MAX];
	uint32_t seed = 5;
	struct chan_msg got;
	int passed = 0;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(messages); i++)
		for (size_t cut = 0; cut < messages[i].len; cut++)
			assert_int_equal(unpack(messages[i].bytes, cut, &got), -EPROTO);
	for (int i = 0; i < 2000; i++) {
		size_t k = next_random(&seed) % ARRAY_LEN(messages), len = messages[k].len;

		memcpy(copy, messages[k].bytes, len);
		for (uint32_t n = 1 + next_random(&seed) % 3; n > 0; n--)
			copy[next_random(&seed) % len] ^= (uint8_t)(1u << next_random(&seed) % 8);
		if (unpack(copy, len, &got) == 0) {
			assert_in_range(chan_pack(&got, again), 3, CHAN_MSG_MAX);
			passed++;
		}
	}
	assert_in_range(passed, 1, 1999);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bytes),
		cmocka_unit_test(test_largest),
		cmocka_unit_test(test_pack_refused),
		cmocka_unit_test(test_unpack_refused),
		cmocka_unit_test(test_wide_integers),
		cmocka_unit_test(test_datagrams),
		cmocka_unit_test(test_mutations),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
