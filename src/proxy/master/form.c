/* form.c - the parameters of requestConnection (protocol.md 7.1), checked
 *
 *   {to, channel, _client: {name, entry: {name, channels, ...}}}
 *
 * Always true: what goes on to B holds the keys of protocol.md 7.1 row 4, and
 * none that we did not look at. `groups`, `records` and `properties` of the
 * entry are null there: they are long, and B trusts its own directory only.
 * A text of the memo was made of an entry that passed every check.
 *
 * Not here: may this client call us at all (our hyper has checked that).
 */
#include "proxy/master/form.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hyper/wire/address.h"
#include "hyper/wire/json.h"

#define CHANNEL "expected the type of a channel, like grpc_server: 1 to 253 characters of A-Z a-z 0-9 . _ -"
#define NAME    "expected an operator name: 1 to 253 characters of A-Z a-z 0-9 . _ -"

/* Keys of an entry in the order of protocol.md 7.1 row 4 */
static const struct {
	const char *key;
	bool is_kept;
	bool is_required;
} entry_lists[] = {
	{ "groups", false, false },
	{ "channels", true, true },
	{ "services", true, false },
	{ "certificates", true, false },
	{ "settings", true, false },
	{ "preferences", true, false },
	{ "records", false, false },
	{ "properties", false, false },
};

#define FORM_SLOTS 256

struct form_slot {
	uint64_t known; /* of rpc_request; 0: empty */
	char *text;
};

struct form_memo {
	struct form_slot slot[FORM_SLOTS];
};

struct form_memo *
form_memo_new(void)
{
	return calloc(1, sizeof(struct form_memo));
}

void
form_memo_free(struct form_memo *m)
{
	if (!m)
		return;
	for (size_t i = 0; i < FORM_SLOTS; i++)
		free(m->slot[i].text);
	free(m);
}

static const char *
check_name(const json_t *object, const char *key, const char *path, json_t **faults)
{
	const char *name = json_str(object, key);

	if (!name)
		rpc_form_fault(faults, path, "expected a string");
	else if (!operator_name_is_valid(name))
		rpc_form_fault(faults, path, NAME);
	return name;
}

static void
check_list(const json_t *entry, const char *key, bool is_required, json_t **faults)
{
	const json_t *list = json_object_get(entry, key), *item;
	char path[64];
	size_t i;

	snprintf(path, sizeof(path), "_client.entry.%s", key);
	if (!is_required && (!list || json_is_null(list)))
		return;
	if (!json_is_array(list)) {
		rpc_form_fault(faults, path, is_required ? "expected a list" : "expected a list or null");
		return;
	}
	json_array_foreach (list, i, item) {
		if (json_is_object(item))
			continue;
		rpc_form_fault(faults, path, "expected a list of objects");
		return;
	}
}

static void
check_entry(const json_t *client, json_t **faults)
{
	const json_t *entry = json_object_get(client, "entry");
	const char *name, *outer = json_str(client, "name");
	size_t i;

	if (!json_is_object(entry)) {
		rpc_form_fault(faults, "_client.entry", "expected a map");
		return;
	}
	name = check_name(entry, "name", "_client.entry.name", faults);
	if (name && outer && strcmp(name, outer) != 0)
		rpc_form_fault(faults, "_client.entry.name", "expected the same name as _client.name");
	for (i = 0; i < ARRAY_LEN(entry_lists); i++)
		if (entry_lists[i].is_kept)
			check_list(entry, entry_lists[i].key, entry_lists[i].is_required, faults);
}

/* NULL when out of memory. */
static json_t *
told_client(const json_t *client)
{
	const json_t *entry = json_object_get(client, "entry");
	json_t *told = json_object(), *ret = NULL;
	int rc = json_object_set(told, "name", json_object_get(entry, "name"));
	size_t i;

	for (i = 0; i < ARRAY_LEN(entry_lists); i++) {
		json_t *v = entry_lists[i].is_kept ? json_object_get(entry, entry_lists[i].key) : NULL;

		rc |= json_object_set(told, entry_lists[i].key, v ? v : json_null());
	}
	if (rc == 0)
		ret = json_pack("{s:O, s:O}", "name", json_object_get(client, "name"), "entry", told);
	json_decref(told);
	return ret;
}

/* Where what came with this number is kept. */
static struct form_slot *
slot_of(struct form_memo *m, uint64_t known)
{
	return &m->slot[known % FORM_SLOTS];
}

/* The text for B: remembered, or made and, where it has a number, remembered. NULL when out of memory. */
static const char *
client_text(struct form_memo *m, uint64_t known, const json_t *client, char **ret_own)
{
	struct form_slot *s = slot_of(m, known);
	json_t *told;
	char *text;

	if (known != 0 && s->known == known)
		return s->text;
	told = told_client(client);
	text = told ? json_text(told) : NULL;
	json_decref(told);
	if (text && known != 0) {
		free(s->text);
		*s = (struct form_slot){ .known = known, .text = text };
	} else {
		*ret_own = text;
	}
	return text;
}

int
form_parse(struct form_memo *m, const struct rpc_request *request, struct form *ret, struct rpc_answer *ret_answer)
{
	const json_t *params = request->params, *client = json_object_get(params, "_client");
	struct form f = { .channel = json_str(params, "channel") };
	json_t *faults = NULL;

	f.to = check_name(params, "to", "to", &faults);
	if (!f.channel)
		rpc_form_fault(&faults, "channel", "expected a string");
	else if (!operator_name_is_valid(
		     f.channel)) /* which types there are is B's affair (protocol.md 7.1, "B checks") */
		rpc_form_fault(&faults, "channel", CHANNEL);
	if (request->known != 0 && slot_of(m, request->known)->known == request->known) {
		f.from = json_str(client, "name"); /* it was right, and these are the same bytes */
	} else if (json_is_object(client)) {
		f.from = check_name(client, "name", "_client.name", &faults);
		check_entry(client, &faults);
	} else {
		rpc_form_fault(&faults, "_client", "expected a map with name and entry: the calling server adds it");
	}
	if (faults) {
		*ret_answer = rpc_form_answer(faults);
		return RPC_INVALID_PARAMS;
	}
	f.client_text = client_text(m, request->known, client, &f.own_text);
	if (!f.client_text) {
		*ret_answer = rpc_fail(RPC_INTERNAL, NULL, "internal error: out of memory");
		return RPC_INTERNAL;
	}
	*ret = f;
	return 0;
}

void
form_fini(struct form *f)
{
	free(f->own_text);
	f->own_text = NULL;
}
