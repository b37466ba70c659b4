/* directory.h - the directory as a program sees it: cached, verified, kept over restarts
 *
 * Rules: protocol.md 6.6, "Rollback", "Defaults". Look-ups never wait: they are
 * answered from the last verified state. Whoever needs a fresh one asks
 * directory_fresh() first.
 */
#ifndef HYPER_DIRECTORY_DIRECTORY_H
#define HYPER_DIRECTORY_DIRECTORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <jansson.h>

#include "hyper/base/attr.h"
#include "hyper/settings/conf.h"

struct event_base;
struct directory;

#define DIRECTORY_ERR_MAX 512

/* How sd is reached by these settings: endpoints[0] with server_names[0]. */
struct directory_endpoint {
	struct conf_rpc_client client; /* for rpc_client_new(); borrows from the settings and from `tls` */
	struct conf_tls tls;
};
/* Only for CONF_DIRECTORY_API. *ret must not be moved while it is used. */
void directory_endpoint(const struct conf_directory *, struct directory_endpoint *ret);

/* Opens it; for `api` the kept chain is loaded and verified and the first
 * refresh started. `conf` is borrowed until directory_free(). 0 with *ret
 * taken, or -errno untouched with `err`. An sd that is away is no error. */
int directory_new(struct event_base *, const struct conf_directory *conf, struct directory **ret,
    char err[DIRECTORY_ERR_MAX]) ATTR_MUST_USE;
void directory_free(struct directory *);

/* A reload in two steps. Here all that can fail is done: 0 with *ret taken, or -errno untouched with `err`. `conf`, of
 * the same type, is borrowed. */
struct directory_next;
int directory_prepare(struct directory *, const struct conf_directory *conf, struct directory_next **ret,
    char err[DIRECTORY_ERR_MAX]) ATTR_MUST_USE;
/* The second one is given; its `conf` is borrowed until directory_free(), the one before no more. Look-ups rest on what
 * was verified before, until the next refresh. */
void directory_apply(struct directory *, struct directory_next *);
void directory_next_free(struct directory_next *); /* NULL is fine */

/* The entry, or NULL. Borrowed until the next return to the loop; json_incref() to keep. */
const json_t *directory_get(struct directory *, const char *name);

/* All entries: object name -> entry. Borrowed likewise. */
const json_t *directory_all(struct directory *);

enum directory_state {
	DIRECTORY_EMPTY, /* nothing verified yet: sd away and nothing kept */
	DIRECTORY_FRESH, /* no older than 2 x cache_entries_for */
	DIRECTORY_OLD,   /* older, still within max_stale */
	DIRECTORY_STALE  /* older than max_stale: do not decide on it */
};
enum directory_state directory_state(const struct directory *);
int64_t directory_age_ms(const struct directory *);

/* Calls `cb` once from the loop: at once when fresh (age under 1 x: from
 * cache; 1 x to 2 x: from cache, a refresh starts; older: after the refresh
 * ended either way). `state` is what look-ups now rest on. */
typedef void (*directory_cb)(enum directory_state state, void *arg);
void directory_fresh(struct directory *, directory_cb cb, void *arg);

/* Forces a refresh, then as above (an unknown name was asked for; at most one a second is really sent). */
void directory_refresh(struct directory *, directory_cb cb, void *arg);

/* Called after each change of the entries, from the loop. One listener. */
void directory_on_change(struct directory *, void (*cb)(void *arg), void *arg);

#endif
