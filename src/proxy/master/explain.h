/* explain.h - where a brokering stands or how it ended, why, and what to do about it */
#ifndef HYPER_PROXY_MASTER_EXPLAIN_H
#define HYPER_PROXY_MASTER_EXPLAIN_H

#include <jansson.h>

/* The answer to `explain` with `what`: a session id or an operator's name. Taken; NULL: out of memory. */
json_t *explain(const json_t *args);

#endif
