/* rpcreq.c - JSON-RPC requests from a client: form, id rules, error bodies (protocol.md 4.1)
 *
 *      on the wire          internal form
 *      7, 7.0               n:7             an integer
 *      "n:7", "nn:7"        nn:7, nnnn:7    a string that looks like one: its n's doubled
 *      none, null, ""       32 hex digits   made up here
 *      any other string     the string
 *
 * Always true:
 *  1. Two ids that differ on the wire differ inside, and the way back is exact.
 *  2. All faults of a request are told at once, in the order jsonrpc, method, params, id.
 *  3. Unknown members are ignored.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hyper/base/bytes.h"
#include "hyper/wire/json.h"
#include "hyper/wire/rpc.h"
#include "wire/rpcid.h"
#include "wire/textbuf.h"

#define METHOD_MAX      100
#define ID_MAX          1024
#define ID_RANDOM_BYTES 16
#define ID_MAX_DIGITS   32
#define ID_FAULT        "expected a string of up to 1024 bytes or an integer of 32 bits"

/* The number of leading n's when `id` is ^n+:-?[0-9]{1,32}$, else 0. */
static size_t
id_run(const char *id)
{
	size_t n = strspn(id, "n"), digits;
	const char *p = id + n;

	if (n == 0 || *p++ != ':')
		return 0;
	if (*p == '-')
		p++;
	digits = strspn(p, "0123456789");
	return digits >= 1 && digits <= ID_MAX_DIGITS && p[digits] == '\0' ? n : 0;
}

static char *
id_random(void)
{
	char *id = malloc(2 * ID_RANDOM_BYTES + 1);

	if (id != NULL)
		random_hex(ID_RANDOM_BYTES, id);
	return id;
}

static char *
id_doubled(const char *id)
{
	size_t run = id_run(id), len = strlen(id);
	char *text = malloc(run + len + 1);

	if (text != NULL) {
		memset(text, 'n', run);
		memcpy(text + run, id, len + 1);
	}
	return text;
}

char *
rpc_id_take(const json_t *id, const char **ret_fault)
{
	char *text = NULL;
	int n;

	if (id == NULL || json_is_null(id) || (json_is_string(id) && json_string_length(id) == 0))
		return id_random();
	if (json_is_string(id) && json_string_length(id) <= ID_MAX)
		return id_doubled(json_string_value(id));
	if (!rpc_int32(id, &n))
		*ret_fault = ID_FAULT;
	else if (asprintf(&text, "n:%d", n) < 0)
		text = NULL;
	return text;
}

void
rpc_id_put(struct textbuf *tb, const char *id)
{
	size_t run;

	if (id == NULL) {
		textbuf_puts(tb, "null");
		return;
	}
	run = id_run(id);
	if (run == 1)
		textbuf_puts(tb, id + 2);
	else
		textbuf_string(tb, id + run / 2, strlen(id + run / 2));
}

void
rpc_request_fini(struct rpc_request *r)
{
	free(r->method);
	free(r->id);
	json_decref(r->params);
	*r = (struct rpc_request){ 0 };
}

void
rpc_form_fault(json_t **form, const char *key, const char *expected)
{
	if (*form == NULL)
		*form = json_object();
	/* Out of memory must not read as "no fault": json_true() is static and can not fail. */
	if (*form == NULL)
		*form = json_true();
	if (json_object_get(*form, key) == NULL)
		json_object_set_new(*form, key, json_string(expected));
}

/* "invalid input data: a(expected x), b(expected y)" */
static char *
form_message(json_t *form)
{
	struct textbuf tb = { 0 };
	const char *key, *before = "invalid input data: ";
	json_t *expected;

	json_object_foreach (form, key, expected) {
		textbuf_puts(&tb, before);
		textbuf_puts(&tb, key);
		textbuf_puts(&tb, "(");
		textbuf_puts(&tb, json_string_value(expected));
		textbuf_puts(&tb, ")");
		before = ", ";
	}
	return textbuf_take(&tb);
}

/* {message, code, data, traceback}; gives `form` to it. NULL when out of memory. */
static json_t *
form_data(json_t *form)
{
	char *message = form_message(form);
	json_t *data;

	data = json_pack("{s:s*, s:s, s:O, s:[]}", "message", message, "code", "FORM-ERROR", "data", form, "traceback");
	free(message);
	json_decref(form);
	return data;
}

struct rpc_answer
rpc_form_answer(json_t *form)
{
	return rpc_fail(RPC_INVALID_PARAMS, form_data(form), "invalid params");
}

static json_t *
request_faults(const json_t *root, const char *id_fault)
{
	const json_t *jsonrpc = json_object_get(root, "jsonrpc"), *method = json_object_get(root, "method");
	size_t n = json_string_length(method);
	json_t *form = NULL;

	if (!json_is_string(jsonrpc))
		rpc_form_fault(&form, "jsonrpc", "expected a string");
	else if (strcmp(json_string_value(jsonrpc), "2.0") != 0)
		rpc_form_fault(&form, "jsonrpc", "expected 2.0");
	if (!json_is_string(method))
		rpc_form_fault(&form, "method", "expected a string");
	else if (n < 1 || n > METHOD_MAX)
		rpc_form_fault(&form, "method", "expected 1 to 100 bytes");
	if (!json_is_object(json_object_get(root, "params")))
		rpc_form_fault(&form, "params", "expected an object");
	if (id_fault != NULL)
		rpc_form_fault(&form, "id", id_fault);
	return form;
}

/* Writes the error body and returns its code. The id is null, as in protocol.md 4.1. */
static int
refuse(struct rpc_answer a, char **ret_body)
{
	int code = a.code;

	*ret_body = rpc_answer_text(&a, NULL);
	rpc_answer_fini(&a);
	return code;
}

static int
refuse_form(json_t *form, char **ret_body)
{
	json_t *data = form_data(form);
	const char *message = json_str(data, "message");
	struct rpc_answer a =
	    rpc_fail(RPC_INVALID_REQUEST, data, "invalid request: %s", message != NULL ? message : "out of memory");

	return refuse(a, ret_body);
}

static int
request_take(const json_t *root, struct rpc_request *ret, char **ret_body)
{
	const char *id_fault = NULL;
	struct rpc_request r = { .id = rpc_id_take(json_object_get(root, "id"), &id_fault) };
	json_t *form = request_faults(root, id_fault);

	if (form != NULL) {
		rpc_request_fini(&r);
		return refuse_form(form, ret_body);
	}
	r.method = strdup(json_string_value(json_object_get(root, "method")));
	r.params = json_incref(json_object_get(root, "params"));
	if (r.id == NULL || r.method == NULL) {
		rpc_request_fini(&r);
		return refuse(rpc_fail(RPC_INTERNAL, NULL, "internal server error"), ret_body);
	}
	*ret = r;
	return 0;
}

int
rpc_request_parse(const char *body, size_t len, struct rpc_request *ret, char **ret_body)
{
	return rpc_request_parse_known(NULL, body, len, ret, ret_body);
}

int
rpc_request_parse_known(struct json_memo *memo, const char *body, size_t len, struct rpc_request *ret, char **ret_body)
{
	char err[JSON_ERR_MAX]; /* not sent: protocol.md 4.1 fixes this body */
	uint64_t known;
	json_t *root;
	int r = json_parse_known(memo, body, len, &root, &known, err);

	if (r == -ENOMEM)
		return refuse(rpc_fail(RPC_INTERNAL, NULL, "internal server error"), ret_body);
	if (r < 0)
		return refuse(rpc_fail(RPC_PARSE, NULL, "JSON required"), ret_body);
	if (json_is_object(root))
		r = request_take(root, ret, ret_body);
	else
		r = refuse(rpc_fail(RPC_PARSE, NULL, "JSON required"), ret_body);
	if (r == 0)
		ret->known = known;
	json_decref(root);
	return r;
}
