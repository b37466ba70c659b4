/* touched.h - which live connections new settings would touch, and how */
#ifndef HYPER_PROXY_MASTER_TOUCHED_H
#define HYPER_PROXY_MASTER_TOUCHED_H

#include <jansson.h>

struct conf_proxy_public;
struct limits;
struct view;

/* An array of {key, n, what} for settings that differ from those in use (view->conf and `was`): taken, NULL when out of
 * memory. Limits of operators are quota.h's. */
json_t *
touched_by(const struct view *, const struct limits *was, const struct conf_proxy_public *, const struct limits *);

#endif
