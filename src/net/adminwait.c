/* adminwait.c - see the header
 *
 * Always true: a call leaves the list in the moment it is answered, so it is answered once.
 *
 * Not here: draining itself (proxy/master/drain.c, server/drain.c).
 */
#include "hyper/net/adminwait.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/queue.h>

#include "hyper/net/admin.h"

#define DAY_MS 86400000

struct waiter {
	TAILQ_ENTRY(waiter) link;
	struct admin_call *call;
	size_t until;
	int64_t deadline_ms; /* of the monotonic clock; INT64_MAX: the end's */
};

struct admin_waits {
	const struct admin_waits_ops *ops;
	void *arg;
	TAILQ_HEAD(, waiter) waiters;
};

int
admin_waits_new(const struct admin_waits_ops *ops, void *arg, struct admin_waits **ret)
{
	struct admin_waits *w = calloc(1, sizeof(*w));

	if (!w)
		return -ENOMEM;
	w->ops = ops;
	w->arg = arg;
	TAILQ_INIT(&w->waiters);
	*ret = w;
	return 0;
}

void
admin_waits_free(struct admin_waits *w)
{
	if (!w)
		return;
	admin_waits_end(w, "stopped");
	free(w);
}

int
admin_wait_deadline(const json_t *args, int64_t default_ms, int64_t *ret_ms)
{
	const json_t *given = json_object_get(args, "deadline_ms");
	int64_t ms = json_is_integer(given) ? json_integer_value(given) : default_ms;

	if (ms < 0 || ms > DAY_MS)
		return -ERANGE;
	*ret_ms = ms;
	return 0;
}

int
admin_waits_add(struct admin_waits *w, struct admin_call *call, size_t until, int64_t deadline_ms)
{
	struct waiter *one = calloc(1, sizeof(*one));

	if (!one)
		return -ENOMEM;
	one->call = call;
	one->until = until;
	one->deadline_ms = deadline_ms;
	TAILQ_INSERT_TAIL(&w->waiters, one, link);
	return 0;
}

static void
answer(struct admin_waits *w, struct waiter *one, const char *error)
{
	TAILQ_REMOVE(&w->waiters, one, link);
	admin_answer(one->call, w->ops->answer(error, w->arg));
	free(one);
}

void
admin_waits_look(struct admin_waits *w, int64_t now_ms)
{
	struct waiter *one, *next;

	for (one = TAILQ_FIRST(&w->waiters); one; one = next) {
		next = TAILQ_NEXT(one, link);
		if (admin_is_gone(one->call))
			answer(w, one, "gone");
		else if (one->deadline_ms == INT64_MAX)
			continue;
		else if (w->ops->is_met(one->until, w->arg))
			answer(w, one, NULL);
		else if (now_ms >= one->deadline_ms)
			answer(w, one, "something is left at the deadline; it goes on draining");
	}
}

void
admin_waits_end(struct admin_waits *w, const char *error)
{
	struct waiter *one;

	while ((one = TAILQ_FIRST(&w->waiters)))
		answer(w, one, w->ops->is_met(one->until, w->arg) ? NULL : error);
}
