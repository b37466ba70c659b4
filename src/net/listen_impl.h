/* listen_impl.h - addresses of a host:port, and one listener; for listen.c and activate.c */
#ifndef HYPER_NET_LISTEN_IMPL_H
#define HYPER_NET_LISTEN_IMPL_H

#include "hyper/net/listen.h"

/* The addresses of a name, without repeats, in sockaddr form. */
struct listen_addresses {
	struct sockaddr_storage sa[LISTEN_MAX];
	socklen_t len[LISTEN_MAX];
	size_t n;
};

/* Into an empty *ret. 0 or -errno with `err` filled. */
int listen_resolve(const char *host, struct listen_addresses *ret, char err[LISTEN_ERR_MAX]) ATTR_MUST_USE;

uint16_t listen_port(const struct sockaddr_storage *);
void listen_set_port(struct sockaddr_storage *, uint16_t port);

/* 0 with *ret_fd taken and *ret_port what it is bound to; else -errno with `err` filled, and true in *ret_missing
 * where the machine has no such family, which is no fault. */
int listen_one(const struct sockaddr_storage *, socklen_t len, int *ret_fd, uint16_t *ret_port,
    char err[LISTEN_ERR_MAX], bool *ret_missing) ATTR_MUST_USE;

#endif
