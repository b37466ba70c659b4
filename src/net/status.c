/* status.c - see the header
 *
 * Always true:
 *  1. The samples are a ring of STATUS_POINTS; memory does not grow with time.
 *  2. A page that cannot be built for want of memory is a 503, and nothing else happens.
 */
#include "hyper/net/status.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <event2/buffer.h>
#include <event2/event.h>

#include "hyper/base/bug.h"
#include "hyper/base/clock.h"
#include "hyper/net/metrics.h"
#include "hyper/net/ops.h"
#include "net/rate.h"
#include "net/web.h"

struct status {
	struct status_conf conf;
	void *arg;
	struct rate rates[STATUS_SERIES_MAX]; /* of the series that are counters */
	struct ops *ops;
	struct event *tick;
	int64_t start_ms;
	double points[STATUS_SERIES_MAX][STATUS_POINTS];
	size_t first, n; /* of the ring */
};

void
status_reason(struct status_reasons *r, const char *fmt, ...)
{
	va_list ap;

	if (r->n == STATUS_REASONS)
		return;
	va_start(ap, fmt);
	vsnprintf(r->v[r->n++], sizeof(r->v[0]), fmt, ap);
	va_end(ap);
}

/* --- samples --- */

static void
take_sample(struct status *s, double ret[STATUS_SERIES_MAX])
{
	int64_t now_ms = clock_now_ms();

	s->conf.sample(ret, s->arg);
	for (size_t i = 0; i < s->conf.n_series; i++)
		if (s->conf.series[i].is_counter)
			ret[i] = rate_of(&s->rates[i], (uint64_t)ret[i], now_ms);
}

/* --- pages --- */

static int
render_html(struct evbuffer *out, void *arg)
{
	(void)arg;
	evbuffer_add_printf(out, "%s", web_page_html);
	return 200;
}

static int
render_css(struct evbuffer *out, void *arg)
{
	(void)arg;
	evbuffer_add_printf(out, "%s", web_page_css);
	return 200;
}

static int
render_js(struct evbuffer *out, void *arg)
{
	(void)arg;
	evbuffer_add_printf(out, "%s", web_page_js);
	return 200;
}

static int
render_metrics(struct evbuffer *out, void *arg)
{
	struct status *s = arg;

	metrics_process(out, s->conf.program);
	s->conf.metrics(out, s->arg);
	return 200;
}

/* It answers, so it lives; a watchdog asks this. */
static int
render_healthz(struct evbuffer *out, void *arg)
{
	(void)arg;
	evbuffer_add_printf(out, "ok\n");
	return 200;
}

static int
render_readyz(struct evbuffer *out, void *arg)
{
	struct status *s = arg;
	struct status_reasons why = { 0 };
	const char *word = s->conf.state(&why, s->arg);

	evbuffer_add_printf(out, "%s\n", word);
	for (size_t i = 0; i < why.n; i++)
		evbuffer_add_printf(out, "%s\n", why.v[i]);
	return why.n == 0 ? 200 : 503;
}

static int
put_json(struct evbuffer *out, json_t *j)
{
	char *text = j ? json_dumps(j, JSON_COMPACT) : NULL;

	json_decref(j);
	if (!text) {
		evbuffer_add_printf(out, "{\"error\":\"out of memory\"}\n");
		return 503;
	}
	evbuffer_add_printf(out, "%s\n", text);
	free(text);
	return 200;
}

static int
render_status(struct evbuffer *out, void *arg)
{
	struct status *s = arg;
	struct status_reasons why = { 0 };
	json_t *reasons = json_array(), *now = json_object(), *tiles, *tables;
	double values[STATUS_SERIES_MAX] = { 0 };
	const char *word;

	if (s->conf.page)
		s->conf.page(true, s->arg);
	word = s->conf.state(&why, s->arg);
	take_sample(s, values);
	tiles = s->conf.tiles(s->arg);
	tables = s->conf.tables(s->arg);
	if (s->conf.page)
		s->conf.page(false, s->arg);
	for (size_t i = 0; i < s->conf.n_series; i++)
		json_object_set_new(now, s->conf.series[i].id, json_real(values[i]));
	for (size_t i = 0; i < why.n; i++)
		json_array_append_new(reasons, json_string(why.v[i]));
	return put_json(
	    out, json_pack("{s:s, s:s, s:s, s:i, s:f, s:s, s:b, s:o, s:o, s:o, s:o}", "program", s->conf.program,
		     "name", s->conf.name, "version", PACKAGE_VERSION, "pid", (int)getpid(), "uptime_s",
		     (double)(clock_now_ms() - s->start_ms) / 1e3, "state", word, "ready", why.n == 0, "reasons",
		     reasons, "now", now, "tiles", tiles, "tables", tables));
}

static int
render_history(struct evbuffer *out, void *arg)
{
	struct status *s = arg;
	json_t *all = json_array(), *points;

	for (size_t i = 0; i < s->conf.n_series; i++) {
		const struct status_series *c = &s->conf.series[i];

		points = json_array();
		for (size_t k = 0; k < s->n; k++)
			json_array_append_new(points, json_real(s->points[i][(s->first + k) % STATUS_POINTS]));
		json_array_append_new(all, json_pack("{s:s, s:s, s:s, s:o}", "id", c->id, "label", c->label, "unit",
					       c->unit, "points", points));
	}
	return put_json(out, json_pack("{s:f, s:o}", "step_s", STATUS_STEP_MS / 1e3, "series", all));
}

static const struct ops_route routes[] = {
	{ "/", OPS_HTML, render_html },
	{ "/status.css", OPS_CSS, render_css },
	{ "/status.js", OPS_SCRIPT, render_js },
	{ "/status.json", OPS_JSON, render_status },
	{ "/history.json", OPS_JSON, render_history },
	{ "/metrics", OPS_METRICS, render_metrics },
	{ "/healthz", OPS_TEXT, render_healthz },
	{ "/readyz", OPS_TEXT, render_readyz },
};

/* --- samples --- */

static void
on_tick(evutil_socket_t fd, short what, void *arg)
{
	struct status *s = arg;
	double values[STATUS_SERIES_MAX] = { 0 };
	size_t at = (s->first + s->n) % STATUS_POINTS;

	(void)fd;
	(void)what;
	take_sample(s, values);
	for (size_t i = 0; i < s->conf.n_series; i++)
		s->points[i][at] = values[i];
	if (s->n < STATUS_POINTS)
		s->n++;
	else
		s->first = (s->first + 1) % STATUS_POINTS;
}

int
status_new(struct event_base *base, const char *bind_address, const struct status_conf *conf, void *arg,
    struct status **ret, char err[STATUS_ERR_MAX])
{
	const struct timeval step = { STATUS_STEP_MS / 1000, STATUS_STEP_MS % 1000 * 1000 };
	struct status *s = calloc(1, sizeof(*s));
	int rc = -ENOMEM;

	_Static_assert(OPS_ERR_MAX <= STATUS_ERR_MAX, "one buffer for both");
	BUG_ON(conf->n_series > STATUS_SERIES_MAX);
	snprintf(err, STATUS_ERR_MAX, "out of memory");
	if (!s) {
		if (conf->free)
			conf->free(arg);
		return -ENOMEM;
	}
	s->conf = *conf;
	s->arg = arg;
	s->start_ms = clock_now_ms();
	for (size_t i = 0; i < conf->n_series; i++)
		s->rates[i].last_ms = s->start_ms;
	metrics_started();
	s->tick = event_new(base, -1, EV_PERSIST, on_tick, s);
	if (s->tick && event_add(s->tick, &step) == 0)
		rc = ops_new(base, bind_address, routes, ARRAY_LEN(routes), s, &s->ops, err);
	if (rc < 0) {
		status_free(s);
		return rc;
	}
	*ret = s;
	return 0;
}

void
status_free(struct status *s)
{
	if (!s)
		return;
	ops_free(s->ops);
	if (s->tick)
		event_free(s->tick);
	if (s->conf.free)
		s->conf.free(s->arg);
	free(s);
}

uint16_t
status_port(const struct status *s)
{
	return s ? ops_port(s->ops) : 0;
}

void *
status_arg(const struct status *s)
{
	return s ? s->arg : NULL;
}

/* --- building blocks --- */

json_t *
status_tile(const char *label, json_t *value, const char *unit, const char *level)
{
	return json_pack("{s:s, s:o, s:s, s:s}", "label", label, "value", value, "unit", unit, "level", level);
}

void
status_add_tile(json_t *list, const char *label, uint64_t value, const char *unit, const char *level)
{
	json_array_append_new(list, status_tile(label, json_integer((json_int_t)value), unit, level));
}

json_t *
status_table(const char *id, const char *title, const char *note, const char *const *columns, json_t *rows)
{
	json_t *cols = json_array();

	for (; *columns; columns++) {
		size_t len = strcspn(*columns, "|");
		json_t *col = json_pack("{s:s%}", "label", *columns, len);

		if ((*columns)[len])
			json_object_set_new(col, "unit", json_string(*columns + len + 1));
		json_array_append_new(cols, col);
	}
	return json_pack(
	    "{s:s, s:s, s:s, s:o, s:o}", "id", id, "title", title, "note", note, "columns", cols, "rows", rows);
}
