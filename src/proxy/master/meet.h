/* meet.h - who meets whom: what workers report becomes parked sockets and pairs
 *
 *   HANDING --PAIRED--> LIVE --ENDED, worker lost--> DONE
 *      `------------ ENDED, worker lost -------------^
 */
#ifndef HYPER_PROXY_MASTER_MEET_H
#define HYPER_PROXY_MASTER_MEET_H

#include <stddef.h>

#include "hyper/base/attr.h"
#include "proxy/master/session.h"
#include "proxy/master/slots.h"

struct meet;

/* `sessions` and `quota` are borrowed until meet_free(). max_pairs: per worker. NULL when out of memory; taken. */
struct meet *meet_new(struct sessions *, struct quota *quota, size_t max_pairs);
void meet_free(struct meet *);

/* slots_ops */
int meet_on_message(struct meet *, struct slot *, const struct chan_msg *, int *fd, bool lost) ATTR_MUST_USE;
void meet_on_lost(struct meet *, struct slot *);
void meet_on_tick(struct meet *);

#endif
