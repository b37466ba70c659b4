/* settings.h - settings directories in, checked structs or a list of errors out */
#ifndef HYPER_SETTINGS_SETTINGS_H
#define HYPER_SETTINGS_SETTINGS_H

#include <stddef.h>

#include "hyper/base/attr.h"
#include "hyper/settings/conf.h"

/* All that is wrong with a settings path, one text per fault:
 * "file:line: key: what was expected, what was found". */
struct settings_errors {
	char **v;
	size_t n;
};
void settings_errors_free(struct settings_errors *);

/* `path` is the value of SD_SETTINGS, PROXY_SETTINGS or HYPER_SETTINGS: a
 * colon-separated list of files and folders (protocol.md "Settings, ours").
 * NULL or "" is an error that says which variable to set. 0 with *ret taken,
 * or -EINVAL with *ret untouched and at least one error in *errors (taken).
 * -ENOMEM: *ret untouched, *errors (taken) may be empty. */
int settings_load_hyper(const char *path, struct conf_hyper **ret, struct settings_errors *errors) ATTR_MUST_USE;
int settings_load_sd(const char *path, struct conf_sd **ret, struct settings_errors *errors) ATTR_MUST_USE;
int settings_load_proxy(const char *path, struct conf_proxy **ret, struct settings_errors *errors) ATTR_MUST_USE;

/* One row of a program's option table, for --help, man pages and tools/check-conf. */
struct settings_option {
	/* dotted: "public.accept_timeout"; list elements as "channels[].name", and where their keys
	 * depend on the element's type as "channels[grpc_client].settings.tls" */
	const char *key;
	const char *type;  /* "string", "integer", "number", "bool", "path", "list of strings", ... */
	const char *range; /* "1..65536", "" when free */
	const char *def;   /* default as written in a file, "" none, "required" */
	const char *unit;  /* "seconds", "connections", "" */
	const char *help;  /* one sentence */
	int reload;        /* 1: a reload applies it */
};

/* The table of "hyper", "sd" or "proxy"; *ret_n rows, static. NULL for another name. */
const struct settings_option *settings_options(const char *program, size_t *ret_n);

#endif
