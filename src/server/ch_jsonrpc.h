/* ch_jsonrpc.h - the channels jsonrpc_server (local applications call) and jsonrpc_client (the local service is called) */
#ifndef SERVER_CH_JSONRPC_H
#define SERVER_CH_JSONRPC_H

#include <stdint.h>

#include "hyper/base/attr.h"
#include "hyper/settings/conf.h"
#include "server/channel.h"

struct broker;
struct event_base;
struct ch_rpc_server;
struct ch_rpc_client;

#define CH_ERR_MAX 300

extern const struct channel_ops ch_rpc_server_ops;
extern const struct channel_ops ch_rpc_client_ops;

/* All borrowed until *_free(). 0 with *ret taken, or -errno untouched with `err`. */
int ch_rpc_server_new(struct event_base *, const struct conf_rpc_server *, const char *own_name, struct broker *,
    struct ch_rpc_server **ret, char err[CH_ERR_MAX]) ATTR_MUST_USE;
uint16_t ch_rpc_server_port(const struct ch_rpc_server *);

/* A reload, with what rpc_server_prepare() and rpc_client_new() made of the new settings (given). The settings of before
 * are borrowed no more. */
struct rpc_client;
struct rpc_server_next;
void ch_rpc_server_apply(struct ch_rpc_server *, const char *own_name, struct rpc_server_next *);
void ch_rpc_client_apply(struct ch_rpc_client *, const char *own_name, struct rpc_client *);

/* Stops listening; requests that wait keep their place. */
void ch_rpc_server_close(struct ch_rpc_server *);
void ch_rpc_server_free(struct ch_rpc_server *);

int ch_rpc_client_new(struct event_base *, const struct conf_rpc_client *, const char *own_name,
    struct ch_rpc_client **ret, char err[CH_ERR_MAX]) ATTR_MUST_USE;

/* Calls in flight are answered from the loop before it returns. NULL is fine. */
void ch_rpc_client_close(struct ch_rpc_client *);
void ch_rpc_client_free(struct ch_rpc_client *);

#endif
