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

#include "hyper/base/clock.h"
#include "hyper/base/log.h"
#include "hyper/net/admin.h"
#include "hyper/settings/settings.h"
#include "proxy/master/derive.h"
#include "proxy/master/master.h"
#include "proxy/master/tally.h"

/* Made by a reload, applied or thrown away as a whole. */
struct next {
	struct conf_proxy *conf;
	struct limits limits;
	struct rpc_client *client;
	struct rpc_server_next *server;
	json_t *faults, *changed, *restart;
};

static void
next_fini(struct next *n)
{
	rpc_client_free(n->client);
	rpc_server_next_free(n->server);
	conf_proxy_free(n->conf);
	json_decref(n->faults);
	json_decref(n->changed);
	json_decref(n->restart);
}

/* --- what can fail --- */

static int
fault(struct next *n, const char *what, const char *why)
{
	json_array_append_new(n->faults, json_sprintf("%s%s%s", what, *what ? ": " : "", why));
	return -EINVAL;
}

static int
read_settings(struct next *n)
{
	struct settings_errors errors = { 0 };
	int rc = settings_load_proxy(getenv("PROXY_SETTINGS"), &n->conf, &errors);

	for (size_t i = 0; i < errors.n; i++)
		fault(n, "", errors.v[i]);
	settings_errors_free(&errors);
	if (rc == -ENOMEM)
		return fault(n, "", "out of memory");
	if (rc == 0 && !n->conf->public)
		return fault(n, "public", "the settings have no such group any more");
	return rc;
}

static void
note_change(const char *key, const char *before, const char *after, int reload, void *arg)
{
	struct next *n = arg;

	json_array_append_new(
	    reload ? n->changed : n->restart, json_pack("{s:s, s:s, s:s}", "key", key, "before",
						  before ? before : "unset", "after", after ? after : "unset"));
}

/* Lists what differs from the settings in use, then keeps of those what only a restart applies. */
static int
compare(const struct master *m, struct next *n)
{
	struct settings_values before = { 0 }, after = { 0 };
	int rc = settings_values_proxy(m->conf, &before);

	if (rc == 0)
		rc = settings_values_proxy(n->conf, &after);
	if (rc == 0) {
		settings_diff(&before, &after, note_change, n);
		rc = settings_keep_proxy(n->conf, m->conf);
	}
	settings_values_free(&before);
	settings_values_free(&after);
	return rc < 0 ? fault(n, "", strerror(-rc)) : 0;
}

/* The ledgers of the workers were made for so many: more needs a restart, and is said. */
static void
cap(struct next *n, const char *key, size_t most, size_t *written, size_t *limit)
{
	if (*limit <= most)
		return;
	if (*written > most) {
		json_array_append_new(
		    n->restart, json_pack("{s:s, s:o, s:o}", "key", key, "before", json_sprintf("%zu", most), "after",
				    json_sprintf("%zu", *written)));
		*written = most;
	}
	*limit = most;
}

static int
find_limits(const struct master *m, struct next *n)
{
	char err[LIMITS_ERR_MAX];
	struct rlimit rl = { 0 };
	int rc = getrlimit(RLIMIT_NOFILE, &rl);

	if (rc == 0)
		rc = limits_of(
		    n->conf->public, rl.rlim_cur > SIZE_MAX ? SIZE_MAX : (size_t)rl.rlim_cur, &n->limits, err);
	if (rc < 0)
		return fault(n, "too few descriptors", err);
	cap(n, "public.max_pairs", m->most.max_pairs, &n->conf->public->max_pairs, &n->limits.max_pairs);
	cap(n, "public.max_pipes", m->most.max_pipes, &n->conf->public->max_pipes, &n->limits.max_pipes);
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
		rc = fault(n, "public.jsonrpc_client", err);
	if (rpc_server_prepare(c->rpc_server, &n->server, err) < 0)
		rc = fault(n, "public.jsonrpc_server", err);
	return rc;
}

/* --- what cannot --- */

static void
apply(struct master *m, struct next *n)
{
	const struct conf_proxy_public *c = n->conf->public;
	const struct quota_conf qc = derive_quota(c, &n->limits);
	const struct meet_conf mc = derive_meet(c, &n->limits);
	const struct chan_settings settings = derive_worker(n->conf, &n->limits);
	const struct log_shared log = {
		.level = n->conf->log_level, .format = n->conf->log_format, .ip = n->conf->log_ip, .to = log_share().to
	};

	log_inherit("proxy", &log);
	master_set_endpoint(m, c);
	quota_apply(m->quota, &qc);
	brokering_apply(m->broker, c->token_timeout_ms, c->call_timeout_ms, n->client);
	rpc_client_replace(n->client, m->client);
	rpc_server_apply(m->server, n->server);
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

static void
log_list(enum log_level level, const char *event, const json_t *list)
{
	const json_t *e;
	size_t i;

	json_array_foreach (list, i, e)
		log_line(level, event, "key=%s before=%s after=%s", json_string_value(json_object_get(e, "key")),
		    json_string_value(json_object_get(e, "before")), json_string_value(json_object_get(e, "after")));
}

static void
log_outcome(const struct next *n, bool ok, int64_t began_ms)
{
	const json_t *e;
	size_t i;

	log_list(LOG_LVL_INFO, "reload_change", n->changed);
	log_list(LOG_LVL_WARN, "reload_needs_restart", n->restart);
	json_array_foreach (n->faults, i, e)
		log_error("reload_fault", "why=\"%s\"", json_string_value(e));
	if (ok)
		log_info("reloaded", "changed=%zu needs_restart=%zu ms=%lld", json_array_size(n->changed),
		    json_array_size(n->restart), (long long)(clock_now_ms() - began_ms));
	else
		log_error("reload_failed", "faults=%zu why=\"nothing was changed, the settings of before hold\"",
		    json_array_size(n->faults));
}

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

static json_t *
report(const struct next *n, bool ok, json_t *held_over)
{
	if (!ok)
		return json_pack("{s:b, s:O}", "ok", 0, "faults", n->faults);
	return json_pack(
	    "{s:b, s:O, s:O, s:o}", "ok", 1, "changed", n->changed, "restart", n->restart, "over", held_over);
}

json_t *
reload_settings(struct master *m, bool dry)
{
	struct next n = { .faults = json_array(), .changed = json_array(), .restart = json_array() };
	int64_t began_ms = clock_now_ms();
	json_t *ret, *held_over = NULL;
	int rc = read_settings(&n);

	if (rc == 0)
		rc = compare(m, &n);
	if (rc == 0)
		rc = find_limits(m, &n);
	if (rc == 0)
		rc = prepare(m, &n);
	if (rc == 0)
		held_over = over(m, &n);
	if (rc == 0 && !dry)
		apply(m, &n);
	if (!dry) {
		tally_reload(rc == 0);
		log_outcome(&n, rc == 0, began_ms);
	}
	ret = report(&n, rc == 0, held_over);
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
