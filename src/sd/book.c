/* book.c - accepts records (protocol.md "Records", 6.4, 6.5) and serves them
 *
 *   submit: form -> known already? -> time -> chain_append() -> ... all of them -> store, fsync -> visible
 *
 * Always true:
 *  1. What is served is stored; what is stored was verified. `chain` is the
 *     newest chain of the store, record for record.
 *  2. A batch is accepted whole or leaves no trace, in memory or on the disk.
 *  3. A hash belongs to one content for ever, also after a reset.
 *  4. A new root is strictly later than the present one, so the newest chain of
 *     the store is the one with the latest root.
 *
 * Bounds: BOOK_RECORDS_MAX records and BOOK_BYTES_MAX of text in a chain, one
 * page of an answer PAGE_BYTES.
 *
 * Not here: JSON-RPC (api.c), the file (store.c).
 */
#include "sd/book.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hyper/base/clock.h"
#include "hyper/base/log.h"
#include "hyper/directory/record.h"
#include "hyper/wire/json.h"
#include "sd/store.h"

#define BOOK_RECORDS_MAX ((size_t)100000)
#define BOOK_BYTES_MAX   ((size_t)64 * 1024 * 1024)
#define PAGE_BYTES       ((size_t)1024 * 1024)
#define SKEW_NS          ((int64_t)5 * 60 * 1000000000) /* protocol.md "Records" */

struct book {
	struct record_trust *trust;
	struct store *store;
	struct chain *chain;
	size_t bytes;    /* text of all its records */
	json_t *entries; /* NULL: not built since the last change */
};

/* One submit while it is being judged. */
struct batch {
	struct book *book;
	struct chain *fresh; /* a new root and what follows; NULL: the book's chain grows */
	size_t before;       /* length of the book's chain */
	size_t n_new;
};

struct loading {
	struct book *book;
	char *err;
};

static int
load_record(const char *text, size_t len, void *arg)
{
	struct loading *l = arg;
	struct book *b = l->book;
	size_t i = chain_length(b->chain);
	char why[RECORD_ERR_MAX];
	json_t *record = NULL;
	int r = json_parse(text, len, &record, why);

	if (r == 0)
		r = chain_append(b->chain, b->trust, record, why);
	json_decref(record);
	if (r == 0) {
		b->bytes += len;
		return 0;
	}
	snprintf(l->err, BOOK_ERR_MAX,
	    "record %zu of the store does not verify: %s. Were the certificates made anew? Then move the store away "
	    "and "
	    "set the directory up again (make sd-setup); otherwise restore the store from a backup",
	    i, why);
	return r;
}

int
book_open(const struct conf_sd *conf, struct book **ret, char err[BOOK_ERR_MAX])
{
	struct book *b = calloc(1, sizeof *b);
	struct loading loading = { b, err };
	int r = -ENOMEM;

	snprintf(err, BOOK_ERR_MAX, "out of memory");
	if (!b)
		return -ENOMEM;
	b->chain = chain_new(RECORD_STRICT);
	if (b->chain)
		r = record_trust_new(
		    &conf->ca_certificate_files, &conf->ca_intermediate_certificate_files, &b->trust, err);
	if (r == 0)
		r = store_open(conf->store_path, &b->store, err);
	if (r == 0)
		r = store_walk(b->store, load_record, &loading, err);
	if (r < 0)
		book_close(b);
	else
		*ret = b;
	return r;
}

int
book_prepare(const struct book *b, const struct conf_sd *conf, struct record_trust **ret, char err[BOOK_ERR_MAX])
{
	struct record_trust *trust = NULL;
	int r = record_trust_new(&conf->ca_certificate_files, &conf->ca_intermediate_certificate_files, &trust, err);

	if (r == 0 && !record_trust_equals(b->trust, trust))
		r = chain_holds_with(b->chain, trust, err);
	if (r < 0)
		record_trust_free(trust);
	else
		*ret = trust;
	return r;
}

void
book_apply(struct book *b, struct record_trust *trust)
{
	record_trust_free(b->trust);
	b->trust = trust;
}

void
book_close(struct book *b)
{
	if (!b)
		return;
	store_close(b->store);
	record_trust_free(b->trust);
	chain_free(b->chain);
	json_decref(b->entries);
	free(b);
}

static struct chain *
growing(const struct batch *t)
{
	return t->fresh ? t->fresh : t->book->chain;
}

/* The record that has this hash already: 0 with *ret taken, or -ENOENT, -EIO, -ENOMEM. */
static int
find_known(const struct batch *t, const char *hash, json_t **ret)
{
	const struct chain *chains[] = { growing(t), t->book->chain };
	char *text = NULL, why[JSON_ERR_MAX];
	ssize_t at;
	size_t i;
	int r;

	for (i = 0; i < ARRAY_LEN(chains); i++) {
		at = chain_index(chains[i], hash);
		if (at >= 0) {
			*ret = json_incref((json_t *)chain_record(chains[i], (size_t)at));
			return 0;
		}
	}
	r = store_find(t->book->store, hash, &text);
	if (r < 0)
		return r;
	r = json_parse(text, strlen(text), ret, why);
	free(text);
	return r == -ENOMEM ? r : r < 0 ? -EIO : 0;
}

/* protocol.md "Records": created_at near to now and not before the parent's; a new root later than the present one. */
static int
check_time(const struct batch *t, const json_t *record, bool is_root, char *err)
{
	int64_t at = record_created_utc_ns(record), now = clock_wall_utc_ns();
	const struct chain *c = growing(t);

	if (at < now - SKEW_NS || at > now + SKEW_NS) {
		snprintf(err, BOOK_ERR_MAX,
		    "created_at is %" PRId64 " s %s: it must be within 5 minutes of the directory's clock",
		    (at < now ? now - at : at - now) / 1000000000, at < now ? "ago" : "ahead");
		return -EINVAL;
	}
	if (is_root && t->before > 0 && at <= chain_root_utc_ns(t->book->chain)) {
		snprintf(err, BOOK_ERR_MAX, "a new root must be later than the present one (created_at)");
		return -ESTALE;
	}
	if (!is_root && chain_length(c) > 0 && at < record_created_utc_ns(chain_record(c, chain_length(c) - 1))) {
		snprintf(err, BOOK_ERR_MAX, "created_at is before that of the parent record");
		return -EINVAL;
	}
	return 0;
}

/* A root replaces the directory; it must be the first that is new in its batch. */
static int
begin_root(struct batch *t, char *err)
{
	if (t->n_new > 0) {
		snprintf(err, BOOK_ERR_MAX, "a root (parent_hash \"\") must be the first new record of a batch");
		return -EINVAL;
	}
	if (t->before == 0)
		return 0;
	t->fresh = chain_new(RECORD_STRICT);
	if (!t->fresh) {
		snprintf(err, BOOK_ERR_MAX, "out of memory");
		return -ENOMEM;
	}
	return 0;
}

static int
accept_new(struct batch *t, const json_t *record, char *err)
{
	bool is_root = !*json_str(record, "parent_hash");
	int r = is_root ? begin_root(t, err) : 0;

	if (r == 0)
		r = check_time(t, record, is_root, err);
	if (r == 0 && chain_length(growing(t)) >= BOOK_RECORDS_MAX) {
		snprintf(err, BOOK_ERR_MAX, "the directory holds %zu records, its limit: begin a new chain (--reset)",
		    BOOK_RECORDS_MAX);
		r = -EDQUOT;
	}
	if (r == 0)
		r = chain_append(growing(t), t->book->trust, record, err);
	if (r == 0)
		t->n_new++;
	return r;
}

static int
take_record(struct batch *t, const json_t *given, char *err)
{
	json_t *record = NULL, *known = NULL;
	int r = record_normalise_signed(given, RECORD_STRICT, &record, err);

	if (r < 0)
		return r == -EINVAL ? -EBADMSG : r;
	r = find_known(t, json_str(record, "hash"), &known);
	if (r == -ENOENT)
		r = accept_new(t, record, err);
	else if (r < 0)
		snprintf(err, BOOK_ERR_MAX, "the store cannot be read");
	else if (!json_equal(known, record)) {
		snprintf(err, BOOK_ERR_MAX,
		    "a record with this hash is stored already, and it is not this one (wrong hash, or another "
		    "parent_hash or "
		    "signature)");
		r = -EINVAL;
	}
	json_decref(known);
	json_decref(record);
	return r;
}

static void
undo(struct batch *t)
{
	chain_truncate(t->book->chain, t->before);
	chain_free(t->fresh);
	t->fresh = NULL;
}

/* The new records as the store takes them, *ret_bytes their text in all. */
static int
collect(const struct batch *t, struct store_record *v, size_t *ret_bytes)
{
	const struct chain *c = growing(t);
	size_t first = chain_length(c) - t->n_new, i, bytes = 0;

	for (i = 0; i < t->n_new; i++) {
		const json_t *record = chain_record(c, first + i);

		v[i] = (struct store_record){ json_str(record, "hash"), json_str(record, "parent_hash"),
			json_text(record) };
		if (!v[i].text)
			return -ENOMEM;
		bytes += strlen(v[i].text);
	}
	*ret_bytes = bytes;
	return 0;
}

/* All were accepted: on the disk, then visible. */
static int
commit(struct batch *t, char *err)
{
	struct book *b = t->book;
	struct store_record *v = calloc(t->n_new, sizeof *v);
	size_t bytes = 0, kept = t->fresh ? 0 : b->bytes, i;
	int r = v ? collect(t, v, &bytes) : -ENOMEM;

	snprintf(err, BOOK_ERR_MAX, "out of memory");
	if (r == 0 && kept + bytes > BOOK_BYTES_MAX) {
		snprintf(err, BOOK_ERR_MAX,
		    "the directory holds %zu bytes, its limit is %zu: begin a new chain (--reset)", kept,
		    BOOK_BYTES_MAX);
		r = -EDQUOT;
	}
	if (r == 0)
		r = store_append(b->store, v, t->n_new, err);
	for (i = 0; v && i < t->n_new; i++)
		free(v[i].text);
	free(v);
	if (r < 0)
		return r;
	if (t->fresh) {
		chain_free(b->chain);
		b->chain = t->fresh;
		t->fresh = NULL;
	}
	b->bytes = kept + bytes;
	json_decref(b->entries);
	b->entries = NULL;
	return 0;
}

int
book_submit(struct book *b, const json_t *records, size_t *ret_index, char err[BOOK_ERR_MAX])
{
	struct batch t = { .book = b, .before = chain_length(b->chain) };
	size_t n = json_array_size(records), i;
	int r = 0;

	for (i = 0; r == 0 && i < n; i++) {
		r = take_record(&t, json_array_get(records, i), err);
		if (r < 0)
			*ret_index = i;
	}
	if (r == 0 && t.n_new > 0) {
		r = commit(&t, err);
		if (r < 0)
			*ret_index = n;
	}
	if (r < 0)
		undo(&t);
	return r;
}

json_t *
book_after(const struct book *b, const char *hash)
{
	size_t i = (size_t)(chain_index(b->chain, hash) + 1), bytes = 0;
	json_t *list = json_array(), *record;

	for (; list && i < chain_length(b->chain); i++) {
		record = (json_t *)chain_record(b->chain, i);
		bytes += json_dumpb(record, NULL, 0, JSON_COMPACT);
		if (bytes > PAGE_BYTES && json_array_size(list) > 0)
			break;
		if (json_array_append(list, record) < 0) {
			json_decref(list);
			return NULL;
		}
	}
	return list;
}

size_t
book_length(const struct book *b)
{
	return chain_length(b->chain);
}

size_t
book_bytes(const struct book *b)
{
	return b->bytes;
}

const json_t *
book_tip(const struct book *b)
{
	size_t n = chain_length(b->chain);

	return n > 0 ? chain_record(b->chain, n - 1) : NULL;
}

const json_t *
book_entries(struct book *b)
{
	if (!b->entries)
		b->entries = chain_entries(b->chain);
	return b->entries;
}

bool
book_is_poisoned(const struct book *b)
{
	return store_is_poisoned(b->store);
}
