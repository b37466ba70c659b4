/* rpcconn.h - inside of the JSON-RPC server: what rpcserver.c, rpcjudge.c and the files of a connection share */
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
#include "net/http.h"
#include "net/rpcread.h"

/* What all bodies that are being read may hold together, per server. */
#define RPC_BODIES_MAX ((size_t)128 * 1024 * 1024)

struct rpc_conn;
TAILQ_HEAD(rpc_conn_list, rpc_conn);

struct rpc_server {
	struct event_base *base;            /* borrowed */
	const struct conf_rpc_server *conf; /* borrowed until rpc_server_apply() */
	char *own_name;                     /* NULL: any certificate of the CA */
	SSL_CTX *tls;                       /* NULL: plain HTTP */
	struct cors *cors;                  /* may be NULL */
	struct ratelimit *rates;
	struct json_memo *clients; /* may be NULL */
	rpc_serve_cb serve;
	void *serve_arg;
	struct listeners listeners;
	struct event *accept_ev[LISTEN_MAX];
	struct event *resume_ev; /* pending while accepting is paused for a time */
	bool accepting;
	bool is_held; /* rpc_server_hold() */
	uint64_t last_id;
	size_t n_conns;
	struct evbuffer *response; /* empty but inside of one call: where a response is put together */
	size_t bodies;             /* bytes reserved by bodies that are being read */
	struct rpc_conn_list idle; /* between requests, longest silent first */
	struct rpc_conn_list busy;
};

/* Takes an accepted descriptor (given, also on failure). The connection frees itself. 0 or -ENOMEM. */
int rpc_conn_new(struct rpc_server *, int fd, const struct sockaddr *peer) ATTR_MUST_USE;

/* Ends it now; a call that waits for its answer is detached. */
void rpc_conn_free(struct rpc_conn *, const char *why);

/* How long a connection of srv->idle has been silent; one in its handshake: how old it is. */
int64_t rpc_conn_idle_ms(const struct rpc_conn *);

/* One that has not gone on with its TLS handshake for a while, or stays after a failed one; NULL when none is found. */
struct rpc_conn *rpc_conn_stalled(const struct rpc_server *);

/* Has one of srv->idle said nothing yet, and is younger than this? */
bool rpc_conn_is_any_fresh(const struct rpc_server *, int64_t ms);

/* rpcserver.c: a connection has gone or waits between requests, so one more may be accepted. */
void rpc_server_on_room(struct rpc_server *);

/* rpcjudge.c: what the head of a request decides. */
enum rpc_judge_result {
	RPC_JUDGE_SERVE,     /* read the body */
	RPC_JUDGE_REFUSE,    /* all of *ret is filled */
	RPC_JUDGE_NOT_FOUND, /* no such path; ret->status only */
	RPC_JUDGE_PREFLIGHT  /* CORS: an empty 200; ret->status only */
};
enum rpc_judge_result
rpc_judge(const struct rpc_server *, const struct http_head *, const struct tls_peer *, struct rpc_verdict *ret);

/* Status line and header lines of an answer, the empty line included. `request` may be all zero. */
void rpc_response_head(const struct rpc_server *, const struct http_head *request, int status, size_t body_len,
    bool keep, struct evbuffer *out);

#endif
