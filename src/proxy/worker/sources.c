/* sources.c - connections without a token, and a score of bad ones, by remote address
 *
 *      nothing known --waits--> open --last one left--> nothing known, or idle when it has a score
 *                          bad ones: the score fills, and drains evenly: max_bad in a minute
 *                          over max_bad: barred for barred_ms; the score stays full, so the next bad
 *                          ones after that bar it again soon
 *
 * Always true:
 *  1. An address is in the table while something of it waits, or while it has a
 *     score. The former are bounded by max_unauthenticated, the latter by
 *     SOURCES_IDLE: the one that was blamed longest ago goes first.
 *  2. Everything takes constant time, however many wait. A connection that comes
 *     with its token and is right costs one look-up here, and none while no
 *     address is known.
 *  3. Nobody can choose addresses that share a bucket: a salt is hashed too.
 *  4. Many peers may share one address behind a router. So nobody is barred for
 *     a handful of expired tokens, never for long, and never by somebody else's
 *     limit: what one address does costs no other address a connection.
 *
 * Not here: what counts as bad, and what becomes of the connections (conns.c).
 */
#include "proxy/worker/sources.h"

#include <stdlib.h>
#include <sys/socket.h>

#define HASH_NONFATAL_OOM 1
#include <uthash.h>

#include "hyper/base/bug.h"
#include "hyper/base/bytes.h"
#include "proxy/worker/rates.h"

#define MINUTE_MS 60000

struct source {
	struct rates_key key;
	struct source_marks waiting; /* oldest first */
	size_t n_waiting;
	uint64_t score; /* MINUTE_MS for each bad one, less max_bad for each ms since `scored_ms` */
	int64_t scored_ms;
	int64_t barred_until_ms;
	bool is_idle;
	TAILQ_ENTRY(source) link; /* while it is idle */
	UT_hash_handle hh;
};

void
sources_init(struct sources *s)
{
	*s = (struct sources){ 0 };
	TAILQ_INIT(&s->idle);
	random_bytes(s->salt, sizeof(s->salt));
}

void
sources_set(struct sources *s, const struct sources_conf *conf)
{
	s->conf = *conf;
}

static void
source_rest(struct sources *s, struct source *src, bool rest)
{
	if (src->is_idle == rest)
		return;
	if (rest)
		TAILQ_INSERT_TAIL(&s->idle, src, link);
	else
		TAILQ_REMOVE(&s->idle, src, link);
	s->n_idle += rest ? 1 : (size_t)-1;
	src->is_idle = rest;
}

static void
source_free(struct sources *s, struct source *src)
{
	source_rest(s, src, false);
	HASH_DEL(s->table, src);
	free(src);
}

static struct source *
source_find(struct sources *s, const struct sockaddr *sa, struct rates_key *ret_key)
{
	struct source *src = NULL;

	rates_key_set(s->salt, sa, ret_key);
	HASH_FIND(hh, s->table, ret_key, sizeof(*ret_key), src);
	return src;
}

/* Found or made; NULL when out of memory. */
static struct source *
source_get(struct sources *s, const struct sockaddr *sa)
{
	struct rates_key key;
	struct source *src = source_find(s, sa, &key);

	if (src)
		return src;
	src = calloc(1, sizeof(*src));
	if (!src)
		return NULL;
	src->key = key;
	TAILQ_INIT(&src->waiting);
	HASH_ADD(hh, s->table, key, sizeof(src->key), src);
	if (!src->hh.tbl) { /* HASH_NONFATAL_OOM */
		free(src);
		return NULL;
	}
	return src;
}

/* After its last connection has gone, or a blame: forgets it, or puts it among the idle ones, of which there are not
 * too many. */
static void
source_settle(struct sources *s, struct source *src)
{
	if (src->n_waiting > 0)
		return;
	if (src->score == 0 && src->barred_until_ms == 0) {
		source_free(s, src);
		return;
	}
	source_rest(s, src, true);
	if (s->n_idle > SOURCES_IDLE)
		source_free(s, TAILQ_FIRST(&s->idle));
}

bool
sources_is_barred(struct sources *s, const struct sockaddr *sa, int64_t now_ms)
{
	struct rates_key key;
	struct source *src;

	if (!s->table || s->conf.max_bad == 0)
		return false;
	src = source_find(s, sa, &key);
	return src && now_ms < src->barred_until_ms;
}

struct source_mark *
sources_join(struct sources *s, const struct sockaddr *sa, struct source_mark *m)
{
	struct source *src = source_get(s, sa);

	BUG_ON(m->source);
	if (!src)
		return NULL;
	source_rest(s, src, false);
	TAILQ_INSERT_TAIL(&src->waiting, m, link);
	src->n_waiting++;
	m->source = src;
	return s->conf.max_waiting && src->n_waiting > s->conf.max_waiting ? TAILQ_FIRST(&src->waiting) : NULL;
}

void
sources_leave(struct sources *s, struct source_mark *m)
{
	struct source *src = m->source;

	if (!src)
		return;
	TAILQ_REMOVE(&src->waiting, m, link);
	src->n_waiting--;
	m->source = NULL;
	source_settle(s, src);
}

/* A leaky bucket in whole numbers: no time and no bad one is lost to rounding. */
static void
source_drain(const struct sources *s, struct source *src, int64_t now_ms)
{
	uint64_t passed = now_ms > src->scored_ms ? (uint64_t)(now_ms - src->scored_ms) : 0;

	src->score = passed > src->score / s->conf.max_bad ? 0 : src->score - passed * s->conf.max_bad;
	src->scored_ms = now_ms;
}

bool
sources_blame(struct sources *s, const struct sockaddr *sa, int64_t now_ms)
{
	uint64_t full = s->conf.max_bad * MINUTE_MS;
	struct source *src;
	bool is_barred = false;

	if (s->conf.max_bad == 0)
		return false;
	src = source_get(s, sa);
	if (!src)
		return false;
	source_drain(s, src, now_ms);
	src->score += MINUTE_MS;
	if (src->score > full) {
		src->score = full;
		is_barred = now_ms >= src->barred_until_ms;
		src->barred_until_ms = now_ms + s->conf.barred_ms;
	}
	source_rest(s, src, false); /* and to the young end */
	source_settle(s, src);
	return is_barred;
}

void
sources_fini(struct sources *s)
{
	while (s->table) {
		BUG_ON(s->table->n_waiting > 0);
		source_free(s, s->table);
	}
}
