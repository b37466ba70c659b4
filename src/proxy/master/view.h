/* view.h - the master as those see it who only look: pages, metrics, verbs */
#ifndef HYPER_PROXY_MASTER_VIEW_H
#define HYPER_PROXY_MASTER_VIEW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "hyper/proxy/toktab.h"
#include "hyper/settings/conf.h"
#include "proxy/master/pairing.h"
#include "proxy/master/quota.h"
#include "proxy/master/session.h"
#include "proxy/master/slots.h"

struct view { /* all borrowed; filled in by master.c */
	const struct conf_proxy_public *conf;
	struct toktab *table;
	struct quota *quota;
	struct sessions *sessions;
	struct pairs *pairs;
	struct slots *slots;
	const char *endpoint;
	size_t max_pairs; /* of all workers */
	int64_t start_ms;
	uint64_t upgrades;     /* so often it was executed anew */
	const char *came_back; /* why the last attempt ended with the old program again; NULL: it did not */
	const char *state;     /* "starting", "serving", "draining", "stopping" */
};

/* One pair, with what its worker's ledger says of it now. */
struct view_pair {
	const struct pair *pair;
	uint64_t bytes[2]; /* delivered a to b, b to a; a is the second party, who asked */
	int64_t idle_ms;
	int worker; /* -1 while it waits for one */
};
/* Calls `each` for every pair, in no order. */
void view_pairs(const struct view *, void (*each)(const struct view_pair *, void *arg), void *arg);

struct view_totals {
	size_t pairs, waiting;
	uint64_t bytes[2]; /* of all pairs, ended ones included; never less than before */
	uint64_t accepted, accept_errors, unauthenticated, pipes;
	uint64_t refused[END_REASON_MAX]; /* at the endpoint */
	uint64_t restarts;
	unsigned serving;  /* workers */
	unsigned crashing; /* slots with more than one crash in a row */
};
void view_totals(const struct view *, struct view_totals *ret);
/* The same without looking at each pair: bytes are those of ended pairs only. */
void view_counts(const struct view *, struct view_totals *ret);

/* Round-trip time of one of a pair's sockets as TCP has smoothed it, microseconds; -1 unknown. */
int64_t view_rtt_us(const struct pair *, int side);

#endif
