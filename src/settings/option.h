/* option.h - private to settings: the typed table that reading, freeing and listing share
 *
 *   tables.c   what there is: one row for each key
 *   apply.c    reads a tree by the table into a struct, frees that struct by the same table
 *   listing.c  prints the table for --help, man pages and tools/check-conf
 */
#ifndef SETTINGS_OPTION_H
#define SETTINGS_OPTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "hyper/base/attr.h"
#include "hyper/settings/settings.h"
#include "settings/errors.h"
#include "settings/tree.h"

/* X(NAME, "type as listed", "as in: expected ...") */
#define CFG_TYPES(X)                                                                        \
	X(STRING, "string", "a string")                                                     \
	X(OPERATOR, "operator", "an operator's name (1 to 253 of A-Z a-z 0-9 . _ -)")       \
	X(HOST_PORT, "host:port", "host:port with a port of 0..65535")                      \
	X(URL, "URL", "a URL like https://host:port/path")                                  \
	X(REGEX, "regular expression", "a POSIX extended regular expression")               \
	X(FILE, "file", "a readable file")                                                  \
	X(KEY_FILE, "file", "a key file that only its owner and group may read")            \
	X(EXISTING, "path", "a file or folder that exists")                                 \
	X(PATH, "path", "a path")                                                           \
	X(LOG, "log", "stderr, syslog, syslog:/socket or file:/path with an absolute path") \
	X(BOOL, "bool", "true or false")                                                    \
	X(INTEGER, "integer", "an integer")                                                 \
	X(SECONDS, "number", "a number")                                                    \
	X(WORD, "word", "one of")                                                           \
	X(GROUP, "group", "a group { ... }")                                                \
	X(GROUPS, "list of groups", "a list of groups ( { ... }, ... )")                    \
	X(VARIANT, "group", "a group { ... }")                                              \
	X(REFUSED, "", "")

enum cfg_type {
#define X(n, listed, expected) CFG_T_##n,
	CFG_TYPES(X)
#undef X
	    CFG_T_MAX
};

struct cfg_word {
	const char *word;
	int64_t value;
};

struct cfg_option;
struct cfg_apply;

/* Runs behind the rows of a group; says what is wrong between them. `group` may be NULL. */
typedef void (*cfg_check)(struct cfg_apply *, const struct cfg_node *group, void *base);

struct cfg_variant {
	const struct cfg_option *sub;
	size_t alloc; /* bytes of the struct behind the pointer; 0: members of the parent's struct */
	cfg_check check;
};

/* One row; a table ends with a row without key. */
struct cfg_option {
	const char *key;
	enum cfg_type type;
	bool is_list;     /* of values of this type; GROUPS is one by itself */
	bool is_required; /* a list: not empty */
	size_t offset;    /* of the member in its struct; CFG_NOWHERE: checked, then dropped */
	size_t size;      /* of the member: 1, 4 or 8 for numbers */
	double min, max;  /* INTEGER, SECONDS (in seconds) */
	const char *def;  /* as in a file, strings without quotes; NULL: none */
	const char *unit;
	const char *help;                   /* REFUSED: what to do instead */
	const char *why_not_true;           /* BOOL: false is harmless, true is refused with this explanation */
	const struct cfg_word *words;       /* WORD; ends with a NULL word */
	const struct cfg_option *sub;       /* GROUP, GROUPS */
	size_t alloc;                       /* GROUP: as in cfg_variant; GROUPS: bytes of one element */
	size_t n_offset;                    /* GROUPS: of the size_t that counts them */
	const struct cfg_variant *variants; /* VARIANT, indexed by the int at `tag` */
	const struct cfg_word *tags;        /* VARIANT: the words of that int, for listing */
	size_t tag;
	cfg_check check;    /* GROUP, GROUPS (for each element) */
	bool needs_restart; /* a reload leaves it as it is (keep.c), and says so; GROUPS: their number */
};

#define CFG_NOWHERE SIZE_MAX

struct cfg_program {
	const char *name;
	const char *variable; /* environment */
	const struct cfg_option *options;
	size_t alloc;
	cfg_check check;
};
extern const struct cfg_program cfg_hyper, cfg_sd, cfg_proxy;

/* Where a check or row stands: printed as "channels[0].settings.tls". */
struct cfg_path {
	const struct cfg_path *up;
	const char *key; /* NULL: element `index` of `up` */
	size_t index;
};

struct cfg_apply {
	struct cfg_errors *errors;
	struct cfg_path *path; /* of the group being read */
};

/* Adds "file:line: path.key: <text>"; `key` NULL for the group itself. */
void cfg_say(struct cfg_apply *, const struct cfg_place *, const char *key, const char *fmt, ...) ATTR_PRINTF(4, 5);

/* Reads `root` by the program's table. 0 with *ret taken when there was no
 * fault, else -EINVAL or -ENOMEM with *ret untouched. */
int cfg_apply(const struct cfg_program *, struct cfg_node *root, struct cfg_errors *, void **ret) ATTR_MUST_USE;

/* What settings_values_*() does (values.c). */
int cfg_values(const struct cfg_program *, const void *conf, struct settings_values *ret) ATTR_MUST_USE;

/* NULL: there is no such key. Borrowed. */
const struct settings_value *cfg_value_find(const struct settings_values *, const char *key);

/* Frees what the rows own, not `base`, whose pointers are of no use afterwards. */
void cfg_release_table(const struct cfg_option *, void *base);

/* Frees all that the table's rows own, and `base`. NULL is fine. */
void cfg_release(const struct cfg_program *, void *base);

#endif
