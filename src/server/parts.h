/* parts.h - the parts of the running message server; for server.c and those that change or show them together */
#ifndef SERVER_PARTS_H
#define SERVER_PARTS_H

#include <stdbool.h>
#include <stdint.h>

#include <jansson.h>

#include "hyper/base/daemon.h"
#include "hyper/settings/conf.h"
#include "server/accept.h"
#include "server/broker.h"
#include "server/ch_grpc_server.h"
#include "server/ch_jsonrpc.h"
#include "server/internal.h"
#include "server/pool.h"
#include "server/standing.h"

struct admin;
struct admin_call;
struct admin_waits;
struct directory;
struct event;
struct status;

/*   STARTING --> SERVING --drain, stop, TERM--> DRAINING --with stop or TERM: nothing in flight, deadline--> STOPPING
 *       |          ^ `---------- undrain ----------' |                                                           ^
 *       `----------`-------------- INT, QUIT, second TERM, ------------------------------------------------------'  */
#define SERVER_STATES(X)                                                    \
	X(STARTING, "starting", SERVER_BIT(SERVING) | SERVER_BIT(STOPPING)) \
	X(SERVING, "serving", SERVER_BIT(DRAINING) | SERVER_BIT(STOPPING))  \
	X(DRAINING, "draining", SERVER_BIT(SERVING) | SERVER_BIT(STOPPING)) \
	X(STOPPING, "stopping", 0)
#define SERVER_BIT(s) (1u << SERVER_##s)

enum server_state {
#define X(n, word, to) SERVER_##n,
	SERVER_STATES(X)
#undef X
	    SERVER_STATE_MAX
};

struct server {
	const struct conf_hyper *conf; /* in use: the start's (borrowed) or `own` */
	struct conf_hyper *own;        /* of the last reload; NULL before the first */
	enum server_state state;
	struct daemon *daemon;
	struct event_base *base;
	struct directory *dir;
	struct broker *broker;
	struct internal *internal;
	struct acceptor *acceptor; /* these are NULL without their channel */
	struct ch_rpc_server *rpc_server;
	struct ch_rpc_client *rpc_client;
	struct ch_grpc_server *grpc_server;
	struct pool *pool;
	struct standing *standing;
	struct admin *admin; /* NULL: no admin_socket */
	struct status *show; /* NULL: no metrics.bind_address */
	int64_t start_ms;
	/* DRAINING (drain.c) */
	struct event *look;
	struct admin_waits *waits;
	bool then_stop;
	bool was_cut;              /* calls were refused at the deadline */
	int64_t drain_ms, stop_ms; /* when it began; the deadline, with then_stop */
	int64_t quiet_ms;          /* the moment for answers to leave ends then; 0: something is in flight */
};

const char *server_state_word(const struct server *);

/* The only place that writes s->state. */
void server_enter(struct server *, enum server_state to, const char *why);

/* drain.c: to its end when nothing is in flight, or the deadline has come. Again: the earlier deadline holds. */
void server_drain(struct server *, int64_t timeout_ms);
/* The verbs, true when it is one of them; then the call is taken, and answered now or later:
 *   drain { "deadline_ms" }  waits until no call is in flight; goes on draining
 *   undrain                  back to SERVING
 *   stop { "deadline_ms" }   answered when the process is about to end
 * The answers: { "ok", "calls", "pid" }, "calls" being those that are in flight. */
bool server_drain_on_admin(struct server *, struct admin_call *, const char *verb, const json_t *args);
/* The end has come, whatever is in flight. */
void server_stop_now(struct server *);
void server_drain_fini(struct server *);

/* reload.c: HYPER_SETTINGS read again; all of it, or nothing. With `dry` nothing is changed or logged. The report as of
 * net/reload.h, taken; NULL when out of memory. */
json_t *server_reload(struct server *, bool dry);

/* tell.c: the answer to a verb that only looks. Taken; NULL when out of memory. */
json_t *server_tell(const struct server *, const char *verb, const json_t *args);

#endif
