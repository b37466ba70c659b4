/* selftest.h - the master's part of `proxy selftest`: a token for whoever may ask the admin socket, and how far it has come */
#ifndef HYPER_PROXY_MASTER_SELFTEST_H
#define HYPER_PROXY_MASTER_SELFTEST_H

#include <jansson.h>

struct master;

/* The answer to the verb `selftest`, taken; NULL: out of memory.
 *   {}                a token: { token, session, endpoint, state, now_ns: CLOCK_MONOTONIC of the issue }
 *   { session: id }   of such a token: { stage, steps: { word: ns since the issue }, reason, help: where it ended } */
json_t *selftest_answer(struct master *, const json_t *args);

#endif
