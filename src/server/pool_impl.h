/* pool_impl.h - what pool.c (operators and their queues) and pool_link.c (connections and calls on them) share */
#ifndef SERVER_POOL_IMPL_H
#define SERVER_POOL_IMPL_H

#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include <jansson.h>
#include <openssl/ssl.h>

#define HASH_NONFATAL_OOM 1
#include <uthash.h>

#include "hyper/net/grpc.h"
#include "hyper/settings/conf.h"
#include "hyper/wire/token.h"
#include "server/brokered.h"
#include "server/channel.h"
#include "server/pin.h"
#include "server/pool.h"
#include "server/reply.h"

struct event;

#define TARGET_BIT(s) (1u << (s))

#define TARGET_STATES(X)                                                    \
	X(IDLE, TARGET_BIT(TARGET_BROKERING) | TARGET_BIT(TARGET_SECURING)) \
	X(BROKERING, TARGET_BIT(TARGET_SECURING) | TARGET_BIT(TARGET_IDLE)) \
	X(SECURING, TARGET_BIT(TARGET_READY) | TARGET_BIT(TARGET_IDLE))     \
	X(READY, TARGET_BIT(TARGET_IDLE))

enum target_state {
#define X(n, to) TARGET_##n,
	TARGET_STATES(X)
#undef X
	    TARGET_STATE_MAX
};

/* A connection. Outlives its target's interest in it while calls are on it. */
struct link {
	TAILQ_ENTRY(link) entry;
	struct pool *pool;
	struct target *target; /* NULL: takes no new calls */
	struct grpc_conn *conn;
	char *name;
	struct names names; /* what the peer's certificate was pinned for */
	char *via;          /* "" dialled directly */
	char session[SESSION_ID_MAX];
	json_t *timeline; /* may be NULL */
	uint64_t story;
	double asked_ms;   /* monotonic; where the timeline starts */
	double expires_ms; /* monotonic; when the token's life is over, 0 not known */
	int64_t since_ms;
	uint64_t calls;
	size_t n_active;
	bool has_ended;    /* and the line about it was written */
	bool was_unpinned; /* TLS was fine, the directory pins another certificate */
};

struct pcall {
	TAILQ_ENTRY(pcall) entry; /* in its target's queue while `link` and `is_detached` are not set */
	struct target *target;    /* NULL once it left the queue */
	struct link *link;        /* set with `stream` */
	struct grpc_stream *stream;
	const struct request *req; /* borrowed until the reply */
	struct reply reply;
	unsigned n_lost; /* connections that were lost while it waited for its turn on them */
	bool was_again;  /* sent a second time, since the peer had not looked at it */
	bool is_done;    /* answered: waits for the stream's end only */
	bool has_message;
	struct rpc_answer answer;
};

struct target {
	UT_hash_handle hh;
	struct pool *pool;
	char *name;
	enum target_state state;
	struct link *link;         /* SECURING, READY */
	struct brokered *brokered; /* BROKERING */
	TAILQ_HEAD(, pcall) queue;
	size_t n_queue;
	struct event *kick; /* opens streams for the queue, outside of any call-back */
	int64_t used_ms;
};

struct pool {
	struct event_base *base;
	const struct conf_grpc_client *conf;
	const struct conf_hyper *hyper;
	struct directory *dir;
	struct brokered_env env;
	SSL_CTX *ctx;
	struct target *targets;
	TAILQ_HEAD(, link) links;
};

/* pool.c */

/* The only place that writes t->state. */
void target_enter(struct target *, enum target_state to, const char *why);

/* Back to IDLE: whoever waits gets `error` (borrowed); the link, if any, stays with its calls. */
void target_fail(struct target *, const struct rpc_answer *error, const char *why);

/* The same after it was READY: whoever waits has not been sent yet and waits for the next
 * connection, but not for ever. */
#define PCALL_MAX_LOST 2
void target_lost(struct target *, const struct rpc_answer *error, const char *why);

/* The target, made when there is none. NULL: -ENOMEM or -ENOBUFS in *ret_rc. Borrowed. */
struct target *pool_target(struct pool *, const char *name, int *ret_rc);

/* From the loop: sends what waits, or starts to make the connection for it. */
void target_kick(struct target *);

/* pool_link.c */

/* Its connection comes with link_dial() or link_adopt(). NULL when out of
 * memory; `via` "" for a direct one. */
struct link *link_new(struct target *, const char *via);

/* Writes the line about the end of a connection that had come to be; only the first call counts. */
void link_log_end(struct link *, enum end_reason, const char *why);

/* No call may be on it. */
void link_free(struct link *);

/* 0 or -errno: dials `address`, or takes a brokered socket (given, also on failure). */
int link_dial(struct link *, const char *address) ATTR_MUST_USE;
int link_adopt(struct link *, int fd) ATTR_MUST_USE;

/* A call that waits in the target's queue; no target, or no room in its queue:
 * it is answered busy. 0, or -ENOMEM: `cb` never comes. */
int pcall_new(struct pool *, struct target *, const struct request *, deliver_cb cb, void *arg) ATTR_MUST_USE;

/* Out of the queue. */
void pcall_unqueue(struct pcall *);

/* 0: it is on the link and out of the queue with its end; or -errno, not sent. */
int pcall_send(struct pcall *, struct link *) ATTR_MUST_USE;

#endif
