/* reload.c - new settings into a running message server: all of them, or nothing
 *
 *   read --> compared --> prepared (directory, certificates and keys) --> applied
 *     `---------`----------`--> faults, nothing changed
 *
 * Always true:
 *  1. Everything that can fail is done before the first part is changed; the changes themselves cannot fail.
 *  2. No connection is closed and no call is touched: connections live on with the TLS that they have, new ones get the
 *     new certificate. What the new settings permit less of is kept, and nothing is added.
 *  3. The channels are those of the start: settings_carry_hyper() keeps their number and types, so both lists run
 *     in step here.
 *  4. Whoever borrows the settings in use is given the new ones in one go; then the ones before are freed.
 *
 * Not here: who asks for it (signal, admin socket), the report (net/reload.c).
 */
#include <errno.h>
#include <stdlib.h>

#include <openssl/ssl.h>

#include "hyper/base/bug.h"
#include "hyper/base/notify.h"
#include "hyper/directory/directory.h"
#include "hyper/net/grpc.h"
#include "hyper/net/reload.h"
#include "hyper/net/rpcclient.h"
#include "hyper/net/rpcserver.h"
#include "hyper/net/tls.h"
#include "hyper/settings/settings.h"
#include "server/parts.h"

#define ERR_MAX ((size_t)DIRECTORY_ERR_MAX)
_Static_assert(DIRECTORY_ERR_MAX >= RPC_SERVER_ERR_MAX && DIRECTORY_ERR_MAX >= RPC_CLIENT_ERR_MAX &&
		   DIRECTORY_ERR_MAX >= GRPC_ERR_MAX && DIRECTORY_ERR_MAX >= TLS_ERR_MAX,
    "one buffer for all");

/* Made by a reload, applied or thrown away as a whole. */
struct next {
	struct conf_hyper *conf;
	struct directory_next *dir;
	struct rpc_server_next *rpc_server;
	struct rpc_client *rpc_client;
	struct grpc_listener_next *grpc_server;
	SSL_CTX *grpc_client;
	struct reload report;
};

static void
next_fini(struct next *n)
{
	directory_next_free(n->dir);
	rpc_server_next_free(n->rpc_server);
	rpc_client_free(n->rpc_client);
	grpc_listener_next_free(n->grpc_server);
	SSL_CTX_free(n->grpc_client);
	conf_hyper_free(n->conf);
	reload_end(&n->report);
}

/* --- what can fail --- */

static int
read_settings(struct next *n)
{
	struct settings_errors errors = { 0 };
	int rc = settings_load_hyper(getenv("HYPER_SETTINGS"), &n->conf, &errors);

	return reload_loaded(&n->report, rc, &errors);
}

static int
prepare_channel(const struct server *s, struct next *n, const struct conf_channel *ch)
{
	char err[ERR_MAX] = "out of memory";
	int rc = 0;

	switch (ch->type) {
	case CONF_CH_JSONRPC_SERVER: rc = rpc_server_prepare(ch->rpc_server, &n->rpc_server, err); break;
	case CONF_CH_JSONRPC_CLIENT: rc = rpc_client_new(s->base, ch->rpc_client, &n->rpc_client, err); break;
	case CONF_CH_GRPC_SERVER: rc = grpc_listener_prepare(ch->grpc_server, &n->grpc_server, err); break;
	case CONF_CH_GRPC_CLIENT:
		rc = tls_ctx_new(ch->grpc_client->tls, TLS_CLIENT, TLS_ALPN_H2, &n->grpc_client, err);
		break;
	}
	return rc < 0 ? reload_fault(&n->report, ch->name, err) : 0;
}

/* All parts are tried, so that all that is wrong is said. */
static int
prepare(const struct server *s, struct next *n)
{
	char err[ERR_MAX];
	int rc = 0;

	if (directory_prepare(s->dir, n->conf->directory, &n->dir, err) < 0)
		rc = reload_fault(&n->report, "directory", err);
	for (size_t i = 0; i < n->conf->n_channels; i++)
		if (prepare_channel(s, n, &n->conf->channels[i]) < 0)
			rc = -EINVAL;
	return rc;
}

/* --- what cannot --- */

static void
apply_channel(struct server *s, struct next *n, const struct conf_channel *ch)
{
	const struct conf_hyper *conf = n->conf;

	switch (ch->type) {
	case CONF_CH_JSONRPC_SERVER:
		ch_rpc_server_apply(s->rpc_server, conf->name, n->rpc_server);
		n->rpc_server = NULL;
		break;
	case CONF_CH_JSONRPC_CLIENT:
		ch_rpc_client_apply(s->rpc_client, conf->name, n->rpc_client);
		n->rpc_client = NULL;
		break;
	case CONF_CH_GRPC_SERVER:
		ch_grpc_server_apply(s->grpc_server, conf, n->grpc_server);
		acceptor_apply(s->acceptor, conf);
		n->grpc_server = NULL;
		break;
	case CONF_CH_GRPC_CLIENT:
		SSL_CTX_up_ref(n->grpc_client);
		pool_apply(s->pool, ch->grpc_client, conf, n->grpc_client);
		standing_apply(s->standing, conf, n->grpc_client);
		n->grpc_client = NULL;
		break;
	}
}

static void
apply(struct server *s, struct next *n)
{
	BUG_ON(n->conf->n_channels != s->conf->n_channels);
	reload_apply_log("hyper", CONF_LOG(n->conf));
	directory_apply(s->dir, n->dir);
	broker_apply(s->broker, n->conf);
	internal_apply(s->internal, n->conf);
	for (size_t i = 0; i < n->conf->n_channels; i++)
		apply_channel(s, n, &n->conf->channels[i]);
	s->conf = n->conf;
	conf_hyper_free(s->own);
	s->own = n->conf;
	n->dir = NULL;
	n->conf = NULL;
}

/* What is in flight beyond the new limit: it stays, and nothing is added. */
static json_t *
over(const struct server *s, const struct next *n)
{
	size_t now = broker_in_flight(s->broker);
	json_t *o = json_object();

	if (now > n->conf->max_in_flight)
		json_object_set_new(o, "max_in_flight", json_integer((json_int_t)(now - n->conf->max_in_flight)));
	return o;
}

json_t *
server_reload(struct server *s, bool dry)
{
	struct next n = { 0 };
	json_t *ret, *held_over = NULL;
	int rc;

	if (!dry)
		notify_reloading();
	reload_begin(&n.report);
	rc = read_settings(&n);
	if (rc == 0)
		rc = reload_step(&n.report, settings_carry_hyper(n.conf, s->conf, reload_note_change, &n.report));
	if (rc == 0)
		rc = prepare(s, &n);
	if (rc == 0 && !dry) /* the last that can fail: it changes something */
		rc = reload_open_log(&n.report, "hyper", s->conf->log, CONF_LOG(n.conf));
	if (rc == 0)
		held_over = over(s, &n);
	if (rc == 0 && !dry)
		apply(s, &n);
	if (!dry)
		reload_log(&n.report, rc == 0);
	ret = reload_answer(&n.report, rc == 0, held_over);
	next_fini(&n);
	return ret;
}
