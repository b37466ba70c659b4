/* rpc.h - JSON-RPC 2.0 requests and answers as in protocol.md 4.1, 4.2; no sockets */
#ifndef HYPER_WIRE_RPC_H
#define HYPER_WIRE_RPC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <jansson.h>

#include "hyper/base/attr.h"
#include "hyper/base/words.h"

struct json_memo;

/* protocol.md 4.1, 4.2 and "Errors of ours" */
enum rpc_code {
	RPC_PARSE = -32700,
	RPC_INVALID_REQUEST = -32600,
	RPC_NO_METHOD = -32601,
	RPC_INVALID_PARAMS = -32602,
	RPC_INTERNAL = -32603,
	RPC_BROKER = 1,
	RPC_CHANNEL = 500,
	RPC_DENIED = 403,
	RPC_NOT_FOUND = 404,
	RPC_REMOTE_HANDLER = -100,
	RPC_BUSY = -32001,
	RPC_QUOTA = -32002,
	RPC_DEADLINE = -32003,
	RPC_DRAINING = -32004,
	RPC_NOT_CONNECTED = -32005,
	RPC_REFUSED = -32006,
	RPC_STALE = -32007
};

/* An answer: an error when code != 0, a result otherwise. Owns its members. */
struct rpc_answer {
	int code;
	char *message;     /* NULL without an error */
	json_t *data;      /* may be NULL */
	json_t *result;    /* NULL with an error; NULL without one means `{}` */
	char *result_text; /* the result as JSON text, then `result` is NULL: only for who asked for it so */
	size_t result_len;
	bool is_local; /* an error of our own: the call got no answer from the other side (rpcclient.h) */
};

/* `result` is given. Never fails. */
struct rpc_answer rpc_ok(json_t *result);

/* `data` is given and may be NULL. Out of memory leaves message NULL (dumped as "out of memory"). */
struct rpc_answer rpc_fail(int code, json_t *data, const char *fmt, ...) ATTR_PRINTF(3, 4);

/* Error whose data is {reason, step, session, retry_after_ms, help} ("Errors of
 * ours"); STEP_NONE, NULL and 0 leave that key out. `help` is the advice for the reason. */
struct rpc_answer rpc_fail_step(int code, enum end_reason, enum broker_step, const char *session,
    int64_t retry_after_ms, const char *fmt, ...) ATTR_PRINTF(6, 7);

/* Frees the members and zeroes it. NULL members are fine. */
void rpc_answer_fini(struct rpc_answer *);

/* How every asynchronous call of this project ends: exactly once, from the
 * loop, never before the call that started it has returned, always within its
 * deadline. The answer is borrowed until return; the callee may take members
 * by setting them NULL. */
typedef void (*rpc_reply_cb)(struct rpc_answer *, void *arg);

struct rpc_request {
	char *method;   /* 1..100 bytes */
	char *id;       /* internal form: integers as n:<n> and the rest of protocol.md 4.1 "id handling" */
	json_t *params; /* an object */
	uint64_t known; /* not 0: of a memo (json.h); the member of `params` that it is for is read only */
};
void rpc_request_fini(struct rpc_request *);

/* HTTP body -> request. 0 with *ret taken; or a JSON-RPC code (RPC_PARSE,
 * RPC_INVALID_REQUEST, RPC_INTERNAL) with *ret untouched and *ret_body the whole error
 * body to send (taken; NULL when out of memory). All faults are collected into
 * one message, shape as in protocol.md 4.1. */
int rpc_request_parse(const char *body, size_t len, struct rpc_request *ret, char **ret_body) ATTR_MUST_USE;

/* The same with a memo, which may be NULL; it fills ret->known. */
int rpc_request_parse_known(
    struct json_memo *, const char *body, size_t len, struct rpc_request *ret, char **ret_body) ATTR_MUST_USE;

/* Request text for the wire; NULL when out of memory. Keys in order jsonrpc, method, params, id. */
char *rpc_request_text(const char *method, const json_t *params, const char *id);

/* The same with params that are JSON text. */
char *rpc_request_text_of(const char *method, const char *params_text, const char *id);

/* Answer text; keys in order jsonrpc, result, error, id. `id` is the internal
 * form or NULL (null on the wire). NULL when out of memory. */
char *rpc_answer_text(const struct rpc_answer *, const char *id);

/* Body of an answer -> answer. 0 with *ret taken, or -EINVAL, -EMSGSIZE,
 * -ENOMEM with *ret untouched. The id is not judged (protocol.md 4.4). */
int rpc_answer_parse(const char *body, size_t len, struct rpc_answer *ret) ATTR_MUST_USE;

/* -32602 "invalid params" whose data is built like protocol.md 4.1's: add each
 * fault, then finish. `form` starts as NULL. */
void rpc_form_fault(json_t **form, const char *key, const char *expected);
/* Takes `form`. */
struct rpc_answer rpc_form_answer(json_t *form);

#endif
