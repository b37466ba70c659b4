/* logaddr.c - a peer's address as the log may show it: whole, its network, or not at all
 *
 * Every peer=ADDRESS of every log line comes from here.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "hyper/base/log.h"

#define V4_KEPT 3 /* bytes of a /24 */
#define V6_KEPT 6 /* bytes of a /48 */

static enum log_ip mode = LOG_IP_FULL;

void
log_ip_set(enum log_ip ip)
{
	mode = ip;
}

static void
v4_text(const struct in_addr *in, int port, char ret[LOG_ADDR_MAX])
{
	uint8_t b[4];

	memcpy(b, in, sizeof(b));
	if (mode == LOG_IP_PREFIX)
		snprintf(ret, LOG_ADDR_MAX, "%u.%u.%u.0/%d", b[0], b[1], b[2], V4_KEPT * 8);
	else if (port < 0)
		snprintf(ret, LOG_ADDR_MAX, "%u.%u.%u.%u", b[0], b[1], b[2], b[3]);
	else
		snprintf(ret, LOG_ADDR_MAX, "%u.%u.%u.%u:%d", b[0], b[1], b[2], b[3], port);
}

static void
v6_text(const struct in6_addr *in6, int port, char ret[LOG_ADDR_MAX])
{
	struct in6_addr a = *in6;
	char ip[INET6_ADDRSTRLEN];

	if (mode == LOG_IP_PREFIX)
		memset(a.s6_addr + V6_KEPT, 0, sizeof(a.s6_addr) - V6_KEPT);
	inet_ntop(AF_INET6, &a, ip, sizeof(ip));
	if (mode == LOG_IP_PREFIX)
		snprintf(ret, LOG_ADDR_MAX, "%s/%d", ip, V6_KEPT * 8);
	else if (port < 0)
		snprintf(ret, LOG_ADDR_MAX, "%s", ip);
	else
		snprintf(ret, LOG_ADDR_MAX, "[%s]:%d", ip, port);
}

void
log_addr(const void *sockaddr, bool with_port, char ret[LOG_ADDR_MAX])
{
	const struct sockaddr *sa = sockaddr;
	const struct sockaddr_in *in = sockaddr;
	const struct sockaddr_in6 *in6 = sockaddr;
	struct in_addr mapped;

	snprintf(ret, LOG_ADDR_MAX, "%s", mode == LOG_IP_NONE ? "-" : "?");
	if (mode == LOG_IP_NONE)
		return;
	if (sa->sa_family == AF_INET) {
		v4_text(&in->sin_addr, with_port ? ntohs(in->sin_port) : -1, ret);
	} else if (sa->sa_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr)) {
		memcpy(&mapped, in6->sin6_addr.s6_addr + 12, sizeof(mapped));
		v4_text(&mapped, with_port ? ntohs(in6->sin6_port) : -1, ret);
	} else if (sa->sa_family == AF_INET6) {
		v6_text(&in6->sin6_addr, with_port ? ntohs(in6->sin6_port) : -1, ret);
	}
}
