/* cmd.c - verbs and options of a program as one table
 *
 * Always true:
 *  1. A verb runs only when its words, options and number of arguments fit.
 *  2. --help and --version never need settings and always exit 0.
 *  3. Usage faults go to stderr, help and versions to stdout.
 *
 * Not here: what a verb does.
 */
#include "cli/cmd.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "hyper/base/daemon.h"
#include "hyper/base/log.h"
#include "hyper/settings/settings.h"

enum { OPT_HELP = 256, OPT_VERSION, OPT_FIRST };

/* How many words of argv the verb's words take; 0 when they do not fit. */
static int
cmd_match(const struct cmd *cmd, int argc, char **argv)
{
	const char *words = cmd->words;
	int n = 0;

	while (*words) {
		size_t len = strcspn(words, " ");

		if (n >= argc || strlen(argv[n]) != len || strncmp(words, argv[n], len) != 0)
			return 0;
		words += len;
		words += strspn(words, " ");
		n++;
	}
	return n;
}

/* The option's short name; 0 none. */
static char
cmd_letter(const struct cmd *cmd, size_t i)
{
	const char *letters = cmd->letters;

	return letters && i < strlen(letters) && letters[i] != ' ' ? letters[i] : '\0';
}

static void
cmd_print_usage(const struct cmd_program *prog, const struct cmd *cmd)
{
	printf("Usage: %s %s", prog->name, cmd->words);
	if (cmd->opts[0].name)
		printf(" [options]");
	printf("%s%s\n\n%s\n\nOptions:\n", *cmd->args ? " " : "", cmd->args, cmd->help ? cmd->help : "");
	for (size_t i = 0; i < CMD_OPTS_MAX && cmd->opts[i].name; i++) {
		char left[64], letter[] = { '-', cmd_letter(cmd, i), ',', ' ', '\0' };

		snprintf(left, sizeof left, "%s--%s%s%s", cmd_letter(cmd, i) ? letter : "", cmd->opts[i].name,
		    cmd->opts[i].arg ? " " : "", cmd->opts[i].arg ? cmd->opts[i].arg : "");
		printf("  %-24s %s\n", left, cmd->opts[i].help);
	}
	printf("  %-24s %s\n  %-24s %s\n", "--help", "this text", "--version", "the version");
}

static void
cmd_print_program(const struct cmd_program *prog, FILE *out)
{
	fprintf(out, "%s - %s\n\nVerbs:\n", prog->name, prog->summary);
	for (size_t i = 0; i < prog->n_cmds; i++) {
		const struct cmd *cmd = &prog->cmds[i];
		char left[64];

		if (!cmd->help)
			continue;
		snprintf(left, sizeof left, "%s%s%s", cmd->words, *cmd->args ? " " : "", cmd->args);
		fprintf(out, "  %s %-40s %s\n", prog->name, left, cmd->help);
	}
	if (prog->signals)
		fprintf(out, "\nSignals:\n");
	for (const struct cmd_signal *s = prog->signals; s && s->names; s++)
		fprintf(out, "  %-10s %s\n", s->names, s->help);
	fprintf(out,
	    "\nEach verb knows --help. %s names the settings: files and folders, separated by colons.\n"
	    "Exit status: 0 done, 1 failed, 64 wrong usage, 69 the server could not be reached, 78 wrong settings.\n",
	    prog->environment);
}

static void
cmd_print_version(const struct cmd_program *prog)
{
	printf("%s (%s) %s\n", prog->name, PACKAGE_NAME, PACKAGE_VERSION);
}

static size_t
cmd_long_options(const struct cmd *cmd, struct option *longs)
{
	size_t n = 0;

	for (; n < CMD_OPTS_MAX && cmd->opts[n].name; n++)
		longs[n] = (struct option){ .name = cmd->opts[n].name,
			.has_arg = cmd->opts[n].arg ? required_argument : no_argument,
			.val = OPT_FIRST + (int)n };
	longs[n] = (struct option){ .name = "help", .val = OPT_HELP };
	longs[n + 1] = (struct option){ .name = "version", .val = OPT_VERSION };
	longs[n + 2] = (struct option){ 0 };
	return n;
}

/* The short names as getopt wants them. */
static void
cmd_short_options(const struct cmd *cmd, char ret[2 * CMD_OPTS_MAX + 2])
{
	size_t used = 0;

	ret[used++] = 'h';
	for (size_t i = 0; i < CMD_OPTS_MAX && cmd->opts[i].name; i++) {
		if (!cmd_letter(cmd, i))
			continue;
		ret[used++] = cmd_letter(cmd, i);
		if (cmd->opts[i].arg)
			ret[used++] = ':';
	}
	ret[used] = '\0';
}

/* By index; CMD_OPTS_MAX none. `c`: what getopt_long() returned. */
static size_t
cmd_option(const struct cmd *cmd, int c)
{
	size_t i = 0;

	if (c >= OPT_FIRST)
		return (size_t)(c - OPT_FIRST);
	while (i < CMD_OPTS_MAX && (!cmd->opts[i].name || cmd_letter(cmd, i) != c))
		i++;
	return i;
}

/* `argv[0]` is the verb's last word, as getopt wants it. */
static int
cmd_run(const struct cmd_program *prog, const struct cmd *cmd, int argc, char **argv)
{
	struct option longs[CMD_OPTS_MAX + 3];
	int c, usage_code = cmd->usage_code ? cmd->usage_code : EXIT_USAGE;
	char shorts[2 * CMD_OPTS_MAX + 2];
	struct cmd_args args = { 0 };
	size_t i;

	cmd_short_options(cmd, shorts);
	cmd_long_options(cmd, longs);
	argv[0] = (char *)prog->name; /* the name in getopt's own messages */
	optind = 1;
	while ((c = getopt_long(argc, argv, shorts, longs, NULL)) != -1) {
		if (c == OPT_HELP || c == 'h') {
			cmd_print_usage(prog, cmd);
			return EXIT_OK;
		}
		if (c == OPT_VERSION) {
			cmd_print_version(prog);
			return EXIT_OK;
		}
		i = cmd_option(cmd, c);
		if (i == CMD_OPTS_MAX) {
			fprintf(stderr, "%s: see '%s %s --help'\n", prog->name, prog->name, cmd->words);
			return usage_code;
		}
		args.opt[i] = optarg ? optarg : "";
	}
	args.argc = argc - optind;
	args.argv = argv + optind;
	if (args.argc < cmd->min_args || args.argc > cmd->max_args) {
		fprintf(stderr, "%s: usage: %s %s %s\n", prog->name, prog->name, cmd->words, cmd->args);
		return usage_code;
	}
	return cmd->run(&args);
}

int
cmd_main(const struct cmd_program *program, int argc, char **argv)
{
	struct cmd_program named = *program, *prog = &named;
	const char *family = strchr(program->name, ' ');
	const struct cmd *best = NULL;
	char name[64];
	int best_words = 0;

	/* A package may have renamed the file; the second word is a family of verbs (`hyper sd`). */
	snprintf(name, sizeof(name), "%s%s", program_invocation_short_name, family ? family : "");
	named.name = name;
	if (argc > 1 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) {
		cmd_print_program(prog, stdout);
		return EXIT_OK;
	}
	if (argc > 1 && strcmp(argv[1], "--version") == 0) {
		cmd_print_version(prog);
		return EXIT_OK;
	}
	for (size_t i = 0; i < prog->n_cmds; i++) {
		int words = cmd_match(&prog->cmds[i], argc - 1, argv + 1);

		if (words > best_words) {
			best = &prog->cmds[i];
			best_words = words;
		}
	}
	if (!best) {
		if (argc > 1)
			fprintf(stderr, "%s: no verb '%s'\n\n", prog->name, argv[1]);
		cmd_print_program(prog, stderr);
		return EXIT_USAGE;
	}
	return cmd_run(prog, best, argc - best_words, argv + best_words);
}

int
cmd_settings_failed(struct settings_errors *errors)
{
	const char *program = program_invocation_short_name;

	for (size_t i = 0; i < errors->n; i++)
		fprintf(stderr, "%s: %s\n", program, errors->v[i]);
	fprintf(stderr, "%s: %zu fault%s in the settings, nothing was started\n", program, errors->n,
	    errors->n == 1 ? "" : "s");
	settings_errors_free(errors);
	return EXIT_SETTINGS;
}

int
cmd_log_setup(const char *program, const struct log_conf *conf)
{
	char err[LOG_ERR_MAX];

	if (log_setup(program, conf, err) == 0)
		return EXIT_OK;
	fprintf(stderr, "%s: the setting log: %s\n", program_invocation_short_name, err);
	return EXIT_SETTINGS;
}
