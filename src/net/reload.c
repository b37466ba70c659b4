/* reload.c - see the header
 *
 * Always true: it reports and changes nothing but the log's own settings.
 *
 * Not here: what a program reads, prepares and applies (proxy/master/reload.c, server/reload.c, sd/reload.c).
 */
#include "hyper/net/reload.h"

#include <errno.h>
#include <string.h>

#include "hyper/base/clock.h"
#include "hyper/base/notify.h"
#include "hyper/net/metrics.h"
#include "hyper/wire/json.h"

static uint64_t n_reloads;
static bool has_failed; /* the last one */

void
reload_begin(struct reload *r)
{
	*r = (struct reload){
		.faults = json_array(), .changed = json_array(), .restart = json_array(), .began_ms = clock_now_ms()
	};
}

void
reload_end(struct reload *r)
{
	json_decref(r->faults);
	json_decref(r->changed);
	json_decref(r->restart);
	*r = (struct reload){ 0 };
}

int
reload_fault(struct reload *r, const char *what, const char *why)
{
	json_array_append_new(r->faults, json_sprintf("%s%s%s", what, *what ? ": " : "", why));
	return -EINVAL;
}

int
reload_loaded(struct reload *r, int rc, struct settings_errors *errors)
{
	for (size_t i = 0; i < errors->n; i++)
		reload_fault(r, "", errors->v[i]);
	settings_errors_free(errors);
	return rc == -ENOMEM ? reload_fault(r, "", "out of memory") : rc;
}

void
reload_note_change(const char *key, const char *before, const char *after, int reload, void *report)
{
	struct reload *r = report;

	json_array_append_new(
	    reload ? r->changed : r->restart, json_pack("{s:s, s:s, s:s}", "key", key, "before",
						  before ? before : "unset", "after", after ? after : "unset"));
}

int
reload_step(struct reload *r, int rc)
{
	return rc < 0 ? reload_fault(r, "", strerror(-rc)) : 0;
}

int
reload_open_log(struct reload *r, const char *program, const char *now, const struct log_conf *c)
{
	char err[LOG_ERR_MAX];

	if (strcmp(now, c->to) == 0 || log_setup(program, c, err) == 0)
		return 0;
	return reload_fault(r, "log", err);
}

void
reload_apply_log(const char *program, const struct log_conf *c)
{
	log_inherit(
	    program, &(struct log_shared){ .level = c->level, .format = c->format, .ip = c->ip, .to = log_share().to });
}

static void
log_list(enum log_level level, const char *event, const json_t *list)
{
	const json_t *e;
	size_t i;

	json_array_foreach (list, i, e)
		log_line(level, event, "key=%s before=%s after=%s", json_str(e, "key"), json_str(e, "before"),
		    json_str(e, "after"));
}

void
reload_log(const struct reload *r, bool ok)
{
	const json_t *e;
	size_t i;

	n_reloads++;
	has_failed = !ok;
	log_list(LOG_LVL_INFO, "reload_change", r->changed);
	log_list(LOG_LVL_WARN, "reload_needs_restart", r->restart);
	json_array_foreach (r->faults, i, e)
		log_error("reload_fault", "why=\"%s\"", json_string_value(e));
	if (ok)
		log_info("reloaded", "changed=%zu needs_restart=%zu ms=%lld", json_array_size(r->changed),
		    json_array_size(r->restart), (long long)(clock_now_ms() - r->began_ms));
	else
		log_error("reload_failed", "faults=%zu why=\"nothing was changed, the settings of before hold\"",
		    json_array_size(r->faults));
	notify_ready();
}

json_t *
reload_answer(const struct reload *r, bool ok, json_t *over)
{
	if (ok)
		return json_pack(
		    "{s:b, s:O, s:O, s:o*}", "ok", 1, "changed", r->changed, "restart", r->restart, "over", over);
	json_decref(over);
	return json_pack("{s:b, s:O}", "ok", 0, "faults", r->faults);
}

void
reload_metrics(struct evbuffer *out)
{
	static const struct metrics_family ok = { "hyper_config_last_reload_successful", METRICS_GAUGE,
		"1 unless the last reload of settings failed." };
	static const struct metrics_family total = { "hyper_config_reloads_total", METRICS_COUNTER,
		"Reloads of settings, successful or not." };

	metrics_one(out, &ok, !has_failed);
	metrics_one(out, &total, n_reloads);
}
