/* expand.h - private to settings: one file with its @include lines replaced, and ${NAME} */
#ifndef SETTINGS_EXPAND_H
#define SETTINGS_EXPAND_H

#include <stddef.h>

#include "hyper/base/attr.h"
#include "settings/errors.h"
#include "settings/tree.h"

/* Text for libconfig, and where each of its lines comes from. */
struct cfg_text {
	char *buf; /* NUL-terminated */
	size_t len, cap;
	struct cfg_place *line; /* line[k]: of line k + 1 */
	size_t n_lines, cap_lines;
};
void cfg_text_fini(struct cfg_text *);

/* 0 with the text of `path` and all it includes in *ret (fini it in any case),
 * -EINVAL with the faults in *errors, or -ENOMEM. */
int cfg_expand_file(const char *path, struct cfg_files *, struct cfg_errors *, struct cfg_text *ret) ATTR_MUST_USE;

/* A copy of `text` with each ${NAME} replaced. 0 with *ret taken, -ENOMEM, or
 * -EINVAL with `why` filled. */
int cfg_expand_env(const char *text, char **ret, char why[160]) ATTR_MUST_USE;

/* `path` as seen from the folder of `file`; an absolute one as it is. NULL when out of memory. */
char *cfg_path_from(const char *file, const char *path);

#endif
