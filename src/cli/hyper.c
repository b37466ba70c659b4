/* hyper.c - main() of `hyper`: the message server's verbs
 *
 * Always true: settings are loaded and checked before anything is opened.
 * Not here: what the server does (src/server), `hyper sd ...` (hyper_sd.c),
 * calls through the local server (hyper_call.c).
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cmd.h"
#include "cli/hyper_call.h"
#include "cli/hyper_sd.h"
#include "hyper/base/daemon.h"
#include "hyper/base/log.h"
#include "hyper/server/server.h"
#include "hyper/settings/settings.h"

static int
hyper_load(struct conf_hyper **ret)
{
	struct settings_errors errors = { 0 };

	if (settings_load_hyper(getenv("HYPER_SETTINGS"), ret, &errors) < 0)
		return cmd_settings_failed(&errors);
	return EXIT_OK;
}

static int
hyper_verb_server_run(const struct cmd_args *args)
{
	struct conf_hyper *conf = NULL;
	int code = hyper_load(&conf);

	(void)args;
	if (code != EXIT_OK)
		return code;
	code = cmd_log_setup("hyper", CONF_LOG(conf));
	if (code == EXIT_OK)
		code = hyper_server_run(conf);
	conf_hyper_free(conf);
	return code;
}

static int
hyper_verb_check(const struct cmd_args *args)
{
	struct conf_hyper *conf = NULL;
	int code = hyper_load(&conf);

	(void)args;
	if (code == EXIT_OK)
		puts("settings ok");
	conf_hyper_free(conf);
	return code;
}

enum { CALL_OPT_TIMEOUT, CALL_OPT_JSON };

static int
hyper_verb_call(const struct cmd_args *args)
{
	struct conf_hyper *conf = NULL;
	int code = hyper_load(&conf);

	if (code != EXIT_OK)
		return code;
	log_open("hyper", LOG_LVL_WARN);
	code = hyper_call(conf, args->argv[0], args->argc > 1 ? args->argv[1] : "{}", args->opt[CALL_OPT_TIMEOUT]);
	conf_hyper_free(conf);
	return code;
}

static int
hyper_verb_ping(const struct cmd_args *args)
{
	struct conf_hyper *conf = NULL;
	int code = hyper_load(&conf);

	if (code != EXIT_OK)
		return code;
	log_open("hyper", LOG_LVL_WARN);
	code = hyper_ping(conf, args->argv[0], args->opt[CALL_OPT_TIMEOUT], args->opt[CALL_OPT_JSON] != NULL);
	conf_hyper_free(conf);
	return code;
}

#define CALL_TIMEOUT                                                                                    \
	{                                                                                               \
		"timeout", "SECONDS", "give up after this time (default: call_timeout of the settings)" \
	}

static const struct cmd hyper_cmds[] = {
	{ .words = "server run", .args = "", .help = "run the message server", .run = hyper_verb_server_run },
	{ .words = "check",
	    .args = "",
	    .help = "check the settings only: exit status 0 or 78",
	    .run = hyper_verb_check },
	{ .words = "call",
	    .args = "OPERATOR.METHOD [JSON]",
	    .help = "call a method through the local server, print the result",
	    .min_args = 1,
	    .max_args = 2,
	    .run = hyper_verb_call,
	    .opts = { CALL_TIMEOUT } },
	{ .words = "ping",
	    .args = "OPERATOR",
	    .help = "ping an operator through the local server, print each step with its time",
	    .min_args = 1,
	    .max_args = 1,
	    .run = hyper_verb_ping,
	    .opts = { CALL_TIMEOUT, { "json", NULL, "print the steps as JSON" } } },
	{ .words = "sd submit-records", .args = "FILE", .help = "sign records and send them to the directory" },
	{ .words = "sd records", .args = "", .help = "print the directory's records" },
	{ .words = "sd entries", .args = "[NAME]", .help = "print the directory's entries" },
	{ .words = "sd sign", .args = "FILE", .help = "sign any JSON" },
};

int
main(int argc, char **argv)
{
	static const struct cmd_program program = { "hyper", "message server between operators and their applications",
		"HYPER_SETTINGS", hyper_cmds, ARRAY_LEN(hyper_cmds) };

	/* `hyper sd` has verbs of its own and parses them itself. */
	if (argc > 1 && strcmp(argv[1], "sd") == 0)
		return hyper_sd_main(argc - 1, argv + 1);
	return cmd_main(&program, argc, argv);
}
