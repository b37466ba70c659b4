/* carrier.c - pipes from a pool, or a buffer, between a read from one socket and the write to another
 *
 * Always true:
 *  1. A carrier is filled only while it is empty. So EAGAIN of the fill can only
 *     mean "socket empty", never "pipe full": splice(2) uses the same word.
 *  2. A pipe in the pool is empty. No byte of one pair can reach another.
 *  3. Memory in flight is at most one pipe's or CARRIER_BUF bytes a direction.
 *     A 64 KiB pipe may be full after 16 segments of one byte each (Linux 6.18),
 *     which only makes fills smaller.
 *  4. The journal names the owner of a pipe before its first byte comes, and until
 *     after its last one went. The entry of one that is closed with bytes in it
 *     stays: who keeps a duplicate must not take it for an empty one.
 *
 * splice(2) never waits here: SPLICE_F_NONBLOCK covers the pipe, O_NONBLOCK of
 * the sockets the rest. It knows no MSG_NOSIGNAL: the process ignores SIGPIPE.
 *
 * A pipe is one descriptor: /proc/self/fd/N of a pipe can be opened for both
 * ways (Linux 6.18), which halves what a pool costs. Where it cannot, two do.
 */
#include "relay/carrier.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "hyper/base/bug.h"
#include "hyper/base/fd.h"
#include "hyper/relay/relay.h"

#define NO_NUMBER UINT32_MAX

struct carrier {
	struct carrier *next; /* in the pool */
	int rd, wr;           /* -1 in a buffer; wr is -1 too where rd is both */
	uint32_t no;          /* NO_NUMBER: it was made here */
	uint32_t cap;         /* most bytes of one fill */
	uint32_t slots;       /* of a pipe; each takes a byte or more, and a page at most */
	uint32_t off, len;    /* `len` bytes in flight; a buffer's start at `off` */
	uint8_t buf[];        /* CARRIER_BUF bytes in a buffer, none in a pipe */
};

static int
pipe_wr(const struct carrier *c)
{
	return c->wr >= 0 ? c->wr : c->rd;
}

static void
carrier_free(struct carrier_pool *pool, struct carrier *c)
{
	uint32_t no = c->no;

	fd_close(&c->rd);
	fd_close(&c->wr);
	free(c);
	if (no == NO_NUMBER)
		return;
	pool->here[no] = false;
	if (pool->on_gone)
		pool->on_gone(no, pool->arg);
}

static void
journal_put(struct carrier_pool *pool, const struct carrier *c, uint64_t owner)
{
	if (c->no != NO_NUMBER)
		__atomic_store_n(&pool->journal[c->no], owner, __ATOMIC_RELEASE);
}

/* --- the pool -------------------------------------------------------------- */

static void
pool_add(struct carrier_pool *pool, struct carrier *c)
{
	c->next = pool->idle;
	pool->idle = c;
	pool->n_idle++;
}

static struct carrier *
pool_take(struct carrier_pool *pool)
{
	struct carrier *c = pool->idle;

	pool->idle = c->next;
	pool->n_idle--;
	if (pool->n_idle < pool->low)
		pool->low = pool->n_idle;
	return c;
}

bool
carrier_pool_has(const struct carrier_pool *pool)
{
	return !pool->copy_mode && pool->n_idle > pool->n_kept;
}

void
carrier_pool_fini(struct carrier_pool *pool)
{
	BUG_ON(pool->n_used != 0);
	while (pool->n_idle > 0)
		carrier_free(pool, pool_take(pool));
}

void
carrier_pool_trim(struct carrier_pool *pool)
{
	size_t spare = pool->low;

	while (spare-- > 0 && pool->n_idle > pool->max_idle && pool->n_idle > pool->n_kept)
		carrier_free(pool, pool_take(pool));
	pool->low = pool->n_idle;
}

/* --- making pipes ---------------------------------------------------------- */

static int
open_both_ways(int fd)
{
	char path[32];
	int both;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	both = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
	return both < 0 ? -errno : both;
}

/* Beyond fs.pipe-user-pages-soft new pipes of an unprivileged user shrink and
 * F_SETPIPE_SZ gives EPERM: what F_GETPIPE_SZ says is what counts. */
static uint32_t
pipe_resize(int fd, size_t want)
{
	int size = fcntl(fd, F_GETPIPE_SZ);

	if (want > 0 && want <= INT32_MAX && size != (int)want && fcntl(fd, F_SETPIPE_SZ, (int)want) >= 0)
		size = fcntl(fd, F_GETPIPE_SZ);
	return size > 0 ? (uint32_t)size : 4096;
}

int
relay_pipe_open(size_t size)
{
	int fds[2], both;

	if (pipe2(fds, O_NONBLOCK | O_CLOEXEC) < 0)
		return -errno;
	both = open_both_ways(fds[0]);
	fd_close(&fds[0]);
	fd_close(&fds[1]);
	if (both >= 0)
		pipe_resize(both, size);
	return both;
}

static struct carrier *
carrier_new(uint32_t room)
{
	struct carrier *c = malloc(sizeof(*c) + room);

	if (!c)
		return NULL;
	*c = (struct carrier){ .rd = -1, .wr = -1, .no = NO_NUMBER, .cap = room };
	return c;
}

static struct carrier *
pipe_new(struct carrier_pool *pool)
{
	struct carrier *c = carrier_new(0);
	int fds[2], both;

	if (!c)
		return NULL;
	if (pipe2(fds, O_NONBLOCK | O_CLOEXEC) < 0) {
		pool->none++;
		free(c);
		return NULL;
	}
	both = open_both_ways(fds[0]);
	if (both >= 0) {
		fd_close(&fds[0]);
		fd_close(&fds[1]);
		fds[0] = both;
	}
	c->rd = fds[0];
	c->wr = fds[1];
	c->cap = pipe_resize(c->rd, pool->pipe_size);
	c->slots = c->cap / (uint32_t)getpagesize();
	if (c->cap < pool->pipe_size)
		pool->small++;
	return c;
}

/* --- one carrier ----------------------------------------------------------- */

int
carrier_get(struct carrier_pool *pool, uint64_t owner, bool must_copy, struct carrier **ret)
{
	struct carrier *c;

	if (pool->copy_mode || must_copy) {
		c = carrier_new(CARRIER_BUF);
		if (!c)
			return -ENOMEM;
		*ret = c;
		return 0;
	}
	if (pool->n_idle > pool->n_kept)
		c = pool_take(pool);
	else
		c = pool->makes_pipes ? pipe_new(pool) : NULL;
	if (!c)
		return -EAGAIN;
	journal_put(pool, c, owner);
	pool->n_used++;
	*ret = c;
	return 0;
}

int
carrier_adopt(struct carrier_pool *pool, uint32_t no, int fd, uint64_t owner, struct carrier **ret)
{
	struct carrier *c = NULL;
	int held = 0;

	if (no < pool->n_pipes && !pool->here[no] && ioctl(fd, FIONREAD, &held) == 0)
		c = carrier_new(0);
	if (!c) {
		fd_close(&fd);
		return -EINVAL;
	}
	c->rd = fd;
	c->no = no;
	c->cap = pipe_resize(fd, 0);
	c->slots = c->cap / (uint32_t)getpagesize();
	c->len = (uint32_t)held;
	pool->here[no] = true;
	journal_put(pool, c, held > 0 ? owner : 0);
	if (held > 0)
		pool->n_used++;
	else
		pool_add(pool, c);
	*ret = held > 0 ? c : NULL;
	return 0;
}

void
carrier_put(struct carrier_pool *pool, struct carrier *c)
{
	if (!c)
		return;
	if (carrier_is_buffer(c)) {
		free(c);
		return;
	}
	pool->n_used--;
	if (c->len > 0 || (c->no == NO_NUMBER && pool->n_idle >= pool->max_idle)) {
		carrier_free(pool, c);
		return;
	}
	journal_put(pool, c, 0);
	pool_add(pool, c);
}

uint32_t
carrier_release(struct carrier_pool *pool, struct carrier *c)
{
	uint32_t no = c->no;

	BUG_ON(no == NO_NUMBER);
	pool->n_used--;
	pool->here[no] = false;
	fd_close(&c->rd);
	free(c);
	return no;
}

size_t
carrier_bytes(const struct carrier *c)
{
	return c ? c->len : 0;
}

size_t
carrier_slots(const struct carrier *c)
{
	return carrier_is_buffer(c) ? c->cap : c->slots;
}

bool
carrier_is_buffer(const struct carrier *c)
{
	return c->rd < 0;
}

bool
carrier_is_private(const struct carrier *c)
{
	return c->no == NO_NUMBER;
}

ssize_t
carrier_fill(struct carrier *c, int fd, size_t max)
{
	size_t want = max < c->cap ? max : c->cap;
	ssize_t n;

	BUG_ON(c->len > 0);
	do
		n = c->rd >= 0 ? splice(fd, NULL, pipe_wr(c), NULL, want, SPLICE_F_NONBLOCK | SPLICE_F_MOVE)
			       : recv(fd, c->buf, want, MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	c->off = 0;
	c->len = (uint32_t)n;
	return n;
}

int
carrier_load(struct carrier *c, const void *data, size_t len)
{
	ssize_t n;

	BUG_ON(c->len > 0);
	if (carrier_is_buffer(c)) {
		BUG_ON(len > c->cap);
		memcpy(c->buf, data, len);
		n = (ssize_t)len;
	} else {
		n = write(pipe_wr(c), data, len);
	}
	if (n < 0)
		return -errno;
	c->off = 0;
	c->len = (uint32_t)n;
	return (size_t)n == len ? 0 : -EIO;
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
	c->off += (uint32_t)n;
	c->len -= (uint32_t)n;
	return n;
}
