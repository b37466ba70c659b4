/* worker_fixture.c - plays the master of one worker */
#include "worker_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "hyper/base/log.h"
#include "hyper/proxy/programs.h"

#define LEDGER_SIZE worker_ledger_size(FIXTURE_PIPES, FIXTURE_SEATS)

struct master m = { .pid = -1, .chan = -1, .listener = -1 };

/* --- what a master does ----------------------------------------------------- */

static void
child_exec(int chan, int stats, int ledger, rlim_t fds)
{
	const int want[] = { chan, m.table_fd, stats, ledger, m.listener };
	struct rlimit rl = { fds, fds };
	int high[5];

	for (int i = 0; i < 5; i++)
		high[i] = fcntl(want[i], F_DUPFD, 100);
	for (int i = 0; i < 5; i++)
		dup2(high[i], WORKER_FD_CHANNEL + i);
	if (fds > 0)
		setrlimit(RLIMIT_NOFILE, &rl);
	execl("/proc/self/exe", "test_worker", "worker", "2", "7", NULL);
	_exit(127);
}

int
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
void
spawn(int table_fd, rlim_t fds)
{
	int sv[2], stats = memfd_create("stats", MFD_CLOEXEC), ledger = memfd_create("ledger", MFD_CLOEXEC);

	m = (struct master){ .settings = { .accept_timeout_ms = 8000,
				 .max_unauthenticated = 1000,
				 .max_pairs = 1000,
				 .pipe_size = 65536,
				 .copy_small = true,
				 .copy_mode = getenv("T_COPY") && *getenv("T_COPY") == '1',
				 .log_level = LOG_LVL_DEBUG } };
	assert_int_equal(toktab_new(512, &m.table), 0);
	m.table_fd = table_fd >= 0 ? table_fd : toktab_fd(m.table);
	m.listener = listen_any(&m.port);
	assert_int_equal(ftruncate(stats, sizeof(*m.stats)), 0);
	m.stats = mmap(NULL, sizeof(*m.stats), PROT_READ, MAP_SHARED, stats, 0);
	assert_int_equal(ftruncate(ledger, (off_t)LEDGER_SIZE), 0);
	m.ledger = mmap(NULL, LEDGER_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, ledger, 0);
	*m.ledger = (struct worker_ledger){ .magic = WORKER_LEDGER_MAGIC,
		.version = WORKER_LEDGER_VERSION,
		.n_pipes = FIXTURE_PIPES,
		.n_seats = FIXTURE_SEATS };
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv), 0);
	m.pid = fork();
	assert_true(m.pid >= 0);
	if (m.pid == 0)
		child_exec(sv[1], stats, ledger, fds);
	close(sv[1]);
	close(stats);
	close(ledger);
	m.chan = sv[0];
}

/* Messages and descriptors of the last datagram that nobody has looked at yet. */
static struct {
	struct chan_msg msg[CHAN_DATAGRAM_MSGS];
	int fd[FD_PASS_MAX];
	int n, next;
	size_t n_fds, next_fd;
} in;

static void
in_drop(void)
{
	while (in.next_fd < in.n_fds)
		fd_close(&in.fd[in.next_fd++]);
	in.n = in.next = 0;
}

/* 1: there is one; 0: not within the time; -1: the channel's end. */
static int
in_fill(int ms)
{
	struct pollfd p = { .fd = m.chan, .events = POLLIN };
	uint8_t buf[CHAN_DATAGRAM_MAX];
	size_t wanted;
	bool lost;
	ssize_t n;

	if (in.next < in.n)
		return 1;
	if (poll(&p, 1, ms) <= 0)
		return 0;
	in.next = in.n = 0;
	in.next_fd = 0;
	n = fd_recv_many(m.chan, buf, sizeof(buf), in.fd, &in.n_fds, &lost);
	if (n <= 0)
		return -1;
	in.n = chan_unpack_all(buf, (size_t)n, in.msg, &wanted);
	assert_true(in.n > 0);
	assert_int_equal(wanted, in.n_fds);
	return 1;
}

/* The next message within the time; 0 none, -1 the channel's end. */
int
try_recv(struct chan_msg *ret, int *ret_fd, int ms)
{
	int r = in_fill(ms);

	*ret_fd = -1;
	if (r <= 0)
		return r;
	*ret = in.msg[in.next++];
	if (chan_has_fd(ret->type))
		*ret_fd = in.fd[in.next_fd++];
	if (ret->type == CHAN_WANT && !m.wants) { /* as a master without pipes does, where the test does not look */
		send_msg((struct chan_msg){ .type = CHAN_NOPIPE }, -1);
		return try_recv(ret, ret_fd, ms);
	}
	assert_int_equal(ret->gen, GEN);
	assert_int_equal(ret->type % 2, 1);
	return 1;
}

struct chan_msg
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

void
expect_nothing(int ms)
{
	struct chan_msg msg;
	int fd;

	assert_int_equal(try_recv(&msg, &fd, ms), 0);
}

void
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

void
send_settings(void)
{
	send_msg((struct chan_msg){ .type = CHAN_SETTINGS, .settings = m.settings }, -1);
}

void
start(void)
{
	spawn(-1, 0);
	assert_int_equal(expect(CHAN_READY, NULL).pid, m.pid);
	send_settings();
}

int
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

void
stop(void)
{
	struct chan_msg msg;
	int fd;

	send_msg((struct chan_msg){ .type = CHAN_STOP }, -1);
	assert_int_equal(wait_exit(), 0);
	assert_int_equal(try_recv(&msg, &fd, 0), -1); /* and it left nothing unsaid */
}

long
sleeps(void)
{
	char path[64], line[256];
	long n = -1;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/status", (int)m.pid);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f))
		if (strncmp(line, "voluntary_ctxt_switches:", 24) == 0)
			n = strtol(line + 24, NULL, 10);
	if (f)
		fclose(f);
	return n;
}

long
cpu_ms(void)
{
	struct timespec ts;
	clockid_t id;

	assert_int_equal(clock_getcpuclockid(m.pid, &id), 0);
	assert_int_equal(clock_gettime(id, &ts), 0);
	return (long)(ts.tv_sec * 1000 + ts.tv_nsec / 1000000);
}

int
teardown(void **state)
{
	(void)state;
	if (m.pid > 0) {
		kill(m.pid, SIGKILL);
		waitpid(m.pid, NULL, 0);
	}
	if (m.stats)
		munmap(m.stats, sizeof(*m.stats));
	if (m.ledger)
		munmap(m.ledger, LEDGER_SIZE);
	toktab_free(m.table);
	in_drop();
	fd_close(&m.chan);
	fd_close(&m.listener);
	m = (struct master){ .pid = -1, .chan = -1, .listener = -1 };
	return 0;
}

/* --- what peers do ----------------------------------------------------------- */

int
dial_from(uint32_t source)
{
	struct sockaddr_in sin = {
		.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = m.port
	};
	struct sockaddr_in from = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(0x7f000000 + source) };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;

	assert_int_equal(bind(fd, (struct sockaddr *)&from, sizeof(from)), 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&sin, sizeof(sin)), 0);
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	return fd;
}

int
dial(void)
{
	return dial_from(1);
}

void
put(int fd, const void *data, size_t len)
{
	assert_int_equal(send(fd, data, len, MSG_NOSIGNAL), (ssize_t)len);
}

/* "eof", "reset", "timeout", or what came. */
const char *
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

struct token
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

struct chan_msg
expect_arrived(const struct token *t, int *ret_fd)
{
	struct chan_msg msg = expect(CHAN_ARRIVED, ret_fd);

	assert_memory_equal(msg.token, t->bytes, sizeof(msg.token));
	return msg;
}

int
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

uint64_t
send_pair(uint64_t conn, int *first_fd)
{
	struct chan_msg msg = { .type = CHAN_PAIR, .conn = conn, .pair = ++m.pairs, .session = "0123456789ab" };

	send_msg(msg, *first_fd);
	return msg.pair;
}

/* Both peers joined; returns the pair's number. */
uint64_t
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

int
worker_main(int argc, char **argv, const struct CMUnitTest *tests, size_t n)
{
	const char *log = getenv("T_WORKER_LOG");

	if (argc == 4 && strcmp(argv[1], "worker") == 0) {
		int fd = open(log ? log : "/dev/null", O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);

		dup2(fd, 2);
		return proxy_worker_run((unsigned)atoi(argv[2]), (uint32_t)atoi(argv[3]));
	}
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return _cmocka_run_group_tests("worker", tests, n, NULL, NULL);
}
