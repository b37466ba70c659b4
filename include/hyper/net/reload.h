/* reload.h - the report of a reload, the same in every program: what is wrong, what changed, what needs a restart
 *
 * reload_begin --> the program reads, compares, prepares --> applies, or not --> reload_log, reload_answer --> reload_end
 */
#ifndef HYPER_NET_RELOAD_H
#define HYPER_NET_RELOAD_H

#include <stdbool.h>
#include <stdint.h>

#include <jansson.h>

#include "hyper/base/attr.h"
#include "hyper/base/log.h"
#include "hyper/settings/settings.h"

struct reload {
	json_t *faults;            /* of texts */
	json_t *changed, *restart; /* of {key, before, after} */
	int64_t began_ms;
};

/* Cannot fail: without memory the lists are missing and reload_answer() gives NULL. */
void reload_begin(struct reload *);
void reload_end(struct reload *);

/* Notes "what: why", or "why" alone where `what` is "". Returns -EINVAL. */
int reload_fault(struct reload *, const char *what, const char *why);

/* The outcome of settings_load_*(): its errors are noted and freed. Returns `rc`. */
int reload_loaded(struct reload *, int rc, struct settings_errors *);

/* settings_on_change, with the report as `arg`. */
void reload_note_change(const char *key, const char *before, const char *after, int reload, void *report);

/* The outcome of settings_carry_*() or another step that has no words of its own. Returns 0 or -EINVAL. */
int reload_step(struct reload *, int rc);

/* Where lines go, if that is not where they go `now`: the last step that can fail, as it is changed at once. 0, or -EINVAL
 * noted as a fault with the old log kept. Level, format and addresses come with it. */
int reload_open_log(struct reload *, const char *program, const char *now, const struct log_conf *) ATTR_MUST_USE;

/* Log level, format and addresses of the new settings; where lines go stays. */
void reload_apply_log(const char *program, const struct log_conf *);

/* The end of what notify_reloading() told the service manager. Lines: reload_change and reload_needs_restart for each key, reload_fault for each fault, then reloaded or reload_failed. */
void reload_log(const struct reload *, bool ok);

/* The answer of the admin verb `reload`, taken; NULL when out of memory. `over` is stolen, NULL: leave it out.
 *   { "ok": true, "changed": [{key, before, after}], "restart": [the same], "over": {key: held beyond the new limit} }
 *   { "ok": false, "faults": [text] } */
json_t *reload_answer(const struct reload *, bool ok, json_t *over);

/* hyper_config_last_reload_successful and hyper_config_reloads_total, as reload_log() was told since the start. */
struct evbuffer;
void reload_metrics(struct evbuffer *out);

#endif
