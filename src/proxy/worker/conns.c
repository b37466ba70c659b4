/* conns.c - a connection from accept to the master's answer
 *
 *      accept --> read up to 32 bytes --> look up the hash --> ARRIVED --> PARKED | PAIR | REFUSED
 *
 * Always true:
 *  1. Not one byte behind the token is read: early payload stays in the kernel.
 *  2. One deadline, counted from accept, covers everything a stranger can draw
 *     out; the master's answer has one of its own. Both are constant, so a list
 *     in order of arrival is in order of deadline too.
 *  3. A socket is in epoll only while its token is incomplete. From ARRIVED on
 *     the master may hold a duplicate, which would keep it in epoll after our
 *     close.
 *  4. We keep our copy until ARRIVED is answered: a receiver at its descriptor
 *     limit drops what it was sent, and the peer must not see a reset for that.
 *  5. The token itself is kept until the master has been told, who must be shown that we have it, and wiped then.
 *     Logs name the session.
 *  6. Who is GONE is freed at the start of the next turn: events of the same
 *     batch may still name it.
 *  7. A turn of the loop does a bounded amount of work: so many are accepted, so
 *     many are ended because their time is over; the rest is for the next one.
 *  8. Who sends nothing, or nothing good, is dropped for those who do: above
 *     max_unauthenticated the oldest, of one address above
 *     max_unauthenticated_per_source that address's oldest, and when there are
 *     no descriptors some of the oldest. Who comes with the token, as most do, is
 *     in no list that this looks at and costs nobody his place.
 */
#include <errno.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "hyper/base/bug.h"
#include "hyper/base/clock.h"
#include "hyper/base/fd.h"
#include "hyper/base/log.h"
#include "proxy/worker/worker.h"

#define RETRY_MS        2   /* until the next look-up, when the writer was inside */
#define ACCEPT_PAUSE_MS 100 /* when there are no descriptors */
#define END_TURN        32  /* of those whose time is over, in one turn: who came together ends together */
#define SHED_PART       8   /* one in so many of those without a token is closed then */

#define BIT(s) (1u << (s))

/*   TOKEN --32 bytes--> LOOKUP --live record--> WAITING --answer--> GONE
 *      `------ end, deadline, cap ----' `-- no record, deadline --------^  */
#define CONN_STATES(X)                                \
	X(TOKEN, BIT(CONN_LOOKUP) | BIT(CONN_GONE))   \
	X(LOOKUP, BIT(CONN_WAITING) | BIT(CONN_GONE)) \
	X(WAITING, BIT(CONN_GONE))                    \
	X(GONE, 0)

enum conn_state {
#define X(n, to) CONN_##n,
	CONN_STATES(X)
#undef X
};

static const struct {
	const char *name;
	unsigned to;
} conn_tab[] = {
#define X(n, to) { #n, to },
	CONN_STATES(X)
#undef X
};

struct conn {
	struct item item; /* first: what epoll gives back */
	TAILQ_ENTRY(conn) link;
	enum conn_state state;
	uint64_t id;
	int fd;
	bool watched;     /* in epoll, and SO_RCVLOWAT is set */
	int64_t since_ms; /* accepted; in WAITING: when ARRIVED was queued */
	size_t have;      /* bytes of the token so far */
	struct token token;
	uint8_t hash[32];
	char session[SESSION_ID_MAX]; /* "" before the token is complete */
	struct source_mark mark;      /* while it waits for its token and did not come with it */
	struct sockaddr_storage peer;
	struct out arrived;
};

static struct conn_list *
list_of(struct worker *w, enum conn_state state)
{
	return state == CONN_GONE ? &w->gone : state == CONN_WAITING ? &w->waiting : &w->fresh;
}

static size_t *
count_of(struct worker *w, enum conn_state state)
{
	return state == CONN_GONE ? NULL : state == CONN_WAITING ? &w->n_waiting : &w->n_fresh;
}

/* The only place that writes c->state; a state's list follows it. */
static void
conn_enter(struct worker *w, struct conn *c, enum conn_state to, const char *why)
{
	struct conn_list *from_list = list_of(w, c->state), *to_list = list_of(w, to);

	BUG_ON(!(conn_tab[c->state].to & BIT(to)));
	log_debug("conn", "conn=%llu %s>%s session=%s why=%s", (unsigned long long)c->id, conn_tab[c->state].name,
	    conn_tab[to].name, c->session, why);
	if (from_list != to_list) {
		sources_leave(&w->sources, &c->mark);
		TAILQ_REMOVE(from_list, c, link);
		TAILQ_INSERT_TAIL(to_list, c, link);
		--*count_of(w, c->state);
		if (count_of(w, to))
			++*count_of(w, to);
	}
	c->state = to;
}

static void
conn_unwatch(struct worker *w, struct conn *c)
{
	if (c->watched)
		worker_unwatch(w, c->fd);
	c->watched = false;
}

static void
conn_close(struct worker *w, struct conn *c, const char *why)
{
	channel_cancel(w, &c->arrived);
	conn_unwatch(w, c);
	fd_close(&c->fd);
	explicit_bzero(&c->token, sizeof(c->token));
	conn_enter(w, c, CONN_GONE, why);
}

/* Did the peer itself do something wrong? Who was dropped for want of room, or waited for us, did not. */
static bool
is_bad(enum end_reason reason)
{
	return reason == END_UNKNOWN_TOKEN || reason == END_SHORT_TOKEN || reason == END_SILENT;
}

static void
conn_blame(struct worker *w, const struct conn *c)
{
	static struct log_limit limit;
	char peer[LOG_ADDR_MAX];

	if (!sources_blame(&w->sources, (const struct sockaddr *)&c->peer, w->now_ms))
		return;
	log_addr(&c->peer, false, peer);
	log_limited(&limit, LOG_LVL_WARN, "barred",
	    "peer=%s max=%llu barred_ms=%llu why=\"over public.max_bad_tokens_per_source\"", peer,
	    (unsigned long long)w->settings.max_bad_tokens, (unsigned long long)w->settings.barred_ms);
}

/* Closes it for a reason that somebody may ask about: counted, and logged not too often. */
static void
conn_refuse(struct worker *w, struct conn *c, enum end_reason reason)
{
	static struct log_limit limits[END_REASON_MAX];
	char peer[LOG_ADDR_MAX];

	w->refused[reason]++;
	log_addr(&c->peer, false, peer);
	log_limited(&limits[reason], reason == END_PROBE ? LOG_LVL_DEBUG : LOG_LVL_INFO, "refused",
	    "conn=%llu reason=%s peer=%s session=%s", (unsigned long long)c->id, end_reason_word(reason), peer,
	    *c->session ? c->session : "-");
	if (is_bad(reason))
		conn_blame(w, c);
	fd_will_finish(c->fd); /* the listener's SO_LINGER is for pairs (relay_tune_listener) */
	/* The master may have a duplicate, or get one that is under way: our close alone would tell the peer nothing, and
	 * the master must see that it comes too late (meet.c). */
	if (c->state == CONN_WAITING)
		shutdown(c->fd, SHUT_RDWR);
	conn_close(w, c, end_reason_word(reason));
}

/* --- look-up and hand-off -------------------------------------------------- */

static struct conn *
conn_of(struct out *o)
{
	return (struct conn *)((char *)o - offsetof(struct conn, arrived));
}

static void
arrived_make(struct worker *w, struct out *o, struct chan_msg *ret, int *ret_fd)
{
	const struct conn *c = conn_of(o);

	(void)w;
	ret->type = CHAN_ARRIVED;
	ret->conn = c->id;
	memcpy(ret->token, c->token.bytes, sizeof(ret->token));
	*ret_fd = c->fd;
}

static bool
arrived_sent(struct worker *w, struct out *o)
{
	struct conn *c = conn_of(o);

	(void)w;
	explicit_bzero(&c->token, sizeof(c->token));
	return false;
}

static const struct out_kind arrived_kind = { arrived_make, arrived_sent };

static void
conn_lookup(struct worker *w, struct conn *c)
{
	struct toktab_rec rec;
	int r = toktab_find(w->table, c->hash, clock_now_ns(), &rec);

	if (r == -EAGAIN) {
		w->retry = true;
		return;
	}
	if (r < 0) {
		conn_refuse(w, c, END_UNKNOWN_TOKEN);
		return;
	}
	c->since_ms = w->now_ms;
	conn_enter(w, c, CONN_WAITING, "found");
	c->arrived.kind = &arrived_kind;
	channel_put(w, &c->arrived);
	log_info("arrived", "conn=%llu session=%s", (unsigned long long)c->id, c->session);
}

static void
set_lowat(int fd, int bytes)
{
	(void)!setsockopt(fd, SOL_SOCKET, SO_RCVLOWAT, &bytes, sizeof(bytes));
}

static void
conn_on_token(struct worker *w, struct conn *c)
{
	if (c->watched)
		set_lowat(c->fd, 1); /* whoever reads on must be woken by one byte */
	conn_unwatch(w, c);
	token_hash(&c->token, c->hash);
	token_session(&c->token, c->session);
	conn_enter(w, c, CONN_LOOKUP, "token");
	conn_lookup(w, c);
}

/* Reads the missing bytes of the token and none behind it. */
static void
conn_read(struct worker *w, struct conn *c)
{
	size_t had = c->have;

	while (c->have < TOKEN_LEN) {
		ssize_t n = recv(c->fd, c->token.bytes + c->have, TOKEN_LEN - c->have, MSG_DONTWAIT);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
			break;
		if (n <= 0) {
			conn_refuse(w, c, c->have > 0 ? END_SHORT_TOKEN : END_PROBE);
			return;
		}
		c->have += (size_t)n;
	}
	if (c->have == TOKEN_LEN)
		conn_on_token(w, c);
	else if (c->have != had && c->watched)
		set_lowat(c->fd, (int)(TOKEN_LEN - c->have));
}

void
conn_on_event(struct worker *w, struct item *item)
{
	struct conn *c = (struct conn *)item;

	if (c->state == CONN_TOKEN)
		conn_read(w, c);
	else
		BUG_ON(
		    c->state != CONN_GONE); /* an event of the batch in which it left epoll: none but GONE may see it */
}

/* --- accept ---------------------------------------------------------------- */

/* The token did not come with it: it waits, in the place of the oldest when there are too many. */
static void
conn_wait(struct worker *w, struct conn *c)
{
	struct source_mark *oldest = sources_join(&w->sources, (const struct sockaddr *)&c->peer, &c->mark);

	set_lowat(c->fd, (int)(TOKEN_LEN - c->have)); /* one wake-up, at byte 32; only an optimisation */
	if (worker_watch(w, c->fd, EPOLLIN, &c->item) < 0) {
		conn_refuse(w, c, END_INTERNAL);
		return;
	}
	c->watched = true;
	if (oldest)
		conn_refuse(w, (struct conn *)((char *)oldest - offsetof(struct conn, mark)), END_CROWDED);
	if (w->n_fresh > w->settings.max_unauthenticated)
		conn_refuse(w, TAILQ_FIRST(&w->fresh), END_BUSY);
}

static void
conn_new(struct worker *w, int fd, const struct sockaddr_storage *peer)
{
	struct conn *c = calloc(1, sizeof(*c));

	if (!c) {
		w->refused[END_INTERNAL]++;
		fd_close(&fd);
		return;
	}
	c->item.tag = ITEM_CONN;
	c->id = w->next_conn++;
	c->fd = fd;
	c->peer = *peer;
	c->since_ms = w->now_ms;
	TAILQ_INSERT_TAIL(&w->fresh, c, link);
	w->n_fresh++;
	/* Most send their token at once: then epoll never sees the socket. */
	conn_read(w, c);
	if (c->state == CONN_TOKEN)
		conn_wait(w, c);
}

/* False: its address has made too many, or too many bad ones, and it is closed. */
static bool
peer_is_welcome(struct worker *w, int fd, const struct sockaddr_storage *peer)
{
	static struct log_limit limits[2];
	const struct sockaddr *sa = (const struct sockaddr *)peer;
	bool is_barred = sources_is_barred(&w->sources, sa, w->now_ms);
	enum end_reason reason = is_barred ? END_BARRED : END_RATE;
	char text[LOG_ADDR_MAX];

	if (!is_barred && (!rates_has_limit(&w->rates) || rates_permit(&w->rates, sa, clock_wall_utc_ns() / 1000000)))
		return true;
	log_addr(peer, false, text);
	w->refused[reason]++;
	log_limited(&limits[is_barred], LOG_LVL_INFO, "refused", "reason=%s peer=%s why=\"over public.%s\"",
	    end_reason_word(reason), text, is_barred ? "max_bad_tokens_per_source" : "tcp_rate_limits");
	fd_finish(&fd);
	return false;
}

static bool
is_scarce(int fd)
{
	return fd == -EMFILE || fd == -ENFILE || fd == -ENOMEM || fd == -ENOBUFS;
}

/* There are no descriptors: some of the oldest of those that have sent no token give theirs back, for who comes after
 * the pause. */
static void
conns_shed(struct worker *w)
{
	size_t n = w->n_fresh / SHED_PART + 1;
	struct conn *c;

	for (; n > 0 && (c = TAILQ_FIRST(&w->fresh)); n--)
		conn_refuse(w, c, END_BUSY);
}

void
conns_accept(struct worker *w, struct listener *l)
{
	static struct log_limit limit;
	struct sockaddr_storage peer;
	int fd, failed = 0;

	for (int i = 0; i < WORKER_TURN && !channel_is_blocked(w); i++) {
		fd = fd_accept_from(l->fd, &peer);
		if (fd == -EAGAIN)
			return;
		w->accept_errors += fd < 0;
		/* Any other failure is that of one connection, which died in the queue (accept(2), "Error
		 * handling"); nothing but failures is one of the listener. */
		if (is_scarce(fd) || (fd < 0 && ++failed == WORKER_TURN)) {
			log_limited(
			    &limit, LOG_LVL_WARN, "accept", "err=\"%s\" pause_ms=%d", strerror(-fd), ACCEPT_PAUSE_MS);
			w->accept_after_ms = w->now_ms + ACCEPT_PAUSE_MS;
			if (is_scarce(fd))
				conns_shed(w);
			return;
		}
		if (fd < 0)
			continue;
		w->accepted++;
		channel_saw_fd(w, fd);
		if (peer_is_welcome(w, fd, &peer))
			conn_new(w, fd, &peer);
	}
}

/* --- the master's answers -------------------------------------------------- */

/* At most WORKER_WAIT_MAX of them, and answers come in the order of questions. */
static struct conn *
conn_waiting(struct worker *w, uint64_t id)
{
	struct conn *c;

	TAILQ_FOREACH (c, &w->waiting, link) {
		if (c->id == id)
			return c;
	}
	log_debug("late", "conn=%llu", (unsigned long long)id);
	return NULL;
}

void
conn_on_parked(struct worker *w, uint64_t id)
{
	struct conn *c = conn_waiting(w, id);

	if (!c)
		return;
	log_info("parked", "conn=%llu session=%s", (unsigned long long)c->id, c->session);
	conn_close(w, c, "parked");
}

void
conn_on_refused(struct worker *w, uint64_t id, enum end_reason reason)
{
	struct conn *c = conn_waiting(w, id);

	if (c)
		conn_refuse(w, c, reason);
}

int
conn_take(struct worker *w, uint64_t id)
{
	struct conn *c = conn_waiting(w, id);
	int fd;

	if (!c)
		return -1;
	fd = c->fd;
	c->fd = -1;
	conn_close(w, c, "paired");
	return fd;
}

/* --- time ------------------------------------------------------------------ */

static void
lookups_again(struct worker *w)
{
	struct conn *c, *next;

	w->retry = false;
	for (c = TAILQ_FIRST(&w->fresh); c; c = next) {
		next = TAILQ_NEXT(c, link);
		if (c->state == CONN_LOOKUP)
			conn_lookup(w, c);
	}
}

static void
free_gone(struct worker *w)
{
	struct conn *c;

	while ((c = TAILQ_FIRST(&w->gone))) {
		TAILQ_REMOVE(&w->gone, c, link);
		free(c);
	}
}

void
conns_tick(struct worker *w)
{
	int64_t fresh_until = w->now_ms - (int64_t)w->settings.accept_timeout_ms;
	int left = END_TURN;
	struct conn *c;

	free_gone(w);
	if (w->retry)
		lookups_again(w);
	for (; left > 0 && (c = TAILQ_FIRST(&w->fresh)) && c->since_ms <= fresh_until; left--)
		conn_refuse(w, c, c->state == CONN_TOKEN ? END_SILENT : END_DEADLINE);
	for (; left > 0 && (c = TAILQ_FIRST(&w->waiting)) && c->since_ms <= w->now_ms - WORKER_ANSWER_MS; left--)
		conn_refuse(w, c, END_DEADLINE);
}

int64_t
conns_next_ms(const struct worker *w)
{
	const struct conn *fresh = TAILQ_FIRST(&w->fresh), *waiting = TAILQ_FIRST(&w->waiting);
	int64_t next = w->retry ? w->now_ms + RETRY_MS : INT64_MAX;

	if (fresh && fresh->since_ms + (int64_t)w->settings.accept_timeout_ms < next)
		next = fresh->since_ms + (int64_t)w->settings.accept_timeout_ms;
	if (waiting && waiting->since_ms + WORKER_ANSWER_MS < next)
		next = waiting->since_ms + WORKER_ANSWER_MS;
	return next;
}

void
conns_drop_all(struct worker *w, enum end_reason reason)
{
	struct conn *c;

	while ((c = TAILQ_FIRST(&w->fresh)))
		conn_refuse(w, c, reason);
	while ((c = TAILQ_FIRST(&w->waiting)))
		conn_refuse(w, c, reason);
}

void
conns_init(struct worker *w)
{
	TAILQ_INIT(&w->fresh);
	TAILQ_INIT(&w->waiting);
	TAILQ_INIT(&w->gone);
	sources_init(&w->sources);
}

void
conns_on_settings(struct worker *w)
{
	const struct sources_conf conf = { .max_waiting = w->settings.max_per_source,
		.max_bad = w->settings.max_bad_tokens,
		.barred_ms = (int64_t)w->settings.barred_ms };

	sources_set(&w->sources, &conf);
}

/* One line with all that was refused since the start, by reason. */
static void
log_totals(const struct worker *w)
{
	char text[1024] = "";
	size_t len = 0;

	for (int i = 0; i < END_REASON_MAX && len < sizeof(text); i++)
		if (w->refused[i])
			len += (size_t)snprintf(text + len, sizeof(text) - len, " refused_%s=%llu", end_reason_word(i),
			    (unsigned long long)w->refused[i]);
	log_info("worker_totals", "accepted=%llu pairs=%llu%s", (unsigned long long)w->accepted,
	    (unsigned long long)w->pairs_total, text);
}

void
conns_fini(struct worker *w)
{
	BUG_ON(w->n_fresh != 0 || w->n_waiting != 0);
	log_totals(w);
	free_gone(w);
	rates_fini(&w->rates);
	sources_fini(&w->sources);
}
