/* spawn.h - starting one worker process with exactly the descriptors of worker_abi.h */
#ifndef HYPER_PROXY_MASTER_SPAWN_H
#define HYPER_PROXY_MASTER_SPAWN_H

#include <stdint.h>
#include <sys/types.h>

#include "hyper/base/attr.h"
#include "hyper/net/listen.h"
#include "hyper/proxy/worker_abi.h"

#define SPAWN_EXIT_NO_EXEC 127 /* the shell's word for "could not be executed" */

struct spawn {
	unsigned slot;
	uint32_t gen;
	int channel_fd;
	int table_fd;
	int stats_fd;
	int ledger_fd;
	const struct listeners *listeners;
};

/* Forks and executes this program again as `proxy worker SLOT GENERATION`. All
 * of *s is borrowed until return. 0 with *ret_pid, or -errno untouched. */
int spawn_worker(const struct spawn *s, pid_t *ret_pid) ATTR_MUST_USE;

/* A new stats page: a memfd sealed against growing, shrinking and sealing, and
 * our read-only view of it. 0 with both taken, or -errno with both untouched. */
int spawn_stats_new(int *ret_fd, const struct worker_stats **ret) ATTR_MUST_USE;
void spawn_stats_free(const struct worker_stats *);

#endif
