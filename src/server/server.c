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
 * Not here: what any of the parts does; reload.c and drain.c change them together.
 */
#include "hyper/server/server.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <event2/event.h>

#include "hyper/base/bug.h"
#include "hyper/base/clock.h"
#include "hyper/base/log.h"
#include "hyper/base/notify.h"
#include "hyper/directory/directory.h"
#include "hyper/net/activate.h"
#include "hyper/net/admin.h"
#include "hyper/net/linger.h"
#include "server/parts.h"
#include "server/show.h"

#define STOP_MS       300 /* for the other operators to close their ends */
#define STOP_MAX_RUNS 50

/* room for what any of the parts says */
#define SERVER_ERR_MAX ((size_t)DIRECTORY_ERR_MAX > CH_ERR_MAX ? DIRECTORY_ERR_MAX : CH_ERR_MAX)

static const struct {
	const char *word;
	unsigned to;
} state_tab[] = {
#define X(n, word, to) { word, to },
	SERVER_STATES(X)
#undef X
};

const char *
server_state_word(const struct server *s)
{
	return state_tab[s->state].word;
}

void
server_enter(struct server *s, enum server_state to, const char *why)
{
	BUG_ON(!(state_tab[s->state].to & (1u << to)));
	log_info("state", "from=%s to=%s why=\"%s\"", state_tab[s->state].word, state_tab[to].word, why);
	s->state = to;
}

static bool
server_is_reloadable(const struct server *s)
{
	return s->state == SERVER_SERVING || (s->state == SERVER_DRAINING && !s->then_stop);
}

static void
server_on_signal(enum daemon_signal sig, void *arg)
{
	struct server *s = arg;

	switch (sig) {
	case DAEMON_STOP: server_drain(s, s->conf->drain_timeout_ms); break;
	case DAEMON_STOP_NOW: server_stop_now(s); break;
	case DAEMON_RELOAD:
		if (server_is_reloadable(s))
			json_decref(server_reload(s, false));
		else
			log_warn("reload_refused", "why=\"it is %s\"", server_state_word(s));
		break;
	case DAEMON_REOPEN:
	case DAEMON_UPGRADE:
	case DAEMON_CHILD: break;
	}
}

static void
server_on_admin(struct admin_call *call, const char *verb, const json_t *args, void *arg)
{
	struct server *s = arg;

	if (server_drain_on_admin(s, call, verb, args))
		return;
	if (strcmp(verb, "reload") != 0)
		admin_answer(call, server_tell(s, verb, args));
	else if (!server_is_reloadable(s))
		admin_answer(call, admin_error("%s: ask again when it serves", server_state_word(s)));
	else
		admin_answer(call, server_reload(s, json_is_true(json_object_get(args, "dry"))));
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

	snprintf(ret, NOTIFY_STATUS_MAX, "%s: %zu calls in flight", server_state_word(s), broker_in_flight(s->broker));
}

static int
server_take_sockets(const struct server *s, char err[LISTEN_ERR_MAX])
{
	struct activate_name names[] = {
		{ "rpc", "channels.jsonrpc_server.bind_address", NULL },
		{ "grpc", "channels.grpc_server.bind_address", NULL },
		{ "status", "metrics.bind_address", s->conf->metrics ? s->conf->metrics->bind_address : NULL },
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
		rc = s->broker && s->internal ? 0 : -ENOMEM;
	}
	for (size_t i = 0; rc == 0 && i < s->conf->n_channels; i++)
		rc = server_add_channel(s, &s->conf->channels[i], err);
	if (rc == 0 && s->conf->metrics && s->conf->metrics->bind_address)
		rc = server_show_new(s, &s->show, err);
	if (rc == 0 && s->conf->admin_socket)
		rc = admin_new(s->base, s->conf->admin_socket, server_on_admin, s, &s->admin, err);
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
	server_drain_fini(s);
	if (s->broker)
		broker_drain_now(s->broker);
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
	status_free(s->show);
	directory_free(s->dir);
	broker_free(s->broker);
	standing_free(s->standing);
	pool_free(s->pool);
	ch_grpc_server_free(s->grpc_server);
	ch_rpc_client_free(s->rpc_client);
	ch_rpc_server_free(s->rpc_server);
	internal_free(s->internal);
	admin_free(s->admin);
	daemon_free(s->daemon);
	conf_hyper_free(s->own);
}

int
hyper_server_run(const struct conf_hyper *conf)
{
	struct server s = { .conf = conf, .start_ms = clock_now_ms() };
	int code = EXIT_FAIL;

	if (server_init(&s) == 0) {
		notify_describe(server_describe, &s);
		server_enter(&s, SERVER_SERVING, "all parts are made");
		daemon_ready("name=%s jsonrpc_port=%u grpc_port=%u metrics_port=%u", conf->name,
		    s.rpc_server ? ch_rpc_server_port(s.rpc_server) : 0,
		    s.grpc_server ? ch_grpc_server_port(s.grpc_server) : 0, (unsigned)status_port(s.show));
		code = daemon_run(s.daemon);
	}
	server_fini(&s);
	log_info("stopped", "code=%d", code);
	return code;
}
