/* reload.c - see the header
 *
 * Always true: everything that can fail comes before the first change.
 *
 * Not here: the store and the authorities that records are verified against: a restart verifies the whole chain anew.
 */
#include "sd/reload.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "hyper/base/log.h"
#include "hyper/settings/settings.h"

struct next {
	struct conf_sd *conf;
	struct rpc_server_next *server;
	json_t *faults, *changed, *restart;
};

static int
read_settings(struct next *n)
{
	struct settings_errors errors = { 0 };
	int rc = settings_load_sd(getenv("SD_SETTINGS"), &n->conf, &errors);

	for (size_t i = 0; i < errors.n; i++)
		json_array_append_new(n->faults, json_string(errors.v[i]));
	settings_errors_free(&errors);
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

static int
compare(const struct conf_sd *conf, struct next *n)
{
	struct settings_values before = { 0 }, after = { 0 };
	int rc = settings_values_sd(conf, &before);

	if (rc == 0)
		rc = settings_values_sd(n->conf, &after);
	if (rc == 0) {
		settings_diff(&before, &after, note_change, n);
		rc = settings_keep_sd(n->conf, conf);
	}
	settings_values_free(&before);
	settings_values_free(&after);
	return rc;
}

static int
prepare(struct next *n)
{
	char err[RPC_SERVER_ERR_MAX];
	int rc = rpc_server_prepare(n->conf->rpc_server, &n->server, err);

	if (rc < 0)
		json_array_append_new(n->faults, json_sprintf("jsonrpc_server: %s", err));
	return rc;
}

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
log_outcome(const struct next *n, int rc)
{
	const json_t *e;
	size_t i;

	log_list(LOG_LVL_INFO, "reload_change", n->changed);
	log_list(LOG_LVL_WARN, "reload_needs_restart", n->restart);
	json_array_foreach (n->faults, i, e)
		log_error("reload_fault", "why=\"%s\"", json_string_value(e));
	if (rc == 0)
		log_info("reloaded", "changed=%zu needs_restart=%zu", json_array_size(n->changed),
		    json_array_size(n->restart));
	else
		log_error("reload_failed", "faults=%zu why=\"nothing was changed, the settings of before hold\"",
		    json_array_size(n->faults));
}

json_t *
sd_reload(const struct conf_sd *conf, struct rpc_server *server, bool dry, struct conf_sd **ret_conf)
{
	struct next n = { .faults = json_array(), .changed = json_array(), .restart = json_array() };
	int rc = read_settings(&n);
	json_t *ret;

	if (rc == 0)
		rc = compare(conf, &n);
	if (rc == 0)
		rc = prepare(&n);
	if (rc == 0 && !dry) {
		log_inherit("sd", &(struct log_shared){ .level = n.conf->log_level,
				      .format = n.conf->log_format,
				      .ip = n.conf->log_ip,
				      .to = log_share().to });
		rpc_server_apply(server, n.server);
		*ret_conf = n.conf;
		n.server = NULL;
		n.conf = NULL;
	}
	if (!dry)
		log_outcome(&n, rc);
	ret = rc == 0 ? json_pack("{s:b, s:O, s:O}", "ok", 1, "changed", n.changed, "restart", n.restart)
		      : json_pack("{s:b, s:O}", "ok", 0, "faults", n.faults);
	rpc_server_next_free(n.server);
	conf_sd_free(n.conf);
	json_decref(n.faults);
	json_decref(n.changed);
	json_decref(n.restart);
	return ret;
}
