/* tree.h - private to settings: what the files say, each value with its place, before any check */
#ifndef SETTINGS_TREE_H
#define SETTINGS_TREE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "hyper/base/attr.h"
#include "settings/errors.h"

enum cfg_kind { CFG_GROUP, CFG_LIST, CFG_STRING, CFG_INTEGER, CFG_NUMBER, CFG_BOOL };

struct cfg_node {
	char *name; /* NULL in a list */
	enum cfg_kind kind;
	struct cfg_place at;
	bool is_known; /* an option asked for it */
	union {
		struct {
			struct cfg_node **child; /* CFG_GROUP, CFG_LIST */
			size_t n;
		};
		char *string;
		int64_t integer;
		double number;
		bool boolean;
	};
};

/* The names of all files read: places borrow them, so they go last. */
struct cfg_files {
	char **v;
	size_t n;
};

/* `name` (may be NULL) is copied. NULL when out of memory. */
struct cfg_node *cfg_node_new(const char *name, enum cfg_kind, const struct cfg_place *at);
void cfg_node_free(struct cfg_node *);

/* `child` is given. 0 or -ENOMEM, then it has been freed. */
int cfg_node_add(struct cfg_node *parent, struct cfg_node *child) ATTR_MUST_USE;

/* Borrowed, NULL when there is none. */
struct cfg_node *cfg_node_find(const struct cfg_node *group, const char *name);

/* Groups merge, anything else of `later` (given) replaces its namesake in `into`. 0 or -ENOMEM. */
int cfg_node_merge(struct cfg_node *into, struct cfg_node *later) ATTR_MUST_USE;

/* Reads all that `path` (colon-separated) names into one group. What cannot
 * be read is in *errors and left out. 0 with *ret taken, or -ENOMEM. */
int cfg_tree_load(const char *path, struct cfg_files *, struct cfg_errors *, struct cfg_node **ret) ATTR_MUST_USE;

void cfg_files_fini(struct cfg_files *);

#endif
