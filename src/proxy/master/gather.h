/* gather.h - what the running master leaves over an exec, packed into a memfd (state.h) */
#ifndef HYPER_PROXY_MASTER_GATHER_H
#define HYPER_PROXY_MASTER_GATHER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "hyper/base/attr.h"
#include "proxy/master/state.h"

struct upgrade_conf;

#define GATHER_LEFT_MAX 512

/* What upgrade.c knows itself. */
struct gather_of {
	const struct upgrade_conf *conf;
	int64_t began_ms;
	uint64_t upgrades; /* so far */
	const pid_t *left; /* old workers of before */
	size_t n_left;
	bool is_trial; /* pairs that workers move are in it as well: nobody goes on from this one */
};

/* 0 with *ret_fd taken (close-on-exec) and *ret to be given to gather_fini(), or -errno (-EMSGSIZE: too much). What was
 * packed was unpacked again. */
int gather(const struct gather_of *, struct state *ret, int *ret_fd) ATTR_MUST_USE;
void gather_fini(struct state *);

#endif
