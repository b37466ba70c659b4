/* metrics.h - text for Prometheus: families, samples, histograms
 *
 * Format: Prometheus text exposition 0.0.4 (prometheus.io "Exposition formats").
 * Names begin with hyper_, units are base units (seconds, bytes), labels are
 * bounded: a word of a list of ours, never a stranger's text.
 */
#ifndef HYPER_NET_METRICS_H
#define HYPER_NET_METRICS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct evbuffer;

enum metrics_type { METRICS_COUNTER, METRICS_GAUGE, METRICS_HISTOGRAM };

struct metrics_family {
	const char *name; /* with hyper_ and its unit; a counter's ends in _total */
	enum metrics_type type;
	const char *help; /* one sentence; hyper-metrics(7) says the rest */
};

/* HELP and TYPE lines. Samples of a family follow it, and nothing else between. */
void metrics_begin(struct evbuffer *out, const struct metrics_family *);

/* One sample. `labels` is what stands between the braces, NULL none; built by
 * the caller from its own words, or by metrics_label(). */
void metrics_uint(struct evbuffer *out, const struct metrics_family *, const char *labels, uint64_t value);
void metrics_real(struct evbuffer *out, const struct metrics_family *, const char *labels, double value);

/* A family of one sample without labels, whole. */
void metrics_one(struct evbuffer *out, const struct metrics_family *, uint64_t value);

/* NAME="value" with what Prometheus wants escaped: a version, a file name. Cut to `cap`. */
void metrics_label(char *ret, size_t cap, const char *name, const char *value);

/* Time in seconds over the same bounds everywhere: 1 ms, 2.5, 5, 10, ... to 1 hour. */
#define METRICS_BUCKETS 16
struct metrics_hist {
	uint64_t bucket[METRICS_BUCKETS + 1]; /* not cumulative; the last one is beyond all bounds */
	double sum;
};
void metrics_observe(struct metrics_hist *, double seconds);
void metrics_histogram(struct evbuffer *out, const struct metrics_family *, const struct metrics_hist *);

/* What every process has: hyper_build_info, hyper_start_time_seconds,
 * hyper_fds_open, hyper_fds_limit, hyper_log_lines_dropped_total. */
void metrics_started(void);    /* notes the time; the first call counts */
void metrics_note_probe(void); /* a connection to one of our listeners ended before its first byte */
void metrics_process(struct evbuffer *out, const char *program);

#endif
