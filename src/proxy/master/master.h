/* master.h - the parts of the running master; for master.c and those that change them together (reload.c, drain.c) */
#ifndef HYPER_PROXY_MASTER_MASTER_H
#define HYPER_PROXY_MASTER_MASTER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "hyper/base/daemon.h"
#include "hyper/net/listen.h"
#include "hyper/net/rpcclient.h"
#include "hyper/net/rpcserver.h"
#include "hyper/settings/conf.h"
#include "proxy/master/brokering.h"
#include "proxy/master/limits.h"
#include "proxy/master/meet.h"
#include "proxy/master/quota.h"
#include "proxy/master/session.h"
#include "proxy/master/show.h"
#include "proxy/master/slots.h"
#include "proxy/master/view.h"

/*   STARTING --> SERVING <--> DRAINING --nothing left, deadline--> STOPPING
 *       `-----------`-------------- INT, QUIT -----------------------^      */
#define MASTER_STATES(X)                                        \
	X(STARTING, MASTER_BIT(SERVING) | MASTER_BIT(STOPPING)) \
	X(SERVING, MASTER_BIT(DRAINING) | MASTER_BIT(STOPPING)) \
	X(DRAINING, MASTER_BIT(SERVING) | MASTER_BIT(STOPPING)) \
	X(STOPPING, 0)
#define MASTER_BIT(s) (1u << MASTER_##s)

enum master_state {
#define X(n, to) MASTER_##n,
	MASTER_STATES(X)
#undef X
	    MASTER_STATE_MAX
};

struct master {
	const struct conf_proxy *conf; /* in use: the start's (borrowed) or `own` */
	struct conf_proxy *own;        /* of the last reload; NULL before the first */
	enum master_state state;
	struct daemon *daemon;
	struct listeners listeners;
	char endpoint[HOSTPORT_MAX];
	struct limits limits;
	struct toktab *table;
	struct quota *quota;
	struct sessions *sessions;
	struct meet *meet;
	struct slots *slots;
	struct brokering *broker;
	struct rpc_client *client;
	struct rpc_server *server;
	struct upgrade *upgrade;
	struct admin_call *upgrade_call; /* who waits for its outcome; may be NULL */
	struct view view;
	struct status *show; /* NULL: no metrics.bind_address */
	struct admin *admin; /* NULL: no admin_socket */
	struct drain *drain; /* NULL but in DRAINING */
	bool owes_reload;    /* HUP came before all workers served */
};

/* The only place that writes m->state. */
void master_enter(struct master *, enum master_state to, const char *why);

/* From the end of the drain to that of the process, at most. */
#define MASTER_END_MS (POOL_STOP_MS + 8000)

/* Workers are told to stop, or killed with `now`; the loop ends when they are gone. May come again. */
void master_stop(struct master *, bool now);

/* What operators are told to dial, by `conf`. */
void master_set_endpoint(struct master *, const struct conf_proxy_public *conf);

#endif
