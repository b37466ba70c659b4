/* hyper_call.h - one call through the operator's own running server */
#ifndef HYPER_CLI_HYPER_CALL_H
#define HYPER_CLI_HYPER_CALL_H

#include <stdbool.h>

#include "hyper/settings/conf.h"

/* Calls `method` ("operator.method") with the JSON object `params` and prints
 * the result on stdout, an error on stderr. `timeout` in seconds as text, NULL
 * for the settings' value. Exit code: 0, 1 for an error answer, 64, 69 when
 * the server cannot be reached. */
int hyper_call(const struct conf_hyper *, const char *method, const char *params, const char *timeout);

/* Pings `operator` and prints the steps of its connection with their times. */
int hyper_ping(const struct conf_hyper *, const char *operator, const char * timeout, bool json);

#endif
