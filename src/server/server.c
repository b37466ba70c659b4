/* server.c - `hyper server run`: makes the parts, wires them, runs, and takes them down again
 *
 *   jsonrpc_server --\                     /--> internal: _ping, _directory, _connections, _connectionRequest --> acceptor
 *   grpc_server ------> broker --decides--<---> channels in the order of the settings
 *   standing --------/                     \        grpc_server (standing streams), grpc_client (pool), jsonrpc_client
 *
 * Always true:
 *  1. Everything is made before `ready` is said; what cannot be made is said by
 *     name and ends the start.
 *  2. Taken down in this order: nothing new comes in, everything in flight is
 *     answered, connections end, the loop runs until their last call-backs have
 *     come, memory goes. So no call-back ever meets a freed part.
 *
 * Not here: what any of the parts does.
 */
#include "hyper/server/server.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <event2/event.h>

#include "hyper/base/clock.h"
#include "hyper/base/daemon.h"
#include "hyper/base/log.h"
#include "hyper/base/notify.h"
#include "hyper/directory/directory.h"
#include "hyper/net/activate.h"
#include "hyper/net/linger.h"
#include "server/accept.h"
#include "server/broker.h"
#include "server/ch_grpc_server.h"
#include "server/ch_jsonrpc.h"
#include "server/internal.h"
#include "server/pool.h"
#include "server/standing.h"

/* From TERM to the end: time for the answers of what was in flight to leave. */
#define STOP_MS       300
#define STOP_MAX_RUNS 50

/* room for what any of the parts says */
#define SERVER_ERR_MAX ((size_t)DIRECTORY_ERR_MAX > CH_ERR_MAX ? DIRECTORY_ERR_MAX : CH_ERR_MAX)

struct server {
	const struct conf_hyper *conf;
	struct daemon *daemon;
	struct event_base *base;
	struct directory *dir;
	struct broker *broker;
	struct internal *internal;
	struct acceptor *acceptor;
	struct ch_rpc_server *rpc_server;
	struct ch_rpc_client *rpc_client;
	struct ch_grpc_server *grpc_server;
	struct pool *pool;
	struct standing *standing;
	struct event *stop_timer;
};

static void
server_on_stop_timer(evutil_socket_t fd, short what, void *arg)
{
	struct server *s = arg;

	(void)fd;
	(void)what;
	daemon_stop(s->daemon, EXIT_OK);
}

/* Nothing new; what is in flight gets -32004 and a moment to leave. */
static void
server_drain(struct server *s)
{
	struct timeval tv = { .tv_usec = STOP_MS * 1000 };

	log_info("stopping", "in_flight=%zu", broker_in_flight(s->broker));
	standing_close(s->standing);
	ch_grpc_server_deafen(s->grpc_server);
	if (broker_in_flight(s->broker) == 0)
		tv.tv_usec = 0;
	broker_drain(s->broker);
	if (s->stop_timer && evtimer_add(s->stop_timer, &tv) == 0)
		return;
	daemon_stop(s->daemon, EXIT_OK);
}

static void
server_on_signal(enum daemon_signal sig, void *arg)
{
	struct server *s = arg;

	switch (sig) {
	case DAEMON_STOP:
		if (s->broker) {
			server_drain(s);
			break;
		}
		daemon_stop(s->daemon, EXIT_OK);
		break;
	case DAEMON_STOP_NOW: daemon_stop(s->daemon, EXIT_OK); break;
	case DAEMON_RELOAD:
		log_warn("reload_unsupported",
		    "why=\"this version does not read its settings again: restart hyper to apply them\"");
		break;
	case DAEMON_REOPEN:
	case DAEMON_UPGRADE:
	case DAEMON_CHILD: break;
	}
}

static void
server_on_directory(void *arg)
{
	struct server *s = arg;

	if (s->standing)
		standing_update(s->standing);
}

static int
server_add_grpc_server(struct server *s, const struct conf_channel *ch, char err[CH_ERR_MAX])
{
	int rc = ch_grpc_server_new(s->base, ch->grpc_server, s->conf, s->dir, s->broker, &s->grpc_server, err);

	if (rc < 0)
		return rc;
	broker_add_channel(s->broker, &ch_grpc_server_ops, s->grpc_server);
	internal_add_lister(s->internal, ch_grpc_server_list, s->grpc_server);
	s->acceptor = acceptor_new(s->base, s->conf, s->dir, s->grpc_server);
	if (!s->acceptor)
		return -ENOMEM;
	internal_set_accept(s->internal, acceptor_deliver, s->acceptor);
	return 0;
}

static int
server_add_grpc_client(struct server *s, const struct conf_channel *ch, char err[CH_ERR_MAX])
{
	int rc = pool_new(s->base, ch->grpc_client, s->conf, s->dir, s->broker, &s->pool, err);

	if (rc < 0)
		return rc;
	broker_add_channel(s->broker, &pool_ops, s->pool);
	internal_add_lister(s->internal, pool_list, s->pool);
	rc = standing_new(s->base, ch->grpc_client, s->conf, s->dir, s->broker, &s->standing, err);
	if (rc == 0)
		internal_add_lister(s->internal, standing_list, s->standing);
	return rc;
}

static int
server_add_channel(struct server *s, const struct conf_channel *ch, char err[CH_ERR_MAX])
{
	int rc = 0;

	switch (ch->type) {
	case CONF_CH_JSONRPC_SERVER:
		rc = ch_rpc_server_new(s->base, ch->rpc_server, s->conf->name, s->broker, &s->rpc_server, err);
		if (rc == 0)
			broker_add_channel(s->broker, &ch_rpc_server_ops, s->rpc_server);
		break;
	case CONF_CH_JSONRPC_CLIENT:
		rc = ch_rpc_client_new(s->base, ch->rpc_client, s->conf->name, &s->rpc_client, err);
		if (rc == 0)
			broker_add_channel(s->broker, &ch_rpc_client_ops, s->rpc_client);
		break;
	case CONF_CH_GRPC_SERVER: rc = server_add_grpc_server(s, ch, err); break;
	case CONF_CH_GRPC_CLIENT: rc = server_add_grpc_client(s, ch, err); break;
	}
	return rc;
}

/* notify_describe_cb */
static void
server_describe(char ret[NOTIFY_STATUS_MAX], void *arg)
{
	const struct server *s = arg;

	snprintf(ret, NOTIFY_STATUS_MAX, "serving: %zu calls in flight", broker_in_flight(s->broker));
}

static int
server_take_sockets(const struct server *s, char err[LISTEN_ERR_MAX])
{
	struct activate_name names[] = {
		{ "rpc", "channels.jsonrpc_server.bind_address", NULL },
		{ "grpc", "channels.grpc_server.bind_address", NULL },
	};

	for (size_t i = 0; i < s->conf->n_channels; i++) {
		const struct conf_channel *ch = &s->conf->channels[i];

		if (ch->type == CONF_CH_JSONRPC_SERVER)
			names[0].hostport = ch->rpc_server->bind_address;
		else if (ch->type == CONF_CH_GRPC_SERVER)
			names[1].hostport = ch->grpc_server->bind_address;
	}
	return activate_sockets(names, ARRAY_LEN(names), err);
}

/* 0 or -errno, which has been logged. */
static int
server_init(struct server *s)
{
	char err[SERVER_ERR_MAX] = "out of memory";
	int rc = server_take_sockets(s, err);

	if (rc == 0)
		rc = daemon_new(server_on_signal, s, &s->daemon);
	if (rc == 0) {
		s->base = daemon_base(s->daemon);
		rc = directory_new(s->base, s->conf->directory, &s->dir, err);
	}
	if (rc == 0) {
		s->broker = broker_new(s->base, s->conf, s->dir);
		s->internal = internal_new(s->base, s->conf, s->dir);
		s->stop_timer = evtimer_new(s->base, server_on_stop_timer, s);
		rc = s->broker && s->internal && s->stop_timer ? 0 : -ENOMEM;
	}
	for (size_t i = 0; rc == 0 && i < s->conf->n_channels; i++)
		rc = server_add_channel(s, &s->conf->channels[i], err);
	if (rc < 0) {
		log_error("start_failed", "operator=%s err=\"%s\" why=\"%s\"", s->conf->name, strerror(-rc), err);
		return rc;
	}
	broker_set_internal(s->broker, &internal_ops, s->internal);
	directory_on_change(s->dir, server_on_directory, s);
	return 0;
}

static void
server_fini(struct server *s)
{
	if (s->broker)
		broker_drain(s->broker);
	standing_close(s->standing);
	pool_close(s->pool);
	acceptor_free(s->acceptor);
	ch_grpc_server_close(s->grpc_server);
	ch_rpc_client_close(s->rpc_client);
	for (int i = 0; s->base && i < STOP_MAX_RUNS; i++) {
		event_base_loop(s->base, EVLOOP_NONBLOCK);
		if (i > 2 && (!s->broker || broker_in_flight(s->broker) == 0))
			break;
	}
	/* the other operators close their ends: no connection through a proxy looks broken */
	if (s->base)
		linger_wait(s->base, STOP_MS);
	ch_rpc_server_close(s->rpc_server);
	directory_free(s->dir);
	broker_free(s->broker);
	standing_free(s->standing);
	pool_free(s->pool);
	ch_grpc_server_free(s->grpc_server);
	ch_rpc_client_free(s->rpc_client);
	ch_rpc_server_free(s->rpc_server);
	internal_free(s->internal);
	if (s->stop_timer)
		event_free(s->stop_timer);
	daemon_free(s->daemon);
}

int
hyper_server_run(const struct conf_hyper *conf)
{
	struct server s = { .conf = conf };
	int code = EXIT_FAIL;

	if (server_init(&s) == 0) {
		notify_describe(server_describe, &s);
		daemon_ready("name=%s jsonrpc_port=%u grpc_port=%u", conf->name,
		    s.rpc_server ? ch_rpc_server_port(s.rpc_server) : 0,
		    s.grpc_server ? ch_grpc_server_port(s.grpc_server) : 0);
		code = daemon_run(s.daemon);
	}
	server_fini(&s);
	log_info("stopped", "name=%s code=%d", conf->name, code);
	return code;
}
