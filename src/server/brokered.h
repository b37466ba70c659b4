/* brokered.h - A's side: asks a proxy for a connection to an operator that cannot be dialled */
#ifndef SERVER_BROKERED_H
#define SERVER_BROKERED_H

#include <stdint.h>

#include "hyper/base/attr.h"
#include "hyper/settings/conf.h"
#include "hyper/wire/token.h"
#include "server/channel.h"

struct broker;
struct brokered;
struct directory;
struct event_base;

struct brokered_env { /* it and all in it borrowed for as long as a brokered lives; a reload changes `conf` */
	struct event_base *base;
	const struct conf_hyper *conf;
	struct directory *dir;
	struct broker *broker;
};

/* What came of it; borrowed until return. */
struct brokered_end {
	const char *via;              /* the proxy */
	int fd;                       /* given: connected, token sent, TLS comes next; -1: failed */
	char session[SESSION_ID_MAX]; /* "" before P has answered */
	uint64_t story;               /* story.h */
	json_t *timeline;             /* step -> ms since P was asked; json_incref() to keep; may be NULL */
	double asked_ms;              /* monotonic: where the timeline starts */
	double expires_ms;            /* monotonic: when the token's life is over; 0 P did not say */
	struct rpc_answer *error;     /* fd -1: names the step; members may be taken */
};
typedef void (*brokered_cb)(const struct brokered_end *, void *arg);

/* Steps 1 to 7 (protocol.md 7.1): requestConnection at `proxy` through the own
 * broker, dial the endpoint, send the token. `cb` comes once from the loop, by
 * `deadline_ms`. 0 with *ret borrowed until then, or -ENOMEM untouched. */
int brokered_start(const struct brokered_env *, const char *target, const char *proxy, int64_t deadline_ms,
    brokered_cb cb, void *arg, struct brokered **ret) ATTR_MUST_USE;

/* Before `cb`: it never comes. NULL is fine. */
void brokered_cancel(struct brokered *);

/* Which step it is at: the first one that has not been reached. */
enum broker_step brokered_step(const struct brokered *);

/* A timeline with one step more: `ms` since P was asked. */
void timeline_add(json_t *timeline, enum broker_step, double ms);

#endif
