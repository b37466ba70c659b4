/* limits.h - what the descriptors of one process permit: pairs, parked connections, pipes */
#ifndef HYPER_PROXY_MASTER_LIMITS_H
#define HYPER_PROXY_MASTER_LIMITS_H

#include <stddef.h>

#include "hyper/base/attr.h"
#include "hyper/settings/conf.h"

struct limits {
	size_t max_pairs;       /* of each worker */
	size_t max_pairs_total; /* of all */
	size_t max_parked;
	size_t max_pipes; /* of each worker, 0 in copy mode */
	/* Of each worker's ledger: what no setting can exceed, since nobody gets more descriptors. Untouched it costs nothing. */
	size_t ledger_seats, ledger_pipes;
	size_t reserved; /* of the master's descriptors: besides those of pairs and parked connections */
};

/* Numbers that a worker's ledger has beyond max_pipes: for pipes that come with a pair of a dead worker. */
#define LIMITS_PIPES_SPARE 16

#define LIMITS_ERR_MAX 640

/* With settings of 0 filled in from `fds`, the descriptors that master and workers may have each. 0 with *ret,
 * or -EMFILE with the sum and what to lower in `err`. */
int limits_of(const struct conf_proxy_public *, size_t fds, struct limits *ret, char err[LIMITS_ERR_MAX]) ATTR_MUST_USE;

#endif
