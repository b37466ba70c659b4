/* reload.c - see the header
 *
 * Always true: everything that can fail comes before the first change.
 *
 * Not here: the store, which a restart opens anew.
 */
#include "sd/reload.h"

#include <stdlib.h>

#include "hyper/base/notify.h"
#include "hyper/directory/record.h"
#include "hyper/net/reload.h"
#include "hyper/settings/settings.h"
#include "sd/book.h"

json_t *
sd_reload(const struct conf_sd *conf, struct rpc_server *server, struct book *book, bool dry, struct conf_sd **ret_conf)
{
	struct settings_errors errors = { 0 };
	struct rpc_server_next *next = NULL;
	struct conf_sd *fresh = NULL;
	struct record_trust *trust = NULL;
	char err[RPC_SERVER_ERR_MAX > BOOK_ERR_MAX ? RPC_SERVER_ERR_MAX : BOOK_ERR_MAX];
	struct reload report;
	json_t *ret;
	int rc;

	if (!dry)
		notify_reloading();
	reload_begin(&report);
	rc = reload_loaded(&report, settings_load_sd(getenv("SD_SETTINGS"), &fresh, &errors), &errors);
	if (rc == 0)
		rc = reload_step(&report, settings_carry_sd(fresh, conf, reload_note_change, &report));
	if (rc == 0 && rpc_server_prepare(fresh->rpc_server, &next, err) < 0)
		rc = reload_fault(&report, "jsonrpc_server", err);
	if (rc == 0 && book_prepare(book, fresh, &trust, err) < 0)
		rc = reload_fault(&report, "directory", err);
	if (rc == 0 && !dry) /* the last that can fail: it changes something */
		rc = reload_open_log(&report, "sd", conf->log, CONF_LOG(fresh));
	if (rc == 0 && !dry) {
		reload_apply_log("sd", CONF_LOG(fresh));
		rpc_server_apply(server, next);
		book_apply(book, trust);
		*ret_conf = fresh;
		trust = NULL;
		next = NULL;
		fresh = NULL;
	}
	if (!dry)
		reload_log(&report, rc == 0);
	ret = reload_answer(&report, rc == 0, NULL);
	rpc_server_next_free(next);
	record_trust_free(trust);
	conf_sd_free(fresh);
	reload_end(&report);
	return ret;
}
