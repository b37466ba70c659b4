/* standing.h - streams that this server keeps open to operators that may call it (protocol.md 3.5) */
#ifndef SERVER_STANDING_H
#define SERVER_STANDING_H

#include "hyper/base/attr.h"
#include "hyper/settings/conf.h"
#include "server/ch_jsonrpc.h" /* CH_ERR_MAX */

#include <jansson.h>
#include <openssl/ssl.h>

struct broker;
struct directory;
struct event_base;
struct standing;

/* Peers at most; further ones are logged and left out. */
#define STANDING_MAX_PEERS 256

/* All borrowed until standing_free(). 0 with *ret taken, or -errno untouched with `err`. */
int standing_new(struct event_base *, const struct conf_grpc_client *, const struct conf_hyper *, struct directory *,
    struct broker *, struct standing **ret, char err[CH_ERR_MAX]) ATTR_MUST_USE;

/* The directory has changed: peers come and go. */
void standing_update(struct standing *);

/* A reload: `ctx` (given) is the TLS of new connections. The settings of before are borrowed no more. */
void standing_apply(struct standing *, const struct conf_hyper *, SSL_CTX *ctx);

/* Ends all streams. Requests in the broker are answered into the void. NULL is fine. */
void standing_close(struct standing *);

/* After the broker was freed. NULL is fine. */
void standing_free(struct standing *);

/* Lines of _connections. */
void standing_list(void *standing, json_t *array);

#endif
