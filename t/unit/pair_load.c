/* pair_load.c - load for tests of the proxy: many pairs with real tokens, random payload both ways, every byte compared
 *
 *   pair_load dial=PORT rpc=PORT hyper=PORT [pairs=N] [churn=N] [total=N] [bytes=N] [rate=N] [seconds=N] [seed=N] ...
 *
 * It plays A, A's side of P, P's hyper and B (as bench/broker.c does). `pairs` are made first and last to the end, in
 * all manners of pair_stream.c; then a line with ` ready ` and, for `seconds` or until TERM, `churn` short ones at the
 * same time beside them (`total` of them at most). With `ahead=1` the line comes when all tokens are there, the parties
 * wait for USR1, and `met` is said when all have met. Then all streams come to their ends. The last line is `sum` and JSON.
 *
 * A pair that is lost is counted and the load goes on; so it does when the master is gone. What the control plane must
 * not do (an answer without a token, while it lives) ends the program with status 1.
 *
 * Always true: one thread, one loop; 2 x (pairs + churn) connections at most; it ends at `seconds` + `meet` + `end`.
 */
#include "pair_load.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "hyper/base/clock.h"
#include "hyper/base/fd.h"

#define SLOTS   32 /* requests at the same time */
#define TICK_MS 5
#define NAME    "\"name\":\"hd-1\""

static struct load load;
static volatile sig_atomic_t was_told_to_end, was_told_to_go;

/* The control plane. */
static struct plane {
	struct ev listener;
	struct http *slot[SLOTS]; /* ->arg: the meeting that is asked for, NULL: free */
	struct http *hypers;      /* connections of the proxy to its hyper */
	size_t next;              /* meeting to ask for, of the kept ones */
	bool is_gone;
} plane;

/* --- control plane --- */

/* Nobody dials yet. */
static bool
is_ahead(void)
{
	return load.ahead && !load.has_gone;
}

static void
ask(struct http *h, struct meeting *m)
{
	char body[1024];

	snprintf(body, sizeof(body),
	    "{\"jsonrpc\":\"2.0\",\"method\":\"requestConnection\",\"params\":{\"to\":\"m%zu\",\"channel\":\"grpc_"
	    "server\","
	    "\"_client\":{" NAME ",\"entry\":{" NAME
	    ",\"groups\":[],\"channels\":[{\"type\":\"grpc_client\",\"settings\":"
	    "null}],\"services\":[],\"certificates\":[],\"settings\":[],\"preferences\":[],\"records\":null,"
	    "\"properties\":null}}},\"id\":\"1\"}",
	    m->no);
	h->arg = m;
	meeting_totals(m)->asked++;
	http_request(h, "proxy", body);
}

static void
on_answer(struct http *h, char *body, size_t len)
{
	struct meeting *m = h->arg;

	(void)len;
	plane_token(body, m->token);
	h->arg = NULL;
	load.n_tokens++;
	if (is_ahead())
		return;
	if (m->state == MEETING_ASKED && !m->a.may_dial)
		end_may_dial(&m->a, 0);
}

/* "method":"m17._connectionRequest" */
static struct meeting *
meeting_of(const char *body)
{
	const char *p = strstr(body, "\"method\":\"m");
	size_t no = p ? strtoul(p + 11, NULL, 10) : SIZE_MAX;

	if (no >= load.n_meetings)
		bench_die("who is meant by: %.400s", body);
	return &load.meetings[no];
}

/* Last member of the request: its id, which is ours to give back. */
static void
on_told(struct http *h, char *body, size_t len)
{
	struct meeting *m = meeting_of(body);

	(void)len;
	plane_token(body, m->token);
	plane_confirm(h, body);
	if (is_ahead())
		return;
	/* b first, or a, or both at once */
	if (m->state == MEETING_ASKED && !m->b.may_dial)
		end_may_dial(&m->b, load_random(&load, 2) ? 0 : load_random(&load, 30));
}

static void
on_hyper_end(struct http *h)
{
	struct http **at = &plane.hypers;

	while (*at != h)
		at = &(*at)->next;
	*at = h->next;
	http_free(h);
}

static void on_slot_end(struct http *);

/* False: nobody listens any more. */
static bool
slot_open(struct http **ret)
{
	int fd = tcp_try_dial(load.conf.rpc, 0);

	if (fd < 0)
		return false;
	*ret = http_new(load.ep, fd, NULL, true);
	(*ret)->on_message = on_answer;
	(*ret)->on_end = on_slot_end;
	return true;
}

/* An idle one is closed after a while. What it had asked for and got no answer to is asked again, as HTTP clients do
 * on a connection that was kept. If the master is gone, nothing more is asked. */
static void
on_slot_end(struct http *h)
{
	struct meeting *m = h->arg;

	for (size_t i = 0; i < SLOTS; i++) {
		if (plane.slot[i] != h)
			continue;
		plane.slot[i] = NULL;
		if (!slot_open(&plane.slot[i]))
			plane.is_gone = true;
		else if (m && m->state == MEETING_ASKED) {
			meeting_totals(m)->asked--;
			ask(plane.slot[i], m);
		}
	}
	http_free(h);
}

static void
on_connection(struct ev *ev, uint32_t events)
{
	int fd;

	(void)events;
	while ((fd = fd_accept(ev->fd)) >= 0) {
		struct http *h;

		tcp_tune(fd);
		h = http_new(load.ep, fd, NULL, false);
		h->on_message = on_told;
		h->on_end = on_hyper_end;
		h->next = plane.hypers;
		plane.hypers = h;
	}
	if (fd != -EAGAIN)
		bench_die("accept: %s", strerror(-fd));
}

static void
plane_open(void)
{
	plane.listener = (struct ev){ tcp_listen(load.conf.hyper), on_connection };
	loop_add(load.ep, &plane.listener, EPOLLIN);
	for (size_t i = 0; i < SLOTS; i++)
		if (!slot_open(&plane.slot[i]))
			bench_die("nobody listens at the JSON-RPC port %u", load.conf.rpc);
}

static void
plane_close(void)
{
	for (size_t i = 0; i < SLOTS; i++)
		if (plane.slot[i])
			http_free(plane.slot[i]);
	while (plane.hypers)
		on_hyper_end(plane.hypers);
	fd_close(&plane.listener.fd);
}

/* --- meetings --- */

void
load_on_over(struct meeting *m)
{
	(void)m;
	load.n_open--;
}

/* What is to be asked for next, NULL: nothing now. */
static struct meeting *
next_meeting(void)
{
	if (plane.next < load.kept)
		return &load.meetings[plane.next++];
	if (load.is_ending || load.kept_totals.paired < load.kept ||
	    (load.churn_total && load.churn_started == load.churn_total))
		return NULL;
	for (size_t i = load.kept; i < load.n_meetings; i++)
		if (load.meetings[i].state == MEETING_NONE)
			return &load.meetings[i];
	return NULL;
}

static bool
is_asked_for(const struct meeting *m)
{
	for (size_t i = 0; i < SLOTS; i++)
		if (plane.slot[i] && plane.slot[i]->arg == m)
			return true;
	return false;
}

static void
ask_more(void)
{
	for (size_t i = load.kept; i < load.n_meetings; i++)
		if (load.meetings[i].state == MEETING_OVER && !is_asked_for(&load.meetings[i]))
			load.meetings[i].state = MEETING_NONE;
	for (size_t i = 0; i < SLOTS && !plane.is_gone; i++) {
		struct meeting *m;

		if (!plane.slot[i] || plane.slot[i]->arg)
			continue;
		m = next_meeting();
		if (!m)
			return;
		if (m->no >= load.kept)
			load.churn_started++;
		load.n_open++;
		meeting_begin(m, m->no < load.kept ? m->no % MANNER_KEPT
						   : MANNER_KEPT + load_random(&load, MANNER_MAX - MANNER_KEPT));
		ask(plane.slot[i], m);
	}
}

static void
on_signal(int sig)
{
	if (sig == SIGTERM)
		was_told_to_end = 1;
	else
		was_told_to_go = 1;
}

/* All tokens are there: says so, and lets everybody dial at once when told to. */
static void
go_on(void)
{
	if (load.n_tokens == load.kept && !load.has_said_tokens) {
		load.has_said_tokens = true;
		printf("load ready tokens=%zu\n", load.n_tokens);
		fflush(stdout);
	}
	if (!was_told_to_go || !load.has_said_tokens)
		return;
	load.has_gone = true;
	for (size_t i = 0; i < load.kept; i++) {
		struct meeting *m = &load.meetings[i];

		m->asked_ms = load.now_ms;
		end_may_dial(&m->b, load_random(&load, 2) ? 0 : load_random(&load, 30));
		end_may_dial(&m->a, load_random(&load, 2) ? 0 : load_random(&load, 30));
	}
}

/* All short ones that were asked for have come to an end. */
static bool
is_churn_over(void)
{
	if (!load.churn_total || load.churn_started < load.churn_total)
		return false;
	for (size_t i = load.kept; i < load.n_meetings; i++)
		if (load.meetings[i].state == MEETING_ASKED || load.meetings[i].state == MEETING_JOINED)
			return false;
	return true;
}

/* Until it is over: all pairs made, then `seconds`, then all ends. */
static bool
turn(int64_t start_ms, bool *is_ready, int64_t *stop_ms)
{
	load.now_ms = clock_now_ms();
	ask_more();
	if (is_ahead())
		go_on();
	for (size_t i = 0; i < load.n_meetings && !is_ahead(); i++)
		meeting_tick(&load.meetings[i]);
	ask_more();
	if (!*is_ready && !is_ahead() &&
	    (load.kept_totals.paired + load.kept_totals.unmet == load.kept || plane.is_gone)) {
		*is_ready = true;
		*stop_ms = load.now_ms + (int64_t)(load.conf.seconds * 1000);
		printf("load %s pairs=%zu ms=%lld\n", load.ahead ? "met" : "ready", load.kept_totals.paired,
		    (long long)(load.now_ms - start_ms));
		fflush(stdout);
	}
	if (was_told_to_end || (*is_ready && (load.now_ms >= *stop_ms || is_churn_over()))) {
		if (!load.is_ending) {
			load.is_ending = true;
			*stop_ms = load.now_ms;
		}
		return load.n_open > 0 && load.now_ms < *stop_ms + load.end_ms;
	}
	return true;
}

static void
print_totals(const char *name, const struct totals *t)
{
	printf("\"%s\":{\"asked\":%zu,\"paired\":%zu,\"lost\":%zu,\"wrong\":%zu,\"unmet\":%zu,\"false_ends\":%zu,"
	       "\"again\":%zu,"
	       "\"done\":%zu,\"bytes\":%llu,\"stall_ms\":%lld},",
	    name, t->asked, t->paired, t->lost, t->wrong, t->unmet, t->false_ends, t->again, t->done,
	    (unsigned long long)t->bytes, (long long)t->stall_ms);
}

static int
run(void)
{
	int64_t start_ms = clock_now_ms(), stop_ms = 0;
	bool is_ready = false;

	load.now_ms = start_ms;
	load.ep = loop_new();
	plane_open();
	while (turn(start_ms, &is_ready, &stop_ms))
		loop_turn(load.ep, TICK_MS);
	for (size_t i = 0; i < load.n_meetings; i++)
		meeting_hung(&load.meetings[i]);
	printf("sum {");
	print_totals("kept", &load.kept_totals);
	print_totals("churn", &load.churn_totals);
	printf("\"hung\":%zu,\"seed\":%llu,\"ms\":%lld}\n", load.n_open, (unsigned long long)load.seed,
	    (long long)(clock_now_ms() - start_ms));
	plane_close();
	fd_close(&load.ep);
	free(load.meetings);
	return 0;
}

/* --- command line --- */

static struct {
	double dial, rpc, hyper, pairs, churn, total, bytes, rate, seconds, meet, end, seed, ahead;
} option = { .bytes = 20000, .rate = 500000, .meet = 20, .end = 30 };

static void
set(const char *key, const char *value)
{
	const struct {
		const char *key;
		double *at, max;
	} keys[] = { { "dial", &option.dial, 65535 }, { "rpc", &option.rpc, 65535 }, { "hyper", &option.hyper, 65535 },
		{ "pairs", &option.pairs, 4000 }, { "churn", &option.churn, 500 }, { "total", &option.total, 1e6 },
		{ "bytes", &option.bytes, 1e7 }, { "rate", &option.rate, 1e9 }, { "seconds", &option.seconds, 3600 },
		{ "meet", &option.meet, 600 }, { "end", &option.end, 600 }, { "seed", &option.seed, 1e15 },
		{ "ahead", &option.ahead, 1 } };
	char *rest;

	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
		double v;

		if (strcmp(key, keys[i].key) != 0)
			continue;
		v = strtod(value, &rest);
		if (rest == value || *rest || v < 0 || v > keys[i].max)
			bench_die("%s=%s: expected a number from 0 to %.0f", key, value, keys[i].max);
		*keys[i].at = v;
		return;
	}
	bench_die("unknown key %s", key);
}

static void
load_init(void)
{
	load.conf.dial = (uint16_t)option.dial;
	load.conf.rpc = (uint16_t)option.rpc;
	load.conf.hyper = (uint16_t)option.hyper;
	load.conf.seconds = option.seconds;
	load.kept = (size_t)option.pairs;
	load.churn = (size_t)option.churn;
	load.ahead = option.ahead > 0;
	load.churn_total = (size_t)option.total;
	load.churn_bytes = (size_t)option.bytes;
	load.rate = (uint64_t)option.rate;
	load.meet_ms = (int64_t)(option.meet * 1000);
	load.end_ms = (int64_t)(option.end * 1000);
	load.seed = option.seed > 0 ? (uint64_t)option.seed : (uint64_t)clock_now_ns() / 1000 % 1000000007;
	load.random = load.seed;
	load.n_meetings = load.kept + load.churn;
	load.meetings = calloc(load.n_meetings, sizeof(*load.meetings));
	if (!load.meetings)
		bench_die("nothing to do: pairs and churn are 0, or no memory");
	for (size_t i = 0; i < load.n_meetings; i++) {
		load.meetings[i].load = &load;
		load.meetings[i].no = i;
		load.meetings[i].a.ev.fd = load.meetings[i].b.ev.fd = -1;
	}
}

int
main(int argc, char **argv)
{
	const struct sigaction told = { .sa_handler = on_signal }, ignore = { .sa_handler = SIG_IGN };
	struct rlimit rl;

	sigaction(SIGTERM, &told, NULL);
	sigaction(SIGUSR1, &told, NULL);
	sigaction(SIGPIPE, &ignore, NULL);
	if (getrlimit(RLIMIT_NOFILE, &rl) == 0) {
		rl.rlim_cur = rl.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &rl);
	}
	for (int i = 1; i < argc; i++) {
		char *eq = strchr(argv[i], '=');

		if (!eq)
			bench_die("%s: expected key=value", argv[i]);
		*eq = '\0';
		set(argv[i], eq + 1);
	}
	load_init();
	return run();
}
