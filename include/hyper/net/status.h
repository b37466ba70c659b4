/* status.h - what a program shows of itself: /, /status.json, /history.json, /metrics, /healthz, /readyz
 *
 * The program says what its numbers are; this owns the listener (ops.h), the
 * page, and an hour of samples.
 */
#ifndef HYPER_NET_STATUS_H
#define HYPER_NET_STATUS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <jansson.h>

#include "hyper/base/attr.h"

struct event_base;
struct evbuffer;
struct status;

#define STATUS_SERIES_MAX 4
#define STATUS_STEP_MS    5000
#define STATUS_POINTS     720 /* an hour */
#define STATUS_REASONS    8
#define STATUS_ERR_MAX    256

/* Units that the page knows; others are written behind the number as they are. */
#define STATUS_BYTES   "bytes"
#define STATUS_RATE    "bytes/s"
#define STATUS_SECONDS "seconds"
#define STATUS_DAYS    "days"

struct status_series {
	const char *id, *label, *unit;
	bool
	    is_counter; /* shown is its growth in a second: of the last second or more, however often it is asked for */
};

/* Why it is not ready; texts are copied. */
struct status_reasons {
	char v[STATUS_REASONS][128];
	size_t n;
};
void status_reason(struct status_reasons *, const char *fmt, ...) ATTR_PRINTF(2, 3);

/* All texts are borrowed until status_free(); the functions are called from the loop with `arg`. */
struct status_conf {
	const char *program, *name;
	const struct status_series *series; /* at most STATUS_SERIES_MAX */
	size_t n_series;
	/* Around the calls below for one /status.json, so that a program looks at itself once. NULL: nothing. */
	void (*page)(bool begins, void *arg);
	/* The values of now, one a series; called every STATUS_STEP_MS and for each /status.json. */
	void (*sample)(double *ret, void *arg);
	/* New references; NULL when out of memory. Rows of tables are the program's to cap. */
	json_t *(*tiles)(void *arg);
	json_t *(*tables)(void *arg);
	/* All families but those of metrics_process(). */
	void (*metrics)(struct evbuffer *out, void *arg);
	/* One word: "serving", "draining". Not ready when a reason is given. */
	const char *(*state)(struct status_reasons *, void *arg);
	/* Ends `arg`, in status_free() and when status_new() fails. NULL: it is borrowed. */
	void (*free)(void *arg);
};

/* 0 with *ret taken, or -errno with *ret untouched and `err` filled. */
int status_new(struct event_base *, const char *bind_address, const struct status_conf *, void *arg,
    struct status **ret, char err[STATUS_ERR_MAX]) ATTR_MUST_USE;
/* NULL is fine, here and below. */
void status_free(struct status *);
uint16_t status_port(const struct status *); /* 0 without one */
void *status_arg(const struct status *);     /* NULL without one */

/* A number with its label; level "" or "warn" or "bad". `value` is stolen. NULL when out of memory. */
json_t *status_tile(const char *label, json_t *value, const char *unit, const char *level);

/* The same of a whole number, at the end of `list`, an array; nothing is added when out of memory. */
void status_add_tile(json_t *list, const char *label, uint64_t value, const char *unit, const char *level);

/* A table; `columns` says "label" or "label|unit" (numbers, to the right). `rows` is stolen. */
json_t *status_table(const char *id, const char *title, const char *note, const char *const *columns, json_t *rows);

#endif
