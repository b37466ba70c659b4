/* keep.c - what a reload cannot change stays as it is: copied from the settings in use into the new ones
 *
 * By the same table as reading and freeing. A row with .needs_restart is copied; the others are what the reload is for.
 *
 * Always true:
 *  1. Afterwards both structs say the same in every such row that both have.
 *  2. A group that only one side has is made or emptied where it holds such rows, and is otherwise left to the new side.
 *
 * Not here: lists of groups of different lengths, variants of different types (their owner says what those mean).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "settings/option.h"

static int keep_table(const struct cfg_option *, void *to, const void *from);

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
keep_row(const struct cfg_option *o, void *to, const void *from)
{
	int tag, was;
	size_t n, n_was;
	int rc = 0;

	if (o->type == CFG_T_GROUP)
		return keep_group(o, o->sub, o->alloc, to, from);
	if (o->type == CFG_T_VARIANT) {
		memcpy(&tag, cmember(to, o->tag), sizeof(tag));
		memcpy(&was, cmember(from, o->tag), sizeof(was));
		return tag == was ? keep_group(o, o->variants[tag].sub, o->variants[tag].alloc, to, from) : 0;
	}
	if (o->type == CFG_T_GROUPS) {
		memcpy(&n, cmember(to, o->n_offset), sizeof(n));
		memcpy(&n_was, cmember(from, o->n_offset), sizeof(n_was));
		for (size_t i = 0; rc == 0 && n == n_was && i < n; i++)
			rc = keep_table(o->sub, *(char **)member(to, o->offset) + i * o->alloc,
			    *(char *const *)cmember(from, o->offset) + i * o->alloc);
		return rc;
	}
	return o->needs_restart ? keep_scalar(o, to, from) : 0;
}

static int
keep_table(const struct cfg_option *o, void *to, const void *from)
{
	int rc = 0;

	for (; rc == 0 && o->key; o++) {
		bool is_inner = (o->type == CFG_T_GROUP && o->alloc == 0) || o->type == CFG_T_VARIANT;

		if (o->type != CFG_T_REFUSED && (o->offset != CFG_NOWHERE || is_inner))
			rc = keep_row(o, to, from);
	}
	return rc;
}

/* 0, or -ENOMEM with nothing said. */
static int
carry(const struct cfg_program *p, void *to, const void *from, settings_on_change each, void *arg)
{
	struct settings_values before = { 0 }, after = { 0 };
	int rc = cfg_values(p, from, &before);

	if (rc == 0)
		rc = cfg_values(p, to, &after);
	if (rc == 0)
		rc = keep_table(p->options, to, from);
	if (rc == 0)
		settings_diff(&before, &after, each, arg);
	settings_values_free(&before);
	settings_values_free(&after);
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
