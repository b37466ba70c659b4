/* tlsio.c - TLS over a connected socket: as few calls into the kernel as the bytes need
 *
 * libevent's own (bufferevent_openssl) reads each record's head alone, writes each chunk as a
 * record of its own, and waits for the loop before each write: 9 calls into the kernel for an answer
 * of 9 kB where 4 are enough.
 *
 * Always true:
 *  1. What is sent together leaves together: bytes that were put wait for tlsio_flush() and
 *     fill records of 16 KiB. The socket is tried first; the loop watches it for
 *     room only when it had none.
 *  2. OpenSSL reads ahead: what it holds, the socket does not tell of. Whoever stops before
 *     tlsio_has_more() is false asks for tlsio_again().
 *  3. An idle connection holds no buffer: OpenSSL gives its own back (SSL_MODE_RELEASE_BUFFERS),
 *     ours goes when all is sent.
 *
 * Not here: how much may wait, deadlines, who the peer is (the owner's).
 */
#include "net/tlsio.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include <event2/event.h>
#include <openssl/err.h>

#include "hyper/base/bug.h"

#define READ_AHEAD ((size_t)32 * 1024)

struct tlsio {
	SSL *ssl;
	struct event *readable; /* always armed */
	struct event *writable; /* while OpenSSL wants to write and the socket has no room */
	struct event *again;
	uint8_t *out; /* owned: cap bytes, those from `off` to `end` wait */
	size_t off, end, cap;
	struct tlsio_end ended;
	void (*on_ready)(void *arg);
	void *arg;
};

static void
on_event(evutil_socket_t fd, short what, void *arg)
{
	struct tlsio *io = arg;

	(void)fd;
	(void)what;
	io->on_ready(io->arg);
}

/* What a call of OpenSSL came to that did not succeed: 0 to wait, or -EPIPE. */
static int
io_judge(struct tlsio *io, int rc)
{
	int err = errno, why = SSL_get_error(io->ssl, rc);

	switch (why) {
	case SSL_ERROR_WANT_READ: return 0;
	case SSL_ERROR_WANT_WRITE:
		if (event_add(io->writable, NULL) == 0)
			return 0;
		io->ended = (struct tlsio_end){ .err = ENOMEM };
		return -EPIPE;
	case SSL_ERROR_ZERO_RETURN: io->ended = (struct tlsio_end){ .is_eof = true }; return -EPIPE;
	default: break;
	}
	io->ended = (struct tlsio_end){ .code = ERR_peek_error(), .err = why == SSL_ERROR_SYSCALL ? err : 0 };
	io->ended.is_eof = io->ended.code == 0 && io->ended.err == 0;
	ERR_clear_error();
	return -EPIPE;
}

static uint64_t moved[2];

const uint64_t *
tlsio_moved(void)
{
	return moved;
}

int
tlsio_new(struct event_base *base, int fd, SSL *ssl, void (*on_ready)(void *arg), void *arg, struct tlsio **ret)
{
	struct tlsio *io = calloc(1, sizeof *io);

	if (io == NULL)
		return -ENOMEM;
	io->ssl = ssl;
	io->on_ready = on_ready;
	io->arg = arg;
	io->readable = event_new(base, fd, EV_READ | EV_PERSIST, on_event, io);
	io->writable = event_new(base, fd, EV_WRITE, on_event, io);
	io->again = evtimer_new(base, on_event, io);
	if (io->readable == NULL || io->writable == NULL || io->again == NULL || SSL_set_fd(ssl, fd) != 1 ||
	    event_add(io->readable, NULL) != 0) {
		tlsio_free(io);
		return -ENOMEM;
	}
	SSL_set_mode(ssl, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
	SSL_set_read_ahead(ssl, 1);
	SSL_set_default_read_buffer_len(ssl, READ_AHEAD);
	event_active(io->again, EV_TIMEOUT, 0);
	*ret = io;
	return 0;
}

void
tlsio_free(struct tlsio *io)
{
	if (io == NULL)
		return;
	if (io->readable != NULL)
		event_free(io->readable);
	if (io->writable != NULL)
		event_free(io->writable);
	if (io->again != NULL)
		event_free(io->again);
	free(io->out);
	free(io);
}

int
tlsio_handshake(struct tlsio *io)
{
	int rc;

	ERR_clear_error();
	errno = 0;
	rc = SSL_do_handshake(io->ssl);
	return rc == 1 ? 1 : io_judge(io, rc);
}

ssize_t
tlsio_read(struct tlsio *io, uint8_t *buf, size_t cap)
{
	int rc;

	ERR_clear_error();
	errno = 0;
	rc = SSL_read(io->ssl, buf, cap < INT_MAX ? (int)cap : INT_MAX);
	if (rc > 0)
		moved[0] += (uint64_t)rc;
	return rc > 0 ? rc : io_judge(io, rc);
}

bool
tlsio_has_more(const struct tlsio *io)
{
	return SSL_has_pending(io->ssl) == 1;
}

void
tlsio_again(struct tlsio *io)
{
	const struct timeval now = { 0, 0 };

	/* by way of the timer, so that other connections get their turn in between */
	if (evtimer_add(io->again, &now) != 0)
		event_active(io->again, EV_TIMEOUT, 0);
}

int
tlsio_put(struct tlsio *io, const uint8_t *data, size_t len)
{
	size_t cap = io->cap > 0 ? io->cap : 1024;
	uint8_t *out;

	if (len > io->cap - io->end && io->off > 0) {
		memmove(io->out, io->out + io->off, io->end - io->off);
		io->end -= io->off;
		io->off = 0;
	}
	if (len > io->cap - io->end) {
		while (cap - io->end < len)
			cap *= 2;
		out = realloc(io->out, cap);
		if (out == NULL)
			return -ENOMEM;
		io->out = out;
		io->cap = cap;
	}
	memcpy(io->out + io->end, data, len);
	io->end += len;
	return 0;
}

int
tlsio_flush(struct tlsio *io)
{
	while (io->off < io->end) {
		size_t len = io->end - io->off;
		int rc;

		ERR_clear_error();
		errno = 0;
		rc = SSL_write(io->ssl, io->out + io->off, len < INT_MAX ? (int)len : INT_MAX);
		if (rc <= 0)
			return io_judge(io, rc);
		io->off += (size_t)rc;
		moved[1] += (uint64_t)rc;
	}
	free(io->out);
	io->out = NULL;
	io->off = io->end = io->cap = 0;
	return 0;
}

size_t
tlsio_waiting(const struct tlsio *io)
{
	return io->end - io->off;
}

const struct tlsio_end *
tlsio_ended(const struct tlsio *io)
{
	return &io->ended;
}
