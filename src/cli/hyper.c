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
#include "cli/ctl.h"
#include "cli/hyper_admin.h"
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

/* The socket of the settings, taken; NULL when there is none or *ret_code says why not. */
static char *
hyper_socket(int *ret_code)
{
	struct conf_hyper *conf = NULL;
	char *path;

	*ret_code = hyper_load(&conf);
	path = conf && conf->admin_socket ? strdup(conf->admin_socket) : NULL;
	conf_hyper_free(conf);
	return path;
}

static int
hyper_verb_check(const struct cmd_args *args)
{
	int code;
	char *path = hyper_socket(&code);

	if (args->opt[0])
		return ctl_reload(path, code, true);
	if (code == EXIT_OK)
		puts("settings ok");
	free(path);
	return code;
}

static int
hyper_verb_reload(const struct cmd_args *args)
{
	int code;
	char *path = hyper_socket(&code);

	(void)args;
	return ctl_reload(path, code, false);
}

static int
hyper_verb_stop(const struct cmd_args *args)
{
	int code;
	char *path = hyper_socket(&code);

	return ctl_stop(path, code, args->opt[0]);
}

static int
hyper_verb_drain(const struct cmd_args *args)
{
	int code;
	char *path = hyper_socket(&code);

	return ctl_drain(path, code, NULL, args->opt[0]);
}

static int
hyper_verb_undrain(const struct cmd_args *args)
{
	int code;
	char *path = hyper_socket(&code);

	(void)args;
	return ctl_undrain(path, code);
}

static int
hyper_verb_status(const struct cmd_args *args)
{
	int code;
	char *path = hyper_socket(&code);

	return hyper_admin_status(path, code, args);
}

static int
hyper_verb_connections(const struct cmd_args *args)
{
	int code;
	char *path = hyper_socket(&code);

	return hyper_admin_connections(path, code, args);
}

static int
hyper_verb_explain(const struct cmd_args *args)
{
	int code;
	char *path = hyper_socket(&code);

	return hyper_admin_explain(path, code, args);
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

#define JSON                                             \
	{                                                \
		"json", NULL, "print the answer as JSON" \
	}

static const struct cmd hyper_cmds[] = {
	{ .words = "server run", .args = "", .help = "run the message server", .run = hyper_verb_server_run },
	{ .words = "check",
	    .args = "",
	    .help = "check the settings only: exit status 0 or 78",
	    .run = hyper_verb_check,
	    .opts = { { "diff", NULL,
		"ask the running server what a reload would change and what needs a restart" } } },
	{ .words = "reload",
	    .args = "",
	    .help = "have the running server read its settings again, print what changed",
	    .run = hyper_verb_reload },
	{ .words = "drain",
	    .args = "",
	    .help = "take no new calls, wait until none is in flight; it goes on running",
	    .run = hyper_verb_drain,
	    .opts = { { "deadline", "SECONDS",
		"exit with 1 when calls are in flight then (default: drain_timeout)" } } },
	{ .words = "undrain", .args = "", .help = "take new calls again", .run = hyper_verb_undrain },
	{ .words = "stop",
	    .args = "",
	    .help = "stop the running server and wait until it is gone; calls in flight come to their end",
	    .run = hyper_verb_stop,
	    .opts = { { "deadline", "SECONDS", "refuse what is left then (default: drain_timeout)" } } },
	{ .words = "status",
	    .args = "",
	    .help = "print what the running server is doing",
	    .run = hyper_verb_status,
	    .opts = { JSON } },
	{ .words = "connections",
	    .args = "",
	    .help = "list connections and streams to operators: kind, proxy, session, age, calls",
	    .run = hyper_verb_connections,
	    .opts = { JSON, { "operator", "NAME", "only those with it, or through it" } } },
	{ .words = "explain",
	    .args = "SESSION|OPERATOR",
	    .help = "tell how an operator is reached, where a connection stands or ended, and why",
	    .min_args = 1,
	    .max_args = 1,
	    .run = hyper_verb_explain,
	    .opts = { JSON } },
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

static const struct cmd_signal hyper_signals[] = {
	{ "TERM", "let calls in flight come to their end within drain_timeout, then exit; a second one: now" },
	{ "INT, QUIT", "exit now" },
	{ "HUP", "reload the settings, certificates and keys: all of it, or nothing" },
	{ "USR1", "open the log file again" },
	{ NULL, NULL },
};

int
main(int argc, char **argv)
{
	static const struct cmd_program program = { "hyper", "message server between operators and their applications",
		"HYPER_SETTINGS", hyper_cmds, ARRAY_LEN(hyper_cmds), hyper_signals };

	/* `hyper sd` has verbs of its own and parses them itself. */
	if (argc > 1 && strcmp(argv[1], "sd") == 0)
		return hyper_sd_main(argc - 1, argv + 1);
	return cmd_main(&program, argc, argv);
}
