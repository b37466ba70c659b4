/* sources.h - what each remote address does with connections that have no token: how many, and how many in vain */
#ifndef HYPER_PROXY_WORKER_SOURCES_H
#define HYPER_PROXY_WORKER_SOURCES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#define SOURCES_IDLE \
	4096 /* addresses remembered that have nothing open; the one blamed longest ago is forgotten first */

struct sockaddr;
struct source;

struct sources_conf {
	uint64_t max_waiting; /* connections of one address without a token; 0: no limit */
	uint64_t max_bad;     /* bad ones of one address in a minute; 0: no limit */
	int64_t barred_ms;    /* how long who had more of them is closed at once */
};

/* Part of a connection that waits for its token. */
struct source_mark {
	TAILQ_ENTRY(source_mark) link;
	struct source *source; /* NULL: not counted */
};
TAILQ_HEAD(source_marks, source_mark);
TAILQ_HEAD(source_list, source);

struct sources { /* sources_init() */
	struct sources_conf conf;
	struct source *table;
	struct source_list idle; /* nothing open, but a score; oldest blame first */
	size_t n_idle;
	uint8_t salt[8]; /* of this process */
};

void sources_init(struct sources *);
/* The limits from now on; what was counted stays. */
void sources_set(struct sources *, const struct sources_conf *);

/* Had this address too many bad ones of late? */
bool sources_is_barred(struct sources *, const struct sockaddr *, int64_t now_ms);

/* Counts one that waits. The mark of that address's oldest one when it has too many now, else NULL. IPv6 counts by /64.
 * Out of memory: not counted. */
struct source_mark *sources_join(struct sources *, const struct sockaddr *, struct source_mark *);
/* It waits no more. Nothing happens to one that is not counted. */
void sources_leave(struct sources *, struct source_mark *);

/* A bad one. True when this was the one too many: barred from now on. */
bool sources_blame(struct sources *, const struct sockaddr *, int64_t now_ms);

/* All have left. */
void sources_fini(struct sources *);

#endif
