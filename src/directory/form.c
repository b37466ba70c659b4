/* form.c - what the data of a record may look like, as tables (protocol.md 6.2a)
 *
 * Always true:
 *  1. What comes out holds only keys that a table names, in the table's order,
 *     so two texts of the same data become the same JSON.
 *  2. A default that is filled in (empty text, empty list) is one that the
 *     structured hash skips: filling it in never changes a hash.
 *  3. Strict (what we let in): free-form settings hold scalars and lists of
 *     non-empty scalars, nothing deeper. The hash writes neither lengths nor
 *     ends, so [["a"],"b"] and [["a","b"]], or ["1"] and ["",""], are one and
 *     the same to it. Open (what another directory has let in): any object, any
 *     text as a group, empty texts; one such record must not cost a reader the
 *     whole directory.
 *  4. null stands for "not there": the reference writes it, the hash skips it.
 *
 * Not here: tag words and `string` inside texts (rechash_ambiguity()), the
 * record around the data (record.c).
 */
#include "directory/form.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "hyper/wire/address.h"

#define FORM_PATH_MAX 128

enum form_kind {
	FORM_TEXT,     /* a non-empty string */
	FORM_TEXT_OR,  /* a string, "" when missing */
	FORM_GROUP,    /* the name of a group, or "*" */
	FORM_RIGHTS,   /* a list of "call", each once */
	FORM_LIST,     /* a list of objects, [] when missing */
	FORM_LIST_OPT, /* a list of objects or nothing */
	FORM_FREE,     /* free-form settings */
	FORM_FREE_OPT
};

struct form {
	const char *key; /* NULL ends a table */
	enum form_kind kind;
	const struct form *item; /* what a list holds */
};

static const struct form permission_form[] = { { "group", FORM_GROUP, NULL }, { "rights", FORM_RIGHTS, NULL },
	{ NULL, FORM_TEXT, NULL } };

static const struct form validator_form[] = { { "type", FORM_TEXT, NULL }, { "parameters", FORM_FREE_OPT, NULL },
	{ NULL, FORM_TEXT, NULL } };

static const struct form parameter_form[] = { { "name", FORM_TEXT, NULL },
	{ "validators", FORM_LIST_OPT, validator_form }, { NULL, FORM_TEXT, NULL } };

static const struct form method_form[] = { { "name", FORM_TEXT, NULL }, { "permissions", FORM_LIST, permission_form },
	{ "parameters", FORM_LIST_OPT, parameter_form }, { NULL, FORM_TEXT, NULL } };

static const struct form service_form[] = { { "name", FORM_TEXT, NULL }, { "permissions", FORM_LIST, permission_form },
	{ "methods", FORM_LIST, method_form }, { NULL, FORM_TEXT, NULL } };

static const struct form channel_form[] = { { "type", FORM_TEXT, NULL }, { "settings", FORM_FREE_OPT, NULL },
	{ NULL, FORM_TEXT, NULL } };

static const struct form certificate_form[] = { { "fingerprint", FORM_TEXT, NULL }, { "key_usage", FORM_TEXT, NULL },
	{ NULL, FORM_TEXT, NULL } };

static const struct form setting_form[] = { { "operator", FORM_TEXT_OR, NULL }, { "service", FORM_TEXT_OR, NULL },
	{ "environment", FORM_TEXT_OR, NULL }, { "settings", FORM_FREE, NULL }, { NULL, FORM_TEXT, NULL } };

static const struct {
	const char *word;
	const struct form *item; /* NULL: the names of groups */
} sections[] = {
	[SECTION_CHANNELS] = { "channels", channel_form },
	[SECTION_CERTIFICATES] = { "certificates", certificate_form },
	[SECTION_SERVICES] = { "services", service_form },
	[SECTION_PREFERENCES] = { "preferences", setting_form },
	[SECTION_SETTINGS] = { "settings", setting_form },
	[SECTION_GROUPS] = { "groups", NULL },
};

enum record_section
record_section_parse(const char *word)
{
	size_t i;

	for (i = 0; i < ARRAY_LEN(sections); i++)
		if (strcmp(word, sections[i].word) == 0)
			return (enum record_section)i;
	return SECTION_MAX;
}

const char *
record_section_word(enum record_section section)
{
	return section < SECTION_MAX ? sections[section].word : "?";
}

/* Where a fault is told, and which forms count. */
struct check {
	char *err;
	bool open;
};

static int
wrong(const struct check *c, const char *path, const char *key, const char *expected)
{
	snprintf(c->err, RECORD_ERR_MAX, "%s%s%s: expected %s", path, *key ? "." : "", key, expected);
	return -EINVAL;
}

static int
no_memory(const struct check *c)
{
	snprintf(c->err, RECORD_ERR_MAX, "out of memory");
	return -ENOMEM;
}

/* Does the structured hash skip it? (protocol.md 6.3) */
static bool
is_skipped(const json_t *v)
{
	switch (json_typeof(v)) {
	case JSON_NULL:
	case JSON_FALSE: return true;
	case JSON_STRING: return json_string_length(v) == 0;
	case JSON_INTEGER: return json_integer_value(v) == 0;
	case JSON_REAL: return json_real_value(v) == 0.0;
	case JSON_ARRAY: return json_array_size(v) == 0;
	default: return false;
	}
}

/* Invariant 3. */
static int
check_free(const json_t *map, const char *path, const char *key, const struct check *c)
{
	const char *name;
	json_t *value, *element;
	size_t i;

	if (!json_is_object(map))
		return wrong(c, path, key, "an object");
	if (c->open)
		return 0;
	json_object_foreach ((json_t *)map, name, value) {
		if (!*name)
			return wrong(c, path, key, "keys that are not empty");
		if (json_is_object(value))
			return wrong(
			    c, path, key, "no object inside settings: the record's hash could not tell them apart");
		if (!json_is_array(value))
			continue;
		json_array_foreach (value, i, element) {
			if (json_is_object(element) || json_is_array(element) || is_skipped(element))
				return wrong(c, path, key,
				    "lists inside settings to hold only texts, numbers and true, none of them empty or "
				    "zero");
		}
	}
	return 0;
}

static int
check_rights(const json_t *list, const char *path, const char *key, const struct check *c)
{
	const char *right = json_string_value(json_array_get(list, 0));

	if (!json_is_array(list) || json_array_size(list) > 1 ||
	    (json_array_size(list) == 1 && (!right || strcmp(right, "call") != 0)))
		return wrong(c, path, key, "a list of rights: [\"call\"]");
	return 0;
}

static int
check_text(const json_t *v, bool may_be_empty, const char *path, const char *key, const struct check *c)
{
	may_be_empty |= c->open;
	if (!json_is_string(v) || (!may_be_empty && json_string_length(v) == 0))
		return wrong(c, path, key, may_be_empty ? "a string" : "a string that is not empty");
	return 0;
}

static int
check_group(const json_t *v, const char *path, const char *key, const struct check *c)
{
	const char *text = json_string_value(v);

	if (!text || (!c->open && !operator_name_is_valid(text) && strcmp(text, "*") != 0))
		return wrong(c, path, key, "the name of a group ([A-Za-z0-9._-], at most 253) or *");
	return 0;
}

static int
form_list(const struct form *item, const json_t *list, const char *path, json_t **ret, const struct check *c);

/* One member: checked, and its value for the closed form in *ret (taken), NULL when it is left out. */
static int
form_member(const struct form *f, const json_t *given, const char *path, json_t **ret, const struct check *c)
{
	const json_t *v = json_is_null(given) ? NULL : given;
	char sub[FORM_PATH_MAX];
	json_t *copy = NULL;
	int r = 0;

	switch (f->kind) {
	case FORM_TEXT: r = check_text(v, false, path, f->key, c); break;
	case FORM_TEXT_OR: r = v ? check_text(v, true, path, f->key, c) : 0; break;
	case FORM_GROUP: r = check_group(v, path, f->key, c); break;
	case FORM_RIGHTS: r = check_rights(v, path, f->key, c); break;
	case FORM_FREE: r = check_free(v, path, f->key, c); break;
	case FORM_FREE_OPT: r = v ? check_free(v, path, f->key, c) : 0; break;
	case FORM_LIST:
	case FORM_LIST_OPT: break;
	}
	if (r < 0)
		return r;
	if (f->item && v) {
		snprintf(sub, sizeof sub, "%.96s.%.24s", path, f->key);
		return form_list(f->item, v, sub, ret, c);
	}
	if (v)
		copy = json_deep_copy(v);
	else if (f->kind == FORM_TEXT_OR)
		copy = json_string("");
	else if (f->kind == FORM_LIST)
		copy = json_array();
	else {
		*ret = NULL;
		return 0;
	}
	if (!copy)
		return no_memory(c);
	*ret = copy;
	return 0;
}

static int
form_object(const struct form *fields, const json_t *object, const char *path, json_t **ret, const struct check *c)
{
	json_t *out, *value;
	int r = 0;

	if (!json_is_object(object))
		return wrong(c, path, "", "an object");
	out = json_object();
	if (!out)
		return no_memory(c);
	for (; fields->key; fields++) {
		value = NULL;
		r = form_member(fields, json_object_get(object, fields->key), path, &value, c);
		if (r < 0)
			break;
		if (value && json_object_set_new(out, fields->key, value) < 0) {
			r = no_memory(c);
			break;
		}
	}
	if (r < 0)
		json_decref(out);
	else
		*ret = out;
	return r;
}

/* `item` NULL: a list of the names of groups. */
static int
form_list(const struct form *item, const json_t *list, const char *path, json_t **ret, const struct check *c)
{
	char sub[FORM_PATH_MAX];
	const json_t *element;
	json_t *out, *value;
	size_t i;
	int r = 0;

	if (!json_is_array(list) && !(c->open && json_is_null(list)))
		return wrong(c, path, "", "a list");
	out = json_array();
	if (!out)
		return no_memory(c);
	for (i = 0; r == 0 && i < json_array_size(list); i++) {
		element = json_array_get(list, i);
		value = NULL;
		snprintf(sub, sizeof sub, "%.96s[%zu]", path, i);
		if (item)
			r = form_object(item, element, sub, &value, c);
		else {
			r = check_group(element, sub, "", c);
			if (r == 0)
				value = json_deep_copy(element);
		}
		if (r == 0 && json_array_append_new(out, value) < 0)
			r = no_memory(c);
	}
	if (r < 0)
		json_decref(out);
	else
		*ret = out;
	return r;
}

int
form_data(
    enum record_section section, const json_t *data, enum record_forms forms, json_t **ret, char err[RECORD_ERR_MAX])
{
	const struct check c = { .err = err, .open = forms == RECORD_OPEN };

	return form_list(sections[section].item, data, "data", ret, &c);
}
