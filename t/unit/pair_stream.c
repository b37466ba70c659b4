/* pair_stream.c - the streams of the load program: random bytes at random times, each compared where it comes out
 *
 *   a --32 bytes of token, then its stream--> endpoint <--the same-- b
 *
 * Always true:
 *  1. Byte n of a stream depends on the stream's seed and n alone, so a lost, doubled, moved or foreign byte shows.
 *  2. Until a party has a byte of the other one it may come again with its token, from the start: that pair was not
 *     made. Afterwards any end but the agreed one is a loss.
 *  3. A direction ends well only if its reader saw the end after exactly what its writer had sent.
 *  4. A reset by the peer must be seen as a reset: a clean end instead is counted as false.
 *
 * Not here: tokens, the proxy's hyper, the sum (pair_load.c).
 */
#include "pair_load.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "hyper/base/clock.h"
#include "hyper/base/fd.h"

#define CHUNK    65536
#define AGAIN_MS 20
#define HELLO    100
#define TOLD_MAX 20 /* losses that are told in words */

static uint64_t
mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15u; /* splitmix64 */
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
	return x ^ (x >> 31);
}

uint64_t
load_random(struct load *l, uint64_t n)
{
	return n ? mix(++l->random) % n : 0;
}

/* `len` bytes of a stream from `pos` on; `ret` has room for 8 more. Returns their start. */
static const uint8_t *
stream_bytes(uint64_t seed, uint64_t pos, size_t len, uint8_t *ret)
{
	size_t skip = pos % 8;

	for (size_t i = 0; i < skip + len; i += 8) {
		uint64_t v = mix(seed ^ mix((pos - skip + i) / 8));

		memcpy(ret + i, &v, 8);
	}
	return ret + skip;
}

struct totals *
meeting_totals(struct meeting *m)
{
	return m->no < m->load->kept ? &m->load->kept_totals : &m->load->churn_totals;
}

static bool
is_slow(const struct end *e)
{
	enum manner slow = e->side == 'a' ? MANNER_SLOW_A : MANNER_SLOW_B;

	return e->m->manner == slow && !e->m->load->is_ending;
}

/* Says most of what it has after the other one's end. */
static bool
answers(const struct end *e)
{
	return e->m->manner == MANNER_ANSWERED && e->side == 'b';
}

static void
end_arm(struct end *e)
{
	bool reads = !e->was_ended && e->m->load->now_ms >= e->read_ms;
	uint32_t events = (reads ? EPOLLIN : 0u) | (e->is_blocked ? EPOLLOUT : 0u);

	if (e->ev.fd < 0 || events == e->events)
		return;
	e->events = events;
	loop_set(e->m->load->ep, &e->ev, events);
}

static void
meeting_over(struct meeting *m)
{
	m->state = MEETING_OVER;
	m->a.dial_ms = m->b.dial_ms = 0;
	m->a.may_dial = m->b.may_dial = false;
	fd_close(&m->a.ev.fd);
	fd_close(&m->b.ev.fd);
	load_on_over(m);
}

/* One line for who did not come to a good end. */
static void
end_tell(const struct end *e, const char *what, const char *how)
{
	static const char *const manners[] = { "bulk", "trickle", "a_ends", "b_ends", "idle", "slow_a", "slow_b",
		"bursts", "silent", "short", "answered", "reset" };
	static size_t told;

	if (told++ >= TOLD_MAX)
		return;
	printf("load %s meeting=%zu manner=%s side=%c got=%llu of=%llu%s sent=%llu of=%llu%s ms=%lld how=\"%s\"\n",
	    what, e->m->no, manners[e->m->manner], e->side, (unsigned long long)e->got,
	    (unsigned long long)e->peer->sent, e->was_ended ? "." : "", (unsigned long long)e->sent,
	    (unsigned long long)e->total, e->has_ended ? "." : "", (long long)(e->m->load->now_ms - e->m->asked_ms),
	    how);
	fflush(stdout);
}

/* A loss ends the meeting. */
static void
meeting_lost(struct end *e, size_t *counter, const char *what, const char *how)
{
	end_tell(e, what, how);
	(*counter)++;
	meeting_over(e->m);
}

void
meeting_hung(struct meeting *m)
{
	if (m->state == MEETING_ASKED || m->state == MEETING_JOINED) {
		end_tell(&m->a, "hung", "");
		end_tell(&m->b, "hung", "");
	}
	fd_close(&m->a.ev.fd);
	fd_close(&m->b.ev.fd);
}

/* Its connection is no good. Before the meeting it may come again. */
static void
end_failed(struct end *e, const char *how)
{
	struct meeting *m = e->m;
	struct totals *t = meeting_totals(m);

	if (m->state == MEETING_ASKED && e->got == 0) {
		fd_close(&e->ev.fd);
		e->sent = 0;
		e->is_blocked = e->has_ended = false;
		e->dial_ms = m->load->now_ms + AGAIN_MS;
		t->again++;
		return;
	}
	meeting_lost(e, &t->lost, "lost", how);
}

/* --- sending --- */

static uint64_t
burst_of(struct end *e)
{
	struct load *l = e->m->load;

	switch (e->m->manner) {
	case MANNER_BULK: return l->rate / 20 + load_random(l, l->rate / 10);
	case MANNER_SLOW_A:
	case MANNER_SLOW_B: return l->rate / 20;
	case MANNER_TRICKLE: return 1 + load_random(l, 600);
	case MANNER_IDLE: return 1 + load_random(l, 300000);
	case MANNER_SILENT: return 0;
	default: return 1 + load_random(l, load_random(l, 4) ? 4096 : 131072);
	}
}

static int64_t
gap_of(struct end *e)
{
	struct load *l = e->m->load;

	switch (e->m->manner) {
	case MANNER_BULK:
	case MANNER_SLOW_A:
	case MANNER_SLOW_B: return 100;
	case MANNER_TRICKLE: return 5 + (int64_t)load_random(l, 60);
	case MANNER_IDLE: return 1000 + (int64_t)load_random(l, 5000);
	case MANNER_SHORT:
	case MANNER_ANSWERED:
	case MANNER_RESET: return 0;
	default: return 10 + (int64_t)load_random(l, 400);
	}
}

/* Closes what has ended well both ways; the meeting is over when both parties have. */
static void
check_done(struct end *e)
{
	if (e->m->state != MEETING_JOINED || !e->has_ended || !e->was_ended)
		return;
	fd_close(&e->ev.fd);
	if (!e->peer->has_ended || !e->peer->was_ended)
		return;
	meeting_totals(e->m)->done++;
	meeting_over(e->m);
}

/* `a` of this manner cuts the connection when all has been said, instead of ending its direction. */
static void
end_reset(struct end *e)
{
	const struct linger hard = { 1, 0 };

	(void)!setsockopt(e->ev.fd, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
	fd_close(&e->ev.fd);
	e->has_ended = e->was_ended = true;
}

/* May this direction end now? */
static bool
is_time_to_end(struct end *e)
{
	if (e->has_ended || e->quota || e->sent < e->total || e->m->state != MEETING_JOINED)
		return false;
	if (answers(e))
		return e->was_ended;
	if (e->m->manner == MANNER_RESET) /* b's end is a's reset */
		return e->side == 'a' && e->got == e->peer->total && e->peer->got == e->total;
	return true;
}

static void
end_finish(struct end *e)
{
	if (e->m->manner == MANNER_RESET) {
		end_reset(e);
		return;
	}
	if (shutdown(e->ev.fd, SHUT_WR) < 0) {
		end_failed(e, "shutdown");
		return;
	}
	e->has_ended = true;
	check_done(e);
}

static void
end_send(struct end *e)
{
	uint8_t buf[CHUNK + 16];

	while (e->ev.fd >= 0 && e->quota && !e->is_blocked && !e->has_ended) {
		size_t len = e->quota < CHUNK ? (size_t)e->quota : CHUNK;
		ssize_t n = send(e->ev.fd, stream_bytes(e->seed, e->sent, len, buf), len, MSG_NOSIGNAL);

		if (n < 0 && errno == EAGAIN) {
			e->is_blocked = true;
		} else if (n < 0) {
			end_failed(e, strerror(errno));
			return;
		} else {
			if (e->peer->got == e->sent)
				e->peer->progress_ms = e->m->load->now_ms;
			e->sent += (uint64_t)n;
			e->quota -= (uint64_t)n;
		}
	}
	if (e->ev.fd >= 0 && is_time_to_end(e))
		end_finish(e);
}

/* --- receiving --- */

static void
end_on_eof(struct end *e)
{
	struct totals *t = meeting_totals(e->m);

	if (e->m->state == MEETING_ASKED && e->got == 0) {
		end_failed(e, "closed");
		return;
	}
	if (e->m->manner == MANNER_RESET && e->side == 'b') {
		meeting_lost(e, &t->false_ends, "false", "a clean end instead of a reset");
		return;
	}
	if (!e->peer->has_ended || e->got != e->peer->sent) {
		meeting_lost(e, &t->lost, "lost", "short");
		return;
	}
	e->was_ended = true;
	if (answers(e))
		e->quota = e->total - e->sent;
	end_send(e);
	check_done(e);
}

static void
end_on_error(struct end *e, int err)
{
	if (e->m->manner == MANNER_RESET && e->side == 'b' && e->peer->has_ended && err == ECONNRESET) {
		e->was_ended = e->has_ended = true;
		check_done(e);
		return;
	}
	end_failed(e, strerror(err));
}

static void
end_took(struct end *e, size_t n)
{
	struct load *l = e->m->load;

	e->got += n;
	e->progress_ms = l->now_ms;
	meeting_totals(e->m)->bytes += n;
	if (e->m->state == MEETING_ASKED && e->peer->got) {
		e->m->state = MEETING_JOINED;
		meeting_totals(e->m)->paired++;
	}
}

/* How much at once: a slow reader takes little and waits. */
static size_t
take_of(struct end *e)
{
	if (!is_slow(e))
		return CHUNK;
	e->read_ms = e->m->load->now_ms + 5 + (int64_t)load_random(e->m->load, 100);
	return 1 + (size_t)load_random(e->m->load, 8192);
}

static void
end_receive(struct end *e)
{
	uint8_t got[CHUNK], want[CHUNK + 16];
	size_t cap = take_of(e);
	ssize_t n = recv(e->ev.fd, got, cap, 0);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n < 0) {
		end_on_error(e, errno);
		return;
	}
	if (n == 0) {
		end_on_eof(e);
		return;
	}
	if (memcmp(got, stream_bytes(e->peer->seed, e->got, (size_t)n, want), (size_t)n) != 0) {
		meeting_lost(e, &meeting_totals(e->m)->wrong, "wrong", "other bytes than were sent");
		return;
	}
	end_took(e, (size_t)n);
	/* either may have waited for this byte to end */
	end_send(e);
	if (e->m->state != MEETING_OVER && e->peer->ev.fd >= 0)
		end_send(e->peer);
}

static void
end_on_event(struct ev *ev, uint32_t events)
{
	struct end *e = (struct end *)ev;

	if (e->ev.fd < 0)
		return; /* closed in this turn */
	if (events & EPOLLOUT)
		e->is_blocked = false;
	if (events & (EPOLLIN | EPOLLERR | EPOLLHUP))
		end_receive(e);
	if (e->ev.fd >= 0)
		end_send(e);
	end_arm(e);
	end_arm(e->peer);
}

/* --- meetings --- */

static void
end_begin(struct meeting *m, struct end *e, char side, struct end *peer)
{
	struct load *l = m->load;
	uint64_t short_one = 1 + load_random(l, l->churn_bytes);

	*e = (struct end){ .m = m, .peer = peer, .side = side, .seed = mix(l->seed + load_random(l, UINT64_MAX)) };
	e->ev = (struct ev){ .fd = -1, .on_event = end_on_event };
	e->total = m->manner >= MANNER_KEPT ? short_one : UINT64_MAX;
	if (m->manner == (side == 'a' ? MANNER_A_ENDS : MANNER_B_ENDS))
		e->total = 1 + load_random(l, 300000);
	e->next_ms = l->now_ms + gap_of(e);
}

void
meeting_begin(struct meeting *m, enum manner manner)
{
	m->manner = manner;
	m->state = MEETING_ASKED;
	m->asked_ms = m->load->now_ms;
	end_begin(m, &m->a, 'a', &m->b);
	end_begin(m, &m->b, 'b', &m->a);
}

static void
end_dial(struct end *e)
{
	struct load *l = e->m->load;
	int fd;

	e->dial_ms = 0;
	/* some bytes come at once: they show that the two have met */
	e->quota = e->total < HELLO || (e->m->manner >= MANNER_KEPT && !answers(e)) ? e->total : HELLO;
	fd = tcp_try_dial(l->conf.dial, ++l->source);
	if (fd < 0) {
		end_failed(e, strerror(-fd));
		return;
	}
	e->ev.fd = fd;
	e->events = EPOLLIN;
	loop_add(l->ep, &e->ev, e->events);
	/* a fresh socket takes so few; who refuses them shows it on reading */
	(void)!send(e->ev.fd, e->m->token, TOKEN, MSG_NOSIGNAL);
	end_send(e);
	end_arm(e);
}

void
end_may_dial(struct end *e, uint64_t ms)
{
	e->may_dial = true;
	if (ms)
		e->dial_ms = e->m->load->now_ms + (int64_t)ms;
	else
		end_dial(e);
}

static void
end_note_stall(struct end *e)
{
	struct totals *t = meeting_totals(e->m);
	int64_t ms = e->m->load->now_ms - e->progress_ms;

	if (e->m->state == MEETING_JOINED && e->peer->sent > e->got && !is_slow(e) && ms > t->stall_ms)
		t->stall_ms = ms;
}

static void
end_tick(struct end *e)
{
	struct load *l = e->m->load;

	if (e->dial_ms && l->now_ms >= e->dial_ms)
		end_dial(e);
	if (e->ev.fd < 0)
		return;
	if (e->m->state == MEETING_JOINED && !e->has_ended && e->sent < e->total) {
		if (l->is_ending) {
			if (e->total == UINT64_MAX)
				e->total = e->sent + e->quota + load_random(l, 2000);
			if (!answers(e))
				e->quota = e->total - e->sent;
		} else if (!answers(e) && l->now_ms >= e->next_ms && !e->quota) {
			e->quota = burst_of(e);
			e->next_ms = l->now_ms + gap_of(e);
		}
		if (e->quota > e->total - e->sent)
			e->quota = e->total - e->sent;
	}
	if (l->is_ending)
		e->read_ms = 0;
	end_note_stall(e);
	end_send(e);
	end_arm(e);
}

void
meeting_tick(struct meeting *m)
{
	struct load *l = m->load;

	if (m->state == MEETING_ASKED && l->now_ms - m->asked_ms > l->meet_ms) {
		meeting_lost(&m->a, &meeting_totals(m)->unmet, "unmet", "no meeting in time");
		return;
	}
	if (m->state == MEETING_ASKED || m->state == MEETING_JOINED)
		end_tick(&m->a);
	if (m->state == MEETING_ASKED || m->state == MEETING_JOINED)
		end_tick(&m->b);
}
