/* listen.c - "host:port" texts, listening on every address of a name, per-address rate limits
 *
 * Always true:
 *  1. listeners_open() binds all addresses of the name or none; only a family
 *     that the machine lacks is left out.
 *  2. "localhost" means 127.0.0.1 and ::1 whatever the hosts file says.
 *  3. A rate limit table never holds more addresses than it was made for; the
 *     one that was silent longest goes first.
 *
 * Not here: accepting (evhttp, grpc, the workers), limits per operator.
 */
#include "hyper/net/listen.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HASH_NONFATAL_OOM 1
#include <uthash.h>

#include "hyper/base/bug.h"
#include "hyper/base/bytes.h"
#include "hyper/base/clock.h"
#include "hyper/base/fd.h"
#include "net/listen_impl.h"

#define LISTEN_BACKLOG    1024
#define LISTEN_PORT_TRIES 16 /* port 0: another socket may hold the chosen port on the second address */

static int
port_parse(const char *text, uint16_t *ret)
{
	unsigned long v = 0;
	size_t i;

	for (i = 0; text[i] >= '0' && text[i] <= '9' && i < 6; i++)
		v = v * 10 + (unsigned long)(text[i] - '0');
	if (i == 0 || i > 5 || text[i] != '\0' || v > UINT16_MAX)
		return -EINVAL;
	*ret = (uint16_t)v;
	return 0;
}

static bool
host_is_clean(const char *host, size_t len, bool bracketed)
{
	static const char name[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._";
	static const char v6[] = "abcdefABCDEF0123456789:.";

	return len > 0 && len < 256 && strspn(host, bracketed ? v6 : name) >= len;
}

int
hostport_parse(const char *text, char ret_host[256], uint16_t *ret_port)
{
	bool bracketed = text[0] == '[';
	const char *host = bracketed ? text + 1 : text;
	const char *end = strchr(host, bracketed ? ']' : ':');
	struct in6_addr v6;
	uint16_t port;
	char copy[256];
	size_t len;

	if (end == NULL || (bracketed && end[1] != ':'))
		return -EINVAL;
	len = (size_t)(end - host);
	if (!host_is_clean(host, len, bracketed) || port_parse(end + (bracketed ? 2 : 1), &port) != 0)
		return -EINVAL;
	memcpy(copy, host, len);
	copy[len] = '\0';
	if (bracketed && inet_pton(AF_INET6, copy, &v6) != 1)
		return -EINVAL;
	memcpy(ret_host, copy, len + 1);
	*ret_port = port;
	return 0;
}

void
sockaddr_text(const struct sockaddr *sa, socklen_t len, char ret[HOSTPORT_MAX])
{
	char ip[INET6_ADDRSTRLEN] = "?";

	if (sa->sa_family == AF_INET && len >= sizeof(struct sockaddr_in)) {
		const struct sockaddr_in *in = (const void *)sa;

		inet_ntop(AF_INET, &in->sin_addr, ip, sizeof(ip));
		snprintf(ret, HOSTPORT_MAX, "%s:%u", ip, (unsigned)ntohs(in->sin_port));
	} else if (sa->sa_family == AF_INET6 && len >= sizeof(struct sockaddr_in6)) {
		const struct sockaddr_in6 *in6 = (const void *)sa;

		inet_ntop(AF_INET6, &in6->sin6_addr, ip, sizeof(ip));
		snprintf(ret, HOSTPORT_MAX, "[%s]:%u", ip, (unsigned)ntohs(in6->sin6_port));
	} else {
		snprintf(ret, HOSTPORT_MAX, "?");
	}
}

static bool
addresses_add(struct listen_addresses *a, const struct sockaddr *sa, socklen_t len)
{
	size_t i;

	for (i = 0; i < a->n; i++)
		if (a->len[i] == len && memcmp(&a->sa[i], sa, len) == 0)
			return true;
	if (a->n == LISTEN_MAX || len > sizeof(a->sa[0]))
		return false;
	memcpy(&a->sa[a->n], sa, len);
	a->len[a->n++] = len;
	return true;
}

int
listen_resolve(const char *host, struct listen_addresses *ret, char err[LISTEN_ERR_MAX])
{
	struct addrinfo hints = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV };
	static const char *const localhost[] = { "127.0.0.1", "::1" };
	bool local = strcasecmp(host, "localhost") == 0, fits = true;
	size_t i, n = local ? ARRAY_LEN(localhost) : 1;

	for (i = 0; i < n; i++) {
		struct addrinfo *list = NULL, *ai;
		int rc = getaddrinfo(local ? localhost[i] : host, "0", &hints, &list);

		if (rc != 0) {
			snprintf(err, LISTEN_ERR_MAX, "cannot resolve '%.100s': %s", host, gai_strerror(rc));
			return rc == EAI_MEMORY ? -ENOMEM : -EADDRNOTAVAIL;
		}
		for (ai = list; ai != NULL && fits; ai = ai->ai_next)
			if (ai->ai_family == AF_INET || ai->ai_family == AF_INET6)
				fits = addresses_add(ret, ai->ai_addr, ai->ai_addrlen);
		freeaddrinfo(list);
	}
	if (ret->n > 0 && fits)
		return 0;
	snprintf(err, LISTEN_ERR_MAX, fits ? "'%.100s' has no address" : "'%.100s' has more than 8 addresses, name one",
	    host);
	return -EADDRNOTAVAIL;
}

uint16_t
listen_port(const struct sockaddr_storage *sa)
{
	return ntohs(sa->ss_family == AF_INET ? ((const struct sockaddr_in *)(const void *)sa)->sin_port
					      : ((const struct sockaddr_in6 *)(const void *)sa)->sin6_port);
}

void
listen_set_port(struct sockaddr_storage *sa, uint16_t port)
{
	if (sa->ss_family == AF_INET)
		((struct sockaddr_in *)(void *)sa)->sin_port = htons(port);
	else
		((struct sockaddr_in6 *)(void *)sa)->sin6_port = htons(port);
}

/* 0 with *ret_fd taken and *ret_port what it is bound to, or -errno. */
static int
open_one(const struct sockaddr_storage *sa, socklen_t len, int *ret_fd, uint16_t *ret_port)
{
	int fd = socket(sa->ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1, rc = 0;
	struct sockaddr_storage own = { .ss_family = AF_UNSPEC };
	socklen_t own_len = sizeof(own);

	if (fd < 0)
		return -errno;
	/* TCP_NODELAY is inherited by what is accepted */
	if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) != 0 ||
	    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) != 0 ||
	    (sa->ss_family == AF_INET6 && setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on)) != 0) ||
	    bind(fd, (const struct sockaddr *)(const void *)sa, len) != 0 || listen(fd, LISTEN_BACKLOG) != 0 ||
	    getsockname(fd, (struct sockaddr *)(void *)&own, &own_len) != 0)
		rc = -errno;
	if (rc != 0) {
		fd_close(&fd);
		return rc;
	}
	*ret_port = listen_port(&own);
	*ret_fd = fd;
	return 0;
}

/* A kernel without IPv6 gives EAFNOSUPPORT; one where it is switched off by sysctl has no ::1. */
static bool
family_is_missing(const struct sockaddr_storage *sa, int rc)
{
	if (rc == -EAFNOSUPPORT)
		return true;
	return rc == -EADDRNOTAVAIL && sa->ss_family == AF_INET6 &&
	       IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)(const void *)sa)->sin6_addr);
}

static const char *
bind_hint(int rc)
{
	switch (rc) {
	case -EADDRINUSE: return " (another program listens there: stop it or choose another port)";
	case -EACCES: return " (ports below 1024 need CAP_NET_BIND_SERVICE)";
	case -EADDRNOTAVAIL: return " (not an address of this machine)";
	default: return "";
	}
}

int
listen_one(const struct sockaddr_storage *sa, socklen_t len, int *ret_fd, uint16_t *ret_port, char err[LISTEN_ERR_MAX],
    bool *ret_missing)
{
	int rc = open_one(sa, len, ret_fd, ret_port);
	char text[HOSTPORT_MAX];

	if (rc == 0)
		return 0;
	sockaddr_text((const struct sockaddr *)(const void *)sa, len, text);
	snprintf(err, LISTEN_ERR_MAX, "cannot listen on %.100s: %s%s", text, strerror(-rc), bind_hint(rc));
	*ret_missing = family_is_missing(sa, rc);
	return rc;
}

static int
listen_all(struct listen_addresses *a, uint16_t port, struct listeners *ret, char err[LISTEN_ERR_MAX])
{
	struct listeners l = { .n = 0, .port = port };
	int rc = 0, missing = 0;
	size_t i;

	for (i = 0; rc == 0 && i < a->n; i++) {
		bool is_missing = false;

		listen_set_port(&a->sa[i], l.port);
		rc = listen_one(&a->sa[i], a->len[i], &l.fd[l.n], &l.port, err, &is_missing);
		if (rc == 0) {
			l.n++;
		} else if (is_missing) {
			missing = rc;
			rc = 0;
		}
	}
	if (rc == 0 && l.n == 0)
		rc = missing;
	if (rc != 0) {
		listeners_close(&l);
		return rc;
	}
	*ret = l;
	return 0;
}

/* --- handed on over an exec --- */

static struct listen_sets {
	struct listeners_named v[LISTEN_SETS_MAX];
	size_t n;
} opened, given;

static void
sets_add(struct listen_sets *sets, const char *hostport, const struct listeners *l)
{
	if (sets->n == LISTEN_SETS_MAX)
		return;
	snprintf(sets->v[sets->n].hostport, HOSTPORT_MAX, "%s", hostport);
	sets->v[sets->n++].l = *l;
}

static void
sets_remove(struct listen_sets *sets, size_t i)
{
	sets->n--;
	memmove(&sets->v[i], &sets->v[i + 1], (sets->n - i) * sizeof(sets->v[0]));
}

size_t
listeners_opened(const struct listeners_named **ret)
{
	*ret = opened.v;
	return opened.n;
}

int
listeners_give(const char *hostport, const struct listeners *l)
{
	struct listeners copy = *l;
	size_t i;

	for (i = 0; i < l->n; i++) {
		int on = 0;
		socklen_t len = sizeof(on);

		if (getsockopt(l->fd[i], SOL_SOCKET, SO_ACCEPTCONN, &on, &len) == 0 && on &&
		    fd_set_cloexec(l->fd[i], true) == 0)
			continue;
		listeners_close(&copy);
		return -ENOTSOCK;
	}
	if (given.n == LISTEN_SETS_MAX || l->n == 0) {
		listeners_close(&copy);
		return -ENOSPC;
	}
	sets_add(&given, hostport, l);
	return 0;
}

void
listeners_drop_given(void)
{
	while (given.n > 0) {
		struct listeners l = given.v[--given.n].l;

		listeners_close(&l);
	}
}

static bool
take_given(const char *hostport, struct listeners *ret)
{
	size_t i;

	for (i = 0; i < given.n; i++) {
		if (strcmp(given.v[i].hostport, hostport) != 0)
			continue;
		*ret = given.v[i].l;
		sets_remove(&given, i);
		return true;
	}
	return false;
}

int
listeners_open(const char *hostport, struct listeners *ret, char err[LISTEN_ERR_MAX])
{
	struct listen_addresses a = { .n = 0 };
	char host[256];
	uint16_t port;
	int rc, tries;

	if (take_given(hostport, ret)) {
		sets_add(&opened, hostport, ret);
		err[0] = '\0';
		return 0;
	}

	if (hostport_parse(hostport, host, &port) != 0) {
		snprintf(err, LISTEN_ERR_MAX,
		    "'%.100s' is no address to listen on: host:port or [ipv6]:port is expected", hostport);
		return -EINVAL;
	}
	rc = listen_resolve(host, &a, err);
	if (rc != 0)
		return rc;
	for (tries = 0; tries < LISTEN_PORT_TRIES; tries++) {
		rc = listen_all(&a, port, ret, err);
		if (rc != -EADDRINUSE || port != 0)
			break;
	}
	if (rc == 0) {
		sets_add(&opened, hostport, ret);
		err[0] = '\0';
	}
	return rc;
}

void
listeners_close(struct listeners *l)
{
	size_t i;

	for (i = 0; l->n > 0 && i < opened.n; i++)
		if (opened.v[i].l.fd[0] == l->fd[0])
			sets_remove(&opened, i--);
	while (l->n > 0)
		fd_close(&l->fd[--l->n]);
}

/* The salt keeps strangers from choosing addresses that all share one bucket. */
struct rate_key {
	uint8_t salt[8];
	uint8_t net[16]; /* IPv4 mapped, or the /64 of IPv6 */
};
_Static_assert(sizeof(struct rate_key) == 24, "hashed as bytes: no padding");

struct rate_count {
	int64_t window; /* number of the window since 1970 */
	unsigned n;
};

struct rate_addr {
	struct rate_key key;
	UT_hash_handle hh; /* in the order of last use */
	struct rate_count count[];
};

struct ratelimit {
	struct rate_addr *table;
	size_t max;
	uint8_t salt[8];
	size_t n_rates;
	struct conf_rate rates[];
};

bool
rates_equal(const struct conf_rates *a, const struct conf_rates *b)
{
	for (size_t i = 0; i < a->n && i < b->n; i++)
		if (a->v[i].window_ms != b->v[i].window_ms || a->v[i].limit != b->v[i].limit)
			return false;
	return a->n == b->n;
}

struct ratelimit *
ratelimit_new(const struct conf_rates *rates, size_t max_addresses)
{
	struct ratelimit *r = calloc(1, sizeof(*r) + rates->n * sizeof(r->rates[0]));

	BUG_ON(max_addresses == 0);
	if (r == NULL)
		return NULL;
	r->max = max_addresses;
	r->n_rates = rates->n;
	if (rates->n > 0)
		memcpy(r->rates, rates->v, rates->n * sizeof(r->rates[0]));
	random_bytes(r->salt, sizeof(r->salt));
	return r;
}

static void
rate_drop(struct ratelimit *r, struct rate_addr *a)
{
	HASH_DEL(r->table, a);
	free(a);
}

void
ratelimit_free(struct ratelimit *r)
{
	if (r == NULL)
		return;
	while (r->table != NULL)
		rate_drop(r, r->table);
	free(r);
}

static void
rate_key_set(const struct ratelimit *r, const struct sockaddr *sa, struct rate_key *ret)
{
	memset(ret, 0, sizeof(*ret));
	memcpy(ret->salt, r->salt, sizeof(ret->salt));
	if (sa->sa_family == AF_INET) {
		ret->net[10] = ret->net[11] = 0xff;
		memcpy(ret->net + 12, &((const struct sockaddr_in *)(const void *)sa)->sin_addr, 4);
	} else if (sa->sa_family == AF_INET6) {
		const struct in6_addr *in6 = &((const struct sockaddr_in6 *)(const void *)sa)->sin6_addr;

		/* a mapped address is one IPv4 host: its /64 would be all of them */
		memcpy(ret->net, in6, IN6_IS_ADDR_V4MAPPED(in6) ? 16 : 8);
	}
}

/* Finds or makes the record and moves it to the young end. NULL when out of memory. */
static struct rate_addr *
rate_touch(struct ratelimit *r, const struct rate_key *key)
{
	struct rate_addr *a = NULL;

	HASH_FIND(hh, r->table, key, sizeof(*key), a);
	if (a != NULL) {
		HASH_DEL(r->table, a);
	} else {
		if (HASH_COUNT(r->table) >= r->max)
			rate_drop(r, r->table); /* the head is the oldest */
		a = calloc(1, sizeof(*a) + r->n_rates * sizeof(a->count[0]));
		if (a == NULL)
			return NULL;
		a->key = *key;
	}
	HASH_ADD(hh, r->table, key, sizeof(*key), a);
	if (a->hh.tbl == NULL) { /* uthash: not added for want of memory */
		free(a);
		return NULL;
	}
	return a;
}

bool
ratelimit_permits(struct ratelimit *r, const struct sockaddr *sa)
{
	int64_t now_utc_ms = clock_wall_utc_ns() / 1000000;
	struct rate_addr *a;
	struct rate_key key;
	bool ok = true;
	size_t i;

	if (r->n_rates == 0)
		return true;
	rate_key_set(r, sa, &key);
	a = rate_touch(r, &key);
	if (a == NULL)
		return false;
	for (i = 0; i < r->n_rates; i++) {
		/* calendar aligned: the wall clock's window; when the clock jumps a new window begins */
		int64_t window = now_utc_ms / r->rates[i].window_ms;

		if (a->count[i].window != window)
			a->count[i] = (struct rate_count){ .window = window };
		if (a->count[i].n >= r->rates[i].limit)
			ok = false;
		else
			a->count[i].n++;
	}
	return ok;
}
