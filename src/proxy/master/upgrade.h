/* upgrade.h - the master executes its program anew, in place: same pid, no pair cut, no pairing refused
 *
 *   IDLE --order--> CHECKING --`PATH check` is content--> QUIET --> DRAINING --> exec
 *    ^                 |                                    |          |
 *    `-----------------`------- why not, logged ------------`----------'
 */
#ifndef HYPER_PROXY_MASTER_UPGRADE_H
#define HYPER_PROXY_MASTER_UPGRADE_H

#include <stdbool.h>
#include <stdint.h>

#include "hyper/base/attr.h"
#include "hyper/settings/conf.h"
#include "proxy/master/state.h"

struct event_base;
struct rpc_server;
struct meet;
struct sessions;
struct slots;
struct upgrade;

#define UPGRADE_WHY_MAX 512

#define UPGRADE_ENV_STATE   "HYPER_PROXY_STATE_FD"
#define UPGRADE_ENV_VERSION "HYPER_PROXY_STATE_VERSION" /* asked of `check` */
#define UPGRADE_ENV_TRIAL   "HYPER_PROXY_TRIAL_FD"      /* likewise: a memfd with a state; it appends the words below */
#define UPGRADE_TRIAL_READ  "read\n"

struct upgrade_conf { /* all borrowed until upgrade_free() */
	struct event_base *base;
	struct rpc_server *server;
	struct sessions *sessions;
	struct meet *meet;
	struct slots *slots;
	/* Asked all the time: false fails the order. */
	bool (*may_go_on)(void *arg);
	/* A failed order: the old program goes on. */
	void (*on_failed)(const char *why, void *arg);
	void *arg;
};

/* What a predecessor left for us. 0 with *ret (state_fini() is owed) and the listeners given to
 * listeners_open(); -ENOENT: this is a first start; else -errno with `err`: then there is nothing to go on with. */
int upgrade_inherit(struct state *ret, char err[STATE_ERR_MAX]) ATTR_MUST_USE;

/* Counters, tokens, parked sockets and pairs of it again, logged. `sessions` and `meet` are new. No worker may ask for a
 * token before. */
void upgrade_restore(const struct state *, struct sessions *, struct meet *);
/* What its workers had counted. */
void upgrade_restore_counts(const struct state *, struct slots *);

/* `inherited` may be NULL. `old_fd` (taken, also on failure; -1 none): what back_forget() gave. 0 with *ret taken, or
 * -errno. */
int
upgrade_new(const struct upgrade_conf *, const struct state *inherited, int old_fd, struct upgrade **ret) ATTR_MUST_USE;
/* Ends what it has under way, old workers included. NULL is fine. */
void upgrade_free(struct upgrade *);

/* Begins. 0; -EALREADY: one is under way. */
int upgrade_begin(struct upgrade *) ATTR_MUST_USE;
bool upgrade_is_running(const struct upgrade *);

/* A worker of ours serves: nobody goes back any more. */
void upgrade_served(struct upgrade *);
/* Twice a second: while none has served after an upgrade, the old program is executed again in the end. */
void upgrade_tick(struct upgrade *);
/* Is that under way? Then it may begin before all serve. */
bool upgrade_goes_back(const struct upgrade *);
/* A stop came: it is over, as a failed one, and old workers are killed. */
void upgrade_stop(struct upgrade *);

/* A child may have ended. */
void upgrade_reap(struct upgrade *);

/* How often the program was executed anew so far, and old workers that still have pairs. */
uint64_t upgrade_count(const struct upgrade *);
size_t upgrade_left(const struct upgrade *);

/* Are we the old program, executed again since the new one could not start? Why; NULL: no. */
const char *upgrade_came_back(void);

/* For `check`: can this program read what the one that asks would leave for it, and start with these settings? An exit
 * code, the reason on standard error. */
int upgrade_check(const struct conf_proxy *);

#endif
