/* ch_grpc_server.h - the channel grpc_server: other operators' connections, their calls and standing streams */
#ifndef SERVER_CH_GRPC_SERVER_H
#define SERVER_CH_GRPC_SERVER_H

#include <stdint.h>

#include "hyper/base/attr.h"
#include "hyper/settings/conf.h"
#include "server/ch_jsonrpc.h" /* CH_ERR_MAX */
#include "server/channel.h"

struct broker;
struct ch_grpc_server;
struct directory;
struct event_base;

extern const struct channel_ops ch_grpc_server_ops;

/* Connections taken over from brokering, at most; one more is refused. */
#define GRPC_SERVER_MAX_ADOPTED 1024

/* Listens. All borrowed until ch_grpc_server_free(). 0 with *ret taken, or -errno untouched with `err`. */
int ch_grpc_server_new(struct event_base *, const struct conf_grpc_server *, const struct conf_hyper *,
    struct directory *, struct broker *, struct ch_grpc_server **ret, char err[CH_ERR_MAX]) ATTR_MUST_USE;
uint16_t ch_grpc_server_port(const struct ch_grpc_server *);

/* A reload, with what grpc_listener_prepare() made of the new settings (given). The settings of before are borrowed no
 * more; connections live on with the TLS they have. */
struct grpc_listener_next;
void ch_grpc_server_apply(struct ch_grpc_server *, const struct conf_hyper *, struct grpc_listener_next *);

/* A socket that this server dialled and sent a token over (given, also on
 * failure): from now on like an accepted one, but the TLS client must be
 * `client`, and it has until `deadline_ms` to come and finish TLS. 0 or -errno. */
int ch_grpc_server_adopt(struct ch_grpc_server *, int fd, const char *client, const char *via, const char *session,
    uint64_t story, int64_t deadline_ms) ATTR_MUST_USE;

/* Stops listening. NULL is fine. */
void ch_grpc_server_deafen(struct ch_grpc_server *);

/* Stops listening and ends all connections. Calls that still wait in the broker go nowhere. NULL is fine. */
void ch_grpc_server_close(struct ch_grpc_server *);

/* After the loop has run once more. NULL is fine. */
void ch_grpc_server_free(struct ch_grpc_server *);

/* Lines of _connections. */
void ch_grpc_server_list(void *ch, json_t *array);

#endif
