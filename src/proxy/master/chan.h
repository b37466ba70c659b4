/* chan.h - the master's end of one worker's channel: messages in, a bounded outbox out */
#ifndef HYPER_PROXY_MASTER_CHAN_H
#define HYPER_PROXY_MASTER_CHAN_H

#include <stdbool.h>
#include <stddef.h>

#include "hyper/base/attr.h"
#include "hyper/wire/chanmsg.h"

struct event_base;
struct chan;

/* Messages that wait for the socket. Reading stops at half of it, and a message
 * is answered by at most one: so answers always find room. */
#define CHAN_OUTBOX 64

struct chan_ops {
	/* One well-formed message. *fd is its descriptor or -1; take it by
	 * setting -1, else it is closed. `lost`: it had one, but we were at our limit.
	 * 0, or -EPROTO: on_end follows. May not call chan_free(). */
	int (*on_message)(const struct chan_msg *, int *fd, bool lost, void *arg);
	/* The end: `why` NULL when the worker closed it, else what the worker did
	 * wrong. The last callback; chan_free() is permitted in it. */
	void (*on_end)(const char *why, void *arg);
	/* The outbox was full for its purpose and has room again. */
	void (*on_room)(void *arg);
};

/* `fd` is given, also on failure. NULL when out of memory; taken. */
struct chan *chan_new(struct event_base *, int fd, const struct chan_ops *, void *arg);
void chan_free(struct chan *);

/* Sends now or as soon as the socket takes it, in order. `pass_fd` (-1 none) is
 * borrowed until chan_has_queued() denies it. */
void chan_post(struct chan *, const struct chan_msg *, int pass_fd);

/* Does a message that carries this descriptor still wait? */
bool chan_has_queued(const struct chan *, int pass_fd);

/* Messages that may be posted now without being answers: half of the outbox is kept for answers. 0 when nobody reads. */
size_t chan_room(const struct chan *);

/* Is the worker known to be dead, so that what is posted goes nowhere? */
bool chan_is_dead(const struct chan *);

/* Delivers what the worker had sent before it died; on_end is not called. */
void chan_drain(struct chan *);

#endif
