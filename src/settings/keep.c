/* keep.c - what a reload cannot change stays as it is: copied from the settings in use into the new ones
 *
 * By the same table as reading and freeing. A row with .needs_restart is copied; the others are what the reload is for.
 *
 * Always true:
 *  1. Afterwards both structs say the same in every such row that both have.
 *  2. A group that only one side has is made or emptied where it holds such rows, and is otherwise left to the new side.
 *  3. A group of another type (CFG_T_VARIANT), and a list with .needs_restart of another length, stays as a whole.
 *  4. What is said of a value is what became of it, whatever its row says: "live" when it is the new one.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "settings/option.h"

static int keep_table(const struct cfg_option *, void *to, const void *from);
static int copy_table(const struct cfg_option *, void *to, const void *from);

static void *
member(void *base, size_t offset)
{
	return (char *)base + offset;
}

static const void *
cmember(const void *base, size_t offset)
{
	return (const char *)base + offset;
}

/* 0 with the text taken, or -ENOMEM. `from` NULL: none. */
static int
keep_text(char **to, const char *from)
{
	char *copy = from ? strdup(from) : NULL;

	if (from && !copy)
		return -ENOMEM;
	free(*to);
	*to = copy;
	return 0;
}

static int
keep_list(struct conf_strings *to, const struct conf_strings *from)
{
	struct conf_strings copy = { .v = calloc(from->n ? from->n : 1, sizeof(char *)) };
	int rc = copy.v ? 0 : -ENOMEM;

	for (; rc == 0 && copy.n < from->n; copy.n++)
		rc = keep_text(&copy.v[copy.n], from->v[copy.n]);
	if (rc == 0) {
		const struct conf_strings old = *to;

		*to = copy;
		copy = old;
	}
	for (size_t i = 0; i < copy.n; i++)
		free(copy.v[i]);
	free(copy.v);
	return rc;
}

static int
keep_scalar(const struct cfg_option *o, void *to, const void *from)
{
	bool is_text = o->type < CFG_T_BOOL;

	if (o->is_list)
		return keep_list(member(to, o->offset), cmember(from, o->offset));
	if (is_text)
		return keep_text(member(to, o->offset), *(char *const *)cmember(from, o->offset));
	memcpy(member(to, o->offset), cmember(from, o->offset), o->size);
	return 0;
}

/* --- whole groups --- */

static int
tag_of(const struct cfg_option *o, const void *base)
{
	int tag;

	memcpy(&tag, cmember(base, o->tag), sizeof(tag));
	return tag;
}

/* `to` holds no group yet. */
static int
copy_group(const struct cfg_option *o, const struct cfg_option *sub, size_t alloc, void *to, const void *from)
{
	const void *was = alloc ? *(void *const *)cmember(from, o->offset) : from;
	void *made = to;

	if (!was)
		return 0;
	if (alloc) {
		made = calloc(1, alloc);
		if (!made)
			return -ENOMEM;
		*(void **)member(to, o->offset) = made;
	}
	return copy_table(sub, made, was);
}

static int
copy_groups(const struct cfg_option *o, void *to, const void *from)
{
	const char *was = *(char *const *)cmember(from, o->offset);
	size_t n = *(const size_t *)cmember(from, o->n_offset);
	char *made = calloc(n ? n : 1, o->alloc);
	int rc = made ? 0 : -ENOMEM;

	if (rc < 0)
		return rc;
	*(char **)member(to, o->offset) = made;
	*(size_t *)member(to, o->n_offset) = n;
	for (size_t i = 0; rc == 0 && i < n; i++)
		rc = copy_table(o->sub, made + i * o->alloc, was + i * o->alloc);
	return rc;
}

static int
copy_row(const struct cfg_option *o, void *to, const void *from)
{
	int tag;

	if (o->type == CFG_T_GROUP)
		return copy_group(o, o->sub, o->alloc, to, from);
	if (o->type == CFG_T_GROUPS)
		return copy_groups(o, to, from);
	if (o->type != CFG_T_VARIANT)
		return keep_scalar(o, to, from);
	tag = tag_of(o, from);
	memcpy(member(to, o->tag), &tag, sizeof(tag));
	return copy_group(o, o->variants[tag].sub, o->variants[tag].alloc, to, from);
}

static bool
is_kept_row(const struct cfg_option *o)
{
	bool is_inner = (o->type == CFG_T_GROUP && o->alloc == 0) || o->type == CFG_T_VARIANT;

	return o->type != CFG_T_REFUSED && (o->offset != CFG_NOWHERE || is_inner);
}

/* All of it; `to` is zero. Whatever comes of it, it can be released. */
static int
copy_table(const struct cfg_option *o, void *to, const void *from)
{
	int rc = 0;

	for (; rc == 0 && o->key; o++)
		if (is_kept_row(o))
			rc = copy_row(o, to, from);
	return rc;
}

static bool
is_other_variant(const struct cfg_option *o, const void *a, const void *b)
{
	for (; o->key; o++)
		if (o->type == CFG_T_VARIANT && tag_of(o, a) != tag_of(o, b))
			return true;
	return false;
}

/* By the rows, or as a whole where the types differ; both are there. */
static int
keep_struct(const struct cfg_option *sub, size_t size, void *to, const void *from)
{
	if (!is_other_variant(sub, to, from))
		return keep_table(sub, to, from);
	cfg_release_table(sub, to);
	memset(to, 0, size);
	return copy_table(sub, to, from);
}

/* --- rows --- */

static bool
has_fixed(const struct cfg_option *o)
{
	for (; o->key; o++)
		if (o->needs_restart || (o->type == CFG_T_GROUP && has_fixed(o->sub)))
			return true;
	return false;
}

static int
keep_group(const struct cfg_option *o, const struct cfg_option *sub, size_t alloc, void *to, const void *from)
{
	void **at = alloc ? member(to, o->offset) : NULL, *made = NULL, *empty = NULL;
	const void *was = alloc ? *(void *const *)cmember(from, o->offset) : from;
	int rc = 0;

	if (alloc && *at && was)
		return keep_struct(sub, alloc, *at, was);
	if (!has_fixed(sub) || (alloc && !*at && !was))
		return 0;
	if (alloc && !*at) {
		*at = made = calloc(1, alloc);
		rc = made ? 0 : -ENOMEM;
	}
	if (alloc && !was) {
		was = empty = calloc(1, alloc);
		rc = empty ? 0 : -ENOMEM;
	}
	if (rc == 0)
		rc = keep_table(sub, alloc ? *at : to, was);
	free(empty);
	return rc;
}

static int
keep_groups(const struct cfg_option *o, void *to, const void *from)
{
	char *at = *(char **)member(to, o->offset), *was = *(char *const *)cmember(from, o->offset);
	size_t *n = member(to, o->n_offset), n_was = *(const size_t *)cmember(from, o->n_offset);
	int rc = 0;

	if (*n != n_was && o->needs_restart) {
		for (size_t i = 0; i < *n; i++)
			cfg_release_table(o->sub, at + i * o->alloc);
		free(at);
		*(char **)member(to, o->offset) = NULL;
		*n = 0;
		return copy_groups(o, to, from);
	}
	for (size_t i = 0; rc == 0 && *n == n_was && i < *n; i++)
		rc = keep_struct(o->sub, o->alloc, at + i * o->alloc, was + i * o->alloc);
	return rc;
}

static int
keep_row(const struct cfg_option *o, void *to, const void *from)
{
	int tag;

	if (o->type == CFG_T_GROUP)
		return keep_group(o, o->sub, o->alloc, to, from);
	if (o->type == CFG_T_GROUPS)
		return keep_groups(o, to, from);
	if (o->type != CFG_T_VARIANT)
		return o->needs_restart ? keep_scalar(o, to, from) : 0;
	tag = tag_of(o, to);
	return keep_group(o, o->variants[tag].sub, o->variants[tag].alloc, to, from);
}

static int
keep_table(const struct cfg_option *o, void *to, const void *from)
{
	int rc = 0;

	for (; rc == 0 && o->key; o++)
		if (is_kept_row(o))
			rc = keep_row(o, to, from);
	return rc;
}

/* --- the doors --- */

struct teller {
	const struct settings_values *kept; /* what holds after all */
	settings_on_change each;
	void *arg;
};

static void
on_diff(const char *key, const char *before, const char *after, int reload, void *arg)
{
	const struct teller *t = arg;
	const struct settings_value *v = cfg_value_find(t->kept, key);
	bool is_live = v && after ? strcmp(v->value, after) == 0 : !v && !after;

	(void)reload;
	if (strcmp(before ? before : "unset", after ? after : "unset") == 0)
		return; /* a key of a group that is new or gone, and not set there */
	t->each(key, before, after, is_live, t->arg);
}

/* 0, or -ENOMEM with nothing said. */
static int
carry(const struct cfg_program *p, void *to, const void *from, settings_on_change each, void *arg)
{
	struct settings_values before = { 0 }, after = { 0 }, kept = { 0 };
	struct teller teller = { &kept, each, arg };
	int rc = cfg_values(p, from, &before);

	if (rc == 0)
		rc = cfg_values(p, to, &after);
	if (rc == 0)
		rc = keep_table(p->options, to, from);
	if (rc == 0)
		rc = cfg_values(p, to, &kept);
	if (rc == 0)
		settings_diff(&before, &after, on_diff, &teller);
	settings_values_free(&before);
	settings_values_free(&after);
	settings_values_free(&kept);
	return rc;
}

int
settings_carry_hyper(struct conf_hyper *to, const struct conf_hyper *from, settings_on_change each, void *arg)
{
	return carry(&cfg_hyper, to, from, each, arg);
}

int
settings_carry_sd(struct conf_sd *to, const struct conf_sd *from, settings_on_change each, void *arg)
{
	return carry(&cfg_sd, to, from, each, arg);
}

int
settings_carry_proxy(struct conf_proxy *to, const struct conf_proxy *from, settings_on_change each, void *arg)
{
	return carry(&cfg_proxy, to, from, each, arg);
}
