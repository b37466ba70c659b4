/* channel.c - small questions about requests and answers that every channel asks
 *
 * Always true: nothing here keeps what it was given.
 * Not here: any channel.
 */
#include "server/channel.h"

#include <stdlib.h>
#include <string.h>

#include "hyper/wire/json.h"

json_t *
request_params_for_wire(const struct request *req, bool to_ours)
{
	json_t *copy = json_copy(req->params);

	if (copy && to_ours)
		json_object_del(copy, "_client");
	return copy;
}

struct rpc_answer
answer_copy(const struct rpc_answer *a)
{
	return (struct rpc_answer){ .code = a->code,
		.message = a->message ? strdup(a->message) : NULL,
		.data = json_incref(a->data),
		.result = json_incref(a->result) };
}

const char *
answer_reason(const struct rpc_answer *a, const char *fallback)
{
	const char *word = json_is_object(a->data) ? json_str(a->data, "reason") : NULL;

	return word ? word : fallback;
}
