/* test_form.c - requestConnection's parameters: all faults at once, and what B gets to see */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "hyper/base/attr.h"
#include "hyper/wire/json.h"
#include "proxy/master/form.h"

#define CLIENT "\"_client\":{\"name\":\"hd-1\",\"entry\":{\"name\":\"hd-1\",\"channels\":[]}}"
#define ALL    "\"to\":\"hd-2\",\"channel\":\"grpc_server\""

static json_t *
parse(const char *text)
{
	char err[JSON_ERR_MAX];
	json_t *v;

	if (json_parse(text, strlen(text), &v, err) < 0)
		fail_msg("%s: %s", text, err);
	return v;
}

static void
test_faults(void **state)
{
	static const struct {
		const char *params;
		const char *keys; /* those with a fault, in any order */
	} cases[] = {
		{ "{}", "to channel _client" },
		{ "{" ALL "}", "_client" },
		{ "{" CLIENT "}", "to channel" },
		{ "{\"to\":5,\"channel\":true," CLIENT "}", "to channel" },
		{ "{\"to\":\"\",\"channel\":\"grpc_server\"," CLIENT "}", "to" },
		{ "{\"to\":\"a b\",\"channel\":\"grpc_server\"," CLIENT "}", "to" },
		{ "{\"to\":\"hd-2\\n\",\"channel\":\"grpc_server\"," CLIENT "}", "to" },
		{ "{\"to\":\"hd-2\",\"channel\":\"grpc server\"," CLIENT "}", "channel" },
		{ "{" ALL ",\"_client\":[]}", "_client" },
		{ "{" ALL ",\"_client\":{}}", "_client.name _client.entry" },
		{ "{" ALL ",\"_client\":{\"name\":\"hd-1\",\"entry\":{}}}",
		    "_client.entry.name _client.entry.channels" },
		{ "{" ALL ",\"_client\":{\"name\":\"hd-1\",\"entry\":{\"name\":\"hd-3\",\"channels\":[]}}}",
		    "_client.entry.name" },
		{ "{" ALL ",\"_client\":{\"name\":\"../x\",\"entry\":{\"name\":\"../x\",\"channels\":[]}}}",
		    "_client.name _client.entry.name" },
		{ "{" ALL ",\"_client\":{\"name\":\"hd-1\",\"entry\":{\"name\":\"hd-1\",\"channels\":{}}}}",
		    "_client.entry.channels" },
		{ "{" ALL
		  ",\"_client\":{\"name\":\"hd-1\",\"entry\":{\"name\":\"hd-1\",\"channels\":[1],\"services\":1,"
		  "\"certificates\":null,\"groups\":7}}}",
		    "_client.entry.channels _client.entry.services" },
	};
	struct form_memo *memo = form_memo_new();
	size_t i;

	(void)state;
	for (i = 0; i < ARRAY_LEN(cases); i++) {
		json_t *params = parse(cases[i].params);
		struct rpc_answer a = { 0 };
		struct form f = { 0 };
		const json_t *faults;
		const char *key;
		json_t *v;

		assert_int_equal(form_parse(memo, &(struct rpc_request){ .params = params, .known = 7 }, &f, &a),
		    RPC_INVALID_PARAMS);
		assert_int_equal(a.code, RPC_INVALID_PARAMS);
		assert_null(f.client_text);
		faults = json_object_get(a.data, "data");
		json_object_foreach ((json_t *)faults, key, v)
			if (!strstr(cases[i].keys, key))
				fail_msg("%s: unexpected fault at %s", cases[i].params, key);
		{
			char keys[128], *word, *save = NULL;
			size_t n = 0;

			memcpy(keys, cases[i].keys, strlen(cases[i].keys) + 1);
			for (word = strtok_r(keys, " ", &save); word; word = strtok_r(NULL, " ", &save), n++)
				if (!json_object_get(faults, word))
					fail_msg("%s: no fault at %s", cases[i].params, word);
			assert_int_equal(json_object_size(faults), n);
		}
		rpc_answer_fini(&a);
		json_decref(params);
	}
	form_memo_free(memo);
}

/* protocol.md 7.1 row 4, with an entry that has everything and one that has little */
static void
test_told(void **state)
{
	static const struct {
		const char *entry, *told;
	} cases[] = {
		{ "{\"name\":\"hd-1\",\"groups\":[\"g\"],\"channels\":[{\"type\":\"grpc_client\",\"settings\":null}],"
		  "\"services\":[{\"name\":\"s\"}],\"certificates\":[{\"fingerprint\":\"f\"}],\"settings\":[{\"a\":1}],"
		  "\"preferences\":[],\"records\":[{\"long\":1}],\"properties\":{\"displayName\":\"x\"},\"unknown\":1}",
		    "{\"name\":\"hd-1\",\"groups\":null,\"channels\":[{\"type\":\"grpc_client\",\"settings\":null}],"
		    "\"services\":[{\"name\":\"s\"}],\"certificates\":[{\"fingerprint\":\"f\"}],"
		    "\"settings\":[{\"a\":1}],\"preferences\":[],\"records\":null,\"properties\":null}" },
		{ "{\"channels\":[],\"name\":\"hd-1\"}",
		    "{\"name\":\"hd-1\",\"groups\":null,\"channels\":[],\"services\":null,\"certificates\":null,"
		    "\"settings\":null,\"preferences\":null,\"records\":null,\"properties\":null}" },
	};
	char text[1024];
	struct form_memo *memo = form_memo_new();
	size_t i;

	(void)state;
	/* without a number, with a new one, with one that came before, with one that takes another's slot */
	for (i = 0; i < 4 * ARRAY_LEN(cases); i++) {
		struct rpc_answer a = { 0 };
		struct form f = { 0 };
		uint64_t known = i % 4 == 0 ? 0 : i / 4 + 1 + (i % 4 == 3 ? 256 : 0);
		json_t *params;

		snprintf(text, sizeof(text), "{" ALL ",\"_client\":{\"extra\":1,\"name\":\"hd-1\",\"entry\":%s}}",
		    cases[i / 4].entry);
		params = parse(text);
		assert_int_equal(
		    form_parse(memo, &(struct rpc_request){ .params = params, .known = known }, &f, &a), 0);
		assert_string_equal(f.to, "hd-2");
		assert_string_equal(f.from, "hd-1");
		assert_string_equal(f.channel, "grpc_server");
		snprintf(text, sizeof(text), "{\"name\":\"hd-1\",\"entry\":%s}", cases[i / 4].told);
		assert_string_equal(f.client_text, text);
		assert_true((f.own_text == NULL) == (known != 0));
		form_fini(&f);
		json_decref(params);
	}
	form_memo_free(memo);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_faults),
		cmocka_unit_test(test_told),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
