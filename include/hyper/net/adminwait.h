/* adminwait.h - verbs that wait until a program has drained: `drain` and `stop` of the proxy and the message server */
#ifndef HYPER_NET_ADMINWAIT_H
#define HYPER_NET_ADMINWAIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <jansson.h>

#include "hyper/base/attr.h"

struct admin_call;
struct admin_waits;

struct admin_waits_ops {
	/* Are at most `until` left of what the program counts? */
	bool (*is_met)(size_t until, void *arg);
	/* What is left, with "ok", and "error" where there is one (NULL: none). Taken; NULL: out of memory. */
	json_t *(*answer)(const char *error, void *arg);
};

/* 0 with *ret taken, or -ENOMEM untouched. */
int admin_waits_new(const struct admin_waits_ops *, void *arg, struct admin_waits **ret) ATTR_MUST_USE;

/* Who still waits is answered as by admin_waits_end(), "stopped". NULL is fine. */
void admin_waits_free(struct admin_waits *);

/* The "deadline_ms" of a verb's arguments, else `default_ms`. 0, or -ERANGE: negative or over a day. */
int admin_wait_deadline(const json_t *args, int64_t default_ms, int64_t *ret_ms) ATTR_MUST_USE;

/* The call is answered once: when at most `until` are left, at `deadline_ms` of the monotonic clock, or at the end;
 * with INT64_MAX only at the end. 0 with the call taken, or -ENOMEM. */
int admin_waits_add(struct admin_waits *, struct admin_call *, size_t until, int64_t deadline_ms) ATTR_MUST_USE;

/* To be called often: answers those whose wish is met or whose deadline has come, and drops those whose client went. */
void admin_waits_look(struct admin_waits *, int64_t now_ms);

/* Answers all: well where the wish is met, else with this error. */
void admin_waits_end(struct admin_waits *, const char *error);

#endif
