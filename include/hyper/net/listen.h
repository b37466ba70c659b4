/* listen.h - "host:port" texts, listening on every address of a name, per-address rate limits */
#ifndef HYPER_NET_LISTEN_H
#define HYPER_NET_LISTEN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "hyper/base/attr.h"
#include "hyper/settings/conf.h"

#define LISTEN_MAX     8 /* addresses of one name */
#define HOSTPORT_MAX   300
#define LISTEN_ERR_MAX 256

/* "host:port" or "[v6]:port". 0, or -EINVAL with outputs untouched. `ret_host` holds 256 bytes. */
int hostport_parse(const char *text, char ret_host[256], uint16_t *ret_port) ATTR_MUST_USE;

struct listeners {
	int fd[LISTEN_MAX]; /* non-blocking, close-on-exec */
	size_t n;
	uint16_t port; /* the one port they all have */
};

/* Binds every address the host resolves to ("localhost": 127.0.0.1 and ::1;
 * an address family that the machine lacks is skipped). Port 0: the kernel
 * chooses once, the other addresses get the same one. 0 with *ret taken, or
 * -errno with *ret untouched and `err` saying which address and why. */
int listeners_open(const char *hostport, struct listeners *ret, char err[LISTEN_ERR_MAX]) ATTR_MUST_USE;
void listeners_close(struct listeners *);

/* For a program that executes itself anew: what is open, under the text it was opened for, in that order. */
struct listeners_named {
	char hostport[HOSTPORT_MAX];
	struct listeners l;
};
#define LISTEN_SETS_MAX 16 /* what is opened beyond is not handed on */
size_t listeners_opened(const struct listeners_named **ret);

/* And for its successor: the next listeners_open() of that very text gets these (given, also on failure). 0,
 * -ENOSPC, or -ENOTSOCK where one of them is none that listens. */
int listeners_give(const char *hostport, const struct listeners *) ATTR_MUST_USE;
/* Closes those that nobody asked for. */
void listeners_drop_given(void);

/* "127.0.0.1:4711" of a socket's own or peer address, "?" when it has none. */
void sockaddr_text(const struct sockaddr *, socklen_t, char ret[HOSTPORT_MAX]);

/* protocol.md 8.6 "tcp_rate_limits": bounded table of remote addresses, oldest replaced first. */
struct ratelimit;
/* NULL when out of memory, taken. An empty `rates` permits all. */
struct ratelimit *ratelimit_new(const struct conf_rates *rates, size_t max_addresses);
void ratelimit_free(struct ratelimit *);
/* Counts one connection; false: over a limit, close it. IPv6 counts by /64. */
bool ratelimit_permits(struct ratelimit *, const struct sockaddr *);
bool rates_equal(const struct conf_rates *, const struct conf_rates *);

#endif
