/* show.c - see the header
 *
 * Always true: it reads and counts nothing itself; the numbers are sd's.
 */
#include "sd/show.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "hyper/net/certs.h"
#include "hyper/net/metrics.h"
#include "hyper/net/reload.h"
#include "hyper/wire/json.h"

struct sd_show {
	const struct conf_sd *conf;
	struct book *book;
	const uint64_t *calls;
};

static uint64_t
calls_sum(const struct sd_show *s)
{
	uint64_t n = 0;

	for (size_t i = 0; i < API_METHODS; i++)
		n += s->calls[i];
	return n;
}

static void
sample(double *ret, void *arg)
{
	struct sd_show *s = arg;

	ret[0] = (double)calls_sum(s);
	ret[1] = (double)book_length(s->book);
}

static json_t *
tiles(void *arg)
{
	struct sd_show *s = arg;
	json_t *list = json_array();

	status_add_tile(list, "records", book_length(s->book), "", "");
	status_add_tile(list, "of records", book_bytes(s->book), STATUS_BYTES, "");
	status_add_tile(list, "requests since the start", calls_sum(s), "", "");
	json_array_append_new(list, certs_tile(s->conf->rpc_server->tls));
	return list;
}

static json_t *
tables(void *arg)
{
	static const char *const methods[] = { "method", "requests|", NULL };
	static const char *const tip[] = { "hash", "created", NULL };
	struct sd_show *s = arg;
	json_t *list = json_array(), *rows = json_array();
	const json_t *last = book_tip(s->book);
	const char *created = last ? json_str(last, "created_at") : NULL;

	for (size_t i = 0; i < API_METHODS; i++)
		json_array_append_new(rows, json_pack("[s, I]", api_method_name(i), (json_int_t)s->calls[i]));
	json_array_append_new(list, status_table("methods", "Requests", "since the start", methods, rows));
	rows = json_array();
	if (last)
		json_array_append_new(rows, json_pack("[s, s]", json_str(last, "hash"), created ? created : ""));
	json_array_append_new(list, status_table("tip", "Newest record", "", tip, rows));
	return list;
}

static void
metrics(struct evbuffer *out, void *arg)
{
	static const struct metrics_family records = { "hyper_directory_records", METRICS_GAUGE,
		"Records in the chain of the service directory." };
	static const struct metrics_family bytes = { "hyper_directory_record_bytes", METRICS_GAUGE,
		"Text of all records of the service directory." };
	static const struct metrics_family requests = { "hyper_directory_requests_total", METRICS_COUNTER,
		"Requests to the service directory by method." };
	static const struct metrics_family poisoned = { "hyper_directory_store_poisoned", METRICS_GAUGE,
		"1 when a write failed and the process is about to end." };
	struct sd_show *s = arg;
	char label[64];

	metrics_one(out, &records, book_length(s->book));
	metrics_one(out, &bytes, book_bytes(s->book));
	metrics_begin(out, &requests);
	for (size_t i = 0; i < API_METHODS; i++) {
		metrics_label(label, sizeof(label), "method", api_method_name(i));
		metrics_uint(out, &requests, label, s->calls[i]);
	}
	metrics_one(out, &poisoned, book_is_poisoned(s->book));
	reload_metrics(out);
	certs_metrics(out, s->conf->rpc_server->tls);
}

static const char *
state(struct status_reasons *why, void *arg)
{
	struct sd_show *s = arg;

	if (!book_is_poisoned(s->book))
		return "serving";
	status_reason(why, "a write to the store failed: check the disk, start again");
	return "failed";
}

static const struct status_series series[] = { { "requests", "Requests", "/s", true },
	{ "records", "Records", "", false } };

int
sd_show_new(struct event_base *base, const struct conf_sd *conf, struct book *book, const uint64_t calls[API_METHODS],
    struct status **ret, char err[STATUS_ERR_MAX])
{
	struct status_conf sc = { .program = "sd",
		.name = "service directory",
		.series = series,
		.n_series = ARRAY_LEN(series),
		.sample = sample,
		.tiles = tiles,
		.tables = tables,
		.metrics = metrics,
		.state = state,
		.free = free };
	struct sd_show *s = calloc(1, sizeof(*s));

	if (!s) {
		snprintf(err, STATUS_ERR_MAX, "out of memory");
		return -ENOMEM;
	}
	s->conf = conf;
	s->book = book;
	s->calls = calls;
	return status_new(base, conf->metrics->bind_address, &sc, s, ret, err);
}

void
sd_show_apply(struct status *status, const struct conf_sd *conf)
{
	struct sd_show *s = status_arg(status);

	if (s)
		s->conf = conf;
}
