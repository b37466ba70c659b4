/* rpc.c - JSON-RPC answers: made, written and read (protocol.md 4.1, 4.2, "Errors of ours")
 *
 * Always true:
 *  1. An answer is an error when, and only when, its code is not 0. A peer's error
 *     object with code 0 is read as RPC_INTERNAL, so it can not pass as a success.
 *  2. Texts have their keys in the order of protocol.md 4.1.
 *  3. A message of ours is at most RPC_MESSAGE_MAX bytes of valid UTF-8.
 *
 * Not here: requests from a client and the id rules for them (rpcreq.c).
 */
#include "hyper/wire/rpc.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hyper/base/bytes.h"
#include "hyper/wire/json.h"
#include "wire/rpcid.h"
#include "wire/textbuf.h"

#define RPC_MESSAGE_MAX 1024

struct rpc_answer
rpc_ok(json_t *result)
{
	return (struct rpc_answer){ .result = result };
}

/* A cut in the middle of a character leaves bytes that textbuf_string() would print as `?`. */
static void
cut_utf8(char *text)
{
	size_t n = strlen(text);

	while (n > 0 && ((unsigned char)text[n - 1] & 0xc0) == 0x80)
		n--;
	if (n > 0)
		n--;
	text[n] = '\0';
}

/* A stranger's bytes may be quoted in it (a GOAWAY's); protobuf takes none that are not UTF-8. */
static void
clean_utf8(char *text)
{
	if (utf8_is_clean(text, strlen(text)))
		return;
	for (; *text != '\0'; text++)
		if ((*text & 0x80) != 0)
			*text = '?';
}

ATTR_PRINTF(1, 0)
static char *
message_of(const char *fmt, va_list ap)
{
	char text[RPC_MESSAGE_MAX + 1];
	int n = vsnprintf(text, sizeof text, fmt, ap);

	if (n < 0)
		return NULL;
	if ((size_t)n >= sizeof text)
		cut_utf8(text);
	clean_utf8(text);
	return strdup(text);
}

struct rpc_answer
rpc_fail(int code, json_t *data, const char *fmt, ...)
{
	struct rpc_answer a = { .code = code != 0 ? code : RPC_INTERNAL, .data = data };
	va_list ap;

	va_start(ap, fmt);
	a.message = message_of(fmt, ap);
	va_end(ap);
	return a;
}

struct rpc_answer
rpc_fail_step(int code, enum end_reason reason, enum broker_step step, const char *session, int64_t retry_after_ms,
    const char *fmt, ...)
{
	struct rpc_answer a = { .code = code != 0 ? code : RPC_INTERNAL, .data = json_object() };
	va_list ap;

	va_start(ap, fmt);
	a.message = message_of(fmt, ap);
	va_end(ap);
	/* out of memory costs a key of the data, never the error itself */
	json_object_set_new(a.data, "reason", json_string(end_reason_word(reason)));
	if (step != STEP_NONE)
		json_object_set_new(a.data, "step", json_string(broker_step_word(step)));
	if (session != NULL)
		json_object_set_new(a.data, "session", json_string(session));
	if (retry_after_ms != 0)
		json_object_set_new(a.data, "retry_after_ms", json_integer(retry_after_ms));
	json_object_set_new(a.data, "help", json_string(end_reason_advice(reason)));
	return a;
}

void
rpc_answer_fini(struct rpc_answer *a)
{
	free(a->message);
	json_decref(a->data);
	json_decref(a->result);
	free(a->result_text);
	*a = (struct rpc_answer){ 0 };
}

/* `params` NULL: `text`. */
static char *
request_text(const char *method, const json_t *params, const char *text, const char *id)
{
	struct textbuf tb = { 0 };

	textbuf_puts(&tb, "{\"jsonrpc\":\"2.0\",\"method\":");
	textbuf_string(&tb, method, strlen(method));
	textbuf_puts(&tb, ",\"params\":");
	if (params != NULL)
		textbuf_json(&tb, params);
	else
		textbuf_puts(&tb, text);
	textbuf_puts(&tb, ",\"id\":");
	textbuf_string(&tb, id, strlen(id));
	textbuf_puts(&tb, "}");
	return textbuf_take(&tb);
}

char *
rpc_request_text(const char *method, const json_t *params, const char *id)
{
	return request_text(method, params, "{}", id);
}

char *
rpc_request_text_of(const char *method, const char *params_text, const char *id)
{
	return request_text(method, NULL, params_text, id);
}

static void
put_error(struct textbuf *tb, const struct rpc_answer *a)
{
	const char *message = a->message != NULL ? a->message : "out of memory";
	char code[16];

	snprintf(code, sizeof code, "%d", a->code);
	textbuf_puts(tb, ",\"error\":{\"code\":");
	textbuf_puts(tb, code);
	textbuf_puts(tb, ",\"message\":");
	textbuf_string(tb, message, strlen(message));
	if (a->data != NULL) {
		textbuf_puts(tb, ",\"data\":");
		textbuf_json(tb, a->data);
	}
	textbuf_puts(tb, "}");
}

char *
rpc_answer_text(const struct rpc_answer *a, const char *id)
{
	struct textbuf tb = { 0 };

	if (a->result_text != NULL)
		textbuf_reserve(&tb, a->result_len + 256);
	textbuf_puts(&tb, "{\"jsonrpc\":\"2.0\"");
	if (a->code != 0) {
		put_error(&tb, a);
	} else {
		textbuf_puts(&tb, ",\"result\":");
		if (a->result_text != NULL)
			textbuf_put(&tb, a->result_text, a->result_len);
		else if (a->result != NULL)
			textbuf_json(&tb, a->result);
		else
			textbuf_puts(&tb, "{}");
	}
	textbuf_puts(&tb, ",\"id\":");
	rpc_id_put(&tb, id);
	textbuf_puts(&tb, "}");
	return textbuf_take(&tb);
}

/* An integral number of 32 bits; 5.0 counts as 5. */
bool
rpc_int32(const json_t *value, int *ret)
{
	double d;

	if (!json_is_number(value))
		return false;
	d = json_number_value(value); /* exact for all that pass the next line */
	if (d < INT32_MIN || d > INT32_MAX || d != (int)d)
		return false;
	*ret = (int)d;
	return true;
}

static int
error_parse(const json_t *error, struct rpc_answer *ret)
{
	const json_t *message = json_object_get(error, "message");
	struct rpc_answer a = { 0 };

	if (!rpc_int32(json_object_get(error, "code"), &a.code))
		return -EINVAL;
	if (message != NULL && !json_is_string(message))
		return -EINVAL;
	if (a.code == 0)
		a.code = RPC_INTERNAL;
	a.message = strdup(message != NULL ? json_string_value(message) : "");
	if (a.message == NULL)
		return -ENOMEM;
	a.data = json_incref(json_object_get(error, "data"));
	*ret = a;
	return 0;
}

int
rpc_answer_parse(const char *body, size_t len, struct rpc_answer *ret)
{
	char err[JSON_ERR_MAX];
	json_t *root, *error;
	int r = json_parse(body, len, &root, err);

	if (r < 0)
		return r;
	error = json_object_get(root, "error");
	if (!json_is_object(root))
		r = -EINVAL;
	else if (error != NULL && !json_is_null(error))
		r = error_parse(error, ret);
	else
		*ret = rpc_ok(json_incref(json_object_get(root, "result")));
	json_decref(root);
	return r;
}
