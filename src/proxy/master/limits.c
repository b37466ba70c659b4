/* limits.c - the arithmetic of descriptors, done once at the start
 *
 *   worker  = WORKER_OWN + max_unauthenticated + 2 x max_pairs + max_pipes + LIMITS_PIPES_SPARE
 *   master  = MASTER_OWN + workers x (MASTER_PER_WORKER + max_pipes) + 2 x JSON-RPC connections
 *             + 2 x max_pairs_total + max_parked
 *
 * The master keeps duplicates of both sockets of every pair and of every pipe,
 * so that a worker's death costs no byte: it needs the most.
 *
 * Always true:
 *  1. A setting that somebody wrote is kept or refused, never changed. Settings
 *     of 0 get what the descriptors leave, at most the defaults below.
 *  2. What is refused comes with the sum and the settings to lower.
 *
 * Not here: pages of pipes (fs.pipe-user-pages-soft; a pipe that cannot be as
 * large as wanted is smaller), memory.
 */
#include "proxy/master/limits.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

#include "hyper/base/bug.h"
#include "hyper/base/daemon.h"
#include "hyper/proxy/programs.h"
#include "proxy/master/upgrade.h"

#define MASTER_OWN        64 /* standard ones, loop, table, listeners, libraries */
#define MASTER_PER_WORKER 8  /* its channel, its start */
#define MASTER_PER_CONN   2  /* a JSON-RPC connection and the call to our hyper made for it */
#define WORKER_OWN        32 /* standard ones, channel, listeners, a reserve */

#define PAIRS_DEFAULT 4096 /* of each worker */
#define PIPES_DEFAULT 1024 /* of each worker; all of them at most one in PIPES_PART of the descriptors */
#define PIPES_PART    8
#define PAIRS_MIN     16      /* with less room than this a start makes no sense */
#define PAIRS_MOST    1048576 /* of the setting */
#define PIPES_MOST    65536
#define PARKED_MIN    16
#define PARKED_PART   8 /* parked connections get one in so many of what is left for them and pairs, at least */

static size_t
least(size_t a, size_t b)
{
	return a < b ? a : b;
}

/* max_pipes and max_pairs. */
static int
worker_limits(const struct conf_proxy_public *c, size_t fds, struct limits *l, char err[LIMITS_ERR_MAX])
{
	size_t fixed, pairs;

	l->ledger_seats = least(fds / 2, PAIRS_MOST);
	l->ledger_pipes = least(fds, PIPES_MOST) + LIMITS_PIPES_SPARE;
	l->max_pipes = c->max_pipes ? c->max_pipes : least(PIPES_DEFAULT, fds / PIPES_PART / c->workers);
	if (c->copy_mode)
		l->max_pipes = 0;
	fixed = WORKER_OWN + c->max_unauthenticated + l->max_pipes + LIMITS_PIPES_SPARE;
	pairs = c->max_pairs ? c->max_pairs : PAIRS_MIN;
	if (fds < fixed + 2 * pairs) {
		snprintf(err, LIMITS_ERR_MAX,
		    "limit=%zu needed=%zu why=\"each worker: %d own + %zu unauthenticated + %zu pipes + %zu pairs x 2: "
		    "raise LimitNOFILE (ulimit -Hn) or lower public.max_pairs, public.max_unauthenticated or "
		    "public.max_pipes\"",
		    fds, fixed + 2 * pairs, WORKER_OWN, c->max_unauthenticated, l->max_pipes + LIMITS_PIPES_SPARE,
		    pairs);
		return -EMFILE;
	}
	l->max_pairs = c->max_pairs ? c->max_pairs : least(PAIRS_DEFAULT, (fds - fixed) / 2);
	return 0;
}

/* max_pairs_total and max_parked. */
static int
master_limits(const struct conf_proxy_public *c, size_t fds, struct limits *l, char err[LIMITS_ERR_MAX])
{
	size_t conns = (size_t)MASTER_PER_CONN * c->rpc_server->max_connections;
	size_t parked_most = c->max_parked ? least(c->max_parked, c->table_slots) : c->table_slots;
	size_t parked = c->max_parked ? parked_most : least(PARKED_MIN, parked_most);
	size_t pairs = c->max_pairs_total ? least(c->max_pairs_total, c->workers * l->max_pairs) : PAIRS_MIN;
	size_t left;

	l->reserved = MASTER_OWN + c->workers * (MASTER_PER_WORKER + l->max_pipes) + conns;
	if (fds < l->reserved + parked + 2 * pairs) {
		snprintf(err, LIMITS_ERR_MAX,
		    "limit=%zu needed=%zu why=\"%d own + %u workers x (%d + %zu pipes) + %zu JSON-RPC connections x %d "
		    "+ "
		    "%zu parked + %zu pairs x 2: raise LimitNOFILE (ulimit -Hn) or lower "
		    "public.jsonrpc_server.max_connections, public.workers, public.max_pipes, public.max_parked or "
		    "public.max_pairs_total\"",
		    fds, l->reserved + parked + 2 * pairs, MASTER_OWN, c->workers, MASTER_PER_WORKER, l->max_pipes,
		    (size_t)c->rpc_server->max_connections, MASTER_PER_CONN, parked, pairs);
		return -EMFILE;
	}
	left = fds - l->reserved;
	if (!c->max_parked && left / PARKED_PART > parked)
		parked = least(parked_most, left / PARKED_PART);
	if (!c->max_pairs_total)
		pairs = least(c->workers * l->max_pairs, (left - parked) / 2);
	l->max_pairs_total = pairs;
	l->max_parked = least(parked_most, left - 2 * pairs);
	return 0;
}

int
limits_of(const struct conf_proxy_public *c, size_t fds, struct limits *ret, char err[LIMITS_ERR_MAX])
{
	struct limits l = { 0 };
	int rc = worker_limits(c, fds, &l, err);

	if (rc == 0)
		rc = master_limits(c, fds, &l, err);
	if (rc == 0)
		*ret = l;
	return rc;
}

int
proxy_master_check(const struct conf_proxy *conf)
{
	char err[LIMITS_ERR_MAX];
	struct rlimit rl;
	struct limits l;

	if (upgrade_check(conf) != EXIT_OK)
		return EXIT_UNAVAILABLE;
	if (!conf->public || getrlimit(RLIMIT_NOFILE, &rl) < 0)
		return EXIT_OK;
	/* the hard limit: it is raised to that at the start */
	if (limits_of(conf->public, rl.rlim_max > SIZE_MAX ? SIZE_MAX : (size_t)rl.rlim_max, &l, err) == 0)
		return EXIT_OK;
	fprintf(stderr, "proxy: too few descriptors: %s\n", err);
	return EXIT_SETTINGS;
}
