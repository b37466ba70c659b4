/* apply.c - a tree of values into a struct, by a table; and that struct's end by the same table
 *
 * Always true:
 *  1. All faults are said, not only the first: a wrong value leaves its member
 *     empty and the rest is read on. A struct with a fault is never handed out.
 *  2. Whatever a row stored, release_row() of the same row frees.
 *  3. What is missing is a fault only when every file could be read.
 *
 * Not here: the keys (tables.c), the looks of a value (value.c).
 */
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hyper/base/bug.h"
#include "settings/expand.h"
#include "settings/option.h"
#include "settings/value.h"

static void apply_group(struct cfg_apply *, const struct cfg_option *, struct cfg_node *, cfg_check, void *base);

static const char *const expected_tab[] = {
#define X(n, listed, expected) expected,
	CFG_TYPES(X)
#undef X
};

static void *
member(void *base, size_t offset)
{
	return (char *)base + offset;
}

/* Appends "a.b[2].c" without a leading dot. */
static void
print_path(const struct cfg_path *p, FILE *f)
{
	if (!p)
		return;
	print_path(p->up, f);
	if (!p->key)
		fprintf(f, "[%zu]", p->index);
	else if (*p->key)
		fprintf(f, "%s%s", p->up && (!p->up->key || *p->up->key) ? "." : "", p->key);
}

void
cfg_say(struct cfg_apply *a, const struct cfg_place *at, const char *key, const char *fmt, ...)
{
	struct cfg_path last = { .up = a->path, .key = key };
	char *text = NULL;
	size_t size;
	FILE *f = open_memstream(&text, &size);
	va_list ap;

	if (f) {
		print_path(key ? &last : a->path, f);
		fputs(": ", f);
		va_start(ap, fmt);
		vfprintf(f, fmt, ap);
		va_end(ap);
	}
	if (f && fclose(f) == 0)
		cfg_errors_add(a->errors, at, "%s", text);
	else
		a->errors->is_oom = true;
	free(text);
}

/* "a list, each an integer in 1..5" */
static void
print_expected(const struct cfg_option *o, bool is_element, char ret[VALUE_TEXT_MAX])
{
	size_t n = 0;

	if (o->is_list && !is_element)
		n += (size_t)snprintf(ret, VALUE_TEXT_MAX, "a list%s, each ", o->is_required ? " of at least one" : "");
	n += (size_t)snprintf(ret + n, VALUE_TEXT_MAX - n, "%s", expected_tab[o->type]);
	if (o->type == CFG_T_INTEGER || o->type == CFG_T_SECONDS)
		snprintf(ret + n, VALUE_TEXT_MAX - n, " in %.12g..%.12g%s%s%s", o->min, o->max, o->unit ? " (" : "",
		    o->unit ? o->unit : "", o->unit ? ")" : "");
	for (const struct cfg_word *w = o->words; w && w->word && n < VALUE_TEXT_MAX; w++)
		n += (size_t)snprintf(ret + n, VALUE_TEXT_MAX - n, "%s%s", w == o->words ? " " : ", ", w->word);
}

static void
say_expected(struct cfg_apply *a, const struct cfg_option *o, const struct cfg_node *n, const char *found)
{
	char want[VALUE_TEXT_MAX], got[VALUE_TEXT_MAX];

	print_expected(o, !n->name, want);
	if (!found)
		cfg_value_describe(n, got);
	cfg_say(a, &n->at, n->name ? o->key : NULL, "expected %s, found %s", want, found ? found : got);
}

static void
store_number(const struct cfg_option *o, void *base, int64_t v)
{
	void *p;

	if (o->offset == CFG_NOWHERE)
		return;
	p = member(base, o->offset);
	if (o->size == sizeof(int64_t))
		memcpy(p, &v, sizeof(v));
	else if (o->size == sizeof(int32_t))
		memcpy(p, &(int32_t){ (int32_t)v }, sizeof(int32_t));
	else
		*(bool *)p = v != 0;
}

/* `text` is given. */
static void
store_text(struct cfg_apply *a, const struct cfg_option *o, void *base, char *text)
{
	struct conf_strings *list;
	char **v;

	if (!text || o->offset == CFG_NOWHERE) {
		free(text);
		return;
	}
	if (!o->is_list) {
		*(char **)member(base, o->offset) = text;
		return;
	}
	list = member(base, o->offset);
	v = realloc(list->v, (list->n + 1) * sizeof(*v));
	if (!v) {
		free(text);
		a->errors->is_oom = true;
		return;
	}
	list->v = v;
	v[list->n++] = text;
}

static bool
is_path(enum cfg_type t)
{
	return t == CFG_T_FILE || t == CFG_T_KEY_FILE || t == CFG_T_EXISTING || t == CFG_T_PATH;
}

/* The text of a string-like value, checked; NULL when it is wrong (said) or out of memory. */
static char *
take_text(struct cfg_apply *a, const struct cfg_option *o, const struct cfg_node *n)
{
	char why[VALUE_TEXT_MAX], *text = NULL, *path;
	int rc;

	if (n->kind != CFG_STRING) {
		say_expected(a, o, n, NULL);
		return NULL;
	}
	rc = cfg_expand_env(n->string, &text, why);
	if (rc == -EINVAL) {
		cfg_say(a, &n->at, n->name ? o->key : NULL, "expected %s", why);
		return NULL;
	}
	if (rc == 0 && *text == '\0') {
		say_expected(a, o, n, "an empty string");
		free(text);
		return NULL;
	}
	if (rc == 0 && is_path(o->type)) {
		path = cfg_path_from(n->at.file, text);
		free(text);
		text = path;
	}
	if (!text) {
		a->errors->is_oom = true;
		return NULL;
	}
	if (cfg_value_suits(o->type, text, why))
		return text;
	say_expected(a, o, n, why);
	free(text);
	return NULL;
}

static void
apply_number(struct cfg_apply *a, const struct cfg_option *o, const struct cfg_node *n, void *base)
{
	double v = n->kind == CFG_INTEGER ? (double)n->integer : n->kind == CFG_NUMBER ? n->number : NAN;

	if (isnan(v) || (o->type == CFG_T_INTEGER && n->kind != CFG_INTEGER) || v < o->min || v > o->max)
		say_expected(a, o, n, NULL);
	else if (o->type == CFG_T_INTEGER)
		store_number(o, base, n->integer);
	else
		store_number(o, base, (int64_t)(v * 1000 + 0.5));
}

static void
apply_word(struct cfg_apply *a, const struct cfg_option *o, const struct cfg_node *n, void *base)
{
	char *text = take_text(a, o, n);
	const struct cfg_word *w = o->words;

	while (text && w->word && strcmp(w->word, text) != 0)
		w++;
	if (text && w->word && o->is_list)
		store_text(a, o, base, strdup(text));
	else if (text && w->word)
		store_number(o, base, w->value);
	else if (text)
		say_expected(a, o, n, NULL);
	free(text);
}

/* A group: its own struct behind a pointer, or members of the same struct. */
static void
apply_sub(
    struct cfg_apply *a, const struct cfg_option *o, const struct cfg_variant *how, struct cfg_node *n, void *base)
{
	struct cfg_path path = { .up = a->path, .key = o->key }, *outer = a->path;
	void *sub = base;

	if (n->kind != CFG_GROUP) {
		say_expected(a, o, n, NULL);
		return;
	}
	if (how->alloc) {
		sub = calloc(1, how->alloc);
		*(void **)member(base, o->offset) = sub;
	}
	if (!sub) {
		a->errors->is_oom = true;
		return;
	}
	a->path = &path;
	apply_group(a, how->sub, n, how->check, sub);
	a->path = outer;
}

/* NULL while no valid word has set the tag. */
static const struct cfg_variant *
variant_of(const struct cfg_option *o, const void *base)
{
	int tag;

	memcpy(&tag, (const char *)base + o->tag, sizeof(tag));
	return tag < 0 ? NULL : &o->variants[tag];
}

static void
apply_groups(struct cfg_apply *a, const struct cfg_option *o, struct cfg_node *n, void *base)
{
	struct cfg_path list = { .up = a->path, .key = o->key }, path = { .up = &list }, *outer = a->path;
	char **ret = member(base, o->offset);
	size_t *count = member(base, o->n_offset);

	if (n->kind != CFG_LIST || (o->is_required && n->n == 0)) {
		say_expected(a, o, n, NULL);
		return;
	}
	*ret = calloc(n->n + 1, o->alloc);
	if (!*ret) {
		a->errors->is_oom = true;
		return;
	}
	a->path = &path;
	for (size_t i = 0; i < n->n; i++) {
		path.index = i;
		(*count)++;
		if (n->child[i]->kind == CFG_GROUP)
			apply_group(a, o->sub, n->child[i], o->check, *ret + i * o->alloc);
		else
			say_expected(a, &(struct cfg_option){ .type = CFG_T_GROUP }, n->child[i], NULL);
	}
	a->path = outer;
}

static void
apply_value(struct cfg_apply *a, const struct cfg_option *o, struct cfg_node *n, void *base)
{
	switch (o->type) {
	case CFG_T_BOOL:
		if (n->kind == CFG_BOOL && n->boolean && o->why_not_true)
			cfg_say(a, &n->at, o->key, "expected false, found true: %s", o->why_not_true);
		else if (n->kind == CFG_BOOL)
			store_number(o, base, n->boolean);
		else
			say_expected(a, o, n, NULL);
		break;
	case CFG_T_INTEGER:
	case CFG_T_SECONDS: apply_number(a, o, n, base); break;
	case CFG_T_WORD: apply_word(a, o, n, base); break;
	case CFG_T_GROUP: apply_sub(a, o, &(struct cfg_variant){ o->sub, o->alloc, o->check }, n, base); break;
	case CFG_T_VARIANT:
		if (variant_of(o, base))
			apply_sub(a, o, variant_of(o, base), n, base);
		break;
	case CFG_T_GROUPS: apply_groups(a, o, n, base); break;
	default: store_text(a, o, base, take_text(a, o, n)); break;
	}
}

static void
apply_list(struct cfg_apply *a, const struct cfg_option *o, struct cfg_node *n, void *base)
{
	struct cfg_path list = { .up = a->path, .key = o->key }, path = { .up = &list }, *outer = a->path;

	if (n->kind != CFG_LIST || (o->is_required && n->n == 0)) {
		say_expected(a, o, n, NULL);
		return;
	}
	a->path = &path;
	for (size_t i = 0; i < n->n; i++) {
		path.index = i;
		apply_value(a, o, n->child[i], base);
	}
	a->path = outer;
}

/* A default is written in the table as in a file. */
static void
apply_default(struct cfg_apply *a, const struct cfg_option *o, void *base)
{
	const struct cfg_word *w = o->words;
	char *text;

	switch (o->type) {
	case CFG_T_BOOL: store_number(o, base, strcmp(o->def, "true") == 0); break;
	case CFG_T_INTEGER: store_number(o, base, strtoll(o->def, NULL, 10)); break;
	case CFG_T_SECONDS: store_number(o, base, (int64_t)(strtod(o->def, NULL) * 1000 + 0.5)); break;
	case CFG_T_WORD:
		while (w->word && strcmp(w->word, o->def) != 0)
			w++;
		BUG_ON(!w->word);
		store_number(o, base, w->value);
		break;
	default:
		text = strdup(o->def);
		a->errors->is_oom |= !text;
		store_text(a, o, base, text);
		break;
	}
}

static void
apply_absent(struct cfg_apply *a, const struct cfg_option *o, const struct cfg_node *group, void *base)
{
	struct cfg_node empty = { .kind = CFG_GROUP, .at = group->at, .name = (char *)"" };
	char want[VALUE_TEXT_MAX];

	if (o->is_required) {
		print_expected(o, false, want);
		if (!a->errors->is_partial)
			cfg_say(a, &group->at, o->key, "expected %s, found nothing", want);
	} else if (o->def) {
		apply_default(a, o, base);
	} else if (o->type == CFG_T_GROUP && !o->alloc && o->offset != CFG_NOWHERE) {
		apply_value(a, o, &empty, base);
	}
}

static void
say_unknown(struct cfg_apply *a, const struct cfg_option *tab, const struct cfg_node *n)
{
	const char *near = cfg_value_nearest(tab, n->name);
	char known[1000] = "";
	size_t used = 0;

	if (near) {
		cfg_say(a, &n->at, n->name, "expected a known key, found an unknown one: did you mean %s?", near);
		return;
	}
	for (; tab->key; tab++)
		if (tab->type != CFG_T_REFUSED && used < sizeof(known))
			used +=
			    (size_t)snprintf(known + used, sizeof(known) - used, "%s%s", used ? ", " : "", tab->key);
	cfg_say(a, &n->at, n->name, "expected one of %s, found an unknown key", known);
}

static void
apply_group(struct cfg_apply *a, const struct cfg_option *tab, struct cfg_node *group, cfg_check check, void *base)
{
	size_t before = a->errors->n + a->errors->unsaid;
	struct cfg_node *n;

	for (const struct cfg_option *o = tab; o->key; o++)
		if (o->type == CFG_T_VARIANT)
			memcpy(member(base, o->tag), &(int){ -1 }, sizeof(int));
	for (const struct cfg_option *o = tab; o->key; o++) {
		n = cfg_node_find(group, o->key);
		if (n)
			n->is_known = true;
		if (n && o->type == CFG_T_REFUSED)
			cfg_say(a, &n->at, o->key, "expected no such key, found it: %s", o->help);
		else if (n && o->is_list)
			apply_list(a, o, n, base);
		else if (n)
			apply_value(a, o, n, base);
		else
			apply_absent(a, o, group, base);
	}
	for (size_t i = 0; i < group->n; i++)
		if (!group->child[i]->is_known)
			say_unknown(a, tab, group->child[i]);
	/* what depends on several rows is only worth saying when each is right */
	if (check && a->errors->n + a->errors->unsaid == before && !a->errors->is_partial && !a->errors->is_oom)
		check(a, group, base);
}

static void
release_sub(const struct cfg_option *o, const struct cfg_option *sub, size_t alloc, void *base)
{
	void **p = alloc ? member(base, o->offset) : NULL;

	if (!alloc)
		cfg_release_table(sub, base);
	else if (*p)
		cfg_release_table(sub, *p);
	if (alloc)
		free(*p);
}

static void
release_row(const struct cfg_option *o, void *base)
{
	const struct cfg_variant *how;
	struct conf_strings *list;
	char **elements;
	size_t n;

	if (o->type == CFG_T_GROUP) {
		release_sub(o, o->sub, o->alloc, base);
	} else if (o->type == CFG_T_VARIANT) {
		how = variant_of(o, base);
		if (how)
			release_sub(o, how->sub, how->alloc, base);
	} else if (o->type == CFG_T_GROUPS) {
		elements = member(base, o->offset);
		n = *(size_t *)member(base, o->n_offset);
		for (size_t i = 0; i < n; i++)
			cfg_release_table(o->sub, *elements + i * o->alloc);
		free(*elements);
	} else if (o->is_list) {
		list = member(base, o->offset);
		for (size_t i = 0; i < list->n; i++)
			free(list->v[i]);
		free(list->v);
	} else {
		free(*(char **)member(base, o->offset));
	}
}

void
cfg_release_table(const struct cfg_option *tab, void *base)
{
	for (; tab->key; tab++) {
		bool owns = tab->offset != CFG_NOWHERE && tab->type != CFG_T_BOOL && tab->type != CFG_T_INTEGER &&
			    tab->type != CFG_T_SECONDS && tab->type != CFG_T_REFUSED &&
			    (tab->type != CFG_T_WORD || tab->is_list);

		if (owns)
			release_row(tab, base);
	}
}

void
cfg_release(const struct cfg_program *p, void *base)
{
	if (!base)
		return;
	cfg_release_table(p->options, base);
	free(base);
}

int
cfg_apply(const struct cfg_program *p, struct cfg_node *root, struct cfg_errors *errors, void **ret)
{
	struct cfg_apply a = { .errors = errors };
	void *base = calloc(1, p->alloc);

	if (!base)
		return -ENOMEM;
	apply_group(&a, p->options, root, p->check, base);
	if (errors->n == 0 && !errors->is_oom && !errors->is_partial) {
		*ret = base;
		return 0;
	}
	cfg_release(p, base);
	return errors->is_oom ? -ENOMEM : -EINVAL;
}
