/* proxy.c - main() of `proxy`: the relay's verbs
 *
 * Always true: settings are loaded and checked before anything is opened.
 * Not here: what master and worker do (src/proxy).
 */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "cli/cmd.h"
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
	if (code != EXIT_OK)
		return code;
	if (!conf->public) {
		fprintf(stderr, "%s: the settings have no group `public`: add one, see %s(8)\n",
		    program_invocation_short_name, program_invocation_short_name);
		conf_proxy_free(conf);
		return EXIT_SETTINGS;
	}
	log_open("proxy", conf->log_level);
	code = proxy_master_run(conf);
	conf_proxy_free(conf);
	return code;
}

static int
proxy_check(const struct cmd_args *args)
{
	struct conf_proxy *conf = NULL;
	int code = proxy_load(&conf);

	(void)args;
	if (code == EXIT_OK)
		code = proxy_master_check(conf);
	if (code == EXIT_OK)
		puts("settings ok");
	conf_proxy_free(conf);
	return code;
}

static int
proxy_number(const char *text, unsigned long max, unsigned long *ret)
{
	char *end;

	errno = 0;
	*ret = strtoul(text, &end, 10);
	return errno || *end || end == text || *ret > max ? -EINVAL : 0;
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

static const struct cmd proxy_cmds[] = {
	{ .words = "run public",
	    .args = "",
	    .help = "run the public proxy: broker, endpoint, relay",
	    .run = proxy_run_public },
	{ .words = "check", .args = "", .help = "check the settings only: exit status 0 or 78", .run = proxy_check },
	{ .words = "worker", .args = "SLOT GENERATION", .min_args = 2, .max_args = 2, .run = proxy_worker },
};

int
main(int argc, char **argv)
{
	static const struct cmd_program program = { "proxy", "relay between Hyper servers that can only dial out",
		"PROXY_SETTINGS", proxy_cmds, ARRAY_LEN(proxy_cmds) };

	return cmd_main(&program, argc, argv);
}
