/* tell.c - see the header
 *
 *   status   numbers of now            pairs [operator]     one row each
 *   tokens   issued and parked         explain ID|OPERATOR  where a brokering stands or ended, why, what to do
 *   kick     ID or --operator: reset   (hyper's proxy(8) has the same list)
 *
 * Always true: an answer holds at most ROWS_MAX rows and says when there are more.
 */
#include "proxy/master/tell.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "hyper/base/clock.h"
#include "hyper/base/fd.h"
#include "hyper/base/log.h"
#include "hyper/net/admin.h"
#include "hyper/proxy/worker_abi.h"
#include "hyper/wire/json.h"
#include "proxy/master/explain.h"
#include "proxy/master/hand.h"

#define ROWS_MAX 20000

struct rows {
	json_t *list;
	const char *only; /* operator; NULL all */
	size_t skipped;
};

static bool
is_of(const char *name, const char *from, const char *to)
{
	return !name || strcmp(name, from) == 0 || strcmp(name, to) == 0;
}

static void
rows_add(struct rows *r, json_t *row)
{
	if (json_array_size(r->list) < ROWS_MAX)
		json_array_append_new(r->list, row);
	else
		r->skipped++, json_decref(row);
}

static json_t *
rows_answer(struct rows *r, const char *key)
{
	return json_pack("{s:b, s:o, s:I}", "ok", 1, key, r->list, "more", (json_int_t)r->skipped);
}

/* --- status --- */

static json_t *
status(const struct view *v)
{
	struct toktab_counts tokens = toktab_counts(v->table);
	json_t *workers = json_array(), *ret;
	struct view_totals t;
	struct slot_view s;

	view_totals(v, &t);
	for (unsigned i = 0; i < slots_count(v->slots); i++) {
		slots_view(v->slots, i, &s);
		json_array_append_new(
		    workers, json_pack("{s:i, s:i, s:s, s:I, s:I, s:i, s:I}", "worker", (int)s.no, "pid", s.pid,
				 "state", s.state, "age_ms", (json_int_t)s.age_ms, "pairs",
				 (json_int_t)(s.stats ? __atomic_load_n(&s.stats->pairs, __ATOMIC_RELAXED) : 0),
				 "crashes", (int)s.crashes, "starts_in_ms", (json_int_t)s.starts_in_ms));
	}
	ret = json_pack("{s:b, s:s, s:s, s:s, s:i, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:o}", "ok",
	    1, "name", v->conf->name, "state", v->state, "version", PACKAGE_VERSION, "pid", (int)getpid(), "endpoint",
	    v->endpoint, "uptime_ms", (json_int_t)(clock_now_ms() - v->start_ms), "pairs", (json_int_t)t.pairs,
	    "pairs_waiting", (json_int_t)t.waiting, "pairs_limit", (json_int_t)v->max_pairs, "parked",
	    (json_int_t)tokens.parked, "tokens", (json_int_t)tokens.issued, "tokens_limit", (json_int_t)tokens.slots,
	    "bytes", (json_int_t)(t.bytes[0] + t.bytes[1]), "restarts", (json_int_t)t.restarts, "upgrades",
	    (json_int_t)v->upgrades, "workers", workers);
	if (v->came_back)
		(void)json_object_set_new(ret, "upgrade_failed", json_string(v->came_back));
	return ret;
}

/* --- pairs, tokens --- */

static void
add_pair(const struct view_pair *p, void *arg)
{
	const char *from = pairing_from(p->pair), *to = pairing_to(p->pair);
	struct rows *r = arg;

	if (is_of(r->only, from, to))
		rows_add(r,
		    json_pack("{s:s, s:I, s:s, s:s, s:I, s:I, s:I, s:I, s:i, s:I, s:I}", "session", p->pair->session,
			"pair", (json_int_t)p->pair->id, "from", from, "to", to, "age_ms",
			(json_int_t)(clock_now_ms() - p->pair->since_ms), "idle_ms", (json_int_t)p->idle_ms, "bytes_ab",
			(json_int_t)p->bytes[0], "bytes_ba", (json_int_t)p->bytes[1], "worker", p->worker, "rtt_a_us",
			(json_int_t)view_rtt_us(p->pair, 0), "rtt_b_us", (json_int_t)view_rtt_us(p->pair, 1)));
}

static void
add_token(const struct session *s, void *arg)
{
	int64_t now = clock_now_ns();
	struct rows *r = arg;

	if (is_of(r->only, s->from, s->to))
		rows_add(r, json_pack("{s:s, s:s, s:s, s:s, s:I, s:I}", "session", s->id, "from", s->from, "to", s->to,
				"state", s->state == SESSION_PARKED ? "parked" : "issued", "age_ms",
				(json_int_t)((now - s->asked_ns) / 1000000), "left_ms",
				(json_int_t)((s->deadline_ns - now) / 1000000)));
}

/* --- kick --- */

struct kick {
	const char *session, *whose;
	json_int_t pairs, parked;
	struct session *found[64]; /* ended after the walk: sessions_each() permits no change */
	size_t n;
};

static bool
is_meant(const struct kick *k, const char *session, const char *from, const char *to)
{
	return k->session ? strcmp(k->session, session) == 0 : is_of(k->whose, from, to);
}

static void
kick_pair(const struct view_pair *p, void *arg)
{
	struct kick *k = arg;
	int copy;

	if (!is_meant(k, p->pair->session, pairing_from(p->pair), pairing_to(p->pair)))
		return;
	log_info("kicked", "pair=%" PRIu64 " session=%s", p->pair->id, p->pair->session);
	k->pairs++;
	if (hand_kick((struct pair *)p->pair))
		return;
	/* The worker sees the reset on its copies and reports the end, which then has our reason. */
	for (int i = 0; i < 2; i++) {
		copy = p->pair->fd[i] >= 0 ? fcntl(p->pair->fd[i], F_DUPFD_CLOEXEC, 0) : -1;
		fd_reset(&copy);
	}
}

static void
kick_session(const struct session *s, void *arg)
{
	struct kick *k = arg;

	if (k->n < ARRAY_LEN(k->found) && is_meant(k, s->id, s->from, s->to))
		k->found[k->n++] = (struct session *)s;
}

static json_t *
kick(const struct view *v, const json_t *args)
{
	struct kick k = { .session = json_str(args, "id"), .whose = json_str(args, "operator") };

	if (!k.session && !k.whose)
		return admin_error("kick: expected a session id or --operator");
	view_pairs(v, kick_pair, &k);
	do {
		k.n = 0;
		sessions_each(v->sessions, kick_session, &k);
		for (size_t i = 0; i < k.n; i++) {
			log_info("kicked", "session=%s", k.found[i]->id);
			session_end(k.found[i], END_KICKED);
			k.parked++;
		}
	} while (k.n == ARRAY_LEN(k.found));
	if (k.pairs + k.parked == 0)
		return admin_error("kick: %s %s has no pair and no token here", k.session ? "session" : "operator",
		    k.session ? k.session : k.whose);
	return json_pack("{s:b, s:I, s:I}", "ok", 1, "pairs", k.pairs, "tokens", k.parked);
}

bool
tell_answer(const struct view *v, const char *verb, const json_t *args, json_t **ret_answer)
{
	struct rows rows = { .only = json_str(args, "operator") };

	if (strcmp(verb, "status") == 0) {
		*ret_answer = status(v);
	} else if (strcmp(verb, "pairs") == 0) {
		rows.list = json_array();
		view_pairs(v, add_pair, &rows);
		*ret_answer = rows_answer(&rows, "pairs");
	} else if (strcmp(verb, "tokens") == 0) {
		rows.list = json_array();
		sessions_each(v->sessions, add_token, &rows);
		*ret_answer = rows_answer(&rows, "tokens");
	} else if (strcmp(verb, "kick") == 0) {
		*ret_answer = kick(v, args);
	} else if (strcmp(verb, "explain") == 0) {
		*ret_answer = explain(args);
	} else {
		return false;
	}
	return true;
}
