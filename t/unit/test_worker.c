/* test_worker.c - one worker from the first token to the last pair */
#include "worker_fixture.h"

#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static void
waits_for_settings(void **state)
{
	struct token t;
	int client;

	(void)state;
	spawn(-1, 0);
	assert_int_equal(expect(CHAN_READY, NULL).pid, m.pid);
	t = issue(INT64_MAX, NULL);
	client = dial();
	put(client, t.bytes, TOKEN_LEN);
	expect_nothing(200);
	assert_int_equal(STAT(accepted), 0);
	send_settings();
	expect_arrived(&t, NULL);
	assert_int_equal(m.stats->magic, WORKER_STATS_MAGIC);
	assert_int_equal(m.stats->slot, 2);
	assert_int_equal(m.stats->gen, GEN);
	close(client);
	stop();
}

static void
token_in_pieces(void **state)
{
	(void)state;
	start();
	for (size_t n = 1; n < TOKEN_LEN; n++) {
		struct token t = issue(INT64_MAX, NULL);
		int client = dial();
		struct chan_msg msg;

		put(client, t.bytes, n);
		UNTIL(STAT(accepted) == n && STAT(unauthenticated) == 1); /* it has looked, and found n bytes */
		put(client, t.bytes + n, TOKEN_LEN - n);
		msg = expect_arrived(&t, NULL);
		send_msg((struct chan_msg){ .type = CHAN_REFUSED, .conn = msg.conn, .reason = END_QUOTA }, -1);
		assert_string_equal(get(client, WAIT_MS), "eof");
		close(client);
	}
	UNTIL(STAT(refused[END_QUOTA]) == TOKEN_LEN - 1);
	stop();
}

static void
token_byte_by_byte(void **state)
{
	struct token t;
	int client;

	(void)state;
	start();
	t = issue(INT64_MAX, NULL);
	client = dial();
	UNTIL(STAT(unauthenticated) == 1);
	for (size_t i = 0; i < TOKEN_LEN; i++) {
		put(client, t.bytes + i, 1);
		poll(NULL, 0, 1);
	}
	expect_arrived(&t, NULL);
	close(client);
	stop();
}

static void
pair_with_glued_payload(void **state)
{
	struct token t;
	char glued[TOKEN_LEN + 5];
	int first, second, parked, dup_fd;
	struct chan_msg msg;
	uint64_t pair;

	(void)state;
	start();
	t = issue(INT64_MAX, NULL);
	memcpy(glued, t.bytes, TOKEN_LEN);
	memcpy(glued + TOKEN_LEN, "HELLO", 5);
	first = dial();
	put(first, glued, sizeof(glued));
	msg = expect_arrived(&t, &parked);
	send_msg((struct chan_msg){ .type = CHAN_PARKED, .conn = msg.conn }, -1);
	memcpy(glued + TOKEN_LEN, "world", 5);
	second = dial();
	put(second, glued, sizeof(glued));
	msg = expect_arrived(&t, &dup_fd);
	pair = send_pair(msg.conn, &parked);
	assert_int_equal(expect(CHAN_PAIRED, NULL).pair, pair);
	assert_string_equal(get(first, WAIT_MS), "world");
	assert_string_equal(get(second, WAIT_MS), "HELLO");
	/* One byte wakes the worker: the low-water mark of the token is gone on both. */
	put(first, "x", 1);
	assert_string_equal(get(second, WAIT_MS), "x");
	put(second, "y", 1);
	assert_string_equal(get(first, WAIT_MS), "y");
	/* Half-close, although the test still holds duplicates of both. */
	shutdown(second, SHUT_WR);
	assert_string_equal(get(first, WAIT_MS), "eof");
	put(first, "after", 5);
	assert_string_equal(get(second, WAIT_MS), "after");
	close(first);
	assert_string_equal(get(second, WAIT_MS), "eof");
	msg = expect(CHAN_ENDED, NULL);
	assert_int_equal(msg.pair, pair);
	assert_int_equal(msg.reason, END_CLOSED);
	assert_int_equal(msg.bytes_ab, 6);  /* the second party's world, y */
	assert_int_equal(msg.bytes_ba, 11); /* HELLO, x, after */
	expect_nothing(50);                 /* exactly one end */
	close(second);
	close(parked);
	close(dup_fd);
	stop();
}

static void
reset_passes_through_duplicates(void **state)
{
	struct linger linger = { .l_onoff = 1 };
	int first, second;
	uint64_t pair;
	struct chan_msg msg;

	(void)state;
	start();
	pair = make_pair(&first, &second);
	setsockopt(first, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
	close(first);
	assert_string_equal(get(second, WAIT_MS), "reset");
	msg = expect(CHAN_ENDED, NULL);
	assert_int_equal(msg.pair, pair);
	assert_int_equal(msg.reason, END_RESET);
	close(second);
	stop();
}

static void
bad_tokens(void **state)
{
	struct token t;
	uint32_t slot;
	int client;

	(void)state;
	start();
	token_new(&t); /* never issued */
	client = dial();
	put(client, t.bytes, TOKEN_LEN);
	assert_string_equal(get(client, WAIT_MS), "eof");
	close(client);
	UNTIL(STAT(refused[END_UNKNOWN_TOKEN]) == 1);

	t = issue(clock_now_ns(), NULL); /* expired */
	client = dial();
	put(client, t.bytes, TOKEN_LEN);
	assert_string_equal(get(client, WAIT_MS), "eof");
	close(client);
	UNTIL(STAT(refused[END_UNKNOWN_TOKEN]) == 2);

	t = issue(INT64_MAX, &slot); /* used: the third connection */
	toktab_park(m.table, slot, 1);
	toktab_release(m.table, slot);
	client = dial();
	put(client, t.bytes, TOKEN_LEN);
	assert_string_equal(get(client, WAIT_MS), "eof");
	close(client);
	UNTIL(STAT(refused[END_UNKNOWN_TOKEN]) == 3);

	client = dial(); /* short */
	put(client, t.bytes, TOKEN_LEN - 1);
	shutdown(client, SHUT_WR);
	assert_string_equal(get(client, WAIT_MS), "eof");
	close(client);
	UNTIL(STAT(refused[END_SHORT_TOKEN]) == 1);

	client = dial(); /* a port check: nothing to blame anybody for */
	close(client);
	UNTIL(STAT(refused[END_PROBE]) == 1);
	assert_int_equal(STAT(refused[END_SHORT_TOKEN]), 1);
	expect_nothing(50); /* the master never heard of any of them */
	stop();
}

static void
silent_and_dripping(void **state)
{
	struct token t;
	int silent, drip;
	int64_t since;

	(void)state;
	spawn(-1, 0);
	expect(CHAN_READY, NULL);
	m.settings.accept_timeout_ms = 400;
	send_settings();
	t = issue(INT64_MAX, NULL);
	since = clock_now_ms();
	silent = dial();
	drip = dial();
	for (size_t i = 0; i < TOKEN_LEN - 1 && clock_now_ms() - since < 600; i++) {
		if (send(drip, t.bytes + i, 1, MSG_NOSIGNAL) < 0)
			break;
		poll(NULL, 0, 30);
	}
	assert_string_equal(get(silent, WAIT_MS), "eof");
	assert_true(clock_now_ms() - since >= 400);
	UNTIL(STAT(refused[END_SILENT]) == 2);
	assert_int_equal(STAT(unauthenticated), 0);
	close(silent);
	close(drip);
	stop();
}

static void
cap_drops_the_oldest(void **state)
{
	int client[5];

	(void)state;
	spawn(-1, 0);
	expect(CHAN_READY, NULL);
	m.settings.max_unauthenticated = 3;
	send_settings();
	for (uint64_t i = 0; i < 5; i++) {
		client[i] = dial();
		UNTIL(STAT(accepted) == i + 1);
	}
	assert_string_equal(get(client[0], WAIT_MS), "eof");
	assert_string_equal(get(client[1], WAIT_MS), "eof");
	for (int i = 2; i < 5; i++)
		assert_string_equal(get(client[i], 20), "timeout");
	assert_int_equal(STAT(unauthenticated), 3);
	assert_int_equal(STAT(refused[END_BUSY]), 2);
	for (int i = 0; i < 5; i++)
		close(client[i]);
	stop();
}

/* Over the limit of its address a connection is accepted and closed at once; another address is not concerned. */
static void
addresses_are_limited(void **state)
{
	struct sockaddr_in other = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1) };
	struct sockaddr_in sin = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int client[5], fd;

	(void)state;
	spawn(-1, 0);
	expect(CHAN_READY, NULL);
	m.settings.per_hour = 3;
	send_settings();
	while (clock_wall_utc_ns() / 1000000 % 3600000 > 3600000 - WAIT_MS)
		poll(NULL, 0, 10); /* not over the turn of an hour */
	for (int i = 0; i < 5; i++) {
		client[i] = dial();
		UNTIL(STAT(accepted) == (uint64_t)i + 1);
	}
	for (int i = 0; i < 3; i++)
		assert_string_equal(get(client[i], 20), "timeout");
	assert_string_equal(get(client[3], WAIT_MS), "eof");
	assert_string_equal(get(client[4], WAIT_MS), "eof");
	assert_int_equal(STAT(refused[END_RATE]), 2);
	assert_int_equal(STAT(unauthenticated), 3);
	fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&other, sizeof(other)), 0);
	sin.sin_port = m.port;
	assert_int_equal(connect(fd, (struct sockaddr *)&sin, sizeof(sin)), 0);
	UNTIL(STAT(unauthenticated) == 4);
	close(fd);
	for (int i = 0; i < 5; i++)
		close(client[i]);
	stop();
}

/* A new connection that comes with its token, in place of `old`. */
static int
dial_with(int old, const struct token *t)
{
	close(old);
	old = dial();
	put(old, t->bytes, TOKEN_LEN);
	return old;
}

/* Who is silent too often from one address loses his own oldest; another address keeps what it has. */
static void
silent_ones_of_an_address(void **state)
{
	int client[5], other;
	struct token t;

	(void)state;
	spawn(-1, 0);
	expect(CHAN_READY, NULL);
	m.settings.max_per_source = 3;
	send_settings();
	other = dial_from(9);
	UNTIL(STAT(unauthenticated) == 1);
	for (uint64_t i = 0; i < 5; i++) {
		client[i] = dial();
		UNTIL(STAT(accepted) == i + 2);
	}
	assert_string_equal(get(client[0], WAIT_MS), "eof");
	assert_string_equal(get(client[1], WAIT_MS), "eof");
	for (int i = 2; i < 5; i++)
		assert_string_equal(get(client[i], 20), "timeout");
	assert_string_equal(get(other, 20), "timeout");
	UNTIL(STAT(unauthenticated) == 4);
	UNTIL(STAT(refused[END_CROWDED]) == 2);
	/* With a token there is always room, and it costs nobody his place. */
	t = issue(INT64_MAX, NULL);
	kill(m.pid, SIGSTOP); /* so that it sees both at once */
	assert_int_equal(waitpid(m.pid, NULL, WUNTRACED), m.pid);
	client[0] = dial_with(client[0], &t);
	kill(m.pid, SIGCONT);
	expect_arrived(&t, NULL);
	assert_string_equal(get(client[2], 20), "timeout");
	for (int i = 0; i < 5; i++)
		close(client[i]);
	close(other);
	UNTIL(STAT(unauthenticated) == 0);
	stop();
}

/* `n` connections from 127.0.0.`source`, one after the other, with a token that nobody issued. */
static void
bad_ones(uint32_t source, uint64_t n)
{
	const uint8_t wrong[TOKEN_LEN] = { 1 };
	uint64_t before = STAT(refused[END_UNKNOWN_TOKEN]);

	for (uint64_t i = 0; i < n; i++) {
		int fd = dial_from(source);

		put(fd, wrong, sizeof(wrong));
		assert_string_equal(get(fd, WAIT_MS), "eof");
		close(fd);
	}
	UNTIL(STAT(refused[END_UNKNOWN_TOKEN]) == before + n);
}

/* One connection with a token, waited for until it is known what became of it. */
static bool
is_let_in(uint32_t source, const struct token *t)
{
	int fd = dial_from(source), came, r = 0;
	struct chan_msg msg = { .type = CHAN_READY };

	put(fd, t->bytes, TOKEN_LEN);
	UNTIL((r = try_recv(&msg, &came, 1)) != 0 || strcmp(get(fd, 1), "timeout") != 0);
	if (r != 0)
		assert_int_equal(msg.type, CHAN_ARRIVED);
	if (r == 1) {
		close(came);
		send_msg((struct chan_msg){ .type = CHAN_PARKED, .conn = msg.conn }, -1);
		UNTIL(STAT(waiting) == 0);
	}
	close(fd);
	return r == 1;
}

/* Too many bad tokens, and the address is closed at once for a while; others are served, and it is, too, afterwards. */
static void
bad_tokens_of_an_address(void **state)
{
	struct token t;

	(void)state;
	spawn(-1, 0);
	expect(CHAN_READY, NULL);
	m.settings.max_bad_tokens = 2;
	m.settings.barred_ms = 100 * WAIT_MS; /* however slow the machine is, it is not over before we have looked */
	send_settings();
	bad_ones(1, 3);
	t = issue(INT64_MAX, NULL);
	assert_false(is_let_in(1, &t)); /* a good one as well: nobody looks at it */
	UNTIL(STAT(refused[END_BARRED]) == 1);
	assert_true(is_let_in(9, &t));
	m.settings.barred_ms = 300;
	send_settings();
	bad_ones(8, 3);
	t = issue(INT64_MAX, NULL);
	UNTIL(is_let_in(8, &t));
	stop();
}

/* At max_pairs it accepts nothing, so that other workers can. */
static void
pairs_are_capped(void **state)
{
	int first, second, client;

	(void)state;
	spawn(-1, 0);
	expect(CHAN_READY, NULL);
	m.settings.max_pairs = 1;
	send_settings();
	make_pair(&first, &second);
	client = dial();
	poll(NULL, 0, 100);
	assert_int_equal(STAT(accepted), 2);
	close(first);
	close(second);
	expect(CHAN_ENDED, NULL);
	UNTIL(STAT(accepted) == 3);
	close(client);
	stop();
}

static void
killed_worker_leaves_parked_socket(void **state)
{
	struct token t;
	int client, parked;

	(void)state;
	start();
	t = issue(INT64_MAX, NULL);
	parked = park(&t, &client);
	kill(m.pid, SIGKILL);
	assert_int_equal(wait_exit(), 128 + SIGKILL);
	assert_string_equal(get(client, 100), "timeout");
	put(client, "still", 5);
	assert_string_equal(get(parked, WAIT_MS), "still");
	fd_finish(&parked);
	assert_string_equal(get(client, WAIT_MS), "eof");
	close(client);
}

/* A stream that the death of its worker cuts short must not look as if it had ended there. */
static void
killed_worker_resets_pairs(void **state)
{
	int first, second;

	(void)state;
	start();
	make_pair(&first, &second);
	put(first, "half a wor", 10);
	assert_string_equal(get(second, WAIT_MS), "half a wor");
	kill(m.pid, SIGKILL);
	assert_int_equal(wait_exit(), 128 + SIGKILL);
	assert_string_equal(get(first, WAIT_MS), "reset");
	assert_string_equal(get(second, WAIT_MS), "reset");
	close(first);
	close(second);
}

static void
master_gone(void **state)
{
	int first, second, waiting, silent, again = -1;
	struct token t;

	(void)state;
	start();
	make_pair(&first, &second);
	t = issue(INT64_MAX, NULL);
	waiting = dial();
	put(waiting, t.bytes, TOKEN_LEN);
	expect_arrived(&t, NULL);
	silent = dial();
	UNTIL(STAT(unauthenticated) == 1);
	fd_close(&m.chan);
	fd_close(&m.listener);
	UNTIL((again = listen_any(&m.port)) >= 0); /* a new master can bind at once */
	assert_string_equal(get(waiting, WAIT_MS), "eof");
	assert_string_equal(get(silent, WAIT_MS), "eof");
	put(first, "alive", 5);
	assert_string_equal(get(second, WAIT_MS), "alive");
	close(first);
	assert_string_equal(get(second, WAIT_MS), "eof");
	close(second);
	assert_int_equal(wait_exit(), 0);
	close(again);
	close(waiting);
	close(silent);
}

/* A new master may wait for us: an orphan without pairs leaves at once, not with its next heartbeat. */
static void
orphan_leaves_at_once(void **state)
{
	int first, second;
	int64_t since;

	(void)state;
	start();
	make_pair(&first, &second);
	fd_close(&m.chan);
	fd_close(&m.listener);
	poll(NULL, 0, 100); /* it sleeps again */
	close(first);
	assert_string_equal(get(second, WAIT_MS), "eof");
	since = clock_now_ms();
	close(second);
	assert_int_equal(wait_exit(), 0);
	assert_true(clock_now_ms() - since < 800);
}

static void
signals_mean_nothing(void **state)
{
	static const int sigs[] = { SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2, SIGPIPE };
	int first, second;

	(void)state;
	start();
	make_pair(&first, &second);
	for (size_t i = 0; i < sizeof(sigs) / sizeof(*sigs); i++)
		kill(m.pid, sigs[i]);
	put(first, "alive", 5);
	assert_string_equal(get(second, WAIT_MS), "alive");
	close(first);
	close(second);
	expect(CHAN_ENDED, NULL);
	stop();
}

static void
drain_then_stop(void **state)
{
	int first, second, late;
	uint64_t accepted;

	(void)state;
	start();
	make_pair(&first, &second);
	send_msg((struct chan_msg){ .type = CHAN_DRAIN }, -1);
	poll(NULL, 0, 50);
	accepted = STAT(accepted);
	late = dial(); /* the test still holds the listener */
	put(first, "alive", 5);
	assert_string_equal(get(second, WAIT_MS), "alive");
	expect_nothing(100);
	assert_int_equal(STAT(accepted), accepted);
	close(first);
	close(second);
	assert_int_equal(expect(CHAN_ENDED, NULL).reason, END_CLOSED);
	expect(CHAN_DRAINED, NULL);
	expect_nothing(50);
	close(late);
	stop();
}

static void
stop_resets_pairs(void **state)
{
	int first, second;
	struct chan_msg msg;
	uint64_t pair;

	(void)state;
	start();
	pair = make_pair(&first, &second);
	send_msg((struct chan_msg){ .type = CHAN_STOP }, -1);
	assert_string_equal(get(first, WAIT_MS), "reset");
	assert_string_equal(get(second, WAIT_MS), "reset");
	msg = expect(CHAN_ENDED, NULL);
	assert_int_equal(msg.pair, pair);
	assert_int_equal(msg.reason, END_STOPPED);
	assert_int_equal(wait_exit(), 0);
	close(first);
	close(second);
}

/* An idle worker wakes for its heartbeat and for nothing else, with a pair and a silent connection. */
static void
heartbeat(void **state)
{
	int first, second, silent;
	uint64_t before;
	long slept, cpu;

	(void)state;
	start();
	make_pair(&first, &second);
	silent = dial();
	UNTIL(STAT(unauthenticated) == 1);
	poll(NULL, 0, 100);
	before = STAT(heartbeat_ns);
	slept = sleeps();
	cpu = cpu_ms();
	UNTIL(STAT(heartbeat_ns) > before);
	assert_true(STAT(heartbeat_ns) - before < 1500u * 1000 * 1000);
	poll(NULL, 0, 500);
	assert_in_range(sleeps() - slept, 1, 4);
	assert_true(cpu_ms() - cpu < 100);
	close(first);
	close(second);
	close(silent);
	assert_int_equal(expect(CHAN_ENDED, NULL).reason, END_CLOSED);
	stop();
}

int
main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		T(waits_for_settings),
		T(token_in_pieces),
		T(token_byte_by_byte),
		T(pair_with_glued_payload),
		T(reset_passes_through_duplicates),
		T(bad_tokens),
		T(silent_and_dripping),
		T(cap_drops_the_oldest),
		T(addresses_are_limited),
		T(silent_ones_of_an_address),
		T(bad_tokens_of_an_address),
		T(pairs_are_capped),
		T(killed_worker_leaves_parked_socket),
		T(killed_worker_resets_pairs),
		T(master_gone),
		T(orphan_leaves_at_once),
		T(signals_mean_nothing),
		T(drain_then_stop),
		T(stop_resets_pairs),
		T(heartbeat),
	};

	return worker_main(argc, argv, tests, sizeof(tests) / sizeof(*tests));
}
