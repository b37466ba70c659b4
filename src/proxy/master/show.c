/* show.c - see the header
 *
 * Always true:
 *  1. It changes nothing and counts nothing: the numbers are tally.c's, the
 *     table's, the quota's and the workers' own pages.
 *  2. A page lists at most ROWS_MAX pairs, those that moved most; its totals are of all.
 *  3. For a page each pair is looked at once; its pointers are valid until the page is done, which is
 *     before control returns to the loop.
 */
#include "proxy/master/show.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hyper/base/clock.h"
#include "hyper/net/certs.h"
#include "hyper/net/metrics.h"
#include "hyper/proxy/worker_abi.h"
#include "proxy/master/tally.h"

#define ROWS_MAX 100
#define ENDS_MAX 20

struct show {
	const struct view *view;
	struct page *page; /* while one is made, and there was memory for it */
};

/* --- one look for a page --- */

struct page {
	struct view_totals totals;
	struct view_pair v[ROWS_MAX]; /* those that moved most, the least of them first */
	size_t n, all;
};

static uint64_t
moved(const struct view_pair *p)
{
	return p->bytes[0] + p->bytes[1];
}

static void
page_add(const struct view_pair *p, void *arg)
{
	struct page *t = arg;
	size_t i = 0;

	t->all++;
	t->totals.bytes[0] += p->bytes[0];
	t->totals.bytes[1] += p->bytes[1];
	if (t->n == ROWS_MAX && moved(p) <= moved(&t->v[0]))
		return;
	if (t->n == ROWS_MAX)
		memmove(&t->v[0], &t->v[1], --t->n * sizeof(t->v[0]));
	while (i < t->n && moved(&t->v[i]) < moved(p))
		i++;
	memmove(&t->v[i + 1], &t->v[i], (t->n - i) * sizeof(t->v[0]));
	t->v[i] = *p;
	t->n++;
}

static void
page(bool begins, void *arg)
{
	struct show *s = arg;

	free(s->page);
	s->page = begins ? calloc(1, sizeof(*s->page)) : NULL;
	if (!s->page)
		return;
	view_counts(s->view, &s->page->totals);
	view_pairs(s->view, page_add, s->page);
}

static void
totals(const struct show *s, struct view_totals *ret)
{
	if (s->page)
		*ret = s->page->totals;
	else
		view_totals(s->view, ret);
}

/* --- graphs and tiles --- */

static void
sample(double *ret, void *arg)
{
	struct show *s = arg;
	struct view_totals t;

	totals(s, &t);
	ret[0] = (double)(t.bytes[0] + t.bytes[1]);
	ret[1] = (double)t.pairs;
}

static json_t *
tiles(void *arg)
{
	struct show *s = arg;
	struct toktab_counts tokens = toktab_counts(s->view->table);
	struct view_totals t;
	json_t *list = json_array();

	totals(s, &t);
	status_add_tile(list, "pairs", t.pairs, "", t.pairs * 10 > s->view->max_pairs * 9 ? "warn" : "");
	status_add_tile(list, "paired since the start", tally_get()->brokerings[END_REASON_MAX], "", "");
	status_add_tile(list, "moved", t.bytes[0] + t.bytes[1], STATUS_BYTES, "");
	status_add_tile(list, "parked", tokens.parked, "", "");
	status_add_tile(
	    list, "tokens waiting", tokens.issued, "", tokens.issued + tokens.parked == tokens.slots ? "bad" : "");
	status_add_tile(list, "workers", t.serving, "",
	    t.crashing > 0 || t.serving == 0          ? "bad"
	    : t.serving < slots_count(s->view->slots) ? "warn"
						      : "");
	status_add_tile(list, "worker restarts", t.restarts, "", t.restarts > 0 ? "warn" : "");
	json_array_append_new(list, certs_tile(s->view->conf->rpc_server->tls));
	return list;
}

/* --- tables --- */

static json_t *
workers_table(const struct show *s)
{
	static const char *const columns[] = { "worker", "pid", "state", "age|seconds", "pairs|", "accepted|",
		"waiting|", "moved|bytes", NULL };
	json_t *rows = json_array();
	struct slot_view v;

	for (unsigned i = 0; i < slots_count(s->view->slots); i++) {
		const struct worker_stats *w;

		slots_view(s->view->slots, i, &v);
		w = v.stats;
		json_array_append_new(
		    rows, json_pack("[I, I, s, f, I, I, I, I]", (json_int_t)v.no, (json_int_t)v.pid, v.state,
			      (double)v.age_ms / 1e3, (json_int_t)(w ? w->pairs : 0), (json_int_t)(w ? w->accepted : 0),
			      (json_int_t)(w ? w->unauthenticated + w->waiting : 0), (json_int_t)(w ? w->bytes : 0)));
	}
	return status_table("workers", "Workers", "", columns, rows);
}

static json_t *
pairs_table(const struct show *s)
{
	static const char *const columns[] = { "session", "from", "to", "age|seconds", "idle|seconds", "a → b|bytes",
		"b → a|bytes", "worker", NULL };
	const struct page *top = s->page;
	json_t *rows = top ? json_array() : NULL;
	char note[64];

	if (!top)
		return NULL;
	for (size_t i = top->n; i-- > 0;) {
		const struct view_pair *p = &top->v[i];

		json_array_append_new(
		    rows, json_pack("[s, s, s, f, f, I, I, o]", p->pair->session, pairing_from(p->pair),
			      pairing_to(p->pair), (double)(clock_now_ms() - p->pair->since_ms) / 1e3,
			      (double)p->idle_ms / 1e3, (json_int_t)p->bytes[0], (json_int_t)p->bytes[1],
			      p->worker < 0 ? json_string("waits for one") : json_integer(p->worker)));
	}
	snprintf(note, sizeof(note), "%zu%s", top->all, top->all > ROWS_MAX ? ", the 100 that moved most" : "");
	return status_table("pairs", "Pairs", note, columns, rows);
}

static const char *
outcome(const struct tally_note *n)
{
	return n->stage == TALLY_BROKERING ? "under way"
	       : n->stage == TALLY_PAIR    ? "paired"
					   : end_reason_word((enum end_reason)n->reason);
}

static json_t *
ends_table(void)
{
	static const char *const columns[] = { "session", "from", "to", "outcome", "began|seconds", "moved|bytes",
		NULL };
	json_t *rows = json_array();
	const struct tally_note *n;

	for (unsigned i = 0; i < ENDS_MAX && (n = tally_note(i)); i++)
		json_array_append_new(
		    rows, json_pack("[s, s, s, s, f, I]", *n->session ? n->session : "-", *n->from ? n->from : "-",
			      *n->to ? n->to : "-", outcome(n), (double)(clock_wall_utc_ns() - n->begun_utc_ns) / 1e9,
			      (json_int_t)(n->bytes[0] + n->bytes[1])));
	return status_table("last", "Last brokerings", "seconds ago", columns, rows);
}

static json_t *
reasons_table(const struct show *s)
{
	static const char *const columns[] = { "reason", "brokerings|", "pairs|", "at the endpoint|", NULL };
	const struct tally *c = tally_get();
	json_t *rows = json_array();
	struct view_totals t;

	view_counts(s->view, &t);
	for (int i = 0; i < END_REASON_MAX; i++)
		if (c->brokerings[i] || c->pairs[i] || t.refused[i])
			json_array_append_new(
			    rows, json_pack("[s, I, I, I]", end_reason_word((enum end_reason)i),
				      (json_int_t)c->brokerings[i], (json_int_t)c->pairs[i], (json_int_t)t.refused[i]));
	return status_table("reasons", "Ends and refusals", "by reason, since the start", columns, rows);
}

static json_t *
tables(void *arg)
{
	const struct show *s = arg;
	json_t *list = json_array();

	json_array_append_new(list, pairs_table(s));
	json_array_append_new(list, ends_table());
	json_array_append_new(list, workers_table(s));
	json_array_append_new(list, reasons_table(s));
	return list;
}

/* --- metrics --- */

/* X(variable, name, type, help). hyper-metrics(7) has the same list; tools/check-metrics compares. */
#define FAMILIES(X)                                                                                                   \
	X(pairs_active, "hyper_pairs_active", GAUGE, "Pairs that are joined now.")                                    \
	X(pairs_waiting, "hyper_pairs_waiting", GAUGE, "Pairs whose worker died and that wait for another one.")      \
	X(pairs_limit, "hyper_pairs_limit", GAUGE, "Pairs that all workers may have together.")                       \
	X(pairs_total, "hyper_pairs_total", COUNTER, "Pairs that have ended, by end reason.")                         \
	X(brokerings, "hyper_brokerings_total", COUNTER, "Requests for a connection: paired, or why not, by result.") \
	X(tokens, "hyper_tokens", GAUGE, "Tokens that no peer has brought yet.")                                      \
	X(parked, "hyper_parked", GAUGE, "Connections that wait for their other party.")                              \
	X(tokens_limit, "hyper_tokens_limit", GAUGE, "Room of the token table.")                                      \
	X(bytes, "hyper_bytes_total", COUNTER, "Bytes delivered by pairs; a is the party that came second.")          \
	X(wait, "hyper_pair_wait_seconds", HISTOGRAM, "Time from the request to the pair.")                           \
	X(duration, "hyper_pair_duration_seconds", HISTOGRAM, "Life of the pairs that have ended.")                   \
	X(accepted, "hyper_endpoint_connections_total", COUNTER, "Connections accepted at the endpoint.")             \
	X(refused, "hyper_endpoint_refused_total", COUNTER, "Connections closed at the endpoint, by reason.")         \
	X(unauthenticated, "hyper_endpoint_unauthenticated", GAUGE, "Connections that have not sent a token yet.")    \
	X(accept_errors, "hyper_accept_errors_total", COUNTER, "Times that accepting at the endpoint failed.")        \
	X(workers, "hyper_workers_serving", GAUGE, "Worker processes that serve.")                                    \
	X(crashing, "hyper_workers_crashing", GAUGE, "Worker slots whose processes crash one after the other.")       \
	X(restarts, "hyper_worker_restarts_total", COUNTER, "Worker processes that had to be replaced.")              \
	X(pipes, "hyper_pipes_open", GAUGE, "Pipes for payload in all workers.")                                      \
	X(quota, "hyper_quota_refused_total", COUNTER, "Refusals by the setting whose limit was met.")                \
	X(reload_ok, "hyper_config_last_reload_successful", GAUGE, "1 unless the last reload of settings failed.")    \
	X(reloads, "hyper_config_reloads_total", COUNTER, "Reloads of settings, successful or not.")                  \
	X(selftests, "hyper_selftests_total", COUNTER, "Tokens issued to selftests.")                                 \
	X(draining, "hyper_draining", GAUGE, "1 while nothing new is taken.")

#define X(var, n, t, h) static const struct metrics_family f_##var = { n, METRICS_##t, h };
FAMILIES(X)
#undef X

static void
put_reasons(struct evbuffer *out, const struct metrics_family *f, const char *label, const uint64_t *counts)
{
	char text[64];

	metrics_begin(out, f);
	for (int i = 0; i < END_REASON_MAX; i++) {
		snprintf(text, sizeof(text), "%s=\"%s\"", label, end_reason_word((enum end_reason)i));
		metrics_uint(out, f, text, counts[i]);
	}
}

static void
put_quota(struct evbuffer *out, const struct quota *q)
{
	char text[96];

	metrics_begin(out, &f_quota);
	for (int i = 0; i < QUOTA_LIMIT_MAX; i++) {
		snprintf(text, sizeof(text), "limit=\"%s\"", quota_setting((enum quota_limit)i));
		metrics_uint(out, &f_quota, text, quota_refused(q, (enum quota_limit)i));
	}
}

static void
put_pairs(struct evbuffer *out, const struct view *v, const struct view_totals *t, const struct tally *c)
{
	metrics_one(out, &f_pairs_active, t->pairs);
	metrics_one(out, &f_pairs_waiting, t->waiting);
	metrics_one(out, &f_pairs_limit, v->max_pairs);
	put_reasons(out, &f_pairs_total, "end_reason", c->pairs);
	put_reasons(out, &f_brokerings, "result", c->brokerings);
	metrics_uint(out, &f_brokerings, "result=\"paired\"", c->brokerings[END_REASON_MAX]);
	metrics_begin(out, &f_bytes);
	metrics_uint(out, &f_bytes, "direction=\"a_to_b\"", t->bytes[0]);
	metrics_uint(out, &f_bytes, "direction=\"b_to_a\"", t->bytes[1]);
	metrics_begin(out, &f_wait);
	metrics_histogram(out, &f_wait, &c->wait);
	metrics_begin(out, &f_duration);
	metrics_histogram(out, &f_duration, &c->duration);
}

static void
metrics(struct evbuffer *out, void *arg)
{
	const struct view *v = ((struct show *)arg)->view;
	struct toktab_counts tokens = toktab_counts(v->table);
	const struct tally *c = tally_get();
	struct view_totals t;

	view_totals(v, &t);
	put_pairs(out, v, &t, c);
	metrics_one(out, &f_tokens, tokens.issued);
	metrics_one(out, &f_parked, tokens.parked);
	metrics_one(out, &f_tokens_limit, tokens.slots);
	metrics_one(out, &f_accepted, t.accepted);
	put_reasons(out, &f_refused, "reason", t.refused);
	metrics_one(out, &f_unauthenticated, t.unauthenticated);
	metrics_one(out, &f_accept_errors, t.accept_errors);
	metrics_one(out, &f_workers, t.serving);
	metrics_one(out, &f_crashing, t.crashing);
	metrics_one(out, &f_restarts, t.restarts);
	metrics_one(out, &f_pipes, t.pipes);
	put_quota(out, v->quota);
	metrics_one(out, &f_reload_ok, !c->last_reload_failed);
	metrics_one(out, &f_reloads, c->reloads);
	metrics_one(out, &f_selftests, c->selftests);
	metrics_one(out, &f_draining, strcmp(v->state, "draining") == 0 || strcmp(v->state, "stopping") == 0);
	certs_metrics(out, v->conf->rpc_server->tls);
}

static const char *
state(struct status_reasons *why, void *arg)
{
	const struct view *v = ((struct show *)arg)->view;
	struct toktab_counts tokens = toktab_counts(v->table);
	struct view_totals t;

	view_counts(v, &t);
	if (strcmp(v->state, "serving") != 0)
		status_reason(why, "%s", v->state);
	if (t.serving == 0)
		status_reason(why, t.crashing ? "no worker serves: they crash, the log says why" : "no worker serves");
	if (tokens.issued + tokens.parked == tokens.slots)
		status_reason(why, "the token table is full");
	return v->state;
}

static const struct status_series series[] = { { "bytes", "Throughput", STATUS_RATE, true },
	{ "pairs", "Pairs", "", false } };

int
show_new(struct event_base *base, const char *bind_address, const struct view *view, struct status **ret,
    char err[STATUS_ERR_MAX])
{
	struct status_conf sc = { .program = "proxy",
		.name = view->conf->name,
		.series = series,
		.n_series = ARRAY_LEN(series),
		.page = page,
		.sample = sample,
		.tiles = tiles,
		.tables = tables,
		.metrics = metrics,
		.state = state,
		.free = free };
	struct show *s = calloc(1, sizeof(*s));

	if (!s) {
		snprintf(err, STATUS_ERR_MAX, "out of memory");
		return -ENOMEM;
	}
	s->view = view;
	return status_new(base, bind_address, &sc, s, ret, err);
}
