/* servercall.h - requests to operators that cannot be dialled, over the streams they opened (protocol.md 3.5) */
#ifndef SERVER_SERVERCALL_H
#define SERVER_SERVERCALL_H

#include <stdbool.h>
#include <stdint.h>

#include "hyper/base/attr.h"
#include "hyper/settings/conf.h"
#include "server/channel.h"
#include "server/pin.h"

struct event_base;
struct grpc_stream;
struct servercall;

/* Both programs ours: requests at a time on one stream ("hyper" in the announcement). */
#define SERVERCALL_PARALLEL 64

/* Requests that wait for their turn on one stream; one more is answered busy. */
#define SERVERCALL_MAX_QUEUE 256

/* All borrowed until servercall_free(). A stream may owe a late answer for another call_timeout. NULL when out of
 * memory; taken. */
struct servercall *servercall_new(struct event_base *, struct directory *, const struct conf_hyper *);

/* A reload: the settings of before are borrowed no more. */
void servercall_apply(struct servercall *, const struct conf_hyper *);

/* All streams must have ended or their connections been freed. NULL is fine. */
void servercall_free(struct servercall *);

/* A new stream, from on_stream. `names`: what its certificate stands for,
 * borrowed until its on_end. 0 or -ENOMEM. */
int servercall_accept(struct servercall *, struct grpc_stream *, const struct names *names) ATTR_MUST_USE;

/* Has `name` a stream, and does the directory still pin its certificate? If not, the stream ends. */
bool servercall_has(struct servercall *, const char *name);

/* servercall_has() is true. Contract of channel_ops.deliver. */
int servercall_deliver(struct servercall *, const struct request *, deliver_cb cb, void *arg) ATTR_MUST_USE;

/* Lines of _connections. */
void servercall_list(struct servercall *, json_t *array);

#endif
