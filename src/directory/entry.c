/* entry.c - questions about directory entries (protocol.md 3.3, 3.6, section 5, 6.1)
 *
 * Always true: an entry comes from verified records or from a peer; a member
 * that is missing, null or of another type answers "no", never more.
 *
 * Not here: where entries come from (directory.c).
 */
#include "hyper/directory/entry.h"

#include <string.h>

#include "hyper/wire/json.h"

static bool
text_is(const json_t *object, const char *key, const char *text)
{
	const char *have = json_str(object, key);

	return have && strcmp(have, text) == 0;
}

bool
entry_in_group(const json_t *entry, const char *group)
{
	const json_t *item;
	size_t i;

	json_array_foreach (json_object_get(entry, "groups"), i, item) {
		if (json_is_string(item) && strcmp(json_string_value(item), group) == 0)
			return true;
	}
	return false;
}

static bool
has_right(const json_t *permission, const char *right)
{
	const json_t *item;
	size_t i;

	json_array_foreach (json_object_get(permission, "rights"), i, item) {
		if (json_is_string(item) && strcmp(json_string_value(item), right) == 0)
			return true;
	}
	return false;
}

/* `holder`: a service or a method. */
static bool
permits(const json_t *holder, const json_t *client)
{
	const json_t *permission;
	const char *group;
	size_t i;

	json_array_foreach (json_object_get(holder, "permissions"), i, permission) {
		group = json_str(permission, "group");
		if (group && has_right(permission, "call") &&
		    (strcmp(group, "*") == 0 || entry_in_group(client, group)))
			return true;
	}
	return false;
}

bool
entry_permits(const json_t *callee, const json_t *client, const char *method)
{
	const json_t *service, *m;
	size_t i, k;

	json_array_foreach (json_object_get(callee, "services"), i, service) {
		json_array_foreach (json_object_get(service, "methods"), k, m) {
			/* the first service that has the method decides, whatever a later one would say */
			if (text_is(m, "name", method))
				return permits(service, client) || permits(m, client);
		}
	}
	return false;
}

bool
entry_has_encryption_key(const json_t *entry, const char *fingerprint)
{
	const json_t *cert;
	size_t i;

	if (!*fingerprint)
		return false;
	json_array_foreach (json_object_get(entry, "certificates"), i, cert) {
		if (text_is(cert, "key_usage", "encryption") && text_is(cert, "fingerprint", fingerprint))
			return true;
	}
	return false;
}

static const json_t *
find_channel(const json_t *entry, const char *type)
{
	const json_t *channel;
	size_t i;

	json_array_foreach (json_object_get(entry, "channels"), i, channel) {
		if (text_is(channel, "type", type))
			return channel;
	}
	return NULL;
}

bool
entry_has_channel(const json_t *entry, const char *type)
{
	return find_channel(entry, type) != NULL;
}

bool
entry_grpc_server(const json_t *entry, struct entry_grpc *ret)
{
	const json_t *channel = find_channel(entry, "grpc_server"), *settings = json_object_get(channel, "settings");
	const char *address = json_str(settings, "address"), *proxy = json_str(settings, "proxy");

	/* protocol.md 3.6: the address is required */
	if (!channel || !address)
		return false;
	ret->address = address;
	ret->internal = json_is_true(json_object_get(settings, "internal"));
	ret->proxy = proxy ? proxy : "";
	return true;
}

const json_t *
entry_settings(const json_t *entry, const char *service, const char *operator)
{
	const json_t *item, *settings;
	size_t i;

	json_array_foreach (json_object_get(entry, "settings"), i, item) {
		if (!text_is(item, "service", service) && !text_is(item, "service", ""))
			continue;
		if (!text_is(item, "operator", operator) && !text_is(item, "operator", ""))
			continue;
		settings = json_object_get(item, "settings");
		return json_is_object(settings) ? settings : NULL;
	}
	return NULL;
}

static bool
names_group_of(const json_t *holder, const json_t *other)
{
	const json_t *permission;
	const char *group;
	size_t i;

	json_array_foreach (json_object_get(holder, "permissions"), i, permission) {
		group = json_str(permission, "group");
		/* "*" is compared literally here (protocol.md 3.5), and nobody is in a group of that name */
		if (group && entry_in_group(other, group))
			return true;
	}
	return false;
}

bool
entry_may_be_called_by(const json_t *own, const json_t *other)
{
	const json_t *service, *m;
	size_t i, k;

	json_array_foreach (json_object_get(own, "services"), i, service) {
		if (names_group_of(service, other))
			return true;
		json_array_foreach (json_object_get(service, "methods"), k, m) {
			if (names_group_of(m, other))
				return true;
		}
	}
	return false;
}
