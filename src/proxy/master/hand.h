/* hand.h - giving to workers: pairs that wait for one, pipes that they ask for, pairs that another has more room for */
#ifndef HYPER_PROXY_MASTER_HAND_H
#define HYPER_PROXY_MASTER_HAND_H

#include <stdbool.h>

#include "hyper/base/attr.h"
#include "proxy/master/pairing.h"

struct hand_conf {
	size_t max_pipes; /* of each worker, besides those that come with a pair; 0 none (copy mode) */
	size_t pipe_size;
};

/* The pairs that wait, the one that waits longest first, as far as workers have room now. */
void hand_waiting(struct pairs *);

/* MOVE for the pairs of workers that drain, as far as others have room for them now. */
void hand_drain(struct pairs *);

/* MOVE for all pairs of workers that drain, as far as their channels have room: whoever takes them comes later. */
void hand_empty(struct pairs *);

/* Pipes that this worker asked for, as far as its channel has room now. */
void hand_pipes(struct pairs *, const struct hand_conf *, struct slot *);

/* Its pipes are the pair's again: LIVE, MOVING or HANDING -> WAITING, as the worker says. 0, or -EPROTO with nothing changed. */
int hand_take_back(struct pairs *, struct pair *, const struct chan_msg *moved) ATTR_MUST_USE;

/* It ends as kicked: by its worker, who says so in its log as well, or here once it waits for one. False: that
 * worker's channel has no room; the pair ends so when the caller resets its sockets. */
bool hand_kick(struct pair *);

/* Twice a second: what waits too long, and MOVE from the fullest worker to the emptiest. */
void hand_tick(struct pairs *, bool level);

#endif
