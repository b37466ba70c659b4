/* values.c - what checked settings say, key by key, and what differs between two of them
 *
 * Keys are those of listing.c with the element's number in the brackets:
 * "public.tcp_rate_limits[0].limit". Files are compared by name: a renewed
 * certificate under the old name is no difference here, a reload reads it anyway.
 *
 * Always true: a value stands in one line and is the text that a file would hold.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "settings/option.h"

#define KEY_MAX 200

struct walk {
	struct settings_values *out;
	bool is_oom;
};

static void walk_table(struct walk *, const struct cfg_option *, const void *base, const char *prefix);

static const void *
member(const void *base, size_t offset)
{
	return (const char *)base + offset;
}

/* `value` is given. */
static void
add(struct walk *w, const struct cfg_option *o, const char *key, char *value)
{
	struct settings_values *out = w->out;
	struct settings_value *grown = realloc(out->v, (out->n + 1) * sizeof(*grown));
	char *copy = strdup(key);

	if (grown)
		out->v = grown;
	if (!grown || !copy || !value) {
		free(copy);
		free(value);
		w->is_oom = true;
		return;
	}
	out->v[out->n++] = (struct settings_value){ .key = copy, .value = value, .reload = !o->needs_restart };
}

static int64_t
number_of(const struct cfg_option *o, const void *base)
{
	const void *p = member(base, o->offset);
	int64_t wide;
	int32_t narrow;

	if (o->size == sizeof(int64_t)) {
		memcpy(&wide, p, sizeof(wide));
		return wide;
	}
	if (o->size == sizeof(int32_t)) {
		memcpy(&narrow, p, sizeof(narrow));
		return narrow;
	}
	return *(const bool *)p;
}

static char *
list_text(const struct conf_strings *list)
{
	char *text = NULL;
	size_t len;
	FILE *f = open_memstream(&text, &len);

	if (!f)
		return NULL;
	fprintf(f, "[");
	for (size_t i = 0; i < list->n; i++)
		fprintf(f, "%s \"%s\"", i ? "," : "", list->v[i]);
	fprintf(f, " ]");
	if (fclose(f) != 0) {
		free(text);
		return NULL;
	}
	return text;
}

static char *
scalar_text(const struct cfg_option *o, const void *base)
{
	const struct cfg_word *w = o->words;
	const char *text;
	char *ret = NULL;
	int n;

	if (o->is_list)
		return list_text(member(base, o->offset));
	if (o->type == CFG_T_BOOL) {
		n = asprintf(&ret, "%s", number_of(o, base) ? "true" : "false");
	} else if (o->type == CFG_T_INTEGER) {
		n = asprintf(&ret, "%lld", (long long)number_of(o, base));
	} else if (o->type == CFG_T_SECONDS) {
		n = asprintf(&ret, "%.12g", (double)number_of(o, base) / 1000);
	} else if (o->type == CFG_T_WORD) {
		while (w->word && w->value != number_of(o, base))
			w++;
		n = asprintf(&ret, "\"%s\"", w->word ? w->word : "?");
	} else {
		text = *(char *const *)member(base, o->offset);
		n = text ? asprintf(&ret, "\"%s\"", text) : asprintf(&ret, "unset");
	}
	return n < 0 ? NULL : ret;
}

static void
walk_sub(struct walk *w, const struct cfg_option *o, const struct cfg_option *sub, size_t alloc, const void *base,
    const char *key)
{
	const void *inner = alloc ? *(void *const *)member(base, o->offset) : base;

	if (inner)
		walk_table(w, sub, inner, key);
}

static void
walk_row(struct walk *w, const struct cfg_option *o, const void *base, const char *key)
{
	const char *elements;
	char sub[KEY_MAX];
	size_t n;
	int tag;

	if (o->type == CFG_T_GROUP) {
		walk_sub(w, o, o->sub, o->alloc, base, key);
	} else if (o->type == CFG_T_VARIANT) {
		memcpy(&tag, member(base, o->tag), sizeof(tag));
		walk_sub(w, o, o->variants[tag].sub, o->variants[tag].alloc, base, key);
	} else if (o->type == CFG_T_GROUPS) {
		elements = *(char *const *)member(base, o->offset);
		memcpy(&n, member(base, o->n_offset), sizeof(n));
		for (size_t i = 0; i < n; i++) {
			snprintf(sub, sizeof(sub), "%.*s[%zu]", KEY_MAX - 24, key, i);
			walk_table(w, o->sub, elements + i * o->alloc, sub);
		}
	} else {
		add(w, o, key, scalar_text(o, base));
	}
}

static void
walk_table(struct walk *w, const struct cfg_option *o, const void *base, const char *prefix)
{
	char key[KEY_MAX];

	for (; o->key; o++) {
		bool is_inner = (o->type == CFG_T_GROUP && o->alloc == 0) || o->type == CFG_T_VARIANT;

		if (o->type == CFG_T_REFUSED || (o->offset == CFG_NOWHERE && !is_inner))
			continue;
		snprintf(key, sizeof(key), "%s%s%s", prefix, *prefix ? "." : "", o->key);
		walk_row(w, o, base, key);
	}
}

int
cfg_values(const struct cfg_program *p, const void *conf, struct settings_values *ret)
{
	struct settings_values found = { 0 };
	struct walk w = { .out = &found };

	walk_table(&w, p->options, conf, "");
	if (w.is_oom) {
		settings_values_free(&found);
		return -ENOMEM;
	}
	*ret = found;
	return 0;
}

int
settings_values_hyper(const struct conf_hyper *conf, struct settings_values *ret)
{
	return cfg_values(&cfg_hyper, conf, ret);
}

int
settings_values_sd(const struct conf_sd *conf, struct settings_values *ret)
{
	return cfg_values(&cfg_sd, conf, ret);
}

int
settings_values_proxy(const struct conf_proxy *conf, struct settings_values *ret)
{
	return cfg_values(&cfg_proxy, conf, ret);
}

void
settings_values_free(struct settings_values *v)
{
	for (size_t i = 0; i < v->n; i++) {
		free(v->v[i].key);
		free(v->v[i].value);
	}
	free(v->v);
	*v = (struct settings_values){ 0 };
}

const struct settings_value *
cfg_value_find(const struct settings_values *v, const char *key)
{
	for (size_t i = 0; i < v->n; i++)
		if (strcmp(v->v[i].key, key) == 0)
			return &v->v[i];
	return NULL;
}

void
settings_diff(
    const struct settings_values *before, const struct settings_values *after, settings_on_change each, void *arg)
{
	const struct settings_value *other;

	for (size_t i = 0; i < after->n; i++) {
		other = cfg_value_find(before, after->v[i].key);
		if (!other || strcmp(other->value, after->v[i].value) != 0)
			each(after->v[i].key, other ? other->value : NULL, after->v[i].value, after->v[i].reload, arg);
	}
	for (size_t i = 0; i < before->n; i++)
		if (!cfg_value_find(after, before->v[i].key))
			each(before->v[i].key, before->v[i].value, NULL, before->v[i].reload, arg);
}
