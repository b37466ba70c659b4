/* chain.c - verified records in order, from a root to the tip (protocol.md 6.4, 6.5 "Append semantics")
 *
 * Always true:
 *  1. Each record but the first names the hash of the one before it; the first
 *     names none. Every record was verified when it was appended.
 *  2. A hash occurs once.
 *  3. `pins` holds, for each name, the last signing fingerprint that a record
 *     of the chain gives it: whoever signs under that name later must have it.
 *  4. A failed append changes nothing.
 *
 * Not here: where records come from, whether they are new enough (src/sd), and
 * which chain wins (directory.c, src/sd).
 */
#include "hyper/directory/record.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>

#define HASH_NONFATAL_OOM 1
#include <uthash.h>

#include "directory/hash.h"
#include "directory/merge.h"
#include "directory/signer.h"
#include "hyper/base/bug.h"
#include "hyper/base/bytes.h"
#include "hyper/wire/address.h"
#include "hyper/wire/json.h"

struct link {
	json_t *signed_record; /* normalised */
	const char *hash;      /* borrowed from it */
	size_t index;
	UT_hash_handle hh;
};

struct pin {
	char *name;
	char fingerprint[65];
	UT_hash_handle hh;
};

struct chain {
	struct link **v; /* in order */
	size_t n, cap;
	struct link *by_hash;
	struct pin *pins;
	enum record_forms forms;
	bool pins_lost; /* out of memory while they were collected again: nothing is appended until they are whole */
};

struct chain *
chain_new(enum record_forms forms)
{
	struct chain *c = calloc(1, sizeof *c);

	if (c)
		c->forms = forms;
	return c;
}

static void
link_free(struct link *l)
{
	if (!l)
		return;
	json_decref(l->signed_record);
	free(l);
}

static void
pins_clear(struct chain *c)
{
	struct pin *p, *next;

	HASH_ITER (hh, c->pins, p, next) {
		HASH_DEL(c->pins, p);
		free(p->name);
		free(p);
	}
}

void
chain_free(struct chain *c)
{
	if (!c)
		return;
	HASH_CLEAR(hh, c->by_hash);
	while (c->n > 0)
		link_free(c->v[--c->n]);
	pins_clear(c);
	free(c->v);
	free(c);
}

size_t
chain_length(const struct chain *c)
{
	return c->n;
}

const json_t *
chain_record(const struct chain *c, size_t i)
{
	BUG_ON(i >= c->n);
	return c->v[i]->signed_record;
}

const char *
chain_tip(const struct chain *c)
{
	return c->n > 0 ? c->v[c->n - 1]->hash : "";
}

int64_t
chain_root_utc_ns(const struct chain *c)
{
	return c->n > 0 ? record_created_utc_ns(c->v[0]->signed_record) : INT64_MIN;
}

ssize_t
chain_index(const struct chain *c, const char *hash)
{
	struct link *l = NULL;

	HASH_FIND_STR(c->by_hash, hash, l);
	return l ? (ssize_t)l->index : -1;
}

/* Invariant 3 for one record. */
static int
pins_apply(struct chain *c, const json_t *record)
{
	const char *name = json_str(record, "name"), *usage, *fingerprint, *last = NULL;
	const json_t *cert;
	struct pin *p = NULL;
	size_t i;

	if (strcmp(json_str(record, "section"), "certificates") != 0)
		return 0;
	json_array_foreach (json_object_get(record, "data"), i, cert) {
		usage = json_str(cert, "key_usage");
		fingerprint = json_str(cert, "fingerprint");
		if (strcmp(usage, "signing") == 0 && strlen(fingerprint) < sizeof p->fingerprint)
			last = fingerprint;
		else if (strcmp(usage, "signing") == 0)
			last = "?"; /* no certificate has it: nobody may sign */
	}
	if (!last)
		return 0;
	HASH_FIND_STR(c->pins, name, p);
	if (!p) {
		p = calloc(1, sizeof *p);
		if (!p)
			return -ENOMEM;
		p->name = strdup(name);
		if (p->name)
			HASH_ADD_KEYPTR(hh, c->pins, p->name, strlen(p->name), p);
		if (!p->name || !p->hh.tbl) {
			free(p->name);
			free(p);
			return -ENOMEM;
		}
	}
	snprintf(p->fingerprint, sizeof p->fingerprint, "%s", last);
	return 0;
}

static void
pins_collect(struct chain *c)
{
	size_t i;

	pins_clear(c);
	c->pins_lost = false;
	for (i = 0; i < c->n && !c->pins_lost; i++)
		c->pins_lost = pins_apply(c, json_object_get(c->v[i]->signed_record, "record")) < 0;
}

static int
check_place(const struct chain *c, const char *hash, const char *parent, char *err)
{
	if (chain_index(c, hash) >= 0) {
		snprintf(err, RECORD_ERR_MAX, "a record with the hash %.16s... is in the chain already", hash);
		return -EINVAL;
	}
	if (c->n == 0 && *parent) {
		snprintf(err, RECORD_ERR_MAX,
		    "stale parent: parent_hash is %.16s..., but the chain is empty and begins with a root "
		    "(parent_hash \"\")",
		    parent);
		return -ESTALE;
	}
	if (strcmp(parent, chain_tip(c)) != 0) {
		snprintf(err, RECORD_ERR_MAX,
		    "stale parent: parent_hash is %.16s%s, but the tip is %.16s...: fetch the tip, "
		    "link to it, sign again",
		    *parent ? parent : "\"\"", *parent ? "..." : "", chain_tip(c));
		return -ESTALE;
	}
	return 0;
}

/* Hash, signature and signer of a normalised record (protocol.md 6.4 steps 1 to 6). */
static int
check_record(const struct chain *c, struct record_trust *trust, const json_t *signed_record, char *err)
{
	const char *hash = json_str(signed_record, "hash"), *parent = json_str(signed_record, "parent_hash");
	const json_t *record = json_object_get(signed_record, "record");
	char computed[SHA256_HEX_LEN + 1];
	struct signer_identity id;
	uint8_t digest[SHA256_LEN];
	struct pin *pin = NULL;
	int r;

	if (record_hash_text(record, computed) < 0 || record_signed_digest(computed, parent, record, digest) < 0) {
		snprintf(err, RECORD_ERR_MAX, "out of memory");
		return -ENOMEM;
	}
	if (strcmp(computed, hash) != 0) {
		snprintf(
		    err, RECORD_ERR_MAX, "wrong hash: it says %.16s..., the record's own is %.16s...", hash, computed);
		return -EINVAL;
	}
	r = signer_check(
	    trust, json_object_get(signed_record, "signature"), digest, record_created_utc_ns(record), &id, err);
	if (r < 0)
		return r;
	HASH_FIND_STR(c->pins, id.name, pin);
	if (pin && strcmp(pin->fingerprint, id.fingerprint) != 0) {
		snprintf(err, RECORD_ERR_MAX,
		    "signer may not sign as %.64s: the directory pins another signing certificate for that name "
		    "(fingerprint %.16s..., not %.16s...)",
		    id.name, pin->fingerprint, id.fingerprint);
		return -EACCES;
	}
	return 0;
}

static int
make_room(struct chain *c)
{
	size_t cap = c->cap ? c->cap * 2 : 64;
	struct link **v;

	if (c->n < c->cap)
		return 0;
	v = reallocarray(c->v, cap, sizeof(struct link *));
	if (!v)
		return -ENOMEM;
	c->v = v;
	c->cap = cap;
	return 0;
}

/* `signed_record` is given, also on failure. */
static int
chain_add(struct chain *c, json_t *signed_record)
{
	struct link *l = calloc(1, sizeof *l);

	if (!l || make_room(c) < 0) {
		json_decref(signed_record);
		free(l);
		return -ENOMEM;
	}
	l->signed_record = signed_record;
	l->hash = json_str(signed_record, "hash");
	l->index = c->n;
	HASH_ADD_KEYPTR(hh, c->by_hash, l->hash, strlen(l->hash), l);
	if (!l->hh.tbl) {
		link_free(l);
		return -ENOMEM;
	}
	c->v[c->n++] = l;
	if (pins_apply(c, json_object_get(signed_record, "record")) < 0) {
		chain_truncate(c, c->n - 1);
		return -ENOMEM;
	}
	return 0;
}

int
chain_append(struct chain *c, struct record_trust *trust, const json_t *signed_record, char err[RECORD_ERR_MAX])
{
	json_t *copy = NULL;
	int r;

	if (c->pins_lost)
		pins_collect(c);
	if (c->pins_lost) {
		snprintf(err, RECORD_ERR_MAX, "out of memory");
		return -ENOMEM;
	}
	r = record_normalise_signed(signed_record, c->forms, &copy, err);
	if (r < 0)
		return r;
	r = check_place(c, json_str(copy, "hash"), json_str(copy, "parent_hash"), err);
	if (r == 0)
		r = check_record(c, trust, copy, err);
	if (r < 0) {
		json_decref(copy);
		return r;
	}
	r = chain_add(c, copy);
	if (r < 0)
		snprintf(err, RECORD_ERR_MAX, "out of memory");
	return r;
}

int
chain_holds_with(const struct chain *c, struct record_trust *trust, char err[RECORD_ERR_MAX])
{
	struct chain *again = chain_new(c->forms);
	char why[RECORD_ERR_MAX] = "out of memory";
	int rc = again ? 0 : -ENOMEM;
	size_t i;

	for (i = 0; rc == 0 && i < c->n; i++)
		rc = chain_append(again, trust, c->v[i]->signed_record, why);
	if (rc < 0)
		snprintf(err, RECORD_ERR_MAX, "record %zu of %zu would not be accepted any more: %.400s", i, c->n, why);
	chain_free(again);
	return rc;
}

void
chain_truncate(struct chain *c, size_t length)
{
	while (c->n > length) {
		struct link *l = c->v[--c->n];

		HASH_DEL(c->by_hash, l);
		link_free(l);
	}
	pins_collect(c); /* undoing is rare */
}

json_t *
chain_entries(const struct chain *c)
{
	json_t *entries = json_object();
	size_t i;

	for (i = 0; i < c->n; i++) {
		const json_t *s = c->v[i]->signed_record, *record = json_object_get(s, "record");

		if (!operator_name_is_valid(json_str(record, "name")))
			continue; /* open forms: it stands in the chain, nobody can call it */
		if (entries_merge(entries, record, s) < 0) {
			json_decref(entries);
			return NULL;
		}
	}
	return entries;
}
