/* test_broker.c - who may send what to whom, in which words it is refused, and that every call is answered once and in time */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <event2/event.h>

#include "hyper/base/clock.h"
#include "hyper/directory/directory.h"
#include "hyper/wire/json.h"
#include "server/broker.h"
#include "server/internal.h"
#include "server/tokdial.h"
#include "unit_tmp.h"

#define ENTRY(name, section, data)                                                                                \
	"{\"name\":\"" name "\",\"section\":\"" section "\",\"data\":" data ",\"created_at\":\"2026-01-01T00:00:" \
	"00Z\"}"
#define METHOD(service, method, group)                                                  \
	"{\"name\":\"" service "\",\"permissions\":[],\"methods\":[{\"name\":\"" method \
	"\",\"permissions\":[{\"group\":\"" group "\",\"rights\":[\"call\"]}]}]}"

static const char records[] = "{\"records\":[" ENTRY("me", "groups", "[\"servers\"]") "," ENTRY("me", "services",
    "[" METHOD("a", "echo", "friends") "," METHOD("d", "requestConnection", "friends") "," METHOD(
	"b", "_ping", "friends") "," METHOD("c", "_connections", "friends") "]") "," ENTRY("friend", "groups",
    "[\"friends\"]") "," ENTRY("stranger", "groups", "[\"others\"]") "," ENTRY("hidden", "channels",
    "[{\"type\":\"grpc_server\",\"settings\":{\"address\":\"localhost:1\",\"proxy\":\"me\"}}]") "," ENTRY("far",
    "groups", "[\"others\"]") "]}";

/* What the channel under test does with a request for "far" and for "me". */
enum mode { ANSWER, FAIL, FAIL_BUSY, SILENT, LATE, OUT_OF_MEMORY };

struct fixture {
	struct event_base *base;
	struct conf_directory conf_dir;
	struct conf_hyper conf;
	struct directory *dir;
	struct broker *broker;
	struct internal *internal;
	enum mode mode;
	char last_id[128];
	json_t *last_params;
	unsigned delivered;
	struct held {
		deliver_cb cb;
		void *arg;
	} held[16];
	size_t n_held;
};

struct outcome {
	unsigned answers;
	bool has_returned, was_early, failed;
	int code;
	char message[300];
	json_t *data, *result;
};

static void
fake_finish(struct fixture *f, size_t i, bool fail, int code)
{
	struct rpc_answer a = fail ? rpc_fail_step(code, END_UNREACHABLE, STEP_TOLD, "abc", 0, "no way")
				   : rpc_ok(json_pack("{s:s}", "by", "channel"));

	f->held[i].cb(&a, fail, f->held[i].arg);
	rpc_answer_fini(&a);
}

static void
fake_on_loop(evutil_socket_t fd, short what, void *arg)
{
	struct fixture *f = arg;

	(void)fd;
	(void)what;
	f->n_held--;
	fake_finish(
	    f, f->n_held, f->mode == FAIL || f->mode == FAIL_BUSY, f->mode == FAIL ? RPC_CHANNEL : RPC_NOT_CONNECTED);
}

static bool
fake_can(void *arg, const struct request *req)
{
	(void)arg;
	return strcmp(req->addr.operator, "far") == 0 || strcmp(req->addr.operator, "me") == 0;
}

static int
fake_deliver(void *arg, const struct request *req, deliver_cb cb, void *cb_arg)
{
	static const struct timeval now = { 0 };
	struct fixture *f = arg;

	if (f->mode == OUT_OF_MEMORY)
		return -ENOMEM;
	snprintf(f->last_id, sizeof(f->last_id), "%s", req->id);
	json_decref(f->last_params);
	f->last_params = json_incref(req->params);
	f->delivered++;
	f->held[f->n_held++] = (struct held){ cb, cb_arg };
	if (f->mode != SILENT && f->mode != LATE)
		assert_int_equal(event_base_once(f->base, -1, EV_TIMEOUT, fake_on_loop, f, &now), 0);
	return 0;
}

static const struct channel_ops deaf_ops = { "jsonrpc_server", NULL, NULL };
static const struct channel_ops fake_ops = { "grpc_server", fake_can, fake_deliver };

static int
setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	char path[UNIT_TMP_MAX], err[DIRECTORY_ERR_MAX] = "";
	int fd = mkstemp(unit_tmp(path, "hyper-broker"));

	assert_int_equal(write(fd, records, sizeof(records) - 1), sizeof(records) - 1);
	f->base = event_base_new();
	f->conf_dir = (struct conf_directory){ .type = CONF_DIRECTORY_JSON, .path = strdup(path) };
	f->conf = (struct conf_hyper){ .name = strdup("me"),
		.directory = &f->conf_dir,
		.call_timeout_ms = 400,
		.max_in_flight = 4,
		.max_in_flight_bytes = 100000 };
	if (directory_new(f->base, &f->conf_dir, &f->dir, err) < 0)
		fail_msg("directory: %s", err);
	f->broker = broker_new(f->base, &f->conf, f->dir);
	f->internal = internal_new(f->base, &f->conf, f->dir);
	broker_set_internal(f->broker, &internal_ops, f->internal);
	broker_add_channel(f->broker, &deaf_ops, NULL);
	broker_add_channel(f->broker, &fake_ops, f);
	*state = f;
	close(fd); /* test code */
	return 0;
}

static int
teardown(void **state)
{
	struct fixture *f = *state;

	unlink(f->conf_dir.path);
	directory_free(f->dir);
	broker_free(f->broker);
	internal_free(f->internal);
	json_decref(f->last_params);
	event_base_free(f->base);
	free(f->conf_dir.path);
	free(f->conf.name);
	free(f);
	return 0;
}

static void
on_outcome(struct rpc_answer *a, bool failed, void *arg)
{
	struct outcome *o = arg;

	o->answers++;
	o->was_early = !o->has_returned;
	o->failed = failed;
	o->code = a->code;
	snprintf(o->message, sizeof(o->message), "%s", a->message ? a->message : "");
	o->data = json_incref(a->data);
	o->result = json_incref(a->result);
}

static void
call(struct fixture *f, struct outcome *o, const char *client, const char *method, const char *id, bool is_edge)
{
	struct broker_in in = { .client = client, .method = method, .id = id, .is_edge = is_edge };

	*o = (struct outcome){ 0 };
	in.params = json_pack("{s:i, s:{s:s}}", "a", 1, "_client", "name", "forged");
	assert_int_equal(broker_call(f->broker, &in, on_outcome, o), 0);
	json_decref(in.params);
	o->has_returned = true;
}

static void
outcome_fini(struct outcome *o)
{
	json_decref(o->data);
	json_decref(o->result);
	o->data = o->result = NULL;
}

/* Runs the loop until it is answered, for a second at most. */
static void
settle(struct fixture *f, const struct outcome *o)
{
	int64_t end_ms = clock_now_ms() + 5000;

	while (!o->answers && clock_now_ms() < end_ms)
		event_base_loop(f->base, EVLOOP_ONCE);
	assert_int_equal(o->answers, 1);
	assert_false(o->was_early);
}

static void
test_decisions(void **state)
{
	static const struct {
		const char *client, *method, *id;
		int code;
		bool failed; /* a "broker error" of protocol.md 3.4 */
		const char *message;
		const char *reason;
	} cases[] = {
		{ "me", "far.echo", "far.echo(1)", 0, false, "", NULL },
		{ "friend", "me.echo", "me.echo(1)", 0, false, "", NULL },
		{ "friend", "me._ping", "me._ping(1)", 0, false, "", NULL },
		{ "me", "me._connections", "me._connections(1)", 0, false, "", NULL },
		/* 4.2, word by word */
		{ "me", "far", "far(1)", 1, true, "error parsing address: invalid ID format", "bad_request" },
		{ "me", "far.", "far.(1)", 1, true, "error parsing address: invalid ID format", "bad_request" },
		{ "me", "far.echo", "far.echo(a)b)", 1, true, "error parsing address: invalid ID format",
		    "bad_request" },
		{ "me", ".echo", ".echo(1)", 1, true, "error parsing address: invalid ID format", "bad_request" },
		{ "me", "nope.echo", "nope.echo(1)", 1, true,
		    "error retrieving directory entry for recipient 'nope': no directory entry found",
		    "unknown_operator" },
		{ "nope", "me.echo", "me.echo(1)", 1, true,
		    "error retrieving directory entry for client 'nope': no directory entry found",
		    "unknown_operator" },
		{ "stranger", "me.echo", "me.echo(1)", 403, false,
		    "Permission denied for method 'echo' and client 'stranger'", "denied" },
		{ "friend", "me.secret", "me.secret(1)", 403, false,
		    "Permission denied for method 'secret' and client 'friend'", "denied" },
		/* the permission is asked for what the id names, and the method must name the same */
		{ "friend", "me.echo", "me.secret(1)", RPC_INVALID_REQUEST, false,
		    "invalid request: the id names me.secret and the method is 'me.echo'", "bad_request" },
		{ "friend", "me.secret", "me.echo(1)", RPC_INVALID_REQUEST, false,
		    "invalid request: the id names me.echo and the method is 'me.secret'", "bad_request" },
		{ "friend", "far.echo", "me.echo(1)", RPC_INVALID_REQUEST, false,
		    "invalid request: the id names me.echo and the method is 'far.echo'", "bad_request" },
		/* a friend's request is not passed on under our name */
		{ "friend", "far.echo", "far.echo(1)", 403, false,
		    "Permission denied for method 'echo' and client 'friend'", "denied" },
		/* permitted by the directory, and yet nobody's business */
		{ "friend", "me._connections", "me._connections(1)", 403, false,
		    "Permission denied for method '_connections' and client 'friend'", "denied" },
		{ "me", "hidden.echo", "hidden.echo(1)", RPC_NOT_CONNECTED, false,
		    "hidden has no standing connection to me: no channel can deliver this request", "not_connected" },
	};
	struct fixture *f = *state;

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct outcome o;

		call(f, &o, cases[i].client, cases[i].method, cases[i].id, false);
		settle(f, &o);
		assert_string_equal(o.message, cases[i].message);
		assert_int_equal(o.code, cases[i].code);
		assert_int_equal(o.failed, cases[i].failed);
		if (cases[i].reason)
			assert_string_equal(json_str(o.data, "reason"), cases[i].reason);
		outcome_fini(&o);
	}
	assert_int_equal(f->delivered, 2);
	assert_int_equal(broker_in_flight(f->broker), 0);
}

static void
test_client_is_the_directorys(void **state)
{
	struct fixture *f = *state;
	struct outcome o;
	const json_t *client;

	call(f, &o, "friend", "me.echo", "me.echo(1)", false);
	settle(f, &o);
	client = json_object_get(f->last_params, "_client");
	assert_string_equal(json_str(client, "name"), "friend");
	assert_string_equal(json_str(json_object_get(client, "entry"), "name"), "friend");
	assert_int_equal(json_integer_value(json_object_get(f->last_params, "a")), 1);
	outcome_fini(&o);
}

static void
test_same_id(void **state)
{
	struct fixture *f = *state;
	struct outcome o[4];

	f->mode = SILENT;
	call(f, &o[0], "me", "far.echo", "far.echo(1)", true);
	call(f, &o[1], "me", "far.echo", "far.echo(1)", true);
	call(f, &o[2], "me", "far.echo", "far.echo(1)", false);
	call(f, &o[3], "friend", "me.echo", "me.echo(1)", false);
	settle(f, &o[2]);
	assert_string_equal(o[2].message, "request far.echo(1) is already being processed (maybe a delivery loop)");
	assert_true(o[2].failed);
	while (f->delivered < 3)
		event_base_loop(f->base, EVLOOP_ONCE);
	assert_false(o[0].answers || o[1].answers || o[3].answers);
	while (f->n_held > 0) {
		f->n_held--;
		fake_finish(f, f->n_held, false, 0);
	}
	for (int i = 0; i < 4; i++) {
		settle(f, &o[i]);
		assert_int_equal(o[i].code, i == 2 ? 1 : 0);
		outcome_fini(&o[i]);
	}
	/* free again */
	f->mode = ANSWER;
	call(f, &o[0], "me", "far.echo", "far.echo(1)", false);
	settle(f, &o[0]);
	assert_int_equal(o[0].code, 0);
	outcome_fini(&o[0]);
}

static void
test_channel_failures(void **state)
{
	static const struct {
		enum mode mode;
		int code;
		const char *message;
	} cases[] = {
		{ FAIL, RPC_CHANNEL, "Channel 1 encountered an error delivering the message: no way" },
		{ FAIL_BUSY, RPC_NOT_CONNECTED, "no way" },
		{ OUT_OF_MEMORY, RPC_INTERNAL, "internal error" },
	};
	struct fixture *f = *state;

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct outcome o;

		f->mode = cases[i].mode;
		call(f, &o, "me", "far.echo", "far.echo(1)", true);
		settle(f, &o);
		assert_int_equal(o.code, cases[i].code);
		assert_string_equal(o.message, cases[i].message);
		assert_false(o.failed);
		if (cases[i].mode != OUT_OF_MEMORY) {
			assert_string_equal(json_str(o.data, "reason"), "unreachable");
			assert_string_equal(json_str(o.data, "step"), "told");
		}
		outcome_fini(&o);
	}
}

static void
test_deadline(void **state)
{
	struct fixture *f = *state;
	int64_t start_ms = clock_now_ms(), ms;
	struct outcome o;

	f->mode = LATE;
	call(f, &o, "me", "far.echo", "far.echo(1)", true);
	settle(f, &o);
	ms = clock_now_ms() - start_ms;
	assert_int_equal(o.code, RPC_DEADLINE);
	assert_string_equal(json_str(o.data, "reason"), "deadline");
	assert_true(ms >= 399 && ms < 2000);
	/* the channel still holds it: it counts, and its late answer hurts nobody */
	assert_int_equal(broker_in_flight(f->broker), 1);
	f->n_held--;
	fake_finish(f, f->n_held, false, 0);
	assert_int_equal(broker_in_flight(f->broker), 0);
	assert_int_equal(o.answers, 1);
	outcome_fini(&o);
}

static void
test_cap(void **state)
{
	struct fixture *f = *state;
	struct outcome o[5];

	f->mode = SILENT;
	for (int i = 0; i < 5; i++)
		call(f, &o[i], "me", "far.echo", "far.echo(1)", true);
	settle(f, &o[4]);
	assert_int_equal(o[4].code, RPC_BUSY);
	assert_string_equal(json_str(o[4].data, "reason"), "busy");
	assert_true(json_integer_value(json_object_get(o[4].data, "retry_after_ms")) > 0);
	for (int i = 0; i < 5; i++) {
		settle(f, &o[i]);
		outcome_fini(&o[i]);
	}
	while (f->n_held > 0) {
		f->n_held--;
		fake_finish(f, f->n_held, false, 0);
	}
}

/* Few requests can be large: their bytes are capped as well, and given back with the answers. */
static void
test_cap_bytes(void **state)
{
	static const struct {
		const char *inner;
		size_t len; /* of a text in the parameters */
		int code;
	} cases[] = { { "1", 60000, 0 }, { "2", 30000, 0 }, { "3", 30000, RPC_BUSY }, { "4", 1000, 0 } };
	struct outcome o[4] = { 0 };
	struct fixture *f = *state;
	char id[32];

	f->mode = SILENT;
	for (size_t i = 0; i < 4; i++) {
		struct broker_in in = { .client = "me", .method = "far.echo", .id = id };
		char *text = calloc(1, cases[i].len + 1);

		memset(text, 'x', cases[i].len);
		snprintf(id, sizeof(id), "far.echo(%s)", cases[i].inner);
		in.params = json_pack("{s:s}", "text", text);
		assert_int_equal(broker_call(f->broker, &in, on_outcome, &o[i]), 0);
		o[i].has_returned = true;
		json_decref(in.params);
		free(text);
		if (cases[i].code)
			settle(f, &o[i]); /* and with that its own bytes are back */
		assert_int_equal(o[i].code, cases[i].code);
	}
	assert_string_equal(json_str(o[2].data, "reason"), "busy");
	assert_non_null(strstr(o[2].message, "max_in_flight_bytes"));
	assert_int_equal(o[0].answers + o[1].answers + o[3].answers, 0);
	broker_drain_now(f->broker);
	for (size_t i = 0; i < 4; i++) {
		settle(f, &o[i]);
		outcome_fini(&o[i]);
	}
	while (f->n_held > 0) {
		f->n_held--;
		fake_finish(f, f->n_held, false, 0);
	}
}

static void
test_drain(void **state)
{
	struct fixture *f = *state;
	struct outcome before, after;

	f->mode = SILENT;
	call(f, &before, "me", "far.echo", "far.echo(1)", true);
	while (f->n_held == 0)
		event_base_loop(f->base, EVLOOP_ONCE);
	broker_drain(f->broker, true);
	call(f, &after, "me", "far.echo", "far.echo(2)", true);
	settle(f, &after);
	assert_int_equal(after.code, RPC_DRAINING);
	assert_int_equal(before.answers, 0); /* what was in flight goes on */
	broker_drain_now(f->broker);
	settle(f, &before);
	assert_int_equal(before.code, RPC_DRAINING);
	outcome_fini(&before);
	outcome_fini(&after);
	f->n_held--;
	fake_finish(f, f->n_held, false, 0);
}

/* Taken back; and what a call in flight needs is let through while it drains. */
static void
test_undrain(void **state)
{
	static const struct {
		const char *client, *method;
		bool is_taken, is_taken_for_a_brokering;
	} cases[] = {
		{ "me", "far.echo", false, false },
		{ "friend", "me.echo", false, false },
		{ "me", "far._connectionRequest", false, true },
		{ "friend", "me._connectionRequest", false, false },
	};
	struct fixture *f = *state;
	struct outcome o, asked;
	char id[64];

	f->mode = SILENT;
	for (unsigned round = 0; round < 2; round++) {
		if (round == 1) /* now somebody has asked us for a connection */
			call(f, &asked, "friend", "me.requestConnection", "me.requestConnection(1)", false);
		while (round == 1 && f->n_held == 0)
			event_base_loop(f->base, EVLOOP_ONCE);
		broker_drain(f->broker, true);
		for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
			bool is_taken = round ? cases[i].is_taken_for_a_brokering : cases[i].is_taken;

			snprintf(id, sizeof(id), "%s(%u%zu)", cases[i].method, round, i);
			f->mode = ANSWER;
			call(f, &o, cases[i].client, cases[i].method, id, false);
			settle(f, &o);
			f->mode = SILENT;
			if ((o.code != RPC_DRAINING) != is_taken)
				fail_msg("round %u, case %zu: code %d", round, i, o.code);
			if (!is_taken)
				assert_non_null(strstr(o.message, "me is draining"));
			outcome_fini(&o);
		}
		broker_drain(f->broker, false);
		f->mode = ANSWER;
		call(f, &o, "me", "far.echo", "far.echo(again)", false);
		settle(f, &o);
		assert_int_equal(o.code, 0);
		outcome_fini(&o);
		f->mode = SILENT;
	}
	f->n_held--;
	fake_finish(f, f->n_held, false, 0);
	settle(f, &asked);
	assert_int_equal(asked.code, 0);
	outcome_fini(&asked);
}

/* The program ends while a channel still holds a call: whoever waits is answered, once. */
static void
test_free_answers(void **state)
{
	struct fixture *f = *state;
	struct outcome o;

	f->mode = SILENT;
	call(f, &o, "me", "far.echo", "far.echo(1)", true);
	while (f->n_held == 0)
		event_base_loop(f->base, EVLOOP_ONCE);
	directory_free(f->dir);
	f->dir = NULL;
	broker_free(f->broker);
	f->broker = NULL;
	assert_int_equal(o.answers, 1);
	assert_int_equal(o.code, RPC_DRAINING);
	outcome_fini(&o);
}

static void
test_endpoints(void **state)
{
	static char any[] = "*", here[] = "localhost:9999", there[] = "p.example:9999";
	static const struct {
		size_t n_allow;
		char *allow[2];
		const char *settings; /* of the proxy's entry, NULL: no entry */
		const char *endpoint;
		bool is_allowed;
	} cases[] = {
		{ 0, { 0 }, NULL, "localhost:9999", true },
		{ 1, { any }, NULL, "anything:1", true },
		{ 1, { here }, NULL, "localhost:9999", true },
		{ 1, { here }, NULL, "localhost:9998", false },
		{ 2, { here, there }, NULL, "p.example:9999", true },
		{ 1, { any }, "{\"endpoints\":[\"localhost:9999\"]}", "localhost:9999", true },
		{ 1, { any }, "{\"endpoints\":[\"localhost:9999\"]}", "localhost:22", false },
		{ 1, { any }, "{\"endpoints\":[]}", "localhost:9999", false },
		{ 1, { any }, "{\"endpoints\":[7, null]}", "localhost:9999", false },
		{ 1, { any }, "{\"other\":1}", "localhost:22", true },
		{ 1, { there }, "{\"endpoints\":[\"localhost:9999\"]}", "localhost:9999", false },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct conf_strings allow = { (char **)cases[i].allow, cases[i].n_allow };
		char err[JSON_ERR_MAX];
		json_t *settings = NULL, *entry = NULL;

		if (cases[i].settings) {
			assert_int_equal(json_parse(cases[i].settings, strlen(cases[i].settings), &settings, err), 0);
			entry = json_pack("{s:s, s:[{s:s, s:s, s:s, s:o}]}", "name", "p", "settings", "operator", "",
			    "service", "proxy", "environment", "", "settings", settings);
		}
		assert_int_equal(endpoint_is_allowed(&allow, entry, "p", cases[i].endpoint), cases[i].is_allowed);
		json_decref(entry);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_decisions, setup, teardown),
		cmocka_unit_test_setup_teardown(test_client_is_the_directorys, setup, teardown),
		cmocka_unit_test_setup_teardown(test_same_id, setup, teardown),
		cmocka_unit_test_setup_teardown(test_channel_failures, setup, teardown),
		cmocka_unit_test_setup_teardown(test_deadline, setup, teardown),
		cmocka_unit_test_setup_teardown(test_cap, setup, teardown),
		cmocka_unit_test_setup_teardown(test_cap_bytes, setup, teardown),
		cmocka_unit_test_setup_teardown(test_drain, setup, teardown),
		cmocka_unit_test_setup_teardown(test_undrain, setup, teardown),
		cmocka_unit_test_setup_teardown(test_free_answers, setup, teardown),
		cmocka_unit_test(test_endpoints),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
