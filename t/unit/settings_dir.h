/* settings_dir.h - a temporary folder of settings files for one test */
#ifndef T_SETTINGS_DIR_H
#define T_SETTINGS_DIR_H

#include <stddef.h>

#include "hyper/settings/settings.h"
#include "unit_tmp.h"

extern char settings_dir[UNIT_TMP_MAX];

/* cmocka's set-up and tear-down: makes and removes the folder with ca.pem, own.pem, own.key, open.key (0644). */
int settings_dir_new(void **state);
int settings_dir_free(void **state);

/* Writes DIR/name and makes the folders of `name`. */
void settings_dir_put(const char *name, const char *text);

/* Removes all but the certificates. */
void settings_dir_clear(void);

/* The errors joined by newlines, "DIR/" taken out; frees them. Static, until the next call. */
const char *settings_errors_text(struct settings_errors *);

#endif
