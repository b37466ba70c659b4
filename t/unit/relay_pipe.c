/* relay_pipe.c - the relay engine alone: joins what connects to two ports, n-th with n-th
 *
 * Says `ready a=PORT b=PORT`, then `end ...` for each pair; ends on TERM. For
 * t/50-relay-*.t. Environment: T_COPY=1 copies instead of splicing, T_COPY_SMALL=1 small messages only, T_PIPES=N
 * keeps N idle pipes, T_SNDBUF=N sets the send buffers of both sides,
 * T_PIPE_SIZE=N asks for pipes of that size, T_NO_FDS=1 leaves no descriptor once a pair is joined.
 */
#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "hyper/base/attr.h"
#include "hyper/base/bug.h"
#include "hyper/base/clock.h"
#include "hyper/base/daemon.h"
#include "hyper/base/fd.h"
#include "hyper/base/log.h"
#include "hyper/relay/relay.h"

#define WAITING_MAX 512
#define MAX_WAIT_MS 60000

static struct side {
	uint32_t tag; /* not RELAY_TAG */
	int listen_fd;
	uint16_t port;
	int waiting[WAITING_MAX];
	size_t n;
} sides[2];

static uint32_t stop_item;
static int epoll_fd;
static uint64_t next_id = 1;

static size_t
env_number(const char *name, size_t def)
{
	const char *text = getenv(name);

	return text && *text ? strtoul(text, NULL, 10) : def;
}

static void
watch(int fd, void *item)
{
	struct epoll_event ev = { .events = EPOLLIN, .data.ptr = item };

	BUG_ON(epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &ev) < 0);
}

static void
side_listen(struct side *s)
{
	struct sockaddr_in sin = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(sin);

	s->listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	BUG_ON(bind(s->listen_fd, (struct sockaddr *)&sin, sizeof(sin)) < 0);
	BUG_ON(listen(s->listen_fd, 1024) < 0);
	BUG_ON(getsockname(s->listen_fd, (struct sockaddr *)&sin, &len) < 0);
	s->port = ntohs(sin.sin_port);
	watch(s->listen_fd, s);
}

/* From now on no descriptor is to be had. */
static void
use_up_fds(void)
{
	struct rlimit rl;
	int next = dup(epoll_fd);

	BUG_ON(next < 0 || getrlimit(RLIMIT_NOFILE, &rl) < 0);
	close(next);
	rl.rlim_cur = (rlim_t)next;
	BUG_ON(setrlimit(RLIMIT_NOFILE, &rl) < 0);
}

static void
join(struct relay *r)
{
	while (sides[0].n > 0 && sides[1].n > 0) {
		int a = sides[0].waiting[0], b = sides[1].waiting[0];

		for (int i = 0; i < 2; i++)
			memmove(sides[i].waiting, sides[i].waiting + 1, --sides[i].n * sizeof(int));
		if (env_number("T_NO_FDS", 0))
			use_up_fds();
		if (relay_pair_new(r, next_id, a, b) < 0)
			log_error("pair", "id=%llu", (unsigned long long)next_id);
		log_info("joined", "id=%llu", (unsigned long long)next_id++);
	}
}

static void
on_accept(struct relay *r, struct side *s)
{
	int fd, size = (int)env_number("T_SNDBUF", 0);

	while (s->n < WAITING_MAX && (fd = fd_accept(s->listen_fd)) >= 0) {
		if (size > 0)
			(void)!setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
		s->waiting[s->n++] = fd;
	}
	join(r);
}

static void
on_end(const struct relay_end *e, void *arg)
{
	(void)arg;
	log_info("end", "id=%llu reason=%s ab=%llu ba=%llu", (unsigned long long)e->id, end_reason_word(e->reason),
	    (unsigned long long)e->bytes_ab, (unsigned long long)e->bytes_ba);
}

static void
loop(struct relay *r)
{
	struct epoll_event ev[64];

	for (;;) {
		bool busy = relay_run(r);
		int64_t wait = relay_next_ms(r) - clock_now_ms();
		int n = epoll_wait(epoll_fd, ev, ARRAY_LEN(ev),
		    busy || wait < 0     ? 0
		    : wait > MAX_WAIT_MS ? MAX_WAIT_MS
					 : (int)wait);

		BUG_ON(n < 0 && errno != EINTR);
		for (int i = 0; i < n; i++) {
			struct relay_item *item = ev[i].data.ptr;

			if (item->tag == RELAY_TAG)
				relay_on_event(r, item, ev[i].events);
			else if ((void *)item == &stop_item)
				return;
			else
				on_accept(r, (struct side *)item);
		}
	}
}

static int
stop_fd(void)
{
	sigset_t set;

	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigprocmask(SIG_BLOCK, &set, NULL);
	return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

int
main(void)
{
	struct relay_conf conf = { 0 };
	struct relay_counts c;
	struct relay *r;
	int sig;

	log_open("relay_pipe", LOG_LVL_INFO);
	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	sig = stop_fd();
	watch(sig, &stop_item);
	for (int i = 0; i < 2; i++)
		side_listen(&sides[i]);
	conf.epoll_fd = epoll_fd;
	conf.pipe_size = env_number("T_PIPE_SIZE", 65536);
	conf.max_pipes = env_number("T_PIPES", 4);
	conf.makes_pipes = true;
	conf.copy_small = env_number("T_COPY_SMALL", 0) != 0;
	conf.copy_mode = env_number("T_COPY", 0) != 0;
	r = relay_new(&conf, on_end, NULL);
	BUG_ON(!r);
	daemon_ready("a=%u b=%u mode=%s", sides[0].port, sides[1].port,
	    conf.copy_mode    ? "copy"
	    : conf.copy_small ? "small"
			      : "splice");
	loop(r);
	relay_close_all(r, END_STOPPED);
	c = relay_counts(r);
	log_info("counts", "pairs=%zu pipes_used=%zu pipes_idle=%zu", c.pairs, c.pipes_used, c.pipes_idle);
	relay_free(r);
	for (int i = 0; i < 2; i++) {
		while (sides[i].n > 0)
			fd_close(&sides[i].waiting[--sides[i].n]);
		fd_close(&sides[i].listen_fd);
	}
	fd_close(&sig);
	fd_close(&epoll_fd);
	return 0;
}
