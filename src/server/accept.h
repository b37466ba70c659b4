/* accept.h - B's side of a brokering: _connectionRequest (protocol.md 7.1) */
#ifndef SERVER_ACCEPT_H
#define SERVER_ACCEPT_H

#include "hyper/base/attr.h"
#include "hyper/settings/conf.h"
#include "server/channel.h"

struct acceptor;
struct ch_grpc_server;
struct directory;
struct event_base;

/* Sockets that are being dialled at a time; one more is answered busy. */
#define ACCEPTOR_MAX 512

/* All borrowed until acceptor_free(). NULL when out of memory; taken. */
struct acceptor *
acceptor_new(struct event_base *, const struct conf_hyper *, struct directory *, struct ch_grpc_server *);

/* A reload: the settings of before are borrowed no more. */
void acceptor_apply(struct acceptor *, const struct conf_hyper *);

/* Gives up all dials; their requests are answered. NULL is fine. */
void acceptor_free(struct acceptor *);

/* Dials the endpoint, sends the token, answers `{}` and hands the socket to
 * the grpc_server. For internal_set_accept(). */
int acceptor_deliver(void *acceptor, const struct request *, deliver_cb cb, void *arg) ATTR_MUST_USE;

#endif
