/* test_grpc.c - messages and ends of streams between two of our ends over TLS */
#include "grpc_fixture.h"

#include <errno.h>
#include <string.h>

/* --- messages --- */

static void
test_sizes(void **state)
{
	static const size_t sizes[] = { 0, 1, 4, 5, 16379, 16384, 16385, 65535, 65536, 1048576, 3000000,
		GRPC_MAX_MESSAGE };
	struct fixture *f = *state;
	static struct side d; /* a failed test leaves it to its stream */
	size_t i;

	dial_ready(f);
	for (i = 0; i < ARRAY_LEN(sizes); i++) {
		open_side(f, "/T/echo", &d);
		assert_int_equal(send_fill(d.s, sizes[i], (uint8_t)(i + 1)), 0);
		grpc_stream_half_close(d.s);
		UNTIL(d.ends);
		assert_int_equal(d.status, GRPC_OK);
		assert_int_equal(d.messages, 1);
		assert_int_equal(d.last_len, sizes[i]);
		assert_int_equal(d.last_last, sizes[i] > 0 ? i + 1 : 0);
	}
	assert_int_equal(grpc_conn_streams(f->client), 0);
}

static void
test_pipelined(void **state)
{
	struct fixture *f = *state;
	static struct side d; /* a failed test leaves it to its stream */
	int i;

	dial_ready(f);
	open_side(f, "/T/echo", &d);
	for (i = 0; i < 2000; i++)
		assert_int_equal(send_fill(d.s, (size_t)i, (uint8_t)i), 0);
	UNTIL(d.messages == 2000);
	assert_int_equal(d.bytes, 2000 * 1999 / 2);
	assert_int_equal(d.ends, 0);
	grpc_stream_half_close(d.s);
	UNTIL(d.ends);
	assert_int_equal(d.status, GRPC_OK);
}

/* More than the server permits at a time: the rest waits and is served as well. */
static void
test_many_streams(void **state)
{
	struct fixture *f = *state;
	struct side *d = calloc(300, sizeof *d);
	unsigned ends = 0;
	int i;

	dial_ready(f);
	for (i = 0; i < 300; i++) {
		open_side(f, "/T/echo", &d[i]);
		assert_int_equal(send_fill(d[i].s, 5000, (uint8_t)i), 0);
		grpc_stream_half_close(d[i].s);
	}
	assert_int_equal(grpc_conn_streams(f->client), 300);
	while (ends < 300) {
		turns(1);
		for (ends = 0, i = 0; i < 300; i++)
			ends += d[i].ends;
	}
	for (i = 0; i < 300; i++) {
		assert_int_equal(d[i].status, GRPC_OK);
		assert_int_equal(d[i].last_last, (uint8_t)i);
	}
	assert_int_equal(f->accepted, 1);
	free(d);
}

static void
test_too_many_streams(void **state)
{
	struct fixture *f = *state;
	struct side *d = calloc(1025, sizeof *d);
	struct grpc_stream *s = NULL;
	int i;

	dial_ready(f);
	for (i = 0; i < 1024; i++)
		open_side(f, "/T/hang", &d[i]);
	assert_int_equal(grpc_stream_open(f->client, "/T/hang", "hd-2", &stream_ops, &d[1024], &s), -EBUSY);
	assert_null(s);
	UNTIL(f->n_sides == 100); /* the peer's limit */
	turns(5);
	assert_int_equal(f->n_sides, 100);
	grpc_conn_free(f->client);
	f->client = NULL;
	UNTIL(d[1023].ends);
	for (i = 0; i < 1024; i++) {
		assert_int_equal(d[i].ends, 1);
		assert_int_equal(d[i].status, GRPC_UNAVAILABLE);
	}
	UNTIL(f->closed_server == 1);
	free(d);
}

static void
test_half_close(void **state)
{
	struct fixture *f = *state;
	static struct side d; /* a failed test leaves it to its stream */

	dial_ready(f);
	open_side(f, "/T/late", &d);
	grpc_stream_half_close(d.s);
	assert_int_equal(send_fill(d.s, 1, 1), -ENOTCONN);
	UNTIL(d.ends);
	assert_int_equal(d.messages, 10);
	assert_int_equal(d.bytes, 10000);
	assert_int_equal(d.status, GRPC_OK);
	assert_int_equal(f->sides[0].half_closes, 1);
}

/* --- ends --- */

static void
test_statuses(void **state)
{
	struct fixture *f = *state;
	static struct side d; /* a failed test leaves it to its stream */

	dial_ready(f);
	open_side(f, "/T/fail", &d);
	UNTIL(d.ends && f->sides[0].ends);
	assert_int_equal(d.status, 7);
	assert_string_equal(d.message, "nicht erlaubt: \xc3\xbc 100%");
	assert_int_equal(f->sides[0].status, 7);
	open_side(f, "/Hyper/Nope", &d);
	UNTIL(d.ends);
	assert_int_equal(d.status, GRPC_UNIMPLEMENTED);
	assert_string_equal(d.message, "unknown method Nope for service Hyper");
	open_side(f, "/x", &d);
	UNTIL(d.ends);
	assert_int_equal(d.status, GRPC_UNIMPLEMENTED);
	/* answered before the request was complete: the stream is closed on both sides */
	open_side(f, "/T/first", &d);
	assert_int_equal(send_fill(d.s, 100, 9), 0);
	UNTIL(d.ends && f->sides[1].ends);
	assert_int_equal(d.status, GRPC_OK);
	assert_string_equal(d.message, "one is enough");
	assert_int_equal(f->sides[1].last_last, 9);
}

static void
test_reset(void **state)
{
	struct fixture *f = *state;
	static struct side d, e;

	dial_ready(f);
	open_side(f, "/T/hang", &d);
	UNTIL(f->n_sides == 1);
	grpc_stream_finish(d.s, GRPC_DEADLINE_EXCEEDED, "too late");
	assert_int_equal(d.ends, 0); /* never inside the call */
	UNTIL(d.ends && f->sides[0].ends);
	assert_int_equal(d.status, GRPC_DEADLINE_EXCEEDED);
	assert_string_equal(d.message, "too late");
	assert_int_equal(f->sides[0].status, GRPC_CANCELLED);
	/* at once, before its HEADERS left */
	open_side(f, "/T/hang", &d);
	grpc_stream_finish(d.s, GRPC_CANCELLED, "");
	open_side(f, "/T/echo", &e);
	assert_int_equal(send_fill(e.s, 10, 1), 0);
	grpc_stream_half_close(e.s);
	UNTIL(d.ends && e.ends);
	assert_int_equal(e.status, GRPC_OK);
}

static void
test_too_large(void **state)
{
	static const char text[] = "grpc: received message larger than max (5009926 vs. 4194304)";
	struct fixture *f = *state;
	static struct side d; /* a failed test leaves it to its stream */

	dial_ready(f);
	open_side(f, "/T/echo", &d);
	assert_int_equal(send_fill(d.s, 5009926, 1), 0);
	UNTIL(d.ends && f->sides[0].ends);
	assert_int_equal(d.status, GRPC_RESOURCE_EXHAUSTED);
	assert_string_equal(d.message, text);
	assert_int_equal(f->sides[0].messages, 0);
	/* the other direction: the client refuses and cancels */
	open_side(f, "/T/hang", &d);
	UNTIL(f->n_sides == 2);
	assert_int_equal(send_fill(f->sides[1].s, 5009926, 1), 0);
	UNTIL(d.ends && f->sides[1].ends);
	assert_int_equal(d.status, GRPC_RESOURCE_EXHAUSTED);
	assert_string_equal(d.message, text);
	assert_int_equal(f->sides[1].status, GRPC_CANCELLED);
	/* the connection serves on */
	open_side(f, "/T/echo", &d);
	assert_int_equal(send_fill(d.s, 10, 1), 0);
	UNTIL(d.messages == 1);
}

static void
test_compressed(void **state)
{
	struct fixture *f = *state;
	static struct side d; /* a failed test leaves it to its stream */
	uint8_t *frame;

	dial_ready(f);
	open_side(f, "/T/echo", &d);
	frame = frame_of(20, 1);
	frame[0] = 1;
	assert_int_equal(grpc_stream_send(d.s, frame, 25), 0);
	UNTIL(d.ends);
	assert_int_equal(d.status, GRPC_UNIMPLEMENTED);
	open_side(f, "/T/echo", &d);
	assert_int_equal(grpc_stream_send(d.s, frame_of(20, 1), 24), 0); /* a byte short */
	grpc_stream_half_close(d.s);
	UNTIL(d.ends);
	assert_int_equal(d.status, GRPC_INTERNAL);
	assert_string_equal(d.message, "the stream ended within a message");
}

static void
test_queue_cap(void **state)
{
	struct fixture *f = *state;
	static struct side d[9];
	int i;

	dial_ready(f);
	for (i = 0; i < 9; i++)
		open_side(f, "/T/echo", &d[i]);
	/* without turning the loop nothing leaves */
	assert_int_equal(send_fill(d[0].s, 4000000, 1), 0);
	assert_int_equal(send_fill(d[0].s, 4000000, 1), 0);
	assert_int_equal(send_fill(d[0].s, 4000000, 1), -ENOBUFS);
	for (i = 1; i < 7; i++)
		assert_int_equal(send_fill(d[i].s, 4000000, 1), 0);
	assert_int_equal(send_fill(d[7].s, 4000000, 1), -ENOBUFS); /* the connection's own cap */
	UNTIL(d[0].messages == 2 && d[6].messages == 1);
	assert_int_equal(send_fill(d[7].s, 4000000, 1), 0);
	UNTIL(d[7].messages == 1);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_sizes),
		TEST(test_pipelined),
		TEST(test_many_streams),
		TEST(test_too_many_streams),
		TEST(test_half_close),
		TEST(test_statuses),
		TEST(test_reset),
		TEST(test_too_large),
		TEST(test_compressed),
		TEST(test_queue_cap),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("grpc", tests, group_setup, group_teardown);
}
