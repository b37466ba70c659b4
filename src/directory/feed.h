/* feed.h - new records from sd, verified and accepted or refused as a whole; for src/directory only */
#ifndef DIRECTORY_FEED_H
#define DIRECTORY_FEED_H

#include <stdbool.h>

#include <jansson.h>

#include "hyper/base/attr.h"
#include "hyper/directory/directory.h"

struct event_base;
struct feed;

/* How a refresh ended. `entries` is NULL when nothing changed or it failed, else given to the callee; `err` is ""
 * when it did not fail. */
typedef void (*feed_cb)(bool ok, json_t *entries, const char *err, void *arg);

/* Loads trust and the kept chain. `conf` and `arg` are borrowed until feed_free(). 0 with *ret taken, or -errno
 * with `err`. */
int feed_new(struct event_base *, const struct conf_directory *conf, feed_cb, void *arg, struct feed **ret,
    char err[DIRECTORY_ERR_MAX]) ATTR_MUST_USE;

/* A refresh that runs is ended with ok = false before this returns. NULL is fine. */
void feed_free(struct feed *);

/* A reload: trust and client by `conf` (borrowed from now on), and all that is kept is verified with a trust that
 * differs. 0 with *ret taken, or -errno with `err`. */
struct feed_next;
int feed_prepare(struct feed *, struct event_base *, const struct conf_directory *conf, struct feed_next **ret,
    char err[DIRECTORY_ERR_MAX]) ATTR_MUST_USE;
/* The second one is given. A refresh that runs ends as it would have, or fails and is tried again. */
void feed_apply(struct feed *, struct feed_next *);
void feed_next_free(struct feed_next *); /* NULL is fine */

/* Entries of the kept chain (taken), NULL when there was none; *ret_utc_ns: when it was last current. */
json_t *feed_kept(struct feed *, int64_t *ret_utc_ns);

/* Starts a refresh; `cb` comes once, from the loop. Not while one runs. */
void feed_start(struct feed *);

#endif
