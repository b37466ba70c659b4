/* cmd.h - verbs and options of a program as one table: parsing, --help, --version */
#ifndef HYPER_CLI_CMD_H
#define HYPER_CLI_CMD_H

#include <stdbool.h>
#include <stddef.h>

#define CMD_OPTS_MAX 8

struct cmd_opt {
	const char *name; /* long name without dashes */
	const char *arg;  /* name of the argument in the help; NULL: a flag */
	const char *help;
};

/* What a verb gets: all borrowed from argv. */
struct cmd_args {
	const char *opt[CMD_OPTS_MAX]; /* by index in cmd.opts; NULL not given, "" a flag that was */
	int argc;                      /* positional arguments */
	char **argv;
};

struct cmd {
	const char *words; /* "server run" */
	const char *args;  /* positional arguments as in the help, "" none */
	const char *help;  /* one sentence; NULL hides the verb */
	int min_args, max_args;
	int (*run)(const struct cmd_args *); /* returns an exit code, base/daemon.h */
	struct cmd_opt opts[CMD_OPTS_MAX];   /* ends at name NULL */
	const char *letters;                 /* short names, by index in opts, ' ' none; NULL: of no option */
	int usage_code;                      /* of wrong usage; 0: EXIT_USAGE */
};

/* What a signal does to the running program. */
struct cmd_signal {
	const char *names; /* "INT, QUIT" as the man page has them */
	const char *help;
};

struct cmd_program {
	const char *name; /* in the build tree; messages use the file's own */
	const char *summary;
	const char *environment; /* name of the settings variable */
	const struct cmd *cmds;
	size_t n_cmds;
	const struct cmd_signal *signals; /* ends at names NULL; NULL: none of its own */
};

/* Finds the verb (as many words of argv as it has), parses its options with
 * getopt_long and runs it. --help and --version work on the program and on
 * each verb. A usage fault is explained on stderr and returns EXIT_USAGE, or the verb's own. */
int cmd_main(const struct cmd_program *, int argc, char **argv);

/* log_setup() at the start of a program: EXIT_OK, or EXIT_SETTINGS with the words on stderr. */
struct log_conf;
int cmd_log_setup(const char *program, const struct log_conf *);

/* Prints each error of a settings path on stderr; returns EXIT_SETTINGS. */
struct settings_errors;
int cmd_settings_failed(struct settings_errors *);

#endif
