/* test_brokering.c - requestConnection answered exactly once, in whatever order its events come
 *
 * The JSON-RPC server and client are the test's own: calls are kept, answers counted.
 * After each order of events nothing of a quota is held.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>
#include <event2/event.h>
#include <jansson.h>

#include "hyper/base/clock.h"
#include "hyper/base/fd.h"
#include "hyper/base/log.h"
#include "hyper/wire/token.h"
#include "proxy/master/brokering.h"

struct rpc_call {
	struct rpc_request request;
	int answers, code;
	bool has_token;
	char reason[32];
};

static struct {
	struct event_base *base;
	struct toktab *table;
	struct quota *quota;
	struct sessions *sessions;
	struct brokering *broker;
	struct rpc_call call;
	rpc_reply_cb cb; /* the call to B's side */
	void *arg;
	struct token token;
	int peers[2]; /* the test's ends */
} t;

const struct rpc_request *
rpc_call_request(const struct rpc_call *call)
{
	return &call->request;
}

void
rpc_call_answer(struct rpc_call *call, struct rpc_answer answer)
{
	const char *reason = json_string_value(json_object_get(answer.data, "reason"));

	call->answers++;
	call->code = answer.code;
	call->has_token = json_object_get(answer.result, "token") != NULL;
	snprintf(call->reason, sizeof(call->reason), "%s", reason ? reason : "");
	rpc_answer_fini(&answer);
}

void
rpc_client_call_text(struct rpc_client *cl, const char *method, const char *params_text, const char *id,
    int64_t timeout_ms, rpc_reply_cb cb, void *arg)
{
	json_t *params = json_loads(params_text, 0, NULL);

	(void)cl;
	(void)id;
	assert_string_equal(method, "hd-2._connectionRequest");
	assert_in_range(timeout_ms, 1, 5001);
	assert_int_equal(token_parse(json_string_value(json_object_get(params, "token")), &t.token), 0);
	json_decref(params);
	t.cb = cb;
	t.arg = arg;
}

static void
on_end(struct session *s, enum end_reason reason, void *arg)
{
	(void)arg;
	brokering_on_session_end(s, reason, t.broker);
}

static void
on_parked(struct session *s, void *arg)
{
	(void)arg;
	brokering_on_session_parked(s, t.broker);
}

static int
setup(void **state)
{
	struct brokering_conf conf = {
		.name = "p-1", .endpoint = "p-1:1", .token_timeout_ms = 5000, .call_timeout_ms = 30000
	};
	const struct quota_conf quota = { { [QUOTA_LIMIT_PARKED_ALL] = 4 } };

	(void)state;
	memset(&t, 0, sizeof(t));
	t.peers[0] = t.peers[1] = -1;
	conf.base = t.base = event_base_new();
	assert_int_equal(toktab_new(4, &t.table), 0);
	t.quota = quota_new(&quota);
	assert_non_null(t.quota);
	assert_int_equal(sessions_new(t.base, t.table, t.quota, on_end, on_parked, NULL, &t.sessions), 0);
	conf.sessions = t.sessions;
	t.broker = brokering_new(&conf);
	t.call.request.method = (char *)"requestConnection";
	t.call.request.params = json_pack("{s:s, s:s, s:{s:s, s:{s:s, s:[]}}}", "to", "hd-2", "channel", "grpc_server",
	    "_client", "name", "hd-1", "entry", "name", "hd-1", "channels");
	brokering_on_call(&t.call, t.broker);
	assert_int_equal(t.call.answers, 0);
	assert_non_null(t.cb);
	return 0;
}

/* The end of the program, as master_fini() does it: no further turn of the loop. */
static void
finish(void)
{
	int k;

	sessions_end_all(t.sessions, END_STOPPED);
	if (t.cb) {
		struct rpc_answer stopped = rpc_fail_step(RPC_INTERNAL, END_STOPPED, STEP_NONE, NULL, 0, "stopped");

		t.cb(&stopped, t.arg);
		rpc_answer_fini(&stopped);
	}
	brokering_free(t.broker);
	sessions_free(t.sessions);
	for (k = 0; k < QUOTA_KIND_MAX; k++)
		assert_int_equal(quota_held(t.quota, (enum quota_kind)k), 0);
	assert_int_equal(quota_names(t.quota), 0);
	quota_free(t.quota);
	toktab_free(t.table);
	event_base_free(t.base);
	json_decref(t.call.request.params);
	fd_close(&t.peers[0]);
	fd_close(&t.peers[1]);
}

static void
reply(int code)
{
	struct rpc_answer answer = code ? rpc_fail(code, NULL, "no") : rpc_ok(json_object());
	rpc_reply_cb cb = t.cb;

	t.cb = NULL;
	cb(&answer, t.arg);
	rpc_answer_fini(&answer);
}

static struct session *
the_session(void)
{
	uint8_t hash[32];

	token_hash(&t.token, hash);
	return session_find(t.sessions, hash);
}

static void
first_comes(void)
{
	int sv[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
	t.peers[0] = sv[0];
	assert_int_equal(session_park(the_session(), sv[1], 0), 0);
}

static void
second_comes(void)
{
	int fd = session_pair(the_session());

	assert_true(fd >= 0);
	fd_close(&fd);
}

static void
turn(void)
{
	event_base_loop(t.base, EVLOOP_ONCE | EVLOOP_NONBLOCK);
}

/* --- cases ------------------------------------------------------------------ */

static void
confirmed_then_parked(void **state)
{
	(void)state;
	reply(0);
	assert_int_equal(t.call.answers, 0); /* it waits for the socket, a moment */
	first_comes();
	turn();
	assert_int_equal(t.call.answers, 1);
	assert_true(t.call.has_token);
	finish();
	assert_int_equal(t.call.answers, 1);
}

static void
confirmed_and_nobody_comes(void **state)
{
	int64_t until = clock_now_ms() + 5000;

	(void)state;
	reply(0);
	while (t.call.answers == 0 && clock_now_ms() < until)
		event_base_loop(t.base, EVLOOP_ONCE);
	assert_true(t.call.has_token);
	finish();
	assert_int_equal(t.call.answers, 1);
}

/* Both parties before B's answer. */
static void
paired_then_confirmed(void **state)
{
	(void)state;
	first_comes();
	second_comes();
	assert_int_equal(t.call.answers, 0);
	reply(0);
	assert_int_equal(t.call.answers, 1);
	assert_true(t.call.has_token);
	finish();
	assert_int_equal(t.call.answers, 1);
}

/* All in one turn of the loop, and it is the last one: nothing is forgotten. */
static void
paired_in_the_grace_of_the_last_turn(void **state)
{
	(void)state;
	reply(0);
	first_comes();
	second_comes();
	assert_int_equal(t.call.answers, 0);
	finish();
	assert_int_equal(t.call.answers, 1);
	assert_true(t.call.has_token);
}

static void
refused(void **state)
{
	(void)state;
	reply(RPC_REFUSED);
	assert_int_equal(t.call.answers, 1);
	assert_int_equal(t.call.code, RPC_REFUSED);
	assert_null(the_session()); /* the token went with it */
	finish();
	assert_int_equal(t.call.answers, 1);
}

static void
peer_gone_in_the_grace(void **state)
{
	(void)state;
	reply(0);
	first_comes();
	session_end(the_session(), END_PEER_GONE);
	assert_int_equal(t.call.answers, 1);
	assert_string_equal(t.call.reason, "peer_gone");
	turn();
	finish();
	assert_int_equal(t.call.answers, 1);
}

/* Stopped before B's side has answered: A hears of it, the late answer changes nothing. */
static void
stopped_while_told(void **state)
{
	(void)state;
	finish();
	assert_int_equal(t.call.answers, 1);
	assert_int_equal(t.call.code, RPC_DRAINING);
}

int
main(void)
{
#define T(f) cmocka_unit_test_setup(f, setup)
	const struct CMUnitTest tests[] = {
		T(confirmed_then_parked),
		T(confirmed_and_nobody_comes),
		T(paired_then_confirmed),
		T(paired_in_the_grace_of_the_last_turn),
		T(refused),
		T(peer_gone_in_the_grace),
		T(stopped_while_told),
	};

	log_open("test_brokering", LOG_LVL_ERROR);
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
