/* schedules_world.c - what the master's tables stand in, played: clock, worker processes, peers, memory, log
 *
 * Always true:
 *  1. Time moves only when a step says so: clock_gettime() is this file's, for libevent as well. So is getrandom().
 *  2. A worker is a channel's other end in this process. spawn.h, kill() and waitpid() are this file's; its pids are
 *     beyond what the kernel gives away.
 *  3. Nothing here knows what the master should do (schedules_model.c).
 */
#include "schedules.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <event2/event.h>

#include "hyper/base/fd.h"
#include "hyper/base/log.h"
#include "proxy/master/spawn.h"

#define FDS_MAX   128
#define FIRST_PID 5000000 /* above PID_MAX_LIMIT */

#define START_NS INT64_C(1000000000000)

struct world w = { .now_ns = START_NS };

static int listener = -1;
static struct worker_stats stats[N_SLOTS * 4];
static bool stats_used[N_SLOTS * 4];
static struct worker_stats *last_page;
static pid_t last_pid = FIRST_PID;

/* --- clock --- */

int
clock_gettime(clockid_t id, struct timespec *ts)
{
	(void)id;
	ts->tv_sec = w.now_ns / 1000000000;
	ts->tv_nsec = w.now_ns % 1000000000;
	return 0;
}

/* --- chance --- */

ssize_t
getrandom(void *ret, size_t len, unsigned flags)
{
	uint8_t *at = ret;

	(void)flags;
	for (size_t i = 0; i < len; i++) {
		w.random = w.random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
		at[i] = (uint8_t)(w.random >> 56);
	}
	return (ssize_t)len;
}

/* --- memory --- */

void *__real_malloc(size_t);
void *__real_calloc(size_t, size_t);
void *__real_realloc(void *, size_t);
char *__real_strdup(const char *);
void *__wrap_malloc(size_t);
void *__wrap_calloc(size_t, size_t);
void *__wrap_realloc(void *, size_t);
char *__wrap_strdup(const char *);

static bool
alloc_fails(void)
{
	if (w.alloc_fail == 0 || --w.alloc_fail > 0)
		return false;
	w.alloc_failed = true;
	errno = ENOMEM;
	return true;
}

void *
__wrap_malloc(size_t n)
{
	return alloc_fails() ? NULL : __real_malloc(n);
}

void *
__wrap_calloc(size_t n, size_t size)
{
	return alloc_fails() ? NULL : __real_calloc(n, size);
}

void *
__wrap_realloc(void *old, size_t n)
{
	return alloc_fails() ? NULL : __real_realloc(old, n);
}

char *
__wrap_strdup(const char *s)
{
	return alloc_fails() ? NULL : __real_strdup(s);
}

/* --- log --- */

ATTR_PRINTF(3, 0) static void take_line(enum log_level level, const char *event, const char *fmt, va_list ap)
{
	char text[LOG_LINE_MAX];

	if (!w.is_verbose && (level == LOG_LVL_DEBUG || (level == LOG_LVL_INFO && !model_wants(event))))
		return;
	vsnprintf(text, sizeof(text), fmt, ap);
	say_verbose("      %s %s\n", event, text);
	if (level == LOG_LVL_BUG)
		schedule_failed("bug: %s", text);
	w.activity++;
	model_on_log(event, text);
}

void
log_line(enum log_level level, const char *event, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	take_line(level, event, fmt, ap);
	va_end(ap);
}

void
log_limited(struct log_limit *limit, enum log_level level, const char *event, const char *fmt, ...)
{
	va_list ap;

	(void)limit;
	va_start(ap, fmt);
	take_line(level, event, fmt, ap);
	va_end(ap);
}

void
log_open(const char *program, enum log_level level)
{
	(void)program;
	(void)level;
}

void
log_batch(bool on)
{
	(void)on;
}

void
log_flush(void)
{
}

int
log_level_parse(const char *word, enum log_level *ret)
{
	(void)word;
	(void)ret;
	return -EINVAL;
}

uint64_t
log_dropped(void)
{
	return 0;
}

/* --- processes --- */

pid_t __wrap_waitpid(pid_t, int *, int);
int __wrap_kill(pid_t, int);

static struct proc *
proc_of_pid(pid_t pid)
{
	for (size_t i = 0; i < N_SLOTS; i++)
		if (w.procs[i].pid == pid)
			return &w.procs[i];
	schedule_failed("a process %d is asked for that is not there", (int)pid);
}

struct proc *
proc_of_slot(const struct slot *s)
{
	MUST(slot_no(s) < N_SLOTS, "slot %u", slot_no(s));
	return &w.procs[slot_no(s)];
}

void
proc_die(struct proc *p, int status)
{
	if (p->is_dead || p->pid == 0)
		return;
	w.activity++;
	p->is_dead = true;
	p->status = status;
	p->n_answers = 0;
	fd_close(&p->chan);
	for (size_t i = 0; i < N_PIPES; i++)
		fd_close(&p->pipes[i]);
}

int
__wrap_kill(pid_t pid, int sig)
{
	struct proc *p = proc_of_pid(pid);

	MUST(sig == SIGKILL, "signal %d", sig);
	MUST(model_may_kill(p), "worker %u was killed without a reason", p->slot);
	proc_die(p, SIGKILL);
	p->was_killed = true;
	return 0;
}

pid_t
__wrap_waitpid(pid_t pid, int *status, int options)
{
	struct proc *p = proc_of_pid(pid);

	if (!p->is_dead) {
		MUST(options & WNOHANG, "waitpid would wait for ever for worker %u", p->slot);
		return 0;
	}
	if (status)
		*status = p->status;
	p->pid = 0;
	return pid;
}

int
spawn_worker(const struct spawn *s, pid_t *ret_pid)
{
	struct proc *p = &w.procs[s->slot];

	w.activity++;
	if (w.spawn_failures > 0) {
		w.spawn_failures--;
		return -EAGAIN;
	}
	MUST(p->pid == 0, "slot %u was started twice", s->slot);
	MUST(s->gen > p->gen, "generation %u after %u", s->gen, p->gen);
	if (p->ledger)
		munmap(p->ledger, worker_ledger_size(N_PIPES, N_SEATS));
	*p = (struct proc){ .slot = s->slot, .gen = s->gen, .pid = ++last_pid, .started_ns = w.now_ns };
	p->page = last_page;
	memset(p->pipes, 0xff, sizeof(p->pipes));
	p->ledger =
	    mmap(NULL, worker_ledger_size(N_PIPES, N_SEATS), PROT_READ | PROT_WRITE, MAP_SHARED, s->ledger_fd, 0);
	MUST(p->ledger != MAP_FAILED && p->ledger->n_pipes == N_PIPES && p->ledger->n_seats == N_SEATS, "ledger");
	p->chan = fcntl(s->channel_fd, F_DUPFD_CLOEXEC, 0);
	MUST(p->chan >= 0, "dup: %s", strerror(errno));
	*ret_pid = p->pid;
	return 0;
}

int
spawn_stats_new(int *ret_fd, const struct worker_stats **ret)
{
	for (size_t i = 0; i < ARRAY_LEN(stats); i++) {
		if (stats_used[i])
			continue;
		stats_used[i] = true;
		*ret_fd = -1;
		*ret = last_page = &stats[i];
		*last_page = (struct worker_stats){ 0 };
		return 0;
	}
	return -ENOMEM;
}

void
spawn_stats_free(const struct worker_stats *page)
{
	if (page)
		stats_used[page - stats] = false;
}

void
proc_say_bytes(struct proc *p, const void *buf, size_t len)
{
	int rc = fd_send(p->chan, buf, len, -1);

	/* Where the master has closed its end the process is doomed and does not know yet. */
	MUST(rc == 0 || rc == -EPIPE || rc == -ECONNRESET, "worker's send: %s", strerror(-rc));
}

void
proc_say(struct proc *p, const struct chan_msg *msg, int fd)
{
	uint8_t buf[CHAN_MSG_MAX];
	int rc, n = chan_pack(msg, buf);

	MUST(n > 0, "chan_pack: %d", n);
	p->n_said += msg->type != CHAN_READY;
	rc = fd_send(p->chan, buf, (size_t)n, fd);
	MUST(rc == 0 || rc == -EPIPE || rc == -ECONNRESET, "worker's send: %s", strerror(-rc));
}

static void
pipe_come(struct proc *p, uint32_t no, int *fd)
{
	int bytes = -1;

	MUST(no < N_PIPES && p->pipes[no] < 0, "pipe %u is there already", no);
	MUST(ioctl(*fd, FIONREAD, &bytes) == 0 && bytes == 0, "a new pipe with %d bytes in it", bytes);
	p->pipes[no] = *fd;
	*fd = -1;
}

static void
proc_hear(struct proc *p, const struct chan_msg *msg, int *fd)
{
	MUST(msg->gen == p->gen, "generation %u for %u", msg->gen, p->gen);
	say_verbose("      worker %u reads %s\n", p->slot, chan_type_name(msg->type));
	if (msg->type == CHAN_STOP)
		p->is_told_to_stop = true;
	else if (msg->type == CHAN_PIPE)
		pipe_come(p, msg->pipe, fd);
	else if (msg->type != CHAN_SETTINGS && msg->type != CHAN_NOPIPE)
		model_on_answer(p, msg, fd);
}

void
proc_read(struct proc *p)
{
	uint8_t buf[CHAN_DATAGRAM_MAX];
	struct chan_msg msg[CHAN_DATAGRAM_MSGS];
	size_t wanted;
	ssize_t n;
	int fd;

	while ((n = fd_recv(p->chan, buf, sizeof(buf), &fd, NULL)) > 0) {
		int k = chan_unpack_all(buf, (size_t)n, msg, &wanted);

		MUST(k > 0, "the master sent what does not parse");
		MUST(wanted == (size_t)(fd >= 0), "%zu descriptors belong to a datagram, %d came", wanted, fd >= 0);
		for (int i = 0; i < k; i++) {
			int none = -1;

			proc_hear(p, &msg[i], chan_has_fd(msg[i].type) ? &fd : &none);
		}
		fd_close(&fd);
	}
	MUST(n == -EAGAIN || p->is_wrong || w.is_stopping, "worker %u lost its channel", p->slot);
	if (n != -EAGAIN)
		proc_die(p, 0);
	else
		MUST(p->n_answers == 0, "worker %u waits for %s of connection %llu", p->slot,
		    chan_type_name(p->answers[0].type), (unsigned long long)p->answers[0].conn);
}

void
pump(void)
{
	unsigned before, quiet = 0;

	while (quiet < 2) {
		before = w.activity;
		for (size_t i = 0; i < N_SLOTS; i++)
			if (w.procs[i].pid && !w.procs[i].is_frozen)
				w.procs[i].page->heartbeat_ns++;
		event_base_loop(w.base, EVLOOP_NONBLOCK);
		quiet = w.activity == before ? quiet + 1 : 0;
	}
}

/* --- peers --- */

static void
conn_new(struct conn *c)
{
	const struct linger off = { 1, 0 };
	struct sockaddr_in sin;
	socklen_t len = sizeof(sin);
	char token = 't';

	*c = (struct conn){ .cli = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0) };
	MUST(c->cli >= 0 && getsockname(listener, (struct sockaddr *)&sin, &len) == 0 &&
		 connect(c->cli, (struct sockaddr *)&sin, len) == 0,
	    "connect: %s", strerror(errno));
	do
		c->srv = fd_accept(listener);
	while (c->srv == -EAGAIN);
	len = sizeof(c->cookie);
	MUST(c->srv >= 0 && getsockopt(c->srv, SOL_SOCKET, SO_COOKIE, &c->cookie, &len) == 0 &&
		 setsockopt(c->srv, SOL_SOCKET, SO_LINGER, &off, sizeof(off)) == 0,
	    "accept: %s", strerror(errno));
	/* Who has sent a token has been connected: what fd_is_tcp() goes by. */
	MUST(send(c->cli, &token, 1, 0) == 1 && poll(&(struct pollfd){ c->srv, POLLIN, 0 }, 1, 5000) == 1 &&
		 recv(c->srv, &token, 1, 0) == 1,
	    "token byte: %s", strerror(errno));
}

static void
conn_end(struct conn *c)
{
	fd_close(&c->srv);
	fd_close(&c->cli);
}

void
conns_renew(void)
{
	for (size_t i = 0; i < N_CONNS; i++) {
		struct conn *c = &w.conns[i];

		if (c->is_reset || c->is_fin || c->has_data || c->is_spoiled) {
			conn_end(c);
			conn_new(c);
		}
		memset(c->unread, 0, sizeof(c->unread));
	}
}

int
conn_of_socket(int fd)
{
	uint64_t cookie = 0;
	socklen_t len = sizeof(cookie);

	if (getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &len) < 0)
		return -1;
	for (int i = 0; i < N_CONNS; i++)
		if (w.conns[i].cookie == cookie)
			return i;
	return -1;
}

static unsigned
tcp_state(int fd)
{
	struct tcp_info info = { 0 };
	socklen_t len = sizeof(info);

	return fd >= 0 && getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) == 0 ? info.tcpi_state : 0;
}

bool
conn_saw_reset(struct conn *c)
{
	struct pollfd p = { c->cli, 0, 0 };

	c->is_spoiled = true;
	return c->is_reset || (poll(&p, 1, 5000) == 1 && (p.revents & (POLLERR | POLLHUP)));
}

bool
conn_is_gone(const struct conn *c)
{
	return c->is_reset || (c->is_fin && !c->has_data);
}

void
conn_do(struct conn *c, char what)
{
	const struct linger off = { 1, 0 };
	struct pollfd p = { c->srv, what == 'd' ? POLLIN : POLLRDHUP, 0 };

	if (c->is_reset || c->is_spoiled || (what != 'r' && c->is_fin))
		return;
	if (what == 'd') {
		MUST(send(c->cli, "x", 1, 0) == 1, "send: %s", strerror(errno));
		c->has_data = true;
	} else if (what == 'f') {
		shutdown(c->cli, SHUT_WR);
		c->is_fin = true;
	} else {
		setsockopt(c->cli, SOL_SOCKET, SO_LINGER, &off, sizeof(off));
		fd_close(&c->cli);
		c->is_reset = true;
		p.events = 0; /* POLLERR, POLLHUP */
	}
	MUST(poll(&p, 1, 20000) == 1, "connection %d: what a peer does ('%c') never arrives: state %u and %u",
	    (int)(c - w.conns), what, tcp_state(c->srv), tcp_state(c->cli));
}

void
conn_give_up(struct conn *c, char how)
{
	const struct sockaddr none = { .sa_family = AF_UNSPEC };

	c->is_given_up = c->is_spoiled = true;
	if (how == 'd') {
		MUST(connect(c->srv, &none, sizeof(none)) == 0, "disconnect: %s", strerror(errno));
		return;
	}
	MUST(shutdown(c->srv, SHUT_RDWR) == 0, "shutdown: %s", strerror(errno));
	if (how == 'p' && !c->is_fin)
		MUST(send(c->cli, "x", 1, MSG_NOSIGNAL) == 1, "send: %s", strerror(errno));
}

/* --- all of it --- */

size_t
fds_open(void)
{
	static struct pollfd p[FDS_MAX];
	size_t n = 0;

	for (int i = 0; i < FDS_MAX; i++)
		p[i] = (struct pollfd){ .fd = i };
	poll(p, FDS_MAX, 0);
	for (int i = 0; i < FDS_MAX; i++)
		n += !(p[i].revents & POLLNVAL);
	return n;
}

void
world_init(void)
{
	struct sockaddr_in sin = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };

	listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	MUST(listener >= 0 && bind(listener, (struct sockaddr *)&sin, sizeof(sin)) == 0 && listen(listener, 16) == 0,
	    "listen: %s", strerror(errno));
	for (size_t i = 0; i < N_CONNS; i++)
		conn_new(&w.conns[i]);
	w.base = event_base_new();
	MUST(w.base, "event_base_new");
}

void
world_start(uint64_t seed)
{
	w.random = seed;
	/* libevent's clock cannot go back; to round seconds, for those who count in them */
	w.now_ns += START_NS - w.now_ns % START_NS;
	w.alloc_next = w.alloc_fail = 0;
	w.alloc_failed = false;
	w.spawn_failures = 0;
	w.is_stopping = false;
}

void
world_fini(void)
{
	for (size_t i = 0; i < N_CONNS; i++)
		conn_end(&w.conns[i]);
	fd_close(&listener);
	event_base_free(w.base);
}
