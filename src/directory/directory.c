/* directory.c - the directory as a program sees it: look-ups now, freshness when asked (protocol.md 6.6)
 *
 *   EMPTY --refreshed--> FRESH --2 x cache_entries_for--> OLD --max_stale--> STALE
 *                          ^------------ refreshed ---------'-----------------'
 *
 * The state is never stored: it is the age of the last successful refresh.
 *
 * Always true:
 *  1. `entries` is what the last verified state says; it is replaced as a whole,
 *     from the loop only.
 *  2. Every waiter is answered exactly once, from the loop, not later than the
 *     refresh it waits for ends.
 *  3. While sd is away nobody waits for it: after a failed refresh, and until
 *     the next try, answers come from what is there. Tries back off from 0.2 s,
 *     to 2 s while there is nothing to answer from, else to 30 s.
 *  4. Type `json`: a changed file that cannot be read changes nothing.
 *
 * Not here: what is verified and accepted (feed.c), files (file.c).
 */
#include "hyper/directory/directory.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <event2/event.h>

#include "directory/feed.h"
#include "directory/file.h"
#include "hyper/base/bytes.h"
#include "hyper/base/clock.h"
#include "hyper/base/log.h"

#define RETRY_MIN_MS       200
#define RETRY_MAX_EMPTY_MS 2000
#define RETRY_MAX_MS       30000
#define IDLE_MS            60000 /* protocol.md 6.6 "idle server" */
#define CHANGED_MS         1000  /* changes come in groups: after one, look again soon, then ever more rarely */
#define FORCED_MS          1000  /* directory_refresh(): at most one in this time */
#define SLACK_MS           1000  /* cache_entries_for 0 still makes a state fresh for the caller that waited for it */

_Static_assert(DIRECTORY_ERR_MAX >= RECORD_ERR_MAX, "texts of one are passed through the other");

struct waiter {
	struct waiter *next;
	directory_cb cb;
	void *arg;
};

struct directory {
	struct event_base *base;
	const struct conf_directory *conf;
	struct feed *feed; /* NULL for json */
	json_t *entries;   /* name -> entry */
	bool verified;     /* there was a refresh, or a kept chain */
	int64_t verified_ms;
	bool refreshing;
	int64_t tried_ms; /* when the last refresh started */
	int64_t retry_ms; /* before that time no one waits for a refresh; 0: the last one did not fail */
	int64_t backoff_ms;
	int64_t calm_ms;        /* until the next look when nobody asks */
	uint64_t stamp;         /* json: of the files that were read */
	bool to_be_read;        /* json: look at them before the next answers */
	struct waiter *waiting; /* for the refresh that runs */
	struct waiter *ready;   /* to be answered from the loop */
	struct event *answer_ev, *tick_ev;
	bool closing; /* directory_free() runs */
	void (*on_change)(void *);
	void *on_change_arg;
};

void
directory_endpoint(const struct conf_directory *conf, struct directory_endpoint *ret)
{
	ret->client = *conf->rpc_client;
	ret->client.endpoint = conf->endpoints.v[0];
	if (!conf->rpc_client->tls)
		return;
	ret->tls = *conf->rpc_client->tls;
	if (conf->server_names.n > 0)
		ret->tls.server_name = conf->server_names.v[0];
	ret->client.tls = &ret->tls;
}

static void
arm(struct event *ev, int64_t ms)
{
	const struct timeval tv = { .tv_sec = ms / 1000, .tv_usec = (ms % 1000) * 1000 };

	/* an armed timer is moved; failing needs no memory once an event exists, so there is nothing to handle */
	(void)event_add(ev, &tv);
}

static void
set_entries(struct directory *d, json_t *entries)
{
	json_decref(d->entries);
	d->entries = entries;
	if (d->on_change)
		d->on_change(d->on_change_arg);
}

int64_t
directory_age_ms(const struct directory *d)
{
	return d->verified ? clock_now_ms() - d->verified_ms : INT64_MAX;
}

enum directory_state
directory_state(const struct directory *d)
{
	int64_t age = directory_age_ms(d);

	if (!d->verified)
		return DIRECTORY_EMPTY;
	if (age <= 2 * d->conf->cache_entries_for_ms + SLACK_MS)
		return DIRECTORY_FRESH;
	return age <= d->conf->max_stale_ms ? DIRECTORY_OLD : DIRECTORY_STALE;
}

static void
append_waiters(struct waiter **list, struct waiter *w)
{
	while (*list)
		list = &(*list)->next;
	*list = w;
}

static void
answer_all(struct directory *d)
{
	struct waiter *w = d->ready, *next;

	/* a callback may ask again: that one is answered the next time round */
	d->ready = NULL;
	for (; w; w = next) {
		next = w->next;
		w->cb(directory_state(d), w->arg);
		free(w);
	}
}

static void
wait_in(struct directory *d, struct waiter **list, directory_cb cb, void *arg)
{
	struct waiter *w = d->closing ? NULL : malloc(sizeof *w);

	if (!w) {
		/* without a loop or memory to come back, the one promise that can still be kept is to answer at all */
		cb(directory_state(d), arg);
		return;
	}
	*w = (struct waiter){ NULL, cb, arg };
	append_waiters(list, w);
	if (list == &d->ready)
		arm(d->answer_ev, 0);
}

static int64_t
jitter(int64_t ms)
{
	uint16_t r;

	random_bytes(&r, sizeof r);
	return ms - ms / 4 + ms / 2 * r / UINT16_MAX;
}

static void
note_failure(struct directory *d, const char *err)
{
	static struct log_limit limit;
	int64_t max = d->verified ? RETRY_MAX_MS : RETRY_MAX_EMPTY_MS;

	log_limited(&limit, LOG_LVL_WARN, "directory_refresh_failed", "state=%s err=\"%s\"",
	    d->verified ? "answers from the last verified state" : "nothing to answer from yet", err);
	d->retry_ms = clock_now_ms() + d->backoff_ms;
	arm(d->tick_ev, jitter(d->backoff_ms));
	d->backoff_ms = d->backoff_ms * 2 > max ? max : d->backoff_ms * 2;
}

static void
note_success(struct directory *d, bool has_changed)
{
	if (!d->verified || d->retry_ms)
		log_info("directory_refreshed", "entries=%zu", json_object_size(d->entries));
	d->verified = true;
	d->verified_ms = clock_now_ms();
	d->retry_ms = 0;
	d->backoff_ms = RETRY_MIN_MS;
	/* A directory without entries is one that is being set up. */
	if (has_changed || json_object_size(d->entries) == 0)
		d->calm_ms = CHANGED_MS;
	arm(d->tick_ev, d->calm_ms);
	d->calm_ms = d->calm_ms * 2 > IDLE_MS ? IDLE_MS : d->calm_ms * 2;
}

static void
on_feed(bool ok, json_t *entries, const char *err, void *arg)
{
	struct directory *d = arg;
	bool first = !d->verified;

	d->refreshing = false;
	if (entries) {
		json_decref(d->entries);
		d->entries = entries;
	}
	if (ok) {
		note_success(d, entries || first);
		if ((entries || first) && d->on_change)
			d->on_change(d->on_change_arg);
	} else if (!d->closing)
		note_failure(d, err);
	append_waiters(&d->ready, d->waiting);
	d->waiting = NULL;
	arm(d->answer_ev, 0);
}

/* Type json: reads the files again when they have changed. */
static void
reread(struct directory *d)
{
	static struct log_limit limit;
	uint64_t stamp = file_stamp(d->conf->path);
	char err[RECORD_ERR_MAX] = "cannot be read";
	json_t *entries = NULL;

	if (stamp && stamp == d->stamp) {
		d->verified_ms = clock_now_ms();
		return;
	}
	if (!stamp || file_entries(d->conf->path, &entries, err) < 0) {
		log_limited(&limit, LOG_LVL_ERROR, "directory_unreadable",
		    "path=%s err=\"%s\" note=\"goes on with what was read before\"", d->conf->path, err);
		return;
	}
	d->stamp = stamp;
	d->verified = true;
	d->verified_ms = clock_now_ms();
	set_entries(d, entries);
}

static void
on_answer(evutil_socket_t fd, short what, void *arg)
{
	struct directory *d = arg;

	(void)fd;
	(void)what;
	if (d->to_be_read)
		reread(d);
	d->to_be_read = false;
	answer_all(d);
}

static void
start_refresh(struct directory *d)
{
	d->tried_ms = clock_now_ms();
	if (!d->feed) {
		/* not now: the caller may hold an entry */
		d->to_be_read = true;
		arm(d->answer_ev, 0);
		arm(d->tick_ev, IDLE_MS);
		return;
	}
	if (d->refreshing)
		return;
	d->refreshing = true;
	feed_start(d->feed);
}

static void
on_tick(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	start_refresh(arg);
}

static void
load_kept(struct directory *d)
{
	int64_t current_utc_ns = 0, age_ms;
	json_t *entries = feed_kept(d->feed, &current_utc_ns);

	if (!entries)
		return;
	json_decref(d->entries);
	d->entries = entries;
	d->verified = true;
	/* How old it is only the wall clock can say. Whatever it says, what was kept counts as old until a refresh. */
	age_ms = (clock_wall_utc_ns() - current_utc_ns) / 1000000;
	if (age_ms < 2 * d->conf->cache_entries_for_ms + SLACK_MS + 1)
		age_ms = 2 * d->conf->cache_entries_for_ms + SLACK_MS + 1;
	d->verified_ms = clock_now_ms() - age_ms;
}

static int
open_source(struct directory *d, struct event_base *base, char *err)
{
	int r;

	if (d->conf->type == CONF_DIRECTORY_API) {
		r = feed_new(base, d->conf, on_feed, d, &d->feed, err);
		if (r < 0)
			return r;
		load_kept(d);
		start_refresh(d);
		return 0;
	}
	d->stamp = file_stamp(d->conf->path);
	json_decref(d->entries);
	d->entries = NULL;
	r = file_entries(d->conf->path, &d->entries, err);
	d->verified = r == 0;
	d->verified_ms = clock_now_ms();
	arm(d->tick_ev, IDLE_MS);
	return r;
}

int
directory_new(
    struct event_base *base, const struct conf_directory *conf, struct directory **ret, char err[DIRECTORY_ERR_MAX])
{
	struct directory *d = calloc(1, sizeof *d);
	int r = -ENOMEM;

	snprintf(err, DIRECTORY_ERR_MAX, "out of memory");
	if (!d)
		return -ENOMEM;
	d->base = base;
	d->conf = conf;
	d->calm_ms = CHANGED_MS;
	d->backoff_ms = RETRY_MIN_MS;
	d->entries = json_object();
	d->answer_ev = evtimer_new(base, on_answer, d);
	d->tick_ev = evtimer_new(base, on_tick, d);
	if (d->entries && d->answer_ev && d->tick_ev)
		r = open_source(d, base, err);
	if (r < 0)
		directory_free(d);
	else
		*ret = d;
	return r;
}

struct directory_next {
	const struct conf_directory *conf;
	struct feed_next *feed; /* NULL for json */
};

void
directory_next_free(struct directory_next *n)
{
	if (!n)
		return;
	feed_next_free(n->feed);
	free(n);
}

int
directory_prepare(
    struct directory *d, const struct conf_directory *conf, struct directory_next **ret, char err[DIRECTORY_ERR_MAX])
{
	struct directory_next *n = calloc(1, sizeof *n);
	json_t *entries = NULL;
	int r;

	snprintf(err, DIRECTORY_ERR_MAX, "out of memory");
	if (!n)
		return -ENOMEM;
	n->conf = conf;
	if (d->feed)
		r = feed_prepare(d->feed, d->base, conf, &n->feed, err);
	else
		r = file_entries(conf->path, &entries, err);
	json_decref(entries);
	if (r < 0)
		directory_next_free(n);
	else
		*ret = n;
	return r;
}

void
directory_apply(struct directory *d, struct directory_next *n)
{
	if (d->feed)
		feed_apply(d->feed, n->feed);
	d->conf = n->conf;
	d->stamp = 0;
	d->retry_ms = 0; /* another sd may be there where the one before was not */
	d->backoff_ms = RETRY_MIN_MS;
	start_refresh(d);
	free(n);
}

void
directory_free(struct directory *d)
{
	if (!d)
		return;
	d->closing = true;
	d->on_change = NULL;
	feed_free(d->feed); /* ends a running refresh by on_feed() */
	d->feed = NULL;
	answer_all(d);
	if (d->answer_ev)
		event_free(d->answer_ev);
	if (d->tick_ev)
		event_free(d->tick_ev);
	json_decref(d->entries);
	free(d);
}

const json_t *
directory_get(struct directory *d, const char *name)
{
	return json_object_get(d->entries, name);
}

const json_t *
directory_all(struct directory *d)
{
	return d->entries;
}

void
directory_fresh(struct directory *d, directory_cb cb, void *arg)
{
	int64_t age = directory_age_ms(d);

	if (!d->closing && (!d->feed || age > d->conf->cache_entries_for_ms)) {
		if (!d->retry_ms || clock_now_ms() >= d->retry_ms)
			start_refresh(d);
		if (d->refreshing && age > 2 * d->conf->cache_entries_for_ms && (!d->verified || !d->retry_ms)) {
			wait_in(d, &d->waiting, cb, arg);
			return;
		}
	}
	wait_in(d, &d->ready, cb, arg);
}

void
directory_refresh(struct directory *d, directory_cb cb, void *arg)
{
	if (!d->closing && !d->refreshing && (!d->tried_ms || clock_now_ms() - d->tried_ms >= FORCED_MS))
		start_refresh(d);
	wait_in(d, d->refreshing ? &d->waiting : &d->ready, cb, arg);
}

void
directory_on_change(struct directory *d, void (*cb)(void *arg), void *arg)
{
	d->on_change = cb;
	d->on_change_arg = arg;
}
