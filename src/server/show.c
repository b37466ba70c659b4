/* show.c - see the header
 *
 * Always true:
 *  1. It changes nothing and counts nothing: the numbers are those of counts.c, story.c, the broker and the connections.
 *  2. A table of the page has at most ROWS_MAX rows; its note says how many there are.
 */
#include "server/show.h"

#include <stdio.h>
#include <string.h>

#include <event2/buffer.h>

#include "hyper/base/clock.h"
#include "hyper/directory/directory.h"
#include "hyper/net/certs.h"
#include "hyper/net/grpc.h"
#include "hyper/net/metrics.h"
#include "hyper/net/reload.h"
#include "hyper/wire/json.h"
#include "server/counts.h"
#include "server/parts.h"
#include "server/story.h"

#define ROWS_MAX 100
#define ENDS_MAX 20

/* X(NAME, "kind" as _connections says it, "label") */
#define KINDS(X)                            \
	X(DIRECT, "direct", "direct")       \
	X(BROKERED, "brokered", "brokered") \
	X(ACCEPTED, "accepted", "accepted") \
	X(IN, "standing-in", "standing_in") \
	X(OUT, "standing-out", "standing_out")

enum kind {
#define X(n, kind, label) KIND_##n,
	KINDS(X)
#undef X
	    KIND_MAX
};

static const struct {
	const char *kind, *label;
} kinds[] = {
#define X(n, kind, label) { kind, label },
	KINDS(X)
#undef X
};

static size_t
certificates(const struct server *s, const struct conf_tls *ret[CERTS_MAX])
{
	const struct conf_rpc_client *dir = s->conf->directory->rpc_client;
	size_t n = 0;

	for (size_t i = 0; i < s->conf->n_channels && n < CERTS_MAX - 1; i++) {
		const struct conf_channel *ch = &s->conf->channels[i];

		switch (ch->type) {
		case CONF_CH_JSONRPC_SERVER: ret[n++] = ch->rpc_server->tls; break;
		case CONF_CH_JSONRPC_CLIENT: ret[n++] = ch->rpc_client->tls; break;
		case CONF_CH_GRPC_SERVER: ret[n++] = ch->grpc_server->tls; break;
		case CONF_CH_GRPC_CLIENT: ret[n++] = ch->grpc_client->tls; break;
		}
	}
	if (dir)
		ret[n++] = dir->tls;
	return n;
}

static double
directory_age_s(const struct server *s)
{
	int64_t ms = directory_age_ms(s->dir);

	return ms == INT64_MAX ? -1 : (double)ms / 1e3;
}

/* --- graphs and tiles --- */

static void
sample(double *ret, void *arg)
{
	const struct server *s = arg;

	ret[0] = (double)counts_calls();
	ret[1] = (double)broker_in_flight(s->broker);
}

static json_t *
tiles(void *arg)
{
	const struct server *s = arg;
	size_t in_flight = broker_in_flight(s->broker);
	const struct conf_tls *tls[CERTS_MAX];
	json_t *list = json_array(), *connections = internal_connections_list(s->internal);
	double age_s = directory_age_s(s);

	status_add_tile(
	    list, "calls in flight", in_flight, "", in_flight * 10 > s->conf->max_in_flight * 9 ? "warn" : "");
	status_add_tile(list, "calls since the start", counts_calls(), "", "");
	status_add_tile(list, "connections", json_array_size(connections), "", "");
	status_add_tile(list, "connections made", story_counts(STORY_A)[END_REASON_MAX], "", "");
	status_add_tile(list, "received", grpc_bytes()[0], STATUS_BYTES, "");
	status_add_tile(list, "sent", grpc_bytes()[1], STATUS_BYTES, "");
	json_array_append_new(list, age_s < 0 ? status_tile("directory: not fetched yet", json_string("-"), "", "bad")
					      : status_tile("directory, age", json_real(age_s), STATUS_SECONDS,
						    directory_state(s->dir) == DIRECTORY_STALE ? "bad"
						    : directory_state(s->dir) == DIRECTORY_OLD ? "warn"
											       : ""));
	json_array_append_new(list, certs_tile_of(tls, certificates(s, tls)));
	json_decref(connections);
	return list;
}

/* --- tables --- */

static json_t *
connections_table(const struct server *s)
{
	static const char *const columns[] = { "operator", "kind", "via", "session", "age|seconds", "calls|", NULL };
	json_t *all = internal_connections_list(s->internal), *rows = json_array();
	const json_t *c;
	char note[64];
	size_t i;

	json_array_foreach (all, i, c) {
		if (i == ROWS_MAX)
			break;
		json_array_append_new(
		    rows, json_pack("[s, s, s, s, f, O]", json_str(c, "operator"), json_str(c, "kind"),
			      *json_str(c, "via") ? json_str(c, "via") : "-",
			      *json_str(c, "session") ? json_str(c, "session") : "-",
			      json_number_value(json_object_get(c, "age_ms")) / 1e3, json_object_get(c, "calls")));
	}
	snprintf(note, sizeof(note), "%zu%s", json_array_size(all),
	    json_array_size(all) > ROWS_MAX ? ", the first 100" : "");
	json_decref(all);
	return status_table("connections", "Connections", note, columns, rows);
}

static const char *
outcome(const struct story *s)
{
	return s->stage == STORY_FAILED || s->stage == STORY_ENDED ? end_reason_word(s->reason) : story_stage_word(s);
}

static json_t *
stories_table(void)
{
	static const char *const columns[] = { "session", "operator", "asked by", "via", "outcome", "began|seconds",
		NULL };
	json_t *rows = json_array();
	const struct story *s;

	for (unsigned i = 0; i < ENDS_MAX && (s = story_get(i)); i++)
		json_array_append_new(
		    rows, json_pack("[s, s, s, s, s, f]", *s->session ? s->session : "-", s->peer,
			      s->side == STORY_A ? "us" : "the other one", *s->via ? s->via : "directly", outcome(s),
			      (double)(clock_wall_utc_ns() - s->begun_utc_ns) / 1e9));
	return status_table("last", "Last connections", "seconds ago", columns, rows);
}

static json_t *
results_table(void)
{
	static const char *const columns[] = { "result", "of applications|", "of operators|", "of this server|", NULL };
	const struct counts *c = counts_get();
	json_t *rows = json_array();

	for (int i = 0; i < COUNTS_RESULTS; i++)
		if (c->calls[COUNTS_APPLICATION][i] || c->calls[COUNTS_OPERATOR][i] || c->calls[COUNTS_SELF][i])
			json_array_append_new(
			    rows, json_pack("[s, I, I, I]", counts_result_word(i),
				      (json_int_t)c->calls[COUNTS_APPLICATION][i],
				      (json_int_t)c->calls[COUNTS_OPERATOR][i], (json_int_t)c->calls[COUNTS_SELF][i]));
	return status_table("results", "Calls", "by result, since the start", columns, rows);
}

static json_t *
tables(void *arg)
{
	const struct server *s = arg;
	json_t *list = json_array();

	json_array_append_new(list, connections_table(s));
	json_array_append_new(list, stories_table());
	json_array_append_new(list, results_table());
	return list;
}

/* --- metrics --- */

/* X(variable, name, type, help). hyper-metrics(7) has the same list; tools/check-metrics compares. */
#define FAMILIES(X)                                                                                           \
	X(calls, "hyper_calls_total", COUNTER, "Calls answered, by who asked and by result.")                 \
	X(in_flight, "hyper_calls_in_flight", GAUGE, "Calls that wait for their answer.")                     \
	X(in_flight_limit, "hyper_calls_in_flight_limit", GAUGE, "Calls that may wait at the same time.")     \
	X(in_flight_bytes, "hyper_calls_in_flight_bytes", GAUGE, "Memory that their parameters take, about.") \
	X(duration, "hyper_call_duration_seconds", HISTOGRAM, "Time from a call to its answer.")              \
	X(connections, "hyper_connections", GAUGE, "Connections and standing streams to operators, by kind.") \
	X(made, "hyper_connections_made_total", COUNTER,                                                      \
	    "Connections asked for, by side: made, or why not, by result.")                                   \
	X(bytes, "hyper_grpc_bytes_total", COUNTER, "Bytes of HTTP/2 with other operators.")                  \
	X(entries, "hyper_directory_entries", GAUGE, "Operators that the verified directory knows.")          \
	X(age, "hyper_directory_age_seconds", GAUGE, "Age of the last refresh of the directory.")             \
	X(draining, "hyper_draining", GAUGE, "1 while nothing new is taken.")

#define X(var, n, t, h) static const struct metrics_family f_##var = { n, METRICS_##t, h };
FAMILIES(X)
#undef X

static void
put_calls(struct evbuffer *out)
{
	const struct counts *c = counts_get();
	char labels[96];

	metrics_begin(out, &f_calls);
	for (int from = 0; from < COUNTS_FROM_MAX; from++) {
		for (int i = 0; i < COUNTS_RESULTS; i++) {
			snprintf(labels, sizeof(labels), "from=\"%s\",result=\"%s\"", counts_from_word(from),
			    counts_result_word(i));
			metrics_uint(out, &f_calls, labels, c->calls[from][i]);
		}
	}
	metrics_begin(out, &f_duration);
	metrics_histogram(out, &f_duration, &c->duration);
}

static void
put_connections(struct evbuffer *out, const struct server *s)
{
	json_t *all = internal_connections_list(s->internal);
	uint64_t n[KIND_MAX] = { 0 };
	const json_t *c;
	char labels[96];
	size_t i;

	json_array_foreach (all, i, c)
		for (int k = 0; k < KIND_MAX; k++)
			n[k] += strcmp(json_str(c, "kind"), kinds[k].kind) == 0;
	json_decref(all);
	metrics_begin(out, &f_connections);
	for (int k = 0; k < KIND_MAX; k++) {
		snprintf(labels, sizeof(labels), "kind=\"%s\"", kinds[k].label);
		metrics_uint(out, &f_connections, labels, n[k]);
	}
	metrics_begin(out, &f_made);
	for (int side = 0; side < STORY_SIDES; side++) {
		for (int k = 0; k <= END_REASON_MAX; k++) {
			snprintf(labels, sizeof(labels), "side=\"%s\",result=\"%s\"", side == STORY_A ? "a" : "b",
			    k == END_REASON_MAX ? "paired" : end_reason_word((enum end_reason)k));
			metrics_uint(out, &f_made, labels, story_counts((enum story_side)side)[k]);
		}
	}
	metrics_begin(out, &f_bytes);
	metrics_uint(out, &f_bytes, "direction=\"in\"", grpc_bytes()[0]);
	metrics_uint(out, &f_bytes, "direction=\"out\"", grpc_bytes()[1]);
}

static void
metrics(struct evbuffer *out, void *arg)
{
	const struct server *s = arg;
	const struct conf_tls *tls[CERTS_MAX];

	put_calls(out);
	metrics_one(out, &f_in_flight, broker_in_flight(s->broker));
	metrics_one(out, &f_in_flight_limit, s->conf->max_in_flight);
	metrics_one(out, &f_in_flight_bytes, broker_bytes(s->broker));
	put_connections(out, s);
	metrics_one(out, &f_entries, json_object_size(directory_all(s->dir)));
	if (directory_state(s->dir) != DIRECTORY_EMPTY) {
		metrics_begin(out, &f_age);
		metrics_real(out, &f_age, NULL, directory_age_s(s));
	}
	metrics_one(out, &f_draining, s->state != SERVER_SERVING);
	reload_metrics(out);
	certs_metrics_of(out, tls, certificates(s, tls));
}

const char *
server_state_with_reasons(const struct server *s, struct status_reasons *why)
{
	enum directory_state dir = directory_state(s->dir);

	if (s->state == SERVER_DRAINING && !s->then_stop)
		status_reason(why, "draining: new calls are refused until `hyper undrain`");
	else if (s->state != SERVER_SERVING)
		status_reason(why, "%s", server_state_word(s));
	if (dir == DIRECTORY_EMPTY)
		status_reason(why, "the directory has not been fetched yet: is sd running?");
	else if (dir == DIRECTORY_STALE)
		status_reason(why, "the directory is older than max_stale: is sd running?");
	else if (!directory_get(s->dir, s->conf->name))
		status_reason(why, "the directory has no entry of %.64s", s->conf->name);
	if (broker_in_flight(s->broker) >= s->conf->max_in_flight)
		status_reason(why, "max_in_flight calls are in flight");
	return server_state_word(s);
}

static const char *
state(struct status_reasons *why, void *arg)
{
	return server_state_with_reasons(arg, why);
}

static const struct status_series series[] = { { "calls", "Calls", "/s", true },
	{ "in_flight", "In flight", "", false } };

int
server_show_new(struct server *server, struct status **ret, char err[STATUS_ERR_MAX])
{
	struct status_conf sc = { .program = "hyper",
		.name = server->conf->name,
		.series = series,
		.n_series = ARRAY_LEN(series),
		.sample = sample,
		.tiles = tiles,
		.tables = tables,
		.metrics = metrics,
		.state = state };

	return status_new(server->base, server->conf->metrics->bind_address, &sc, server, ret, err);
}
