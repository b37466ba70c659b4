/* value.h - private to settings: is this text a host:port, a URL, a name, a readable file? */
#ifndef SETTINGS_VALUE_H
#define SETTINGS_VALUE_H

#include <stdbool.h>
#include <stddef.h>

#include "settings/option.h"
#include "settings/tree.h"

#define VALUE_TEXT_MAX 160

/* True when `text` (paths: already resolved) suits `type`; else `found` says what it is instead. */
bool cfg_value_suits(enum cfg_type type, const char *text, char found[VALUE_TEXT_MAX]);

/* "the string \"x\"", "5", "a group": for the part of a message behind "found". */
void cfg_value_describe(const struct cfg_node *, char ret[VALUE_TEXT_MAX]);

/* Of the keys in `tab` the one that `name` was most likely meant to be, NULL when none is near. */
const char *cfg_value_nearest(const struct cfg_option *tab, const char *name);

#endif
