/* base.c - the load generator's tools: loop, sockets, pattern, CPU times, latencies
 *
 * Not here: what is measured (bulk.c, pingpong.c, idle.c, broker.c, calls.c).
 */
#include "bench.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "hyper/base/clock.h"
#include "hyper/base/fd.h"

#define WAIT_MS 10000

void
bench_die(const char *fmt, ...)
{
	va_list ap;

	fputs("load: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	_exit(1);
}

/* --- CPU --- */

/* The scheduler's own sum in ns; /proc/PID/stat counts in ticks of 10 ms. */
static int64_t
cpu_of_process(pid_t pid)
{
	char path[96], line[128];
	struct dirent *e;
	int64_t sum = 0;
	DIR *d;

	snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
	d = opendir(path);
	while (d && (e = readdir(d))) {
		FILE *f;

		if (e->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "/proc/%d/task/%.20s/schedstat", (int)pid, e->d_name);
		f = fopen(path, "re");
		if (!f)
			continue;
		if (fgets(line, sizeof(line), f))
			sum += strtoll(line, NULL, 10);
		fclose(f);
	}
	if (d)
		closedir(d);
	return sum;
}

static int64_t
cpu_of_tree(pid_t pid, int depth)
{
	int64_t sum = cpu_of_process(pid);
	char path[64], text[65536];
	size_t n;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/children", (int)pid, (int)pid);
	f = depth < 4 ? fopen(path, "re") : NULL;
	if (!f)
		return sum;
	n = fread(text, 1, sizeof(text) - 1, f);
	fclose(f);
	text[n] = '\0';
	for (char *p = text, *end;; p = end) {
		long child = strtol(p, &end, 10);

		if (end == p)
			return sum;
		sum += cpu_of_tree((pid_t)child, depth + 1);
	}
}

int64_t
cpu_of(const struct conf *c)
{
	int64_t sum = 0;

	for (size_t i = 0; i < c->n_pid; i++)
		sum += cpu_of_tree(c->pid[i], 0);
	return sum;
}

/* --- loop --- */

int
loop_new(void)
{
	int ep = epoll_create1(EPOLL_CLOEXEC);

	if (ep < 0)
		bench_die("epoll: %s", strerror(errno));
	return ep;
}

static void
loop_ctl(int ep, int op, struct ev *e, uint32_t events)
{
	struct epoll_event ev = { .events = events, .data.ptr = e };

	if (epoll_ctl(ep, op, e->fd, &ev) < 0)
		bench_die("epoll_ctl %d on %d: %s", op, e->fd, strerror(errno));
}

void
loop_add(int ep, struct ev *e, uint32_t events)
{
	loop_ctl(ep, EPOLL_CTL_ADD, e, events);
}

void
loop_set(int ep, struct ev *e, uint32_t events)
{
	loop_ctl(ep, EPOLL_CTL_MOD, e, events);
}

/* An event may end its own connection, never another one of the same turn. */
void
loop_turn(int ep, int timeout_ms)
{
	struct epoll_event got[64];
	int n = epoll_wait(ep, got, 64, timeout_ms);

	if (n < 0 && errno != EINTR)
		bench_die("epoll_wait: %s", strerror(errno));
	for (int i = 0; i < n; i++) {
		struct ev *e = got[i].data.ptr;

		e->on_event(e, got[i].events);
	}
}

/* --- sockets --- */

static struct sockaddr_in
loopback(uint16_t port)
{
	return (struct sockaddr_in){
		.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)
	};
}

int
tcp_listen(uint16_t port)
{
	struct sockaddr_in sin = loopback(port);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), on = 1;

	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0 ||
	    bind(fd, (struct sockaddr *)&sin, sizeof(sin)) < 0 || listen(fd, 4096) < 0)
		bench_die("listen on port %u: %s", port, strerror(errno));
	return fd;
}

void
tcp_tune(int fd)
{
	int on = 1;

	if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) < 0 || fd_set_nonblock(fd) < 0)
		bench_die("setsockopt: %s", strerror(errno));
}

static bool is_meagre;

void
tcp_be_meagre(bool on)
{
	is_meagre = on;
}

/* Before connect(): a window that was offered is not taken back. */
static void
tcp_set_meagre(int fd)
{
	int bytes = 2048, segment = 536;

	if (setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof(bytes)) < 0 ||
	    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes)) < 0 ||
	    setsockopt(fd, IPPROTO_TCP, TCP_MAXSEG, &segment, sizeof(segment)) < 0)
		bench_die("setsockopt: %s", strerror(errno));
}

int
tcp_try_dial(uint16_t port, unsigned source)
{
	struct sockaddr_in sin = loopback(port);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1, err;

	if (fd < 0)
		return -errno;
	if (source) {
		struct sockaddr_in from = { .sin_family = AF_INET,
			.sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1 + source / 8192 % 200) };

		(void)setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof(on));
		if (bind(fd, (struct sockaddr *)&from, sizeof(from)) < 0)
			goto out;
	}
	if (is_meagre)
		tcp_set_meagre(fd);
	if (connect(fd, (struct sockaddr *)&sin, sizeof(sin)) < 0)
		goto out;
	tcp_tune(fd);
	return fd;
out:
	err = errno;
	fd_close(&fd);
	return -err;
}

int
tcp_dial(uint16_t port, unsigned source)
{
	int fd = tcp_try_dial(port, source);

	if (fd < 0)
		bench_die("connect to port %u: %s", port, strerror(-fd));
	return fd;
}

static void
wait_for(int fd, short events, const char *what)
{
	struct pollfd p = { .fd = fd, .events = events };

	if (poll(&p, 1, WAIT_MS) != 1)
		bench_die("%s: nothing within %d s", what, WAIT_MS / 1000);
}

int
tcp_accept(int listener)
{
	int fd;

	wait_for(listener, POLLIN, "accept");
	fd = fd_accept(listener);
	if (fd < 0)
		bench_die("accept: %s", strerror(-fd));
	tcp_tune(fd);
	return fd;
}

void
write_exactly(int fd, const void *data, size_t len)
{
	for (size_t done = 0; done < len;) {
		ssize_t n = send(fd, (const char *)data + done, len - done, MSG_NOSIGNAL);

		if (n > 0)
			done += (size_t)n;
		else if (n < 0 && errno == EAGAIN)
			wait_for(fd, POLLOUT, "write");
		else
			bench_die("write: %s", strerror(errno));
	}
}

void
read_exactly(int fd, void *ret, size_t len)
{
	for (size_t done = 0; done < len;) {
		ssize_t n = recv(fd, (char *)ret + done, len - done, 0);

		if (n > 0)
			done += (size_t)n;
		else if (n < 0 && errno == EAGAIN)
			wait_for(fd, POLLIN, "read");
		else
			bench_die("read: %s", n == 0 ? "the connection ended" : strerror(errno));
	}
}

/* --- pattern --- */

/* A prime, so that a block that is lost, doubled or moved shows whatever its size; small, to stay in the cache. */
#define PATTERN_PERIOD ((size_t)65537)

static uint8_t *pattern;

void
pattern_init(void)
{
	uint64_t x = 0x9e3779b97f4a7c15u;

	pattern = malloc(PATTERN_PERIOD + PATTERN_RUN);
	if (!pattern)
		bench_die("out of memory");
	for (size_t i = 0; i < PATTERN_PERIOD + PATTERN_RUN; i++) {
		x ^= x << 13; /* xorshift64 */
		x ^= x >> 7;
		x ^= x << 17;
		pattern[i] = i < PATTERN_PERIOD ? (uint8_t)(x >> 32) : pattern[i - PATTERN_PERIOD];
	}
}

const uint8_t *
pattern_at(uint64_t seed, uint64_t pos)
{
	return pattern + (seed * 7919 + pos) % PATTERN_PERIOD;
}

/* --- latencies --- */

void
hist_add(struct hist *h, int64_t ns)
{
	uint64_t v = ns > 0 ? (uint64_t)ns : 0;
	int shift = v < HIST_SUB ? 0 : 63 - __builtin_clzll(v) - 6;
	size_t i = v < HIST_SUB ? v : (size_t)(shift + 1) * HIST_SUB + ((v >> shift) - HIST_SUB);

	h->n++;
	h->bucket[i]++;
}

double
hist_us(const struct hist *h, double quantile)
{
	uint64_t want = (uint64_t)ceil(quantile * (double)h->n), sum = 0;

	for (size_t i = 0; i < sizeof(h->bucket) / sizeof(h->bucket[0]); i++) {
		sum += h->bucket[i];
		if (sum >= want && sum) {
			size_t shift = i / HIST_SUB;

			if (shift == 0)
				return (double)i / 1000.0;
			return ((double)(i % HIST_SUB) + HIST_SUB + 0.5) * (double)(1ull << (shift - 1)) / 1000.0;
		}
	}
	return 0;
}
