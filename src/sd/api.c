/* api.c - getTip, getRecords, getEntries, getEntry, submitRecords (protocol.md 6.5)
 *
 * Always true: every call is answered before api_serve() returns; no answer is
 * larger than API_ANSWER_MAX.
 *
 * getRecords answers in pages: who gets records asks again with the hash of the
 * last one, until the list is empty. (The reference's client asks once per
 * refresh; it gets the rest with the next one.)
 *
 * Not here: what is accepted (book.c), who may connect (the server's TLS).
 */
#include "sd/api.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hyper/base/clock.h"
#include "hyper/base/log.h"
#include "hyper/wire/json.h"

#define API_ANSWER_MAX ((size_t)3 * 1024 * 1024) /* below JSON_MAX_BYTES, which is what a client takes */

/* The answer with `value` (given), or the reason why it cannot be given. */
static struct rpc_answer
answer_with(const struct book *b, json_t *value, const char *hint)
{
	size_t size = 0;

	if (!value)
		return rpc_fail(RPC_INTERNAL, NULL, "out of memory");
	/* entries hold each record once as such and once as sections; only a big directory need be measured */
	if (book_bytes(b) > API_ANSWER_MAX / 4)
		size = json_dumpb(value, NULL, 0, JSON_COMPACT | JSON_ENCODE_ANY);
	if (size > API_ANSWER_MAX) {
		json_decref(value);
		return rpc_fail_step(RPC_INTERNAL, END_INTERNAL, STEP_NONE, NULL, 0,
		    "the answer would be larger than %zu bytes: %s", API_ANSWER_MAX, hint);
	}
	return rpc_ok(value);
}

static struct rpc_answer
get_tip(struct book *b, const json_t *params, const struct rpc_call *call)
{
	const json_t *tip = book_tip(b);

	(void)params;
	(void)call;
	return rpc_ok(tip ? json_incref((json_t *)tip) : json_null());
}

static struct rpc_answer
get_records(struct book *b, const json_t *params, const struct rpc_call *call)
{
	const json_t *given = json_object_get(params, "after");
	const char *after = given && !json_is_null(given) ? json_string_value(given) : "";
	json_t *form = NULL;

	(void)call;
	if (!after || (*after && (strlen(after) != 64 || strspn(after, "0123456789abcdef") != 64))) {
		rpc_form_fault(&form, "after", "regex '^([a-f0-9]{64}|)$' did not match");
		return rpc_form_answer(form);
	}
	return answer_with(b, book_after(b, after), "ask for fewer");
}

static struct rpc_answer
get_entries(struct book *b, const json_t *params, const struct rpc_call *call)
{
	const json_t *entries = book_entries(b);
	json_t *list = entries ? json_array() : NULL, *entry;
	const char *name;

	(void)params;
	(void)call;
	json_object_foreach ((json_t *)entries, name, entry) {
		if (json_array_append(list, entry) < 0) {
			json_decref(list);
			list = NULL;
			break;
		}
	}
	return answer_with(b, list, "use getEntry for each name, or getRecords");
}

static struct rpc_answer
get_entry(struct book *b, const json_t *params, const struct rpc_call *call)
{
	const char *name = json_str(params, "name");
	const json_t *entries = book_entries(b);
	json_t *form = NULL, *entry;

	(void)call;
	if (!name) {
		rpc_form_fault(&form, "name", "expected a string");
		return rpc_form_answer(form);
	}
	if (!entries)
		return rpc_fail(RPC_INTERNAL, NULL, "out of memory");
	entry = json_object_get(entries, name);
	if (!entry)
		return rpc_fail(RPC_NOT_FOUND, NULL, "not found");
	return answer_with(b, json_incref(entry), "use getRecords");
}

static const char *
client_name(const struct rpc_call *call)
{
	const struct tls_peer *peer = rpc_call_peer(call);

	return peer && peer->n_names > 0 ? peer->names[0] : "-";
}

/* What became of a refused batch, as an answer. */
static struct rpc_answer
refusal(int r, const char *err, size_t index, size_t n)
{
	enum end_reason reason = r == -EACCES                   ? END_DENIED
				 : r == -EDQUOT                 ? END_QUOTA
				 : r == -EINVAL || r == -ESTALE ? END_BAD_REQUEST
								: END_INTERNAL;
	char key[40] = "records";
	json_t *form = NULL;

	if (index < n)
		snprintf(key, sizeof key, "records[%zu]", index);
	if (r == -EBADMSG) {
		rpc_form_fault(&form, key, err);
		return rpc_form_answer(form);
	}
	return rpc_fail_step(RPC_INTERNAL, reason, STEP_NONE, NULL, 0, "nothing was stored: %s: %s", key, err);
}

static struct rpc_answer
submit_records(struct book *b, const json_t *params, const struct rpc_call *call)
{
	static struct log_limit limit;
	const json_t *records = json_object_get(params, "records");
	char err[BOOK_ERR_MAX] = "out of memory";
	int64_t start = clock_now_ms();
	json_t *form = NULL;
	size_t index = 0;
	int r;

	if (!json_is_array(records)) {
		rpc_form_fault(&form, "records", "expected a list");
		return rpc_form_answer(form);
	}
	r = book_submit(b, records, &index, err);
	if (r < 0 && (r == -EIO || r == -ENOSPC || r == -ENOMEM))
		log_error("submit_failed", "client=%s records=%zu err=\"%s\"", client_name(call),
		    json_array_size(records), err);
	else if (r < 0)
		log_limited(&limit, LOG_LVL_WARN, "submit_refused", "client=%s records=%zu first_wrong=%zu err=\"%s\"",
		    client_name(call), json_array_size(records), index, err);
	else
		log_info("submit", "client=%s records=%zu length=%zu tip=%.16s ms=%lld", client_name(call),
		    json_array_size(records), book_length(b), book_tip(b) ? json_str(book_tip(b), "hash") : "",
		    (long long)(clock_now_ms() - start));
	return r < 0 ? refusal(r, err, index, json_array_size(records)) : rpc_ok(json_string("ok"));
}

static const struct {
	const char *name;
	struct rpc_answer (*serve)(struct book *, const json_t *params, const struct rpc_call *);
} methods[] = {
	{ "getTip", get_tip },
	{ "getRecords", get_records },
	{ "getEntries", get_entries },
	{ "getEntry", get_entry },
	{ "submitRecords", submit_records },
};

_Static_assert(ARRAY_LEN(methods) == API_METHODS - 1, "api.h");

const char *
api_method_name(size_t method)
{
	return method < ARRAY_LEN(methods) ? methods[method].name : "unknown";
}

size_t
api_serve(struct book *b, struct rpc_call *call)
{
	const struct rpc_request *request = rpc_call_request(call);
	size_t i;

	for (i = 0; i < ARRAY_LEN(methods); i++) {
		if (strcmp(request->method, methods[i].name) == 0) {
			rpc_call_answer(call, methods[i].serve(b, request->params, call));
			return i;
		}
	}
	rpc_call_answer(call, rpc_fail(RPC_NO_METHOD, NULL, "method not found"));
	return i;
}
