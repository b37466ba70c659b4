/* activate.h - listening sockets that a service manager hands over by name (systemd.socket(5), sd_listen_fds(3)) */
#ifndef HYPER_NET_ACTIVATE_H
#define HYPER_NET_ACTIVATE_H

#include <stddef.h>

#include "hyper/base/attr.h"
#include "hyper/net/listen.h"

/* What a program listens on. */
struct activate_name {
	const char *name;     /* FileDescriptorName= of the socket unit */
	const char *setting;  /* for messages */
	const char *hostport; /* its value; NULL not set */
};

/* Once, before the first listeners_open(): the one of `hostport` gets what came under its name; addresses of the host
 * that did not come are bound. 0, also where nothing came; else -errno with `err` saying what to do. */
int activate_sockets(const struct activate_name *names, size_t n, char err[LISTEN_ERR_MAX]) ATTR_MUST_USE;

#endif
