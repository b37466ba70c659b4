/* tlsio.h - TLS over a connected socket, on the event loop; private to src/net
 *
 * Its owner does the work when it is told that something may be possible:
 *
 *   on_ready --> tlsio_handshake() until 1 --> tlsio_read() while tlsio_has_more(), tlsio_flush()
 */
#ifndef NET_TLSIO_H
#define NET_TLSIO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <openssl/ssl.h>
#include <sys/types.h>

#include "hyper/base/attr.h"

struct event_base;
struct tlsio;

/* How it ended. */
struct tlsio_end {
	bool is_eof;        /* the peer closed it, in order or not */
	unsigned long code; /* of OpenSSL's error queue; 0 none */
	int err;            /* errno; 0 none */
};

/* Over `fd`, which must not block; it and `ssl`, which knows its role, are borrowed until tlsio_free(). `on_ready`
 * comes from the loop, for the first time at once. 0 with *ret taken, or -ENOMEM. */
int tlsio_new(
    struct event_base *, int fd, SSL *ssl, void (*on_ready)(void *arg), void *arg, struct tlsio **ret) ATTR_MUST_USE;

/* Legal in on_ready. Nothing is sent. NULL is fine. */
void tlsio_free(struct tlsio *);

/* 1 when it is done, 0: not yet, -EPIPE: it failed, see tlsio_ended(). */
int tlsio_handshake(struct tlsio *) ATTR_MUST_USE;

/* At most one record. Its length, 0: nothing is there, -EPIPE: it ended. */
ssize_t tlsio_read(struct tlsio *, uint8_t *buf, size_t cap) ATTR_MUST_USE;

/* Bytes of the peer are here already: the socket will not tell of them. */
bool tlsio_has_more(const struct tlsio *);

/* on_ready comes again with the loop's next turn. */
void tlsio_again(struct tlsio *);

/* Puts bytes behind those that wait (copied); tlsio_flush() sends as much as the socket takes
 * and waits for room for the rest. 0, -ENOMEM; 0, -EPIPE. */
int tlsio_put(struct tlsio *, const uint8_t *data, size_t len) ATTR_MUST_USE;
int tlsio_flush(struct tlsio *) ATTR_MUST_USE;
size_t tlsio_waiting(const struct tlsio *);

/* After -EPIPE. */
const struct tlsio_end *tlsio_ended(const struct tlsio *);

/* Bytes that all of them have read, and written, since the start. */
const uint64_t *tlsio_moved(void);

#endif
