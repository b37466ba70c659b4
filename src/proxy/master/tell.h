/* tell.h - the verbs of the admin socket that look at the proxy, and `kick` */
#ifndef HYPER_PROXY_MASTER_TELL_H
#define HYPER_PROXY_MASTER_TELL_H

#include <stdbool.h>

#include <jansson.h>

#include "proxy/master/view.h"

/* True when `verb` is one of these; then *ret_answer is taken (NULL: out of memory). */
bool tell_answer(const struct view *, const char *verb, const json_t *args, json_t **ret_answer);

#endif
