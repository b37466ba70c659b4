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

/* What checked settings say, key by key, defaults included; keys as above with the element's number in the brackets. */
struct settings_value {
	char *key;
	char *value; /* as a file would hold it; "unset" */
	int reload;  /* 1: a reload applies it */
};
struct settings_values {
	struct settings_value *v;
	size_t n;
};
/* 0 with *ret taken, or -ENOMEM with *ret untouched. */
int settings_values_hyper(const struct conf_hyper *, struct settings_values *ret) ATTR_MUST_USE;
int settings_values_sd(const struct conf_sd *, struct settings_values *ret) ATTR_MUST_USE;
int settings_values_proxy(const struct conf_proxy *, struct settings_values *ret) ATTR_MUST_USE;
void settings_values_free(struct settings_values *);

/* `before` NULL: the key is new; `after` NULL: it is gone. All borrowed. */
typedef void (*settings_on_change)(const char *key, const char *before, const char *after, int reload, void *arg);
void settings_diff(
    const struct settings_values *before, const struct settings_values *after, settings_on_change each, void *arg);

/* For a reload: says in which values `to` differs from the settings in use, then copies from those what only a
 * restart applies. 0, or -ENOMEM: nothing was said, and `to` is of no use but to be freed. */
int settings_carry_hyper(
    struct conf_hyper *to, const struct conf_hyper *in_use, settings_on_change each, void *arg) ATTR_MUST_USE;
int
settings_carry_sd(struct conf_sd *to, const struct conf_sd *in_use, settings_on_change each, void *arg) ATTR_MUST_USE;
int settings_carry_proxy(
    struct conf_proxy *to, const struct conf_proxy *in_use, settings_on_change each, void *arg) ATTR_MUST_USE;

#endif
