/* carrier.c - pipes from a pool, or a buffer, between a read from one socket and the write to another
 *
 * Always true:
 *  1. A carrier is filled only while it is empty. So EAGAIN of the fill can only
 *     mean "socket empty", never "pipe full": splice(2) uses the same word.
 *  2. A pipe in the pool is empty. No byte of one pair can reach another.
 *  3. Memory in flight is at most one pipe's or CARRIER_BUF bytes a direction.
 *     A 64 KiB pipe may be full after 16 segments of one byte each (Linux 6.18),
 *     which only makes fills smaller.
 *
 * splice(2) never waits here: SPLICE_F_NONBLOCK covers the pipe, O_NONBLOCK of
 * the sockets the rest. It knows no MSG_NOSIGNAL: the process ignores SIGPIPE.
 */
#include "relay/carrier.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "hyper/base/bug.h"
#include "hyper/base/fd.h"

struct carrier {
	struct carrier *next; /* in the pool */
	int rd, wr;           /* -1 in a buffer */
	size_t cap;           /* most bytes of one fill */
	size_t off, len;      /* `len` bytes in flight; a buffer's start at `off` */
	uint8_t buf[];        /* CARRIER_BUF bytes in a buffer, none in a pipe */
};

static void
carrier_free(struct carrier *c)
{
	fd_close(&c->rd);
	fd_close(&c->wr);
	free(c);
}

void
carrier_pool_fini(struct carrier_pool *pool)
{
	BUG_ON(pool->n_used != 0);
	while (pool->idle) {
		struct carrier *c = pool->idle;

		pool->idle = c->next;
		carrier_free(c);
	}
	pool->n_idle = 0;
}

static struct carrier *
carrier_new(size_t room)
{
	struct carrier *c = calloc(1, sizeof(*c) + room);

	if (!c)
		return NULL;
	c->rd = c->wr = -1;
	c->cap = room;
	return c;
}

/* Beyond fs.pipe-user-pages-soft new pipes of an unprivileged user shrink and
 * F_SETPIPE_SZ gives EPERM: what F_GETPIPE_SZ says is what counts. */
static struct carrier *
pipe_new(struct carrier_pool *pool)
{
	struct carrier *c = carrier_new(0);
	int fds[2], size;

	if (!c)
		return NULL;
	if (pipe2(fds, O_NONBLOCK | O_CLOEXEC) < 0) {
		pool->none++;
		free(c);
		return NULL;
	}
	c->rd = fds[0];
	c->wr = fds[1];
	size = fcntl(c->wr, F_GETPIPE_SZ);
	if (pool->pipe_size > 0 && pool->pipe_size <= INT32_MAX && size != (int)pool->pipe_size &&
	    fcntl(c->wr, F_SETPIPE_SZ, (int)pool->pipe_size) >= 0)
		size = fcntl(c->wr, F_GETPIPE_SZ);
	c->cap = size > 0 ? (size_t)size : 4096;
	if (c->cap < pool->pipe_size)
		pool->small++;
	return c;
}

struct carrier *
carrier_get(struct carrier_pool *pool, bool must_copy)
{
	struct carrier *c;

	if (pool->copy_mode || must_copy)
		return carrier_new(CARRIER_BUF);
	c = pool->idle;
	if (c) {
		pool->idle = c->next;
		pool->n_idle--;
	} else {
		c = pipe_new(pool);
		if (!c)
			return carrier_new(CARRIER_BUF);
	}
	pool->n_used++;
	return c;
}

void
carrier_put(struct carrier_pool *pool, struct carrier *c)
{
	bool is_pipe = c && c->rd >= 0;

	if (!c)
		return;
	if (is_pipe)
		pool->n_used--;
	if (!is_pipe || c->len > 0 || pool->n_idle >= pool->max_idle) {
		carrier_free(c);
		return;
	}
	c->next = pool->idle;
	pool->idle = c;
	pool->n_idle++;
}

size_t
carrier_bytes(const struct carrier *c)
{
	return c ? c->len : 0;
}

ssize_t
carrier_fill(struct carrier *c, int fd)
{
	ssize_t n;

	BUG_ON(c->len > 0);
	do
		n = c->rd >= 0 ? splice(fd, NULL, c->wr, NULL, c->cap, SPLICE_F_NONBLOCK | SPLICE_F_MOVE)
			       : recv(fd, c->buf, c->cap, MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	c->off = 0;
	c->len = (size_t)n;
	return n;
}

ssize_t
carrier_drain(struct carrier *c, int fd)
{
	ssize_t n;

	BUG_ON(c->len == 0);
	do
		n = c->rd >= 0 ? splice(c->rd, NULL, fd, NULL, c->len, SPLICE_F_NONBLOCK | SPLICE_F_MOVE)
			       : send(fd, c->buf + c->off, c->len, MSG_DONTWAIT | MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	BUG_ON((size_t)n > c->len);
	if (n == 0)
		return -EIO; /* a pipe that holds fewer bytes than it took in: cannot be, and must not spin */
	c->off += (size_t)n;
	c->len -= (size_t)n;
	return n;
}
