/* rates.c - connections per remote address in the running second, minute and hour
 *
 * Always true:
 *  1. Without a limit there is no table. With one it never holds more than
 *     RATES_ADDRESSES addresses; the one that was silent longest goes first.
 *  2. Nobody can choose addresses that share a bucket: a salt is hashed too.
 *
 * Each worker counts what it accepts itself: with N workers an address may make
 * up to N times as many connections. The limit is there to blunt floods, and a
 * table that all workers write would be worth an attack of its own.
 *
 * Not here: what becomes of a connection over the limit (conns.c).
 */
#include "proxy/worker/rates.h"

#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define HASH_NONFATAL_OOM 1
#include <uthash.h>

#include "hyper/base/bytes.h"

static const int64_t window_ms[RATES_WINDOWS] = { 1000, 60000, 3600000 };

struct rates_addr {
	struct rates_key key;
	int64_t window[RATES_WINDOWS]; /* its number since 1970 */
	uint64_t count[RATES_WINDOWS]; /* in that window */
	UT_hash_handle hh;             /* in the order of last use */
};

void
rates_set(struct rates *r, const uint64_t limit[RATES_WINDOWS])
{
	memcpy(r->limit, limit, sizeof(r->limit));
	if (!r->table)
		random_bytes(r->salt, sizeof(r->salt));
}

bool
rates_has_limit(const struct rates *r)
{
	return r->limit[RATES_SECOND] || r->limit[RATES_MINUTE] || r->limit[RATES_HOUR];
}

static void
addr_drop(struct rates *r, struct rates_addr *a)
{
	HASH_DEL(r->table, a);
	free(a);
}

void
rates_fini(struct rates *r)
{
	while (r->table)
		addr_drop(r, r->table);
}

void
rates_key_set(const uint8_t salt[8], const struct sockaddr *sa, struct rates_key *ret)
{
	const struct sockaddr_in6 *v6 = (const void *)sa;
	const struct sockaddr_in *v4 = (const void *)sa;

	memset(ret, 0, sizeof(*ret));
	memcpy(ret->salt, salt, sizeof(ret->salt));
	if (sa->sa_family == AF_INET) {
		ret->net[10] = ret->net[11] = 0xff;
		memcpy(ret->net + 12, &v4->sin_addr, 4);
	} else if (sa->sa_family == AF_INET6) {
		/* a mapped address is one IPv4 host: its /64 would be all of them */
		memcpy(ret->net, &v6->sin6_addr, IN6_IS_ADDR_V4MAPPED(&v6->sin6_addr) ? 16 : 8);
	}
}

/* Finds or makes it and moves it to the young end. NULL when out of memory. */
static struct rates_addr *
addr_touch(struct rates *r, const struct rates_key *key)
{
	struct rates_addr *a = NULL;

	HASH_FIND(hh, r->table, key, sizeof(*key), a);
	if (a) {
		HASH_DEL(r->table, a);
	} else {
		if (HASH_COUNT(r->table) >= RATES_ADDRESSES)
			addr_drop(r, r->table); /* the head is the oldest */
		a = calloc(1, sizeof(*a));
		if (!a)
			return NULL;
		a->key = *key;
	}
	HASH_ADD(hh, r->table, key, sizeof(*key), a);
	if (!a->hh.tbl) { /* HASH_NONFATAL_OOM */
		free(a);
		return NULL;
	}
	return a;
}

bool
rates_permit(struct rates *r, const struct sockaddr *sa, int64_t now_utc_ms)
{
	struct rates_addr *a;
	struct rates_key key;
	bool ok = true;

	if (!rates_has_limit(r))
		return true;
	rates_key_set(r->salt, sa, &key);
	a = addr_touch(r, &key);
	if (!a)
		return false;
	for (int i = 0; i < RATES_WINDOWS; i++) {
		int64_t window = now_utc_ms / window_ms[i];

		/* when the wall clock jumps, a new window begins */
		if (a->window[i] != window)
			a->count[i] = 0;
		a->window[i] = window;
		if (r->limit[i] && a->count[i] >= r->limit[i])
			ok = false;
		else
			a->count[i]++;
	}
	return ok;
}
