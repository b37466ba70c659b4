/* activate.c - see the header
 *
 *   LISTEN_PID  whom they are for     LISTEN_FDS  how many, from descriptor 3 on     LISTEN_FDNAMES  a:b:c
 *
 * Always true:
 *  1. A socket is used only under its name and only where the settings name its
 *     address too: what is served where stands in the settings, as without it.
 *  2. The variables are gone afterwards, so that no child and no program that we
 *     execute ourselves anew as takes these numbers for its own.
 *
 * Not here: the sockets' life over such an exec (listen.c).
 */
#include "hyper/net/activate.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "hyper/base/fd.h"
#include "hyper/base/log.h"
#include "net/listen_impl.h"

#define FIRST_FD 3
#define FDS_MAX  64

/* One name's sockets while they are looked at. */
struct handed {
	const struct activate_name *as;
	struct listen_addresses want;
	bool has[LISTEN_MAX];
	struct listeners l;
};

static int ATTR_PRINTF(3, 4) refuse(char err[LISTEN_ERR_MAX], const char *name, const char *fmt, ...)
{
	int n = snprintf(err, LISTEN_ERR_MAX, "the service manager's socket \"%.64s\" ", name);
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(err + n, LISTEN_ERR_MAX - (size_t)n, fmt, ap);
	va_end(ap);
	return -EINVAL;
}

/* How many came for us; 0 none. */
static int
count_of_environment(void)
{
	const char *pid = getenv("LISTEN_PID"), *fds = getenv("LISTEN_FDS");
	long n;

	if (!pid || !fds || strtol(pid, NULL, 10) != getpid())
		return 0;
	n = strtol(fds, NULL, 10);
	return n < 1 ? 0 : n > FDS_MAX ? FDS_MAX + 1 : (int)n;
}

/* Is it a TCP socket that listens? Then *ret is its address, and it does not block. */
static int
look_at(int fd, struct sockaddr_storage *ret, socklen_t *ret_len)
{
	socklen_t on_len = sizeof(int);
	int on = 0;

	*ret_len = sizeof(*ret);
	if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &on, &on_len) < 0 || !on ||
	    getsockname(fd, (struct sockaddr *)(void *)ret, ret_len) < 0 ||
	    (ret->ss_family != AF_INET && ret->ss_family != AF_INET6))
		return -ENOTSOCK;
	on = 1;
	if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) < 0)
		return -errno;
	return fd_set_nonblock(fd);
}

/* One of [::] that serves IPv4 as well would serve more than the settings say. */
static bool
is_dual(int fd, const struct sockaddr_storage *sa)
{
	socklen_t len = sizeof(int);
	int on = 0;

	return sa->ss_family == AF_INET6 &&
	       IN6_IS_ADDR_UNSPECIFIED(&((const struct sockaddr_in6 *)(const void *)sa)->sin6_addr) &&
	       getsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, &len) == 0 && !on;
}

/* Which of the wanted addresses is it? -1 none. */
static int
index_of(struct handed *h, const struct sockaddr_storage *sa, socklen_t len)
{
	for (size_t i = 0; i < h->want.n; i++) {
		struct sockaddr_storage with_port = h->want.sa[i];

		listen_set_port(&with_port, h->l.port ? h->l.port : listen_port(sa));
		if (!h->has[i] && h->want.len[i] == len && memcmp(&with_port, sa, len) == 0)
			return (int)i;
	}
	return -1;
}

static int
add(struct handed *h, int fd, char err[LISTEN_ERR_MAX])
{
	char text[HOSTPORT_MAX];
	struct sockaddr_storage sa = { 0 };
	socklen_t len;
	int i;

	if (look_at(fd, &sa, &len) < 0)
		return refuse(err, h->as->name, "is no TCP socket that listens: use ListenStream= with a port");
	if (is_dual(fd, &sa))
		return refuse(err, h->as->name,
		    "serves IPv4 on [::] too: set BindIPv6Only=ipv6-only, and name 0.0.0.0 beside it where it is "
		    "meant");
	i = index_of(h, &sa, len);
	if (i < 0) {
		sockaddr_text((const struct sockaddr *)(const void *)&sa, len, text);
		return refuse(err, h->as->name, "listens on %.60s, but %s is %.60s: make them the same", text,
		    h->as->setting, h->as->hostport);
	}
	h->has[i] = true;
	h->l.port = listen_port(&sa);
	h->l.fd[h->l.n++] = fd;
	return 0;
}

/* Those of the name's addresses that did not come. */
static int
add_missing(struct handed *h, char err[LISTEN_ERR_MAX])
{
	for (size_t i = 0; i < h->want.n; i++) {
		bool is_missing = false;
		uint16_t port;
		int rc;

		if (h->has[i])
			continue;
		listen_set_port(&h->want.sa[i], h->l.port);
		rc = listen_one(&h->want.sa[i], h->want.len[i], &h->l.fd[h->l.n], &port, err, &is_missing);
		if (rc < 0 && !is_missing)
			return rc;
		h->l.n += rc == 0;
	}
	return 0;
}

static int
begin(struct handed *h, const struct activate_name *as, char err[LISTEN_ERR_MAX])
{
	char host[256];

	*h = (struct handed){ .as = as };
	if (!as->hostport)
		return refuse(err, as->name, "has no use: the settings have no %s", as->setting);
	if (hostport_parse(as->hostport, host, &h->l.port) < 0)
		return refuse(err, as->name, "has no use: the setting is no host:port");
	return listen_resolve(host, &h->want, err);
}

/* Takes all descriptors called `as->name`. */
static int
take_name(const struct activate_name *as, char *const *called, int n, char err[LISTEN_ERR_MAX])
{
	struct handed h = { 0 };
	int i, rc = 0, came = 0;

	for (i = 0; rc == 0 && i < n; i++) {
		if (strcmp(called[i], as->name) != 0)
			continue;
		if (came++ == 0)
			rc = begin(&h, as, err);
		if (rc == 0)
			rc = add(&h, FIRST_FD + i, err);
	}
	if (rc < 0 || came == 0)
		return rc;
	rc = add_missing(&h, err);
	if (rc == 0) {
		log_info("activated", "socket=%s port=%u sockets=%d bound=%zu", as->name, (unsigned)h.l.port, came,
		    h.l.n - (size_t)came);
		rc = listeners_give(as->hostport, &h.l);
	}
	return rc;
}

static int
check_name(const struct activate_name *names, size_t n, const char *called, char err[LISTEN_ERR_MAX])
{
	char list[128] = "";
	size_t used = 0;

	for (size_t i = 0; i < n; i++)
		if (strcmp(names[i].name, called) == 0)
			return 0;
	for (size_t i = 0; i < n && used < sizeof(list); i++)
		used += (size_t)snprintf(list + used, sizeof(list) - used, "%s%s",
		    i == 0       ? ""
		    : i + 1 == n ? " or "
				 : ", ",
		    names[i].name);
	return refuse(err, called, "has a name that means nothing here: FileDescriptorName= must be %s", list);
}

int
activate_sockets(const struct activate_name *names, size_t n, char err[LISTEN_ERR_MAX])
{
	int count = count_of_environment(), i, rc = 0;
	const char *text = getenv("LISTEN_FDNAMES");
	char *called[FDS_MAX], *copy, *at;

	if (count == 0)
		return 0;
	copy = at = strdup(text ? text : "");
	if (!copy)
		return -ENOMEM;
	if (count > FDS_MAX)
		rc = refuse(err, "", "is one of more than %d", FDS_MAX);
	for (i = 0; rc == 0 && i < count; i++) {
		called[i] = at ? strsep(&at, ":") : copy + strlen(copy);
		if (fd_set_cloexec(FIRST_FD + i, true) < 0)
			rc = refuse(err, called[i], "is not open");
		else
			rc = check_name(names, n, called[i], err);
	}
	for (size_t k = 0; rc == 0 && k < n; k++)
		rc = take_name(&names[k], called, count, err);
	unsetenv("LISTEN_PID");
	unsetenv("LISTEN_FDS");
	unsetenv("LISTEN_FDNAMES");
	free(copy);
	return rc;
}
