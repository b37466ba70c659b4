/* reply.h - one caller that waits: answered once, from the loop, by a deadline */
#ifndef SERVER_REPLY_H
#define SERVER_REPLY_H

#include <stdbool.h>
#include <stdint.h>

#include "server/channel.h"

struct event;
struct event_base;

/* Both are called from the loop with the owner. */
struct reply_ops {
	/* The deadline is over: call reply_give() now. */
	void (*on_deadline)(void *owner);
	/* The caller has been answered; the reply is empty now. May free the owner. */
	void (*on_done)(void *owner);
};

/* Embedded in its owner; only reply.c looks inside. */
struct reply {
	struct event *timer; /* NULL: unused, or done */
	const struct reply_ops *ops;
	void *owner;
	deliver_cb cb;
	void *arg;
	struct rpc_answer answer;
	bool is_given;
	bool failed;
};

/* Starts waiting. 0, or -ENOMEM: then `cb` is never called. */
int reply_init(struct reply *, struct event_base *, int64_t deadline_ms, const struct reply_ops *, void *owner,
    deliver_cb cb, void *arg) ATTR_MUST_USE;

/* Decides the answer (given); the caller gets it from the loop. Later answers
 * are dropped: the first one counts. */
void reply_give(struct reply *, struct rpc_answer, bool failed);

/* True until reply_give(). */
bool reply_is_open(const struct reply *);

/* The owner goes away: answers at once, END_STOPPED if nothing was given, and
 * calls on_done. Only while shutting down. Nothing after on_done; legal on a done one. */
void reply_flush(struct reply *);

#endif
