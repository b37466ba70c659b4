/* feed.c - refreshes the verified chain from sd (protocol.md 6.6, "Rollback")
 *
 *   idle --feed_start()--> getRecords(after tip) --records--> verify, ask for more --[]--> accept, keep --> idle
 *                                 `------- error, refused, deadline: all of it is undone --------> idle
 *
 * Always true between two refreshes:
 *  1. `chain` is the accepted chain C, and the file holds C (or an older C, if
 *     it could not be written; then it is tried again).
 *  2. C is only ever replaced by an extension of C, or by a chain whose root is
 *     strictly later than C's. A prefix, a fork, an older or equal root is
 *     refused, whoever serves it.
 *  3. Only records that C lacks are verified.
 *
 * sd answers in pages. Each page must continue the one before; nothing is
 * visible outside before the last one has come.
 *
 * Not here: when to refresh, who waits for it (directory.c).
 */
#include "directory/feed.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "directory/keep.h"
#include "hyper/base/clock.h"
#include "hyper/base/log.h"
#include "hyper/directory/record.h"
#include "hyper/net/rpcclient.h"
#include "hyper/wire/json.h"

#define FEED_CALL_MS     10000  /* one page */
#define FEED_REFRESH_MS  60000  /* all pages */
#define FEED_RECORDS_MAX 100000 /* as sd's own limit: bounds memory whatever is served */

struct feed {
	const struct conf_directory *conf;
	struct rpc_client *client;
	struct record_trust *trust;
	feed_cb cb;
	void *arg;
	struct chain *chain; /* C; while a refresh runs, what extends it may be at its end */
	struct chain *fresh; /* a new root and what follows, NULL without one */
	size_t accepted;     /* length of C in `chain` */
	int64_t kept_utc_ns;
	int64_t deadline_ms;
	bool unsaved; /* the file lacks C */
};

static void on_page(struct rpc_answer *, void *arg);

static struct chain *
growing(struct feed *f)
{
	return f->fresh ? f->fresh : f->chain;
}

static void
ask(struct feed *f)
{
	json_t *params = json_pack("{s:s}", "after", chain_tip(growing(f)));

	/* without params the answer is an error, which ends the refresh: nothing else to do about lacking memory */
	rpc_client_call(f->client, "getRecords", params, "", FEED_CALL_MS, on_page, f);
	json_decref(params);
}

/* Back to C. */
static void
undo(struct feed *f)
{
	chain_free(f->fresh);
	f->fresh = NULL;
	chain_truncate(f->chain, f->accepted);
}

static void
fail(struct feed *f, const char *why)
{
	undo(f);
	f->cb(false, NULL, why, f->arg);
}

static void
save(struct feed *f)
{
	static struct log_limit limit;
	int r;

	if (!f->conf->store)
		return;
	if (!f->unsaved) {
		keep_touch(f->conf->store);
		return;
	}
	r = keep_save(f->conf->store, f->chain);
	f->unsaved = r < 0;
	if (r < 0)
		log_limited(&limit, LOG_LVL_ERROR, "directory_not_kept",
		    "file=%s err=\"%s\" note=\"a restart would forget the directory; it is tried again\"",
		    f->conf->store, strerror(-r));
}

/* The last page has come: what was collected becomes C. */
static void
adopt(struct feed *f)
{
	struct chain *next = growing(f);
	json_t *entries = NULL;

	if (f->fresh || chain_length(f->chain) > f->accepted) {
		entries = chain_entries(next);
		if (!entries) {
			fail(f, "out of memory");
			return;
		}
		f->unsaved = true;
	}
	if (f->fresh) {
		if (f->accepted > 0)
			log_warn("directory_reset",
			    "root=%.16s records=%zu note=\"a later root replaces the directory\"",
			    json_str(chain_record(f->fresh, 0), "hash"), chain_length(f->fresh));
		chain_free(f->chain);
		f->chain = f->fresh;
		f->fresh = NULL;
	}
	f->accepted = chain_length(f->chain);
	save(f);
	f->cb(true, entries, "", f->arg);
}

/* A page that begins with a root: a new chain, or an sd that does not know our tip. */
static int
begin_fresh(struct feed *f)
{
	undo(f);
	if (f->accepted == 0)
		return 0; /* the first chain ever goes into `chain` itself */
	f->fresh = chain_new(RECORD_OPEN);
	return f->fresh ? 0 : -ENOMEM;
}

/* Invariant 2, once the root of `fresh` is verified. */
static int
check_root(const struct feed *f, char *err)
{
	if (chain_root_utc_ns(f->fresh) > chain_root_utc_ns(f->chain))
		return 0;
	if (strcmp(json_str(chain_record(f->fresh, 0), "hash"), json_str(chain_record(f->chain, 0), "hash")) == 0)
		snprintf(err, RECORD_ERR_MAX,
		    "refused: sd does not know the record %.16s... that was accepted before: it serves an older state "
		    "or a "
		    "fork (restored from a backup? then reset it: hyper sd submit-records --reset)",
		    chain_tip(f->chain));
	else
		snprintf(err, RECORD_ERR_MAX,
		    "refused: sd serves another chain whose root is not later than that of the accepted one: a "
		    "rollback");
	return -EINVAL;
}

static int
take_page(struct feed *f, const json_t *list, char *err)
{
	const char *parent = json_str(json_array_get(list, 0), "parent_hash");
	const json_t *record;
	size_t i;
	int r = 0;

	if ((!parent || !*parent) && chain_length(growing(f)) > 0)
		r = begin_fresh(f);
	json_array_foreach (list, i, record) {
		if (r < 0)
			break;
		if (chain_length(growing(f)) >= FEED_RECORDS_MAX) {
			snprintf(err, RECORD_ERR_MAX, "more than %d records", FEED_RECORDS_MAX);
			return -E2BIG;
		}
		r = chain_append(growing(f), f->trust, record, err);
		if (r == 0 && f->fresh && chain_length(f->fresh) == 1)
			r = check_root(f, err);
	}
	return r;
}

static void
on_page(struct rpc_answer *answer, void *arg)
{
	char why[RECORD_ERR_MAX] = "out of memory";
	struct feed *f = arg;

	if (answer->code != 0) {
		fail(f, answer->message ? answer->message : why);
		return;
	}
	/* null: a list without elements, as other languages write it */
	if (!json_is_array(answer->result) && !json_is_null(answer->result)) {
		fail(f, "sd's answer to getRecords is no list");
		return;
	}
	if (json_array_size(answer->result) == 0) {
		adopt(f);
		return;
	}
	if (take_page(f, answer->result, why) < 0) {
		fail(f, why);
		return;
	}
	if (clock_now_ms() > f->deadline_ms) {
		fail(f, "sd took longer than a minute to serve the directory");
		return;
	}
	ask(f);
}

void
feed_start(struct feed *f)
{
	f->deadline_ms = clock_now_ms() + FEED_REFRESH_MS;
	ask(f);
}

static int
load_kept(struct feed *f, char *err)
{
	char why[RECORD_ERR_MAX];
	int r;

	f->chain = chain_new(RECORD_OPEN);
	if (!f->chain) {
		snprintf(err, DIRECTORY_ERR_MAX, "out of memory");
		return -ENOMEM;
	}
	if (!f->conf->store)
		return 0;
	r = keep_load(f->conf->store, f->chain, f->trust, &f->kept_utc_ns, why);
	f->accepted = chain_length(f->chain);
	f->unsaved = r < 0;
	if (r < 0)
		log_error("directory_damaged",
		    "file=%s kept=%zu err=\"%s\" note=\"goes on with the records before it\"", f->conf->store,
		    f->accepted, why);
	else if (f->accepted > 0)
		log_info("directory_kept", "file=%s records=%zu tip=%.16s", f->conf->store, f->accepted,
		    chain_tip(f->chain));
	return 0;
}

int
feed_new(struct event_base *base, const struct conf_directory *conf, feed_cb cb, void *arg, struct feed **ret,
    char err[DIRECTORY_ERR_MAX])
{
	struct feed *f = calloc(1, sizeof *f);
	struct directory_endpoint endpoint;
	int r;

	if (!f) {
		snprintf(err, DIRECTORY_ERR_MAX, "out of memory");
		return -ENOMEM;
	}
	f->conf = conf;
	f->cb = cb;
	f->arg = arg;
	directory_endpoint(conf, &endpoint);
	r = record_trust_new(&conf->ca_certificate_files, &conf->ca_intermediate_certificate_files, &f->trust, err);
	if (r == 0)
		r = load_kept(f, err);
	if (r == 0)
		r = rpc_client_new(base, &endpoint.client, &f->client, err);
	if (r < 0)
		feed_free(f);
	else
		*ret = f;
	return r;
}

void
feed_free(struct feed *f)
{
	if (!f)
		return;
	rpc_client_free(f->client); /* ends a running refresh by on_page() */
	record_trust_free(f->trust);
	chain_free(f->fresh);
	chain_free(f->chain);
	free(f);
}

struct feed_next {
	const struct conf_directory *conf;
	struct record_trust *trust;
	struct rpc_client *client;
};

void
feed_next_free(struct feed_next *n)
{
	if (!n)
		return;
	rpc_client_free(n->client);
	record_trust_free(n->trust);
	free(n);
}

int
feed_prepare(struct feed *f, struct event_base *base, const struct conf_directory *conf, struct feed_next **ret,
    char err[DIRECTORY_ERR_MAX])
{
	struct feed_next *n = calloc(1, sizeof *n);
	struct directory_endpoint endpoint;
	int r = -ENOMEM;

	snprintf(err, DIRECTORY_ERR_MAX, "out of memory");
	if (!n)
		return r;
	n->conf = conf;
	directory_endpoint(conf, &endpoint);
	r = record_trust_new(&conf->ca_certificate_files, &conf->ca_intermediate_certificate_files, &n->trust, err);
	if (r == 0 && !record_trust_equals(f->trust, n->trust))
		r = chain_holds_with(f->chain, n->trust, err);
	if (r == 0)
		r = rpc_client_new(base, &endpoint.client, &n->client, err);
	if (r < 0)
		feed_next_free(n);
	else
		*ret = n;
	return r;
}

void
feed_apply(struct feed *f, struct feed_next *n)
{
	/* what a refresh has collected so far was verified with the trust of before */
	if (!record_trust_equals(f->trust, n->trust))
		undo(f);
	rpc_client_replace(n->client, f->client);
	f->client = n->client;
	record_trust_free(f->trust);
	f->trust = n->trust;
	f->conf = n->conf;
	free(n);
}

json_t *
feed_kept(struct feed *f, int64_t *ret_utc_ns)
{
	if (f->accepted == 0)
		return NULL;
	*ret_utc_ns = f->kept_utc_ns;
	return chain_entries(f->chain);
}
