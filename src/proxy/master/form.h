/* form.h - the parameters of requestConnection, checked */
#ifndef HYPER_PROXY_MASTER_FORM_H
#define HYPER_PROXY_MASTER_FORM_H

#include <jansson.h>

#include "hyper/base/attr.h"
#include "hyper/wire/rpc.h"

struct form {
	const char *to;      /* borrowed from the params */
	const char *from;    /* _client.name, borrowed likewise */
	const char *channel; /* borrowed likewise */
	json_t *client;      /* what B is told: {name, entry}; taken */
};

/* 0 with *ret taken, or a JSON-RPC code with *ret_answer (taken) holding all
 * faults at once and *ret untouched. */
int form_parse(const json_t *params, struct form *ret, struct rpc_answer *ret_answer) ATTR_MUST_USE;
void form_fini(struct form *);

#endif
