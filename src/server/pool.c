/* pool.c - one kept connection for each operator that is called (architecture.md "Asynchronous calls")
 *
 *   IDLE --a call, dialled directly-------------------------> SECURING --TLS, pinning--> READY
 *     |  --a call, brokered--> BROKERING --socket, token----> SECURING                     |
 *     ^----------- failed: all that wait are answered --'--------'    lost, GOAWAY --------'
 *
 * Always true:
 *  1. At most one connection is being made for an operator; calls meanwhile
 *     wait in its queue, capped, each with its own deadline.
 *  2. A call reaches its recipient at most once. When its connection is lost it fails; the
 *     next call makes a new one. Only what the peer says it has not looked at (GOAWAY,
 *     REFUSED_STREAM) is sent once more.
 *  3. The name that was dialled is among those that the peer's certificate is
 *     pinned for, or nothing is sent.
 *  4. A connection that says GOAWAY takes nothing new, lets its calls end and
 *     is closed with the last one (`link->target` NULL).
 *  5. Unused connections are kept: net/grpc pings them; the cap closes the
 *     oldest unused one.
 *
 * Not here: connections and the calls on them (pool_link.c), asking the proxy and the token (brokered.c), standing streams (standing.c).
 */
#include "server/pool.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include <event2/event.h>

#include "hyper/base/bug.h"
#include "hyper/base/clock.h"
#include "hyper/base/fd.h"
#include "hyper/base/log.h"
#include "hyper/directory/directory.h"
#include "hyper/directory/entry.h"
#include "server/internal.h"
#include "server/pool_impl.h"
#include "server/story.h"

static const struct {
	const char *name;
	unsigned to;
} target_tab[] = {
#define X(n, to) { #n, to },
	TARGET_STATES(X)
#undef X
};

void
target_enter(struct target *t, enum target_state to, const char *why)
{
	BUG_ON(!(target_tab[t->state].to & TARGET_BIT(to)));
	log_debug("connection", "operator=%s state=%s>%s why=\"%s\"", t->name, target_tab[t->state].name,
	    target_tab[to].name, why);
	t->state = to;
}

void
target_fail(struct target *t, const struct rpc_answer *error, const char *why)
{
	struct pcall *p;

	if (t->link)
		t->link->target = NULL;
	t->link = NULL;
	t->brokered = NULL;
	target_enter(t, TARGET_IDLE, why);
	while ((p = TAILQ_FIRST(&t->queue))) {
		pcall_unqueue(p);
		reply_give(&p->reply, answer_copy(error), true);
	}
}

void
target_lost(struct target *t, const struct rpc_answer *error, const char *why)
{
	struct pcall *p, *next;

	t->link->target = NULL;
	t->link = NULL;
	target_enter(t, TARGET_IDLE, why);
	for (p = TAILQ_FIRST(&t->queue); p; p = next) {
		next = TAILQ_NEXT(p, entry);
		if (p->n_lost++ < PCALL_MAX_LOST)
			continue;
		pcall_unqueue(p);
		reply_give(&p->reply, answer_copy(error), true);
	}
	target_kick(t);
}

void
target_kick(struct target *t)
{
	event_active(t->kick, EV_TIMEOUT, 0);
}

/* The target lets go of its link: it ends with its last call. */
static void
target_detach(struct target *t, const char *why)
{
	struct link *l = t->link;

	t->link = NULL;
	l->target = NULL;
	target_enter(t, TARGET_IDLE, why);
	if (l->n_active == 0)
		link_free(l);
}

static void
pcall_fail_unsent(struct pcall *p, int rc, const char *name)
{
	reply_give(&p->reply,
	    rpc_fail_step(RPC_CHANNEL, END_INTERNAL, STEP_NONE, NULL, 0, "the request could not be sent to %s: %s",
		name, rc == -EMSGSIZE ? "it is larger than 4 MiB" : strerror(-rc)),
	    true);
}

static int target_connect(struct target *);

/* Sends what waits, or starts to make the connection for it. */
static void
target_on_kick(evutil_socket_t fd, short what, void *arg)
{
	struct target *t = arg;
	struct pcall *p;

	(void)fd;
	(void)what;
	if (t->state == TARGET_READY && !grpc_conn_is_ready(t->link->conn))
		target_detach(t, "it takes no new calls");
	if (t->state == TARGET_READY && !pin_holds(t->pool->dir, &t->link->names, t->name))
		target_detach(t, "the directory pins another certificate now");
	if (t->state == TARGET_IDLE && t->n_queue > 0 && target_connect(t) < 0) {
		struct rpc_answer error =
		    rpc_fail_step(RPC_INTERNAL, END_INTERNAL, STEP_NONE, NULL, 0, "out of memory");

		while ((p = TAILQ_FIRST(&t->queue))) {
			pcall_unqueue(p);
			reply_give(&p->reply, answer_copy(&error), true);
		}
		rpc_answer_fini(&error);
	}
	while (t->state == TARGET_READY && (p = TAILQ_FIRST(&t->queue))) {
		int rc = pcall_send(p, t->link);

		if (rc == -ENOTCONN) {
			target_detach(t, "it takes no new calls");
			target_kick(t);
			return;
		}
		pcall_unqueue(p);
		if (rc < 0)
			pcall_fail_unsent(p, rc, t->name);
	}
}

/* The socket through the proxy is there: TLS with B comes next. */
static void
target_on_brokered(const struct brokered_end *end, void *arg)
{
	struct target *t = arg;
	struct link *l;
	struct rpc_answer oom = { .code = RPC_INTERNAL };
	int fd = end->fd;

	t->brokered = NULL;
	if (fd < 0) {
		target_fail(t, end->error, "brokering failed");
		return;
	}
	l = link_new(t, end->via);
	if (l) {
		l->story = end->story;
		l->asked_ms = end->asked_ms;
		l->expires_ms = end->expires_ms;
		l->timeline = json_incref(end->timeline);
		memcpy(l->session, end->session, sizeof(l->session));
	}
	if (!l || link_adopt(l, fd) < 0) {
		if (l)
			link_free(l);
		else
			fd_close(&fd);
		story_failed(end->story, broker_step_word(STEP_PAIRED), end_reason_word(END_INTERNAL), "out of memory");
		target_fail(t, &oom, "out of memory");
		return;
	}
	t->link = l;
	target_enter(t, TARGET_SECURING, "paired or about to be");
}

/* 0, or -ENOMEM with the state unchanged. */
static int
target_dial(struct target *t, const char *address)
{
	uint64_t story = story_begin(STORY_A, t->name, "", "");
	struct link *l = link_new(t, "");
	int rc = -ENOMEM;

	if (l) {
		l->story = story;
		rc = link_dial(l, address);
	}
	if (rc < 0) {
		struct rpc_answer error = rpc_fail_step(RPC_CHANNEL, END_UNREACHABLE, STEP_NONE, NULL, 0,
		    "%s cannot be dialled at '%s': %s", t->name, address, strerror(-rc));

		story_failed(story, "", end_reason_word(END_UNREACHABLE), error.message ? error.message : "");
		if (l)
			link_free(l);
		target_enter(t, TARGET_SECURING, address);
		target_fail(t, &error, "cannot be dialled");
		rpc_answer_fini(&error);
		return 0;
	}
	t->link = l;
	target_enter(t, TARGET_SECURING, address);
	return 0;
}

static int
target_connect(struct target *t)
{
	const struct pool *pool = t->pool;
	const json_t *entry = directory_get(pool->dir, t->name);
	int64_t budget_ms = pool->hyper->call_timeout_ms - pool->hyper->call_timeout_ms / 8;
	struct entry_grpc server = { 0 };

	if (!entry || !entry_grpc_server(entry, &server)) {
		struct rpc_answer error = rpc_fail_step(RPC_CHANNEL, END_UNKNOWN_OPERATOR, STEP_NONE, NULL, 0,
		    "%s has no grpc_server in the directory any more", t->name);

		target_enter(t, TARGET_SECURING, "");
		target_fail(t, &error, "no longer in the directory");
		rpc_answer_fini(&error);
		return 0;
	}
	if (!*server.proxy || !pool->conf->use_proxy)
		return target_dial(t, server.address);
	if (brokered_start(
		&pool->env, t->name, server.proxy, clock_now_ms() + budget_ms, target_on_brokered, t, &t->brokered) < 0)
		return -ENOMEM;
	target_enter(t, TARGET_BROKERING, server.proxy);
	return 0;
}

static void
target_free(struct target *t)
{
	HASH_DEL(t->pool->targets, t);
	brokered_cancel(t->brokered);
	if (t->link)
		t->link->target = NULL;
	if (t->kick)
		event_free(t->kick);
	free(t->name);
	free(t);
}

/* Room for one more: the one that was used least recently and has nothing to do goes. false: none. */
static bool
pool_make_room(struct pool *pool)
{
	struct target *t, *tmp, *oldest = NULL;

	if (HASH_COUNT(pool->targets) < POOL_MAX_TARGETS)
		return true;
	HASH_ITER (hh, pool->targets, t, tmp) {
		bool is_unused = t->state == TARGET_IDLE || (t->state == TARGET_READY && t->link->n_active == 0);

		if (is_unused && t->n_queue == 0 && (!oldest || t->used_ms < oldest->used_ms))
			oldest = t;
	}
	if (!oldest)
		return false;
	if (oldest->link)
		target_detach(oldest, "another operator needs the room");
	target_free(oldest);
	return true;
}

struct target *
pool_target(struct pool *pool, const char *name, int *ret_rc)
{
	struct target *t = NULL;

	HASH_FIND_STR(pool->targets, name, t);
	if (t)
		return t;
	*ret_rc = -ENOBUFS;
	if (!pool_make_room(pool))
		return NULL;
	*ret_rc = -ENOMEM;
	t = calloc(1, sizeof(*t));
	if (!t)
		return NULL;
	t->pool = pool;
	TAILQ_INIT(&t->queue);
	t->name = strdup(name);
	t->kick = event_new(pool->base, -1, 0, target_on_kick, t);
	if (t->name && t->kick) {
		HASH_ADD_KEYPTR(hh, pool->targets, t->name, strlen(t->name), t);
		if (t->hh.tbl)
			return t;
	}
	if (t->kick)
		event_free(t->kick);
	free(t->name);
	free(t);
	return NULL;
}

static bool
pool_can_deliver(void *arg, const struct request *req)
{
	struct pool *pool = arg;
	const json_t *entry = directory_get(pool->dir, req->addr.operator);
	struct entry_grpc server = { 0 };

	if (strcmp(req->addr.operator, pool->hyper->name) == 0 || !entry || !entry_grpc_server(entry, &server))
		return false;
	return !server.internal && strcmp(server.proxy, pool->hyper->name) != 0;
}

static int
pool_deliver(void *arg, const struct request *req, deliver_cb cb, void *cb_arg)
{
	struct pool *pool = arg;
	const char *name = req->addr.operator;
	int rc = 0;
	struct target *t = pool_target(pool, name, &rc);

	if (!t && rc == -ENOMEM)
		return -ENOMEM;
	rc = pcall_new(pool, t, req, cb, cb_arg);
	if (rc < 0 || !t)
		return rc;
	t->used_ms = clock_now_ms();
	target_kick(t);
	return 0;
}

const struct channel_ops pool_ops = { "grpc_client", pool_can_deliver, pool_deliver };

int
pool_new(struct event_base *base, const struct conf_grpc_client *conf, const struct conf_hyper *hyper,
    struct directory *dir, struct broker *broker, struct pool **ret, char err[CH_ERR_MAX])
{
	struct pool *pool = calloc(1, sizeof(*pool));
	char why[TLS_ERR_MAX] = "out of memory";
	int rc = -ENOMEM;

	if (pool)
		rc = tls_ctx_new(conf->tls, TLS_CLIENT, TLS_ALPN_H2, &pool->ctx, why);
	if (rc < 0) {
		snprintf(err, CH_ERR_MAX, "grpc_client: %s", why);
		free(pool);
		return rc;
	}
	pool->base = base;
	pool->conf = conf;
	pool->hyper = hyper;
	pool->dir = dir;
	pool->env = (struct brokered_env){ base, hyper, dir, broker };
	TAILQ_INIT(&pool->links);
	*ret = pool;
	return 0;
}

void
pool_apply(struct pool *pool, const struct conf_grpc_client *conf, const struct conf_hyper *hyper, SSL_CTX *ctx)
{
	pool->conf = conf;
	pool->hyper = hyper;
	pool->env.conf = hyper;
	SSL_CTX_free(pool->ctx);
	pool->ctx = ctx;
}

void
pool_list(void *arg, json_t *array)
{
	struct pool *pool = arg;
	const struct link *l;

	TAILQ_FOREACH (l, &pool->links, entry) {
		struct connection_line line = { .name = l->name,
			.kind = *l->via ? "brokered" : "direct",
			.via = l->via,
			.session = l->session,
			.since_ms = l->since_ms,
			.calls = l->calls,
			.timeline = l->timeline };

		if (l->target && l->target->state == TARGET_READY)
			connection_line_append(array, &line);
	}
}

void
pool_close(struct pool *pool)
{
	struct target *t, *tmp;
	struct link *l, *next;

	if (!pool)
		return;
	HASH_ITER (hh, pool->targets, t, tmp) {
		struct pcall *p;

		while ((p = TAILQ_FIRST(&t->queue)))
			reply_flush(&p->reply);
		target_free(t);
	}
	for (l = TAILQ_FIRST(&pool->links); l; l = next) {
		struct grpc_conn *conn = l->conn;

		/* with calls on it, it goes when their ends have come from the loop */
		next = TAILQ_NEXT(l, entry);
		link_log_end(l, END_STOPPED, "stopping");
		l->conn = NULL;
		grpc_conn_free(conn);
		if (l->n_active == 0)
			link_free(l);
	}
}

void
pool_free(struct pool *pool)
{
	struct link *l;

	if (!pool)
		return;
	pool_close(pool);
	while ((l = TAILQ_FIRST(&pool->links)))
		link_free(l);
	SSL_CTX_free(pool->ctx);
	free(pool);
}
