/* pool.h - the channel grpc_client: one kept connection for each operator that is called */
#ifndef SERVER_POOL_H
#define SERVER_POOL_H

#include <stdint.h>

#include <openssl/ssl.h>

#include "hyper/base/attr.h"
#include "hyper/settings/conf.h"
#include "server/ch_jsonrpc.h" /* CH_ERR_MAX */
#include "server/channel.h"

struct broker;
struct directory;
struct event_base;
struct pool;

/* Operators with a connection at a time; for one more the one unused for the
 * longest time is closed. Calls that wait for one connection. */
#define POOL_MAX_TARGETS 256
#define POOL_MAX_QUEUE   1024

extern const struct channel_ops pool_ops;

/* All borrowed until pool_free(). 0 with *ret taken, or -errno untouched with `err`. */
int pool_new(struct event_base *, const struct conf_grpc_client *, const struct conf_hyper *, struct directory *,
    struct broker *, struct pool **ret, char err[CH_ERR_MAX]) ATTR_MUST_USE;

/* A reload: `ctx` (given) is the TLS of new connections; those there are live on. The settings of before are borrowed no
 * more. */
void pool_apply(struct pool *, const struct conf_grpc_client *, const struct conf_hyper *, SSL_CTX *ctx);

/* Closes all connections; calls are answered from the loop or at once. NULL is fine. */
void pool_close(struct pool *);

/* After the loop has run once more. NULL is fine. */
void pool_free(struct pool *);

/* Lines of _connections. */
void pool_list(void *pool, json_t *array);

#endif
