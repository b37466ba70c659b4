/* proxy.c - main() of `proxy`: the relay's verbs
 *
 * Always true: settings are loaded and checked before anything is opened.
 * Not here: what master and worker do (src/proxy).
 */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cmd.h"
#include "cli/ctl.h"
#include "cli/proxy_admin.h"
#include "cli/selftest.h"
#include "hyper/base/daemon.h"
#include "hyper/base/log.h"
#include "hyper/proxy/programs.h"
#include "hyper/settings/settings.h"

static int
proxy_load(struct conf_proxy **ret)
{
	struct settings_errors errors = { 0 };

	if (settings_load_proxy(getenv("PROXY_SETTINGS"), ret, &errors) < 0)
		return cmd_settings_failed(&errors);
	return EXIT_OK;
}

static int
proxy_run_public(const struct cmd_args *args)
{
	struct conf_proxy *conf = NULL;
	int code = proxy_load(&conf);

	(void)args;
	if (code != EXIT_OK) {
		proxy_master_go_back("its settings are wrong, see standard error");
		return code;
	}
	if (!conf->public) {
		proxy_master_go_back("its settings have no group public");
		fprintf(stderr, "%s: the settings have no group `public`: add one, see %s(8)\n",
		    program_invocation_short_name, program_invocation_short_name);
		conf_proxy_free(conf);
		return EXIT_SETTINGS;
	}
	code = cmd_log_setup("proxy", CONF_LOG(conf));
	if (code == EXIT_OK)
		code = proxy_master_run(conf);
	else
		proxy_master_go_back("its log cannot be written");
	conf_proxy_free(conf);
	return code;
}

/* The admin socket of the settings, taken; NULL where there is none, or with *ret_code set. */
static char *
proxy_socket(int *ret_code)
{
	struct conf_proxy *conf = NULL;
	char *path = NULL;

	*ret_code = proxy_load(&conf);
	if (conf && conf->admin_socket)
		path = strdup(conf->admin_socket);
	conf_proxy_free(conf);
	return path;
}

static int
proxy_check(const struct cmd_args *args)
{
	struct conf_proxy *conf = NULL;
	int code = proxy_load(&conf);
	char *path;

	if (code == EXIT_OK)
		code = proxy_master_check(conf);
	if (code == EXIT_OK && args->opt[0]) {
		conf_proxy_free(conf);
		path = proxy_socket(&code);
		return ctl_reload(path, code, true);
	}
	if (code == EXIT_OK)
		puts("settings ok");
	conf_proxy_free(conf);
	return code;
}

static int
proxy_reload(const struct cmd_args *args)
{
	int code;
	char *path = proxy_socket(&code);

	(void)args;
	return ctl_reload(path, code, false);
}

enum { DRAIN_OPT_UNTIL, DRAIN_OPT_DEADLINE };

static int
proxy_drain(const struct cmd_args *args)
{
	int code;
	char *path = proxy_socket(&code);

	return ctl_drain(path, code, args->opt[DRAIN_OPT_UNTIL], args->opt[DRAIN_OPT_DEADLINE]);
}

static int
proxy_undrain(const struct cmd_args *args)
{
	int code;
	char *path = proxy_socket(&code);

	(void)args;
	return ctl_undrain(path, code);
}

static int
proxy_stop(const struct cmd_args *args)
{
	int code;
	char *path = proxy_socket(&code);

	return ctl_stop(path, code, args->opt[0]);
}

static int
proxy_number(const char *text, unsigned long max, unsigned long *ret)
{
	char *end;

	errno = 0;
	*ret = strtoul(text, &end, 10);
	return errno || *end || end == text || *ret > max ? -EINVAL : 0;
}

static int
proxy_selftest(const struct cmd_args *args)
{
	int code;
	char *path = proxy_socket(&code);

	return selftest_run(path, code, args);
}

/* Only the master starts this, with the descriptors of proxy/worker_abi.h. */
static int
proxy_worker(const struct cmd_args *args)
{
	unsigned long slot, gen;

	if (proxy_number(args->argv[0], 65535, &slot) < 0 || proxy_number(args->argv[1], UINT32_MAX, &gen) < 0) {
		fprintf(stderr, "%s: `worker` is started by the master only\n", program_invocation_short_name);
		return EXIT_USAGE;
	}
	return proxy_worker_run((unsigned)slot, (uint32_t)gen);
}

#define JSON_OPT                                                   \
	{                                                          \
		.name = "json", .help = "print the answer as JSON" \
	}
#define OPERATOR_OPT                                                                               \
	{                                                                                          \
		.name = "operator", .arg = "NAME", .help = "only what this operator takes part in" \
	}

static const struct cmd proxy_cmds[] = {
	{ .words = "run public",
	    .args = "",
	    .help = "run the public proxy: broker, endpoint, relay",
	    .run = proxy_run_public },
	{ .words = "check",
	    .args = "",
	    .help = "check the settings only: exit status 0 or 78",
	    .run = proxy_check,
	    .opts = { { "diff", NULL, "ask the running proxy what a reload would change and what needs a restart" } } },
	{ .words = "reload",
	    .args = "",
	    .help = "have the running proxy read its settings again, print what changed",
	    .run = proxy_reload },
	{ .words = "drain",
	    .args = "",
	    .help = "let nothing new in, wait until the pairs have ended",
	    .run = proxy_drain,
	    .opts = { { "until", "N", "return when at most so many pairs are left (default: 0)" },
		{ "deadline", "SECONDS", "wait no longer, exit status 1 (default: public.drain_timeout)" } } },
	{ .words = "undrain", .args = "", .help = "let new ones in again", .run = proxy_undrain },
	{ .words = "stop",
	    .args = "",
	    .help = "drain, then stop; returns when the process is gone",
	    .run = proxy_stop,
	    .opts = { { "deadline", "SECONDS",
		"pairs that are left then are reset, exit status 1 (default: public.drain_timeout)" } } },
	{ .words = "status",
	    .args = "",
	    .help = "numbers of the running proxy",
	    .run = proxy_admin_status,
	    .opts = { JSON_OPT } },
	{ .words = "upgrade",
	    .args = "",
	    .help = "let the running proxy execute its program anew, without a cut: 0, or 1 and the old one goes on",
	    .run = proxy_admin_upgrade },
	{ .words = "pairs",
	    .args = "",
	    .help = "its pairs: who, how long, how many bytes",
	    .run = proxy_admin_pairs,
	    .opts = { JSON_OPT, OPERATOR_OPT } },
	{ .words = "tokens",
	    .args = "",
	    .help = "its tokens: issued and parked",
	    .run = proxy_admin_tokens,
	    .opts = { JSON_OPT, OPERATOR_OPT } },
	{ .words = "top",
	    .args = "",
	    .help = "status and pairs, redrawn every 2 seconds; q ends it",
	    .run = proxy_admin_top },
	{ .words = "explain",
	    .args = "SESSION|OPERATOR",
	    .help = "where a brokering stands or how it ended, why, and what to do",
	    .min_args = 1,
	    .max_args = 1,
	    .run = proxy_admin_explain,
	    .opts = { JSON_OPT } },
	{ .words = "kick",
	    .args = "[SESSION]",
	    .help = "end a pair or a token, or all of an operator",
	    .max_args = 1,
	    .run = proxy_admin_kick,
	    .opts = { JSON_OPT, OPERATOR_OPT } },
	{ .words = "selftest",
	    .args = "",
	    .help = "play both parties through the endpoint: 0 well, 1 slow, 2 a step failed, 3 not tried",
	    .run = proxy_selftest,
	    .usage_code = SELFTEST_UNKNOWN,
	    .letters = " wct",
	    .opts = { [SELFTEST_OPT_JSON] = JSON_OPT,
		[SELFTEST_OPT_WARNING] = { "warning", "MS", "exit status 1 when all steps together took longer" },
		[SELFTEST_OPT_CRITICAL] = { "critical", "MS", "exit status 2 when they took longer than this" },
		[SELFTEST_OPT_TIMEOUT] = { "timeout", "SECONDS", "for all of it (default: 10)" },
		[SELFTEST_OPT_ENDPOINT] = { "endpoint", "HOST:PORT",
		    "dial this instead of what operators are told (public.internal_endpoint)" } } },
	{ .words = "worker", .args = "SLOT GENERATION", .min_args = 2, .max_args = 2, .run = proxy_worker },
};

static const struct cmd_signal proxy_signals[] = {
	{ "TERM", "drain: let pairs and tokens come to their end within drain_timeout, then exit; a second one: now" },
	{ "INT, QUIT", "exit now" },
	{ "HUP", "reload the settings, certificates and keys: all of it, or nothing" },
	{ "USR1", "open the log file again" },
	{ "USR2", "upgrade: execute the program anew in place, without cutting a pair" },
	{ NULL, NULL },
};

int
main(int argc, char **argv)
{
	static const struct cmd_program program = { "proxy", "relay between Hyper servers that can only dial out",
		"PROXY_SETTINGS", proxy_cmds, ARRAY_LEN(proxy_cmds), proxy_signals };

	return cmd_main(&program, argc, argv);
}
