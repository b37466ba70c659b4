/* metrics.c - see the header
 *
 * Always true: what comes out is complete lines. A buffer that has no memory
 * left drops lines, never a part of one; a scrape that lacks a line is better
 * than a program that stops.
 */
#include "hyper/net/metrics.h"

#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include <event2/buffer.h>

#include "hyper/base/attr.h"
#include "hyper/base/clock.h"
#include "hyper/base/fd.h"
#include "hyper/base/log.h"

static const double bounds[METRICS_BUCKETS] = { 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60,
	300, 1800, 3600 };

static const char *const type_words[] = {
	[METRICS_COUNTER] = "counter",
	[METRICS_GAUGE] = "gauge",
	[METRICS_HISTOGRAM] = "histogram",
};

void
metrics_begin(struct evbuffer *out, const struct metrics_family *f)
{
	evbuffer_add_printf(out, "# HELP %s %s\n# TYPE %s %s\n", f->name, f->help, f->name, type_words[f->type]);
}

void
metrics_uint(struct evbuffer *out, const struct metrics_family *f, const char *labels, uint64_t value)
{
	if (labels)
		evbuffer_add_printf(out, "%s{%s} %llu\n", f->name, labels, (unsigned long long)value);
	else
		evbuffer_add_printf(out, "%s %llu\n", f->name, (unsigned long long)value);
}

void
metrics_real(struct evbuffer *out, const struct metrics_family *f, const char *labels, double value)
{
	if (labels)
		evbuffer_add_printf(out, "%s{%s} %.15g\n", f->name, labels, value);
	else
		evbuffer_add_printf(out, "%s %.15g\n", f->name, value);
}

void
metrics_one(struct evbuffer *out, const struct metrics_family *f, uint64_t value)
{
	metrics_begin(out, f);
	metrics_uint(out, f, NULL, value);
}

void
metrics_label(char *ret, size_t cap, const char *name, const char *value)
{
	size_t n = (size_t)snprintf(ret, cap, "%s=\"", name);

	for (; *value && n + 4 < cap; value++) {
		if (*value == '\\' || *value == '"' || *value == '\n')
			ret[n++] = '\\';
		ret[n++] = *value == '\n' ? 'n' : *value;
	}
	snprintf(ret + n, cap - n, "\"");
}

void
metrics_observe(struct metrics_hist *h, double seconds)
{
	size_t i = 0;

	while (i < METRICS_BUCKETS && seconds > bounds[i])
		i++;
	h->bucket[i]++;
	h->sum += seconds;
}

void
metrics_histogram(struct evbuffer *out, const struct metrics_family *f, const struct metrics_hist *h)
{
	uint64_t n = 0;

	for (size_t i = 0; i < METRICS_BUCKETS; i++) {
		n += h->bucket[i];
		evbuffer_add_printf(out, "%s_bucket{le=\"%g\"} %llu\n", f->name, bounds[i], (unsigned long long)n);
	}
	n += h->bucket[METRICS_BUCKETS];
	evbuffer_add_printf(out, "%s_bucket{le=\"+Inf\"} %llu\n%s_sum %.15g\n%s_count %llu\n", f->name,
	    (unsigned long long)n, f->name, h->sum, f->name, (unsigned long long)n);
}

static double started; /* wall time */

void
metrics_started(void)
{
	if (started == 0)
		started = (double)clock_wall_utc_ns() / 1e9;
}

static uint64_t probes;

void
metrics_note_probe(void)
{
	probes++;
}

void
metrics_process(struct evbuffer *out, const char *program)
{
	static const struct metrics_family build = { "hyper_build_info", METRICS_GAUGE,
		"Always 1; which program and version runs." };
	static const struct metrics_family start = { "hyper_start_time_seconds", METRICS_GAUGE,
		"When this process started, seconds since 1970." };
	static const struct metrics_family fds_open = { "hyper_fds_open", METRICS_GAUGE,
		"Descriptors that this process has open." };
	static const struct metrics_family fds_limit = { "hyper_fds_limit", METRICS_GAUGE,
		"Descriptors that this process may have open." };
	static const struct metrics_family dropped = { "hyper_log_lines_dropped_total", METRICS_COUNTER,
		"Log lines that could not be written without waiting." };
	static const struct metrics_family probed = { "hyper_probes_total", METRICS_COUNTER,
		"Connections to the JSON-RPC and gRPC listeners that ended before their first byte." };
	struct rlimit rl = { 0 };
	char labels[128];

	snprintf(labels, sizeof(labels), "program=\"%s\",version=\"%s\"", program, PACKAGE_VERSION);
	metrics_begin(out, &build);
	metrics_uint(out, &build, labels, 1);
	metrics_begin(out, &start);
	metrics_real(out, &start, NULL, started);
	metrics_one(out, &fds_open, fd_count());
	if (getrlimit(RLIMIT_NOFILE, &rl) == 0) {
		metrics_begin(out, &fds_limit);
		metrics_uint(out, &fds_limit, NULL, (uint64_t)rl.rlim_cur);
	}
	metrics_one(out, &dropped, log_dropped());
	metrics_one(out, &probed, probes);
}
