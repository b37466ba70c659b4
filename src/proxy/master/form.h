/* form.h - the parameters of requestConnection, checked */
#ifndef HYPER_PROXY_MASTER_FORM_H
#define HYPER_PROXY_MASTER_FORM_H

#include "hyper/base/attr.h"
#include "hyper/wire/rpc.h"

struct form {
	const char *to;          /* borrowed from the params */
	const char *from;        /* _client.name, borrowed likewise */
	const char *channel;     /* borrowed likewise */
	const char *client_text; /* what B is told, {name, entry} as JSON; the memo's, or own_text */
	char *own_text;          /* taken */
};

/* What callers were found to be: an entry that came before (rpc_request.known) is not checked
 * and not written again. Bounded; NULL when out of memory. */
struct form_memo;
struct form_memo *form_memo_new(void);
void form_memo_free(struct form_memo *);

/* 0 with *ret taken, valid until the next call with this memo; or a JSON-RPC code with
 * *ret_answer (taken) holding all faults at once and *ret untouched. */
int form_parse(
    struct form_memo *, const struct rpc_request *, struct form *ret, struct rpc_answer *ret_answer) ATTR_MUST_USE;
void form_fini(struct form *);

#endif
