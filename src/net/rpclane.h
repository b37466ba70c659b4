/* rpclane.h - kept HTTP/1.1 connections to one endpoint, for many small calls; private to src/net
 *
 *   DIALLING --connected, TLS--> IDLE --call--> BUSY --answer--> IDLE
 *       `-------------------------`---------------`--- any trouble, silence ---> gone
 *
 * They take over from libcurl where calls are many, and never have the last word on a failure: whoever
 * gets no lane, or -EAGAIN, asks through libcurl, which says what is wrong.
 */
#ifndef NET_RPCLANE_H
#define NET_RPCLANE_H

#include <stdbool.h>
#include <stddef.h>

#include <openssl/ssl.h>

#include "hyper/base/attr.h"

struct event_base;
struct lane;
struct lanes;

struct lanes_conf {
	struct event_base *base; /* borrowed */
	const char *hostport;    /* copied, as all texts: where to connect */
	const char *host_header;
	const char *path;
	unsigned load; /* calls a second from which on lanes are opened; 0: at once, without lanes_may_open() */
	SSL_CTX *tls;  /* NULL: plain HTTP; a reference is taken */
	const char *server_name; /* what the certificate must say */
};

/* The end of a call, from the loop, once: the HTTP status with a body that is borrowed until return; -EMSGSIZE: the
 * answer is too large; -EPROTO: no answer that we understand; -EAGAIN: the connection ended before any of it came. */
typedef void (*lane_cb)(int status, const char *body, size_t len, void *arg);

/* 0 with *ret taken, or -ENOMEM. */
int lanes_new(const struct lanes_conf *, struct lanes **ret) ATTR_MUST_USE;
/* No callback comes any more. NULL is fine. */
void lanes_free(struct lanes *);

/* Was the server just seen to keep a connection, or to end one? No lane is opened before the first, nor after the second. */
void lanes_may_open(struct lanes *, bool is_kept);

/* Sends `request` on a connection that waits. NULL: there is none, or it is not worth one; some may be opened for later
 * calls. Else borrowed until `cb`, or lane_cancel(). */
struct lane *lanes_call(struct lanes *, const char *request, size_t len, lane_cb cb, void *arg);

/* Its callback does not come; the connection ends, for the answer would be taken for the next one's. */
void lane_cancel(struct lane *);

#endif
