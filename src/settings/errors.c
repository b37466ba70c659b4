/* errors.c - collects faults, so that an operator sees all of them at once
 *
 * Always true:
 *  1. Texts are handed out in the order of files and lines, not in the order
 *     of the checks.
 *  2. The list is bounded; what is left out is counted in its last line.
 */
#include "settings/errors.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hyper/settings/settings.h"

void
cfg_errors_add(struct cfg_errors *e, const struct cfg_place *at, const char *fmt, ...)
{
	char place[64] = "", *text = NULL, *body = NULL;
	struct cfg_error *v;
	va_list ap;
	int n;

	if (e->n >= CFG_ERRORS_MAX) {
		e->unsaid++;
		return;
	}
	va_start(ap, fmt);
	n = vasprintf(&body, fmt, ap);
	va_end(ap);
	if (at->line)
		snprintf(place, sizeof(place), ":%u", at->line);
	if (n < 0 || asprintf(&text, "%s%s: %s", at->file, place, body) < 0)
		text = NULL;
	if (n >= 0)
		free(body);
	v = text ? realloc(e->v, (e->n + 1) * sizeof(*v)) : NULL;
	if (!v) {
		free(text);
		e->is_oom = true;
		return;
	}
	e->v = v;
	v[e->n] = (struct cfg_error){ .text = text, .at = *at, .seq = e->n };
	e->n++;
}

static int
by_place(const void *a, const void *b)
{
	const struct cfg_error *x = a, *y = b;

	if (x->at.order != y->at.order)
		return x->at.order < y->at.order ? -1 : 1;
	if (x->at.line != y->at.line)
		return x->at.line < y->at.line ? -1 : 1;
	return x->seq < y->seq ? -1 : 1;
}

void
cfg_errors_give(struct cfg_errors *e, struct settings_errors *ret)
{
	struct settings_errors out = { 0 };
	char *more = NULL;

	/* out of memory: the list stays empty, the return code says why */
	out.v = calloc(e->n + 1, sizeof(*out.v));
	if (e->n > 1)
		qsort(e->v, e->n, sizeof(*e->v), by_place);
	for (size_t i = 0; i < e->n; i++) {
		if (out.v)
			out.v[out.n++] = e->v[i].text;
		else
			free(e->v[i].text);
	}
	if (out.v && e->unsaid && asprintf(&more, "and %zu more faults", e->unsaid) >= 0)
		out.v[out.n++] = more;
	free(e->v);
	memset(e, 0, sizeof(*e));
	*ret = out;
}

void
settings_errors_free(struct settings_errors *e)
{
	if (!e)
		return;
	for (size_t i = 0; i < e->n; i++)
		free(e->v[i]);
	free(e->v);
	e->v = NULL;
	e->n = 0;
}
