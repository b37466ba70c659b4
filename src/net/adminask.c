/* adminask.c - the admin socket's frames, and its client; the client waits, so it is for short-lived programs only */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <event2/buffer.h>

#include "hyper/base/clock.h"
#include "hyper/base/fd.h"
#include "hyper/net/admin.h"
#include "hyper/wire/mpjson.h"
#include "net/adminframe.h"

/* --- frames --- */

static size_t
head_read(const uint8_t head[ADMINFRAME_HEAD])
{
	return (size_t)head[0] << 24 | (size_t)head[1] << 16 | (size_t)head[2] << 8 | (size_t)head[3];
}

static void
head_write(uint8_t ret[ADMINFRAME_HEAD], size_t len)
{
	for (int i = 0; i < ADMINFRAME_HEAD; i++)
		ret[i] = (uint8_t)(len >> (8 * (ADMINFRAME_HEAD - 1 - i)));
}

int
adminframe_take(struct evbuffer *in, size_t max, json_t **ret)
{
	uint8_t head[ADMINFRAME_HEAD];
	size_t len;
	int rc;

	if (evbuffer_copyout(in, head, sizeof(head)) < (ssize_t)sizeof(head))
		return 0;
	len = head_read(head);
	if (len > max)
		return -EMSGSIZE;
	if (evbuffer_get_length(in) < sizeof(head) + len)
		return 0;
	evbuffer_drain(in, sizeof(head));
	rc = mpjson_unpack(evbuffer_pullup(in, (ssize_t)len), len, ret);
	evbuffer_drain(in, len);
	return rc < 0 ? -EPROTO : 1;
}

void
adminframe_put(struct evbuffer *out, const uint8_t *data, size_t len)
{
	uint8_t head[ADMINFRAME_HEAD];

	head_write(head, len);
	evbuffer_add(out, head, sizeof(head));
	evbuffer_add(out, data, len);
}

void
adminframe_send_last(int fd, const char *text)
{
	struct evbuffer *out = evbuffer_new();
	json_t *answer = admin_error("%s", text);
	uint8_t *data = NULL;
	size_t len;

	if (out && answer && mpjson_pack(answer, &data, &len) == 0) {
		adminframe_put(out, data, len);
		(void)!send(fd, evbuffer_pullup(out, -1), evbuffer_get_length(out), MSG_DONTWAIT | MSG_NOSIGNAL);
	}
	free(data);
	json_decref(answer);
	if (out)
		evbuffer_free(out);
}

/* --- the client --- */

/* 0 when it may be read or written before `until_ms`, or -ETIMEDOUT. */
static int
wait_for(int fd, short events, int64_t until_ms)
{
	struct pollfd p = { .fd = fd, .events = events };
	int64_t left;
	int n;

	do {
		left = until_ms - clock_now_ms();
		n = left > 0 ? poll(&p, 1, left > INT32_MAX ? INT32_MAX : (int)left) : 0;
	} while (n < 0 && errno == EINTR);
	return n > 0 ? 0 : -ETIMEDOUT;
}

static int
send_all(int fd, struct evbuffer *out, int64_t until_ms)
{
	while (evbuffer_get_length(out) > 0) {
		ssize_t n = send(fd, evbuffer_pullup(out, -1), evbuffer_get_length(out), MSG_NOSIGNAL);

		if (n > 0)
			evbuffer_drain(out, (size_t)n);
		if (n < 0 && errno != EAGAIN)
			return -errno;
		if (n < 0 && wait_for(fd, POLLOUT, until_ms) < 0)
			return -ETIMEDOUT;
	}
	return 0;
}

static int
receive_answer(int fd, struct evbuffer *in, int64_t until_ms, json_t **ret)
{
	int rc, n;

	while ((rc = adminframe_take(in, ADMIN_FRAME_MAX, ret)) == 0) {
		if (wait_for(fd, POLLIN, until_ms) < 0)
			return -ETIMEDOUT;
		n = evbuffer_read(in, fd, -1);
		if (n == 0 || (n < 0 && errno != EAGAIN))
			return -ECONNRESET;
	}
	return rc < 0 ? rc : 0;
}

/* A server that stands still may have its queue full: then connect() says EAGAIN, and there is nothing to poll for. */
static int
connect_to(const char *path, int64_t until_ms)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	int fd, rc = 0;

	if (strlen(path) >= sizeof(sun.sun_path))
		return -ENAMETOOLONG;
	memcpy(sun.sun_path, path, strlen(path) + 1);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	do {
		if (rc == -EAGAIN)
			poll(NULL, 0, 20);
		rc = connect(fd, (struct sockaddr *)&sun, sizeof(sun)) < 0 ? -errno : 0;
	} while (rc == -EINTR || (rc == -EAGAIN && clock_now_ms() < until_ms));
	if (rc == 0)
		return fd;
	fd_close(&fd);
	return rc == -EAGAIN ? -ETIMEDOUT : rc;
}

int
admin_ask(
    const char *path, const char *verb, const json_t *args, int64_t timeout_ms, json_t **ret, char err[ADMIN_ERR_MAX])
{
	int64_t until_ms = clock_now_ms() + timeout_ms;
	json_t *request = json_pack("{s:s, s:O}", "verb", verb, "args", args);
	struct evbuffer *buf = evbuffer_new();
	uint8_t *data = NULL;
	size_t len = 0;
	int fd = -1, rc = -ENOMEM;

	if (!request || !buf || mpjson_pack(request, &data, &len) < 0)
		goto out;
	adminframe_put(buf, data, len);
	rc = fd = connect_to(path, until_ms);
	if (rc >= 0)
		rc = send_all(fd, buf, until_ms);
	if (rc >= 0)
		rc = receive_answer(fd, buf, until_ms, ret);
out:
	if (rc < 0)
		snprintf(err, ADMIN_ERR_MAX, "%s: %s%s", path, strerror(-rc),
		    rc == -ENOENT || rc == -ECONNREFUSED ? ": is it running, with this admin_socket?"
		    : rc == -EACCES                      ? ": only its own user and root may ask"
							 : "");
	fd_close(&fd);
	free(data);
	json_decref(request);
	if (buf)
		evbuffer_free(buf);
	return rc;
}
