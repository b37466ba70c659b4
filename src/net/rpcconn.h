/* rpcconn.h - inside of the JSON-RPC server: what rpcserver.c and rpcconn.c share */
#ifndef NET_RPCCONN_H
#define NET_RPCCONN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include <event2/event.h>

#include "hyper/net/listen.h"
#include "hyper/net/rpcserver.h"
#include "net/cors.h"

/* What all bodies that are being read may hold together, per server. */
#define RPC_BODIES_MAX ((size_t)128 * 1024 * 1024)

struct rpc_conn;
TAILQ_HEAD(rpc_conn_list, rpc_conn);

struct rpc_server {
	struct event_base *base;            /* borrowed */
	const struct conf_rpc_server *conf; /* borrowed */
	char *own_name;                     /* NULL: any certificate of the CA */
	SSL_CTX *tls;                       /* NULL: plain HTTP */
	struct cors *cors;                  /* may be NULL */
	struct ratelimit *rates;
	rpc_serve_cb serve;
	void *serve_arg;
	struct listeners listeners;
	struct event *accept_ev[LISTEN_MAX];
	struct event *resume_ev; /* pending while accepting is paused for want of descriptors */
	bool accepting;
	uint64_t last_id;
	size_t n_conns;
	size_t bodies;             /* bytes reserved by bodies that are being read */
	struct rpc_conn_list idle; /* between requests, longest silent first */
	struct rpc_conn_list busy;
};

/* Takes an accepted descriptor (given, also on failure). The connection frees itself. 0 or -ENOMEM. */
int rpc_conn_new(struct rpc_server *, int fd, const struct sockaddr *peer, socklen_t peer_len) ATTR_MUST_USE;

/* Ends it now; a call that waits for its answer is detached. */
void rpc_conn_free(struct rpc_conn *, const char *why);

/* rpcserver.c: a connection has gone or waits between requests, so one more may be accepted. */
void rpc_server_on_room(struct rpc_server *);

#endif
