/* test_worker.c - one worker against a master played by this program
 *
 * The worker is this very file exec'ed again with `worker SLOT GEN`, as the
 * proxy does it; so the test needs no settings, no TLS and no master.
 */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "hyper/base/clock.h"
#include "hyper/base/fd.h"
#include "hyper/base/log.h"
#include "hyper/proxy/programs.h"
#include "hyper/proxy/toktab.h"
#include "hyper/proxy/worker_abi.h"
#include "hyper/wire/chanmsg.h"
#include "hyper/wire/token.h"
#include "proxy/shared/toktab_layout.h"

#define GEN     7u
#define WAIT_MS 10000 /* nothing takes long; this is when the test gives up */

struct master {
	pid_t pid;
	int chan, listener, table_fd;
	uint16_t port;
	struct toktab *table;
	struct worker_stats *stats;
	uint64_t pairs;
	struct chan_settings settings;
};

static struct master m; /* of the running test */

/* --- what a master does ----------------------------------------------------- */

static void
child_exec(int chan, int stats, rlim_t fds)
{
	const int want[] = { chan, m.table_fd, stats, m.listener };
	struct rlimit rl = { fds, fds };
	int high[4];

	for (int i = 0; i < 4; i++)
		high[i] = fcntl(want[i], F_DUPFD, 100);
	for (int i = 0; i < 4; i++)
		dup2(high[i], WORKER_FD_CHANNEL + i);
	if (fds > 0)
		setrlimit(RLIMIT_NOFILE, &rl);
	execl("/proc/self/exe", "test_worker", "worker", "2", "7", NULL);
	_exit(127);
}

static int
listen_any(uint16_t *port)
{
	struct sockaddr_in sin = {
		.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = *port
	};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1;
	socklen_t len = sizeof(sin);

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(fd, (struct sockaddr *)&sin, sizeof(sin)) < 0 || listen(fd, 1024) < 0) {
		close(fd);
		return -1;
	}
	getsockname(fd, (struct sockaddr *)&sin, &len);
	*port = sin.sin_port;
	return fd;
}

/* `table_fd` -1: the usual one. `fds` 0: no limit. */
static void
spawn(int table_fd, rlim_t fds)
{
	int sv[2], stats = memfd_create("stats", MFD_CLOEXEC);

	m = (struct master){ .settings = { .accept_timeout_ms = 8000,
				 .max_unauthenticated = 1000,
				 .max_pairs = 1000,
				 .pipe_size = 65536,
				 .copy_mode = getenv("T_COPY") && *getenv("T_COPY") == '1',
				 .log_level = LOG_LVL_DEBUG } };
	assert_int_equal(toktab_new(512, &m.table), 0);
	m.table_fd = table_fd >= 0 ? table_fd : toktab_fd(m.table);
	m.listener = listen_any(&m.port);
	assert_int_equal(ftruncate(stats, sizeof(*m.stats)), 0);
	m.stats = mmap(NULL, sizeof(*m.stats), PROT_READ, MAP_SHARED, stats, 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv), 0);
	m.pid = fork();
	assert_true(m.pid >= 0);
	if (m.pid == 0)
		child_exec(sv[1], stats, fds);
	close(sv[1]);
	close(stats);
	m.chan = sv[0];
}

/* The next message within the time; 0 none, -1 the channel's end. */
static int
try_recv(struct chan_msg *ret, int *ret_fd, int ms)
{
	struct pollfd p = { .fd = m.chan, .events = POLLIN };
	uint8_t buf[CHAN_MSG_MAX];
	ssize_t n;

	*ret_fd = -1;
	if (poll(&p, 1, ms) <= 0)
		return 0;
	n = fd_recv(m.chan, buf, sizeof(buf), ret_fd, NULL);
	if (n <= 0)
		return -1;
	assert_int_equal(chan_unpack(buf, (size_t)n, ret), 0);
	assert_int_equal(ret->gen, GEN);
	assert_int_equal(chan_has_fd(ret->type), *ret_fd >= 0);
	assert_int_equal(ret->type % 2, 1);
	return 1;
}

static struct chan_msg
expect(enum chan_type type, int *ret_fd)
{
	struct chan_msg msg;
	int fd;

	if (try_recv(&msg, &fd, WAIT_MS) != 1)
		fail_msg("no %s came", chan_type_name(type));
	if (msg.type != type)
		fail_msg("%s instead of %s", chan_type_name(msg.type), chan_type_name(type));
	if (ret_fd)
		*ret_fd = fd;
	else if (fd >= 0)
		close(fd);
	return msg;
}

static void
expect_nothing(int ms)
{
	struct chan_msg msg;
	int fd;

	assert_int_equal(try_recv(&msg, &fd, ms), 0);
}

static void
send_msg(struct chan_msg msg, int fd)
{
	uint8_t buf[CHAN_MSG_MAX];
	int len;

	if (msg.gen == 0)
		msg.gen = GEN;
	len = chan_pack(&msg, buf);
	assert_true(len > 0);
	assert_int_equal(fd_send(m.chan, buf, (size_t)len, fd), 0);
}

static void
send_settings(void)
{
	send_msg((struct chan_msg){ .type = CHAN_SETTINGS, .settings = m.settings }, -1);
}

static void
start(void)
{
	spawn(-1, 0);
	assert_int_equal(expect(CHAN_READY, NULL).pid, m.pid);
	send_settings();
}

static int
wait_exit(void)
{
	int status;

	for (int i = 0; i < WAIT_MS / 10; i++) {
		if (waitpid(m.pid, &status, WNOHANG) == m.pid) {
			m.pid = -1;
			return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
		}
		poll(NULL, 0, 10);
	}
	return -1;
}

static void
stop(void)
{
	struct chan_msg msg;
	int fd;

	send_msg((struct chan_msg){ .type = CHAN_STOP }, -1);
	assert_int_equal(wait_exit(), 0);
	assert_int_equal(try_recv(&msg, &fd, 0), -1); /* and it left nothing unsaid */
}

static int
teardown(void **state)
{
	(void)state;
	if (m.pid > 0) {
		kill(m.pid, SIGKILL);
		waitpid(m.pid, NULL, 0);
	}
	if (m.stats)
		munmap(m.stats, sizeof(*m.stats));
	toktab_free(m.table);
	fd_close(&m.chan);
	fd_close(&m.listener);
	m = (struct master){ .pid = -1, .chan = -1, .listener = -1 };
	return 0;
}

#define UNTIL(cond)                                                         \
	do {                                                                \
		int64_t until_ = clock_now_ms() + WAIT_MS;                  \
		while (!(cond)) {                                           \
			if (clock_now_ms() > until_)                        \
				fail_msg("not within the time: %s", #cond); \
			poll(NULL, 0, 2);                                   \
		}                                                           \
	} while (0)

#define STAT(field) __atomic_load_n(&m.stats->field, __ATOMIC_RELAXED)

/* --- what peers do ----------------------------------------------------------- */

static int
dial(void)
{
	struct sockaddr_in sin = {
		.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = m.port
	};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;

	assert_int_equal(connect(fd, (struct sockaddr *)&sin, sizeof(sin)), 0);
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	return fd;
}

static void
put(int fd, const void *data, size_t len)
{
	assert_int_equal(send(fd, data, len, MSG_NOSIGNAL), (ssize_t)len);
}

/* "eof", "reset", "timeout", or what came. */
static const char *
get(int fd, int ms)
{
	static char buf[256];
	struct pollfd p = { .fd = fd, .events = POLLIN };
	ssize_t n;

	if (poll(&p, 1, ms) <= 0)
		return "timeout";
	n = recv(fd, buf, sizeof(buf) - 1, 0);
	if (n < 0)
		return errno == ECONNRESET ? "reset" : "error";
	if (n == 0)
		return "eof";
	buf[n] = '\0';
	return buf;
}

static struct token
issue(int64_t deadline_ns, uint32_t *ret_slot)
{
	struct toktab_rec rec = { .deadline_ns = deadline_ns };
	uint32_t gen, slot;
	struct token t;

	token_new(&t);
	token_hash(&t, rec.hash);
	assert_int_equal(toktab_issue(m.table, &rec, ret_slot ? ret_slot : &slot, &gen), 0);
	return t;
}

static struct chan_msg
expect_arrived(const struct token *t, int *ret_fd)
{
	struct chan_msg msg = expect(CHAN_ARRIVED, ret_fd);
	uint8_t hash[32];

	token_hash(t, hash);
	assert_memory_equal(msg.hash, hash, sizeof(hash));
	return msg;
}

static int
park(const struct token *t, int *ret_client)
{
	struct chan_msg msg;
	int fd;

	*ret_client = dial();
	put(*ret_client, t->bytes, TOKEN_LEN);
	msg = expect_arrived(t, &fd);
	send_msg((struct chan_msg){ .type = CHAN_PARKED, .conn = msg.conn }, -1);
	UNTIL(STAT(waiting) == 0);
	return fd;
}

static uint64_t
send_pair(uint64_t conn, int *first_fd)
{
	struct chan_msg msg = { .type = CHAN_PAIR, .conn = conn, .pair = ++m.pairs, .session = "0123456789ab" };

	send_msg(msg, *first_fd);
	return msg.pair;
}

/* Both peers joined; returns the pair's number. */
static uint64_t
make_pair(int *ret_first, int *ret_second)
{
	struct token t = issue(INT64_MAX, NULL);
	int parked = park(&t, ret_first), dup_fd;
	struct chan_msg msg;
	uint64_t pair;

	*ret_second = dial();
	put(*ret_second, t.bytes, TOKEN_LEN);
	msg = expect_arrived(&t, &dup_fd);
	pair = send_pair(msg.conn, &parked);
	assert_int_equal(expect(CHAN_PAIRED, NULL).pair, pair);
	close(parked);
	close(dup_fd);
	return pair;
}

/* --- the tests --------------------------------------------------------------- */

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
	close(parked);
	assert_string_equal(get(client, WAIT_MS), "eof");
	close(client);
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

static void
heartbeat(void **state)
{
	uint64_t before;

	(void)state;
	start();
	UNTIL(STAT(heartbeat_ns) > 0);
	poll(NULL, 0, 100);
	before = STAT(heartbeat_ns);
	UNTIL(STAT(heartbeat_ns) > before);
	assert_true(STAT(heartbeat_ns) - before < 1500u * 1000 * 1000);
	stop();
}

/* --- a master that is wrong, late, or of another generation ------------------- */

static void
send_raw(const void *data, size_t len, int fd)
{
	assert_int_equal(fd_send(m.chan, data, len, fd), 0);
}

static void
wrong_messages(void **state)
{
	static const struct {
		const char *what;
		struct chan_msg msg;
		bool fd, early;
	} cases[] = {
		{ "a worker's message", { .type = CHAN_READY }, false, false },
		{ "PARKED with a descriptor", { .type = CHAN_PARKED, .conn = 1 }, true, false },
		{ "PAIR without a descriptor", { .type = CHAN_PAIR, .pair = 1, .session = "0123456789ab" }, false,
		    false },
		{ "PAIR before SETTINGS", { .type = CHAN_PAIR, .pair = 1, .session = "0123456789ab" }, true, true },
		{ "PARKED before SETTINGS", { .type = CHAN_PARKED, .conn = 1 }, false, true },
	};
	int null_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		spawn(-1, 0);
		expect(CHAN_READY, NULL);
		if (!cases[i].early)
			send_settings();
		send_msg(cases[i].msg, cases[i].fd ? null_fd : -1);
		if (wait_exit() != 1)
			fail_msg("%s", cases[i].what);
		teardown(state);
	}
	start();
	send_raw("\x93\x01\x0c", 3, -1); /* cut */
	assert_int_equal(wait_exit(), 1);
	teardown(state);
	start();
	send_raw("\xdd\xff\xff\xff\xff", 5, null_fd); /* array32 of four billion, and a descriptor */
	assert_int_equal(wait_exit(), 1);
	close(null_fd);
}

static void
pair_twice(void **state)
{
	int first, second;

	(void)state;
	start();
	make_pair(&first, &second);
	m.pairs--;
	send_pair(99, &first);
	assert_string_equal(get(second, WAIT_MS), "reset");
	assert_int_equal(wait_exit(), 1);
	close(first);
	close(second);
}

static void
old_generation_and_late_answers(void **state)
{
	struct chan_msg msg;
	int sv[2];
	uint64_t pair;

	(void)state;
	start();
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
	send_msg((struct chan_msg){ .type = CHAN_STOP, .gen = GEN - 1 }, -1);
	send_msg((struct chan_msg){ .type = CHAN_PAIR, .gen = GEN - 1, .pair = 5, .session = "0123456789ab" }, sv[1]);
	send_msg((struct chan_msg){ .type = CHAN_PARKED, .conn = 4711 }, -1);
	send_msg((struct chan_msg){ .type = CHAN_REFUSED, .conn = 4711, .reason = END_BUSY }, -1);
	/* PAIR for a connection that is no more: the master must hear of it, once. */
	pair = send_pair(4711, &sv[1]);
	close(sv[1]);
	msg = expect(CHAN_ENDED, NULL);
	assert_int_equal(msg.pair, pair);
	assert_int_equal(msg.reason, END_DEADLINE);
	assert_string_equal(get(sv[0], WAIT_MS), "eof"); /* no copy was kept */
	expect_nothing(50);
	close(sv[0]);
	stop();
}

/* --- resources ----------------------------------------------------------------- */

/* The table's writer is inside: the look-up is tried again, not refused. */
static void
lookup_meets_the_writer(void **state)
{
	struct toktab *t = NULL;
	struct toktab_rec rec = { .deadline_ns = INT64_MAX };
	struct toktab_head head;
	struct toktab_record *records;
	struct token token;
	uint32_t slot, gen;
	char *from, *to;
	int copy = memfd_create("copy", MFD_CLOEXEC | MFD_ALLOW_SEALING), client;

	(void)state;
	token_new(&token);
	token_hash(&token, rec.hash);
	assert_int_equal(toktab_new(4, &t), 0);
	assert_int_equal(toktab_issue(t, &rec, &slot, &gen), 0);
	assert_int_equal(pread(toktab_fd(t), &head, sizeof(head), 0), sizeof(head));
	assert_int_equal(ftruncate(copy, (off_t)head.size), 0);
	from = mmap(NULL, head.size, PROT_READ, MAP_SHARED, toktab_fd(t), 0);
	to = mmap(NULL, head.size, PROT_READ | PROT_WRITE, MAP_SHARED, copy, 0);
	memcpy(to, from, head.size);
	records = (struct toktab_record *)(to + head.records_off);
	assert_int_equal(fcntl(copy, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW), 0);
	__atomic_add_fetch(&records[slot].seq, 1, __ATOMIC_RELEASE);

	spawn(copy, 0);
	expect(CHAN_READY, NULL);
	send_settings();
	client = dial();
	put(client, token.bytes, TOKEN_LEN);
	UNTIL(STAT(accepted) == 1);
	expect_nothing(50);
	__atomic_add_fetch(&records[slot].seq, 1, __ATOMIC_RELEASE);
	expect_arrived(&token, NULL);
	stop();
	close(client);
	munmap(from, head.size);
	munmap(to, head.size);
	close(copy);
	toktab_free(t);
}

/* Nobody reads the channel: nothing is lost, nothing is accepted beyond the cap. */
static void
master_is_slow(void **state)
{
	enum { N = 400 };
	static int client[N];
	static struct token t[N];
	int size = 4096;

	(void)state;
	start();
	(void)size;
	for (int i = 0; i < N; i++) {
		t[i] = issue(INT64_MAX, NULL);
		client[i] = dial();
		put(client[i], t[i].bytes, TOKEN_LEN);
	}
	UNTIL(STAT(waiting) >= 250 || STAT(accepted) == N);
	poll(NULL, 0, 50);
	assert_in_range(STAT(waiting), 1, 256 + 16);
	for (int i = 0; i < N; i++) {
		struct chan_msg msg = expect_arrived(&t[i], NULL); /* in order */

		send_msg((struct chan_msg){ .type = CHAN_PARKED, .conn = msg.conn }, -1);
	}
	UNTIL(STAT(waiting) == 0);
	for (int i = 0; i < N; i++)
		close(client[i]);
	stop();
}

/* At the descriptor limit: accepting pauses, what is waiting still gets its pair, and it goes on by itself. */
static void
descriptors_used_up(void **state)
{
	enum { N = 24 };
	int client[N], first[2], second[2], parked[2], dup_fd;
	struct token t[2];
	struct chan_msg msg[2];
	uint64_t accepted;

	(void)state;
	spawn(-1, 24); /* twelve or so are in use */
	expect(CHAN_READY, NULL);
	m.settings.accept_timeout_ms = 1500;
	send_settings();
	for (int i = 0; i < 2; i++) {
		t[i] = issue(INT64_MAX, NULL);
		parked[i] = park(&t[i], &first[i]);
	}
	for (int i = 0; i < 2; i++) {
		second[i] = dial();
		put(second[i], t[i].bytes, TOKEN_LEN);
		msg[i] = expect_arrived(&t[i], &dup_fd);
		close(dup_fd);
	}
	for (int i = 0; i < N; i++)
		client[i] = dial(); /* silent: they take all descriptors */
	poll(NULL, 0, 300);
	accepted = STAT(accepted);
	assert_true(accepted < 4 + N);
	for (int i = 0; i < 2; i++)
		send_pair(msg[i].conn, &parked[i]);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(expect(CHAN_PAIRED, NULL).pair, i + 1);
		close(parked[i]);
		put(first[i], "through", 7);
		assert_string_equal(get(second[i], WAIT_MS), "through");
	}
	UNTIL(STAT(accepted) == 4 + N); /* as the silent ones were closed */
	for (int i = 0; i < N; i++)
		close(client[i]);
	for (int i = 0; i < 2; i++) {
		close(first[i]);
		close(second[i]);
		assert_int_equal(expect(CHAN_ENDED, NULL).reason, END_CLOSED);
	}
	stop();
}

/* Started by hand, or by a master with a bug: it says what is missing and ends. */
static void
wrong_descriptors(void **state)
{
	int file = open("/dev/null", O_RDONLY | O_CLOEXEC);

	(void)state;
	spawn(file, 0);
	assert_int_equal(wait_exit(), 1);
	close(file);
}

int
main(int argc, char **argv)
{
#define T(f) cmocka_unit_test_teardown(f, teardown)
	const struct CMUnitTest tests[] = {
		T(waits_for_settings),
		T(token_in_pieces),
		T(token_byte_by_byte),
		T(pair_with_glued_payload),
		T(reset_passes_through_duplicates),
		T(bad_tokens),
		T(silent_and_dripping),
		T(cap_drops_the_oldest),
		T(pairs_are_capped),
		T(killed_worker_leaves_parked_socket),
		T(master_gone),
		T(signals_mean_nothing),
		T(drain_then_stop),
		T(stop_resets_pairs),
		T(heartbeat),
		T(wrong_messages),
		T(pair_twice),
		T(old_generation_and_late_answers),
		T(lookup_meets_the_writer),
		T(master_is_slow),
		T(descriptors_used_up),
		T(wrong_descriptors),
	};
	const char *log = getenv("T_WORKER_LOG");

	if (argc == 4 && strcmp(argv[1], "worker") == 0) {
		int fd = open(log ? log : "/dev/null", O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);

		dup2(fd, 2);
		return proxy_worker_run((unsigned)atoi(argv[2]), (uint32_t)atoi(argv[3]));
	}
	m = (struct master){ .pid = -1, .chan = -1, .listener = -1 };
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
