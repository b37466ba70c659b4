/* reload.c - see the header
 *
 * Always true:
 *  1. Everything that can fail is done before the first part is changed; the
 *     changes themselves cannot fail.
 *  2. No worker is replaced and no pair is touched: workers get a SETTINGS
 *     message; those beyond a smaller `workers` drain (slots.c, hand.c).
 *  3. What only a restart applies is copied from the settings in use, so that
 *     m->conf says what is in force.
 *  4. The settings of before are freed when nobody borrows them any more: those who
 *     do, m->conf and the JSON-RPC server, are given the new ones in one go.
 *
 * Not here: who asks for it (signal, admin socket), certificates (tls.c).
 */
#include "proxy/master/reload.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "hyper/base/notify.h"
#include "hyper/net/admin.h"
#include "hyper/net/reload.h"
#include "hyper/settings/settings.h"
#include "proxy/master/derive.h"
#include "proxy/master/master.h"
#include "proxy/master/tally.h"
#include "proxy/master/touched.h"

/* Made by a reload, applied or thrown away as a whole. */
struct next {
	struct conf_proxy *conf;
	struct limits limits;
	struct rpc_client *client;
	struct rpc_server_next *server;
	struct reload report;
};

static void
next_fini(struct next *n)
{
	rpc_client_free(n->client);
	rpc_server_next_free(n->server);
	conf_proxy_free(n->conf);
	reload_end(&n->report);
}

/* --- what can fail --- */

static int
read_settings(struct next *n)
{
	struct settings_errors errors = { 0 };
	int rc = settings_load_proxy(getenv("PROXY_SETTINGS"), &n->conf, &errors);

	rc = reload_loaded(&n->report, rc, &errors);
	if (rc == 0 && !n->conf->public)
		return reload_fault(&n->report, "public", "the settings have no such group any more");
	return rc;
}

/* Lists what differs from the settings in use, then keeps of those what only a restart applies. */
static int
compare(const struct master *m, struct next *n)
{
	return reload_step(&n->report, settings_carry_proxy(n->conf, m->conf, reload_note_change, &n->report));
}

static int
find_limits(struct next *n)
{
	char err[LIMITS_ERR_MAX];
	struct rlimit rl = { 0 };
	int rc = getrlimit(RLIMIT_NOFILE, &rl);

	if (rc == 0)
		rc = limits_of(
		    n->conf->public, rl.rlim_cur > SIZE_MAX ? SIZE_MAX : (size_t)rl.rlim_cur, &n->limits, err);
	if (rc < 0)
		return reload_fault(&n->report, "too few descriptors", err);
	return 0;
}

/* Certificates and keys are read here; both sides are tried, so that all that is wrong is said. */
static int
prepare(const struct master *m, struct next *n)
{
	char err[RPC_CLIENT_ERR_MAX > RPC_SERVER_ERR_MAX ? RPC_CLIENT_ERR_MAX : RPC_SERVER_ERR_MAX];
	const struct conf_proxy_public *c = n->conf->public;
	int rc = 0;

	if (rpc_client_new(daemon_base(m->daemon), c->rpc_client, &n->client, err) < 0)
		rc = reload_fault(&n->report, "public.jsonrpc_client", err);
	else
		rpc_client_use_lanes(n->client, RPC_CLIENT_LOAD);
	if (rpc_server_prepare(c->rpc_server, &n->server, err) < 0)
		rc = reload_fault(&n->report, "public.jsonrpc_server", err);
	return rc;
}

/* --- what cannot --- */

static void
apply(struct master *m, struct next *n)
{
	const struct conf_proxy_public *c = n->conf->public;
	const struct quota_conf qc = derive_quota(c, &n->limits);
	const struct meet_conf mc = derive_meet(c, &n->limits);
	struct chan_settings settings;

	reload_apply_log("proxy", CONF_LOG(n->conf));
	master_set_endpoint(m, c);
	quota_apply(m->quota, &qc);
	brokering_apply(m->broker, c->token_timeout_ms, c->call_timeout_ms, n->client);
	rpc_client_replace(n->client, m->client);
	rpc_server_apply(m->server, n->server);
	settings = derive_worker(n->conf, &n->limits); /* with where the log goes now */
	if (strcmp(n->conf->log, m->conf->log) != 0)
		slots_log(m->slots);
	slots_apply(m->slots, &settings, c->workers);
	meet_apply(m->meet, &mc);
	m->client = n->client;
	m->limits = n->limits;
	m->conf = n->conf;
	m->view.conf = c;
	m->view.max_pairs = n->limits.max_pairs_total;
	conf_proxy_free(m->own);
	m->own = n->conf;
	n->client = NULL;
	n->server = NULL;
	n->conf = NULL;
}

/* --- what is said of it --- */

/* What is held beyond the new limits: it stays, and nothing is added. */
static json_t *
over(const struct master *m, const struct next *n)
{
	const struct quota_conf qc = derive_quota(n->conf->public, &n->limits);
	const struct quota_conf was = derive_quota(m->conf->public, &m->limits);
	json_t *o = json_object();
	char key[64];

	for (int i = 0; i < QUOTA_LIMIT_MAX; i++) {
		size_t by = qc.max[i] != was.max[i] ? quota_over(m->quota, (enum quota_limit)i, qc.max[i]) : 0;

		snprintf(key, sizeof(key), "public.%s", quota_setting((enum quota_limit)i));
		if (by > 0)
			json_object_set_new(o, key, json_integer((json_int_t)by));
	}
	return o;
}

json_t *
reload_settings(struct master *m, bool dry)
{
	struct next n = { 0 };
	json_t *ret, *held_over = NULL, *touched = NULL;
	int rc;

	if (!dry)
		notify_reloading();
	reload_begin(&n.report);
	rc = read_settings(&n);
	if (rc == 0)
		rc = compare(m, &n);
	if (rc == 0)
		rc = find_limits(&n);
	if (rc == 0)
		rc = prepare(m, &n);
	if (rc == 0 && !dry) /* the last that can fail: it changes something */
		rc = reload_open_log(&n.report, "proxy", m->conf->log, CONF_LOG(n.conf));
	if (rc == 0)
		held_over = over(m, &n);
	if (rc == 0) /* of before: the next ones are about to be applied */
		touched = touched_by(&m->view, &m->limits, n.conf->public, &n.limits);
	if (rc == 0 && !dry)
		apply(m, &n);
	if (!dry) {
		tally_reload(rc == 0);
		reload_log(&n.report, rc == 0);
	}
	ret = reload_answer(&n.report, rc == 0, held_over);
	if (ret && touched)
		(void)json_object_set(ret, "touched", touched);
	json_decref(touched);
	next_fini(&n);
	return ret;
}

json_t *
reload_on_admin(struct master *m, const json_t *args)
{
	if (m->state == MASTER_STARTING || m->state == MASTER_STOPPING)
		return admin_error("%s: ask again when it serves", m->view.state);
	return reload_settings(m, json_is_true(json_object_get(args, "dry")));
}
