/* meet.h - who meets whom: what workers report becomes parked sockets and pairs */
#ifndef HYPER_PROXY_MASTER_MEET_H
#define HYPER_PROXY_MASTER_MEET_H

#include <stdbool.h>
#include <stddef.h>

#include "hyper/base/attr.h"
#include "proxy/master/session.h"
#include "proxy/master/slots.h"

struct meet;

struct meet_conf {
	unsigned workers;
	size_t max_pairs; /* per worker */
	size_t max_pipes; /* per worker */
	size_t pipe_size;
	uint64_t operator_rate; /* bytes a second of each operator; 0 no limit */
	bool copy_mode;         /* no pipes, and what is in a worker's buffer cannot be moved */
};

/* `sessions` and `quota` are borrowed until meet_free(). NULL when out of memory; taken. */
struct meet *meet_new(struct sessions *, struct quota *quota, const struct meet_conf *);
void meet_free(struct meet *);

/* For those who only look (show.c, tell.c). Borrowed until meet_free(). */
struct pairs;
struct pairs *meet_pairs(struct meet *);

/* slots_ops */
int meet_on_message(struct meet *, struct slot *, const struct chan_msg *, int *fd, bool lost) ATTR_MUST_USE;
void meet_on_serving(struct meet *, struct slot *);
void meet_on_room(struct meet *, struct slot *);
void meet_on_lost(struct meet *, struct slot *, int status);
void meet_on_tick(struct meet *);

/* A reload: all but copy_mode. */
void meet_apply(struct meet *, const struct meet_conf *);

/* Nothing new from now on; pairs without a worker end. */
void meet_stop(struct meet *);

#endif
