/* state.h - what goes over an exec of the master: listeners, tokens, parked sockets, pairs; as msgpack */
#ifndef HYPER_PROXY_MASTER_STATE_H
#define HYPER_PROXY_MASTER_STATE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <jansson.h>

#include "hyper/base/attr.h"
#include "hyper/net/listen.h"
#include "proxy/master/pairing.h"
#include "proxy/master/session.h"

/* docs/ipc.md "Over an exec". Another number is another layout, which nobody guesses at. */
#define STATE_VERSION 1
#define STATE_ERR_MAX 256
/* More than MPJSON_VALUES_MAX values can hold. */
#define STATE_BYTES_MAX ((size_t)256 * 1024 * 1024)

struct state_pair {
	struct pair as; /* what pairing_restore() copies */
	const char *from, *to;
};

struct state {            /* descriptors are numbers here: nothing is closed by state_fini() */
	int64_t began_ms; /* CLOCK_MONOTONIC of the order */
	uint64_t last_pair;
	uint64_t upgrades; /* so far, this one included */
	size_t n_listeners, n_sessions, n_pairs, n_left;
	struct listeners_named *listeners;
	struct session_saved *sessions;
	struct state_pair *pairs;
	pid_t *left;      /* old workers that are still there */
	json_t *counters; /* object of integers by name; borrowed from `root` in an unpacked one. May be NULL */
	json_t *notes;    /* rows of recall.h; borrowed likewise. May be NULL, as a state of before has none */
	json_t *root;     /* texts of an unpacked one point into it */
};

/* 0 with *ret (malloc'd) and *ret_len; -EMSGSIZE (too many pairs and tokens), -ENOMEM. */
int state_pack(const struct state *, uint8_t **ret, size_t *ret_len) ATTR_MUST_USE;

/* 0 with *ret to be given to state_fini(); -EPROTO (not what state_pack() of this version writes: `err` says
 * what is wrong), -ENOMEM; *ret is untouched then. */
int state_unpack(const uint8_t *data, size_t len, struct state *ret, char err[STATE_ERR_MAX]) ATTR_MUST_USE;

void state_fini(struct state *);

/* Calls `each` for every descriptor in it. */
void state_each_fd(const struct state *, void (*each)(int fd, void *arg), void *arg);

#endif
