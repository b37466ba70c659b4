/* merge.c - what a list of records says: one entry for each name (protocol.md 6.1)
 *
 * Always true:
 *  1. A record replaces exactly one section of exactly one entry.
 *  2. An entry has all nine keys in the order of protocol.md 6.1, null where
 *     no record has set them.
 *
 * Not here: whether a record may be believed (chain.c).
 */
#include "directory/merge.h"

#include <errno.h>
#include <string.h>

#include "hyper/wire/json.h"

static const char *const entry_keys[] = { "name", "groups", "channels", "services", "certificates", "settings",
	"preferences", "records", "properties" };

static json_t *
entry_new(const char *name)
{
	json_t *entry = json_object();
	size_t i;

	for (i = 0; i < ARRAY_LEN(entry_keys); i++)
		if (json_object_set_new(entry, entry_keys[i], i == 0 ? json_string(name) : json_null()) < 0) {
			json_decref(entry);
			return NULL;
		}
	return entry;
}

/* Channels without settings are served with null, preferences under a name of their own. Taken. */
static json_t *
served_item(const char *section, const json_t *item)
{
	json_t *copy;

	if (strcmp(section, "channels") == 0 && !json_object_get(item, "settings")) {
		copy = json_copy((json_t *)item);
		if (json_object_set_new(copy, "settings", json_null()) < 0) {
			json_decref(copy);
			return NULL;
		}
		return copy;
	}
	if (strcmp(section, "preferences") == 0)
		return json_pack("{s:O, s:O, s:O, s:O}", "operator", json_object_get(item, "operator"), "service",
		    json_object_get(item, "service"), "environment", json_object_get(item, "environment"),
		    "preferences", json_object_get(item, "settings"));
	return json_incref((json_t *)item);
}

static json_t *
served_data(const char *section, const json_t *data)
{
	json_t *out = json_array();
	const json_t *item;
	size_t i;

	json_array_foreach (data, i, item) {
		if (json_array_append_new(out, served_item(section, item)) < 0) {
			json_decref(out);
			return NULL;
		}
	}
	return out;
}

static int
keep_record(json_t *entry, const json_t *signed_record)
{
	json_t *list = json_object_get(entry, "records");

	if (!json_is_array(list)) {
		list = json_array();
		if (json_object_set_new(entry, "records", list) < 0)
			return -ENOMEM;
	}
	return json_array_append(list, (json_t *)signed_record) < 0 ? -ENOMEM : 0;
}

int
entries_merge(json_t *entries, const json_t *record, const json_t *signed_record)
{
	const char *name = json_str(record, "name"), *section = json_str(record, "section");
	json_t *entry = json_object_get(entries, name);

	if (!entry) {
		entry = entry_new(name);
		if (json_object_set_new(entries, name, entry) < 0)
			return -ENOMEM;
	}
	if (json_object_set_new(entry, section, served_data(section, json_object_get(record, "data"))) < 0)
		return -ENOMEM;
	return signed_record ? keep_record(entry, signed_record) : 0;
}
