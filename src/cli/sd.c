/* sd.c - main() of `sd`: the service directory's verbs
 *
 * Always true: settings are loaded and checked before anything is opened.
 * Not here: what the directory does (src/sd).
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cmd.h"
#include "cli/ctl.h"
#include "hyper/base/daemon.h"
#include "hyper/base/log.h"
#include "hyper/sd/sd.h"
#include "hyper/settings/settings.h"

static int
sd_load(struct conf_sd **ret)
{
	struct settings_errors errors = { 0 };

	if (settings_load_sd(getenv("SD_SETTINGS"), ret, &errors) < 0)
		return cmd_settings_failed(&errors);
	return EXIT_OK;
}

static int
sd_verb_run(const struct cmd_args *args)
{
	struct conf_sd *conf = NULL;
	int code = sd_load(&conf);

	(void)args;
	if (code != EXIT_OK)
		return code;
	code = cmd_log_setup("sd", CONF_LOG(conf));
	if (code == EXIT_OK)
		code = sd_run(conf);
	conf_sd_free(conf);
	return code;
}

/* The socket of the settings, taken; NULL when there is none or *ret_code says why not. */
static char *
sd_socket(int *ret_code)
{
	struct conf_sd *conf = NULL;
	char *path;

	*ret_code = sd_load(&conf);
	path = conf && conf->admin_socket ? strdup(conf->admin_socket) : NULL;
	conf_sd_free(conf);
	return path;
}

static int
sd_verb_check(const struct cmd_args *args)
{
	int code;
	char *path = sd_socket(&code);

	if (args->opt[0])
		return ctl_reload(path, code, true);
	if (code == EXIT_OK)
		puts("settings ok");
	free(path);
	return code;
}

static int
sd_verb_reload(const struct cmd_args *args)
{
	int code;
	char *path = sd_socket(&code);

	(void)args;
	return ctl_reload(path, code, false);
}

static int
sd_verb_stop(const struct cmd_args *args)
{
	int code;
	char *path = sd_socket(&code);

	return ctl_stop(path, code, args->opt[0]);
}

static const struct cmd sd_cmds[] = {
	{ .words = "run", .args = "", .help = "run the service directory", .run = sd_verb_run },
	{ .words = "check",
	    .args = "",
	    .help = "check the settings only: exit status 0 or 78",
	    .run = sd_verb_check,
	    .opts = { { "diff", NULL,
		"ask the running directory what a reload would change and what needs a restart" } } },
	{ .words = "reload",
	    .args = "",
	    .help = "have the running directory read its settings again, print what changed",
	    .run = sd_verb_reload },
	{ .words = "stop",
	    .args = "",
	    .help = "stop the running directory and wait until it is gone",
	    .run = sd_verb_stop,
	    .opts = { { "deadline", "SECONDS", "as for the other programs; each call is answered at once here" } } },
};

static const struct cmd_signal sd_signals[] = {
	{ "TERM", "answer what has come, then exit" },
	{ "INT, QUIT", "exit now" },
	{ "HUP", "reload the settings, certificates and keys: all of it, or nothing" },
	{ "USR1", "open the log file again" },
	{ NULL, NULL },
};

int
main(int argc, char **argv)
{
	static const struct cmd_program program = { "sd",
		"service directory: signed records, who is who, who may call whom", "SD_SETTINGS", sd_cmds,
		ARRAY_LEN(sd_cmds), sd_signals };

	return cmd_main(&program, argc, argv);
}
