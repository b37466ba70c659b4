/* show.h - the message server's numbers for monitoring and its status page */
#ifndef SERVER_SHOW_H
#define SERVER_SHOW_H

#include "hyper/base/attr.h"
#include "hyper/net/status.h"

struct server;
struct server_show;

/* The server is borrowed until server_show_free(). 0 with *ret taken, or -errno untouched with `err`. */
int server_show_new(struct server *, struct server_show **ret, char err[STATUS_ERR_MAX]) ATTR_MUST_USE;
void server_show_free(struct server_show *);           /* NULL is fine */
unsigned server_show_port(const struct server_show *); /* NULL: 0 */

/* One word for the server's state; reasons why it is not ready, if any. For `status` as well. */
const char *server_state_with_reasons(const struct server *, struct status_reasons *);

#endif
