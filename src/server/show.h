/* show.h - the message server's numbers for monitoring and its status page */
#ifndef SERVER_SHOW_H
#define SERVER_SHOW_H

#include "hyper/base/attr.h"
#include "hyper/net/status.h"

struct server;

/* The server is borrowed until status_free(). As status_new(). */
int server_show_new(struct server *, struct status **ret, char err[STATUS_ERR_MAX]) ATTR_MUST_USE;

/* One word for the server's state; reasons why it is not ready, if any. For `status` as well. */
const char *server_state_with_reasons(const struct server *, struct status_reasons *);

#endif
