/* touched.c - see the header
 *
 * Always true: nothing is changed by it. Numbers are of this moment, by the workers' pages and ledgers.
 *
 * Not here: what operators hold beyond their limits (quota.c), applying (reload.c).
 */
#include "proxy/master/touched.h"

#include "hyper/proxy/worker_abi.h"
#include "hyper/settings/conf.h"
#include "proxy/master/limits.h"
#include "proxy/master/view.h"

struct touched {
	int64_t idle_ms; /* 0: nobody is too silent */
	unsigned workers;
	size_t silent, moved;
};

static void
look_at(const struct view_pair *p, void *arg)
{
	struct touched *t = arg;

	t->silent += t->idle_ms > 0 && p->idle_ms >= t->idle_ms;
	t->moved += p->worker >= 0 && (unsigned)p->worker >= t->workers;
}

/* What workers have beyond these limits of each. */
static void
count_workers(const struct view *v, size_t max_pairs, size_t max_fresh, size_t *ret_pairs, size_t *ret_fresh)
{
	struct slot_view s;

	*ret_pairs = *ret_fresh = 0;
	for (unsigned i = 0; i < slots_count(v->slots); i++) {
		uint64_t pairs, fresh;

		slots_view(v->slots, i, &s);
		if (!s.stats)
			continue;
		pairs = __atomic_load_n(&s.stats->pairs, __ATOMIC_RELAXED);
		fresh = __atomic_load_n(&s.stats->unauthenticated, __ATOMIC_RELAXED);
		*ret_pairs += pairs > max_pairs ? pairs - max_pairs : 0;
		*ret_fresh += fresh > max_fresh ? fresh - max_fresh : 0;
	}
}

static void
note(json_t *list, const char *key, size_t n, const char *what)
{
	if (n > 0)
		(void)json_array_append_new(
		    list, json_pack("{s:s, s:I, s:s}", "key", key, "n", (json_int_t)n, "what", what));
}

json_t *
touched_by(const struct view *v, const struct limits *was, const struct conf_proxy_public *c, const struct limits *l)
{
	struct touched t = { .workers = c->workers };
	json_t *list = json_array();
	size_t pairs, fresh;

	if (c->idle_timeout_ms != v->conf->idle_timeout_ms)
		t.idle_ms = c->idle_timeout_ms;
	view_pairs(v, look_at, &t);
	count_workers(v, l->max_pairs, c->max_unauthenticated, &pairs, &fresh);
	note(list, "public.idle_timeout", t.silent, "pairs are silent for longer: they end");
	note(list, "public.workers", t.moved, "pairs move to the workers that stay");
	if (l->max_pairs != was->max_pairs)
		note(list, "public.max_pairs", pairs, "pairs are beyond it at their workers: they stay");
	if (c->max_unauthenticated != v->conf->max_unauthenticated)
		note(list, "public.max_unauthenticated", fresh,
		    "connections without a token are beyond it: the oldest are closed when others come");
	return list;
}
