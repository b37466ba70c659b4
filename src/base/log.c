/* log.c - one line per event on stderr, which is never waited for
 *
 * Always true:
 *  1. A line is one write of at most LOG_LINE_MAX bytes, smaller than PIPE_BUF:
 *     a pipe takes it whole or not at all, so lines of several processes never
 *     mix, and there is never a rest to keep.
 *  2. No write waits. O_NONBLOCK belongs to an open file description, and that
 *     of descriptor 2 is shared with the parent and other programs; so we open
 *     the same file again for ourselves. Where that is impossible (a socket, a
 *     file we may not open) each write is made non-blocking by other means.
 *  3. A line holds no byte that moves a terminal's cursor or forges another line.
 *  4. errno is what it was before.
 *
 * Not here: log files and their rotation; stderr is what the service manager
 * gave us. log_open() opens it anew.
 */
#include "hyper/base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/utf8.h"
#include "hyper/base/clock.h"
#include "hyper/base/fd.h"

#define LIMIT_WINDOW_MS 1000

static const char *const level_words[] = { "bug", "error", "warn", "info", "debug" };

static struct {
	char program[32];
	enum log_level level;
	int fd; /* own open file description of stderr, -1: use descriptor 2 with care */
	uint64_t dropped;
	uint64_t told; /* the part of `dropped` that a line has reported */
} lg = { .program = "hyper", .level = LOG_LVL_INFO, .fd = -1 };

struct line {
	char buf[LOG_LINE_MAX];
	size_t len;
};

/* A descriptor 0, 1 or 2 that is closed would become some socket, and log
 * lines would be sent to a peer. */
static void
fill_std_fds(void)
{
	int fd;

	do
		fd = open("/dev/null", O_RDWR);
	while (fd >= 0 && fd <= 2);
	fd_close(&fd);
}

void
log_open(const char *program, enum log_level level)
{
	int saved = errno, fd;

	fill_std_fds();
	snprintf(lg.program, sizeof(lg.program), "%s", program);
	lg.level = level;
	fd = open("/proc/self/fd/2", O_WRONLY | O_APPEND | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
	fd_close(&lg.fd);
	lg.fd = fd;
	errno = saved;
}

int
log_level_parse(const char *word, enum log_level *ret)
{
	int i;

	for (i = LOG_LVL_ERROR; i <= LOG_LVL_DEBUG; i++) {
		if (strcmp(word, level_words[i]) == 0) {
			*ret = (enum log_level)i;
			return 0;
		}
	}
	return -EINVAL;
}

/* Appends `text` escaped; false when it had to be cut. One byte stays free for the newline. */
static bool
line_put(struct line *l, const char *text)
{
	const uint8_t *p = (const uint8_t *)text;
	size_t left = strlen(text), n, need;
	bool plain;

	for (; left > 0; p += n, left -= n) {
		n = utf8_span(p, left);
		/* U+0080 to U+009F are control characters too: some terminals obey them */
		plain = n && *p >= 0x20 && *p != 0x7f && !(n == 2 && p[0] == 0xc2 && p[1] < 0xa0);
		n = n ? n : 1;
		need = plain ? n : 4 * n;
		if (l->len + need >= sizeof(l->buf))
			return false;
		if (plain)
			memcpy(l->buf + l->len, p, n);
		else
			for (size_t i = 0; i < n; i++)
				snprintf(l->buf + l->len + 4 * i, 5, "\\x%02X", p[i]);
		l->len += need;
	}
	return true;
}

static ssize_t
line_write(const struct line *l)
{
	struct pollfd p = { .fd = STDERR_FILENO, .events = POLLOUT };
	ssize_t n;

	if (lg.fd >= 0)
		return write(lg.fd, l->buf, l->len);
	n = send(STDERR_FILENO, l->buf, l->len, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (n >= 0 || errno != ENOTSOCK)
		return n;
	/* a pipe that is writable for poll() has room for PIPE_BUF bytes */
	if (poll(&p, 1, 0) != 1 || !(p.revents & POLLOUT))
		return -1;
	return write(STDERR_FILENO, l->buf, l->len);
}

/* Writes the line in `text`, which has passed through printf already. */
static void
emit(enum log_level level, const char *event, const char *text)
{
	int64_t now = clock_wall_utc_ns();
	char when[CLOCK_RFC3339_MAX], head[96];
	struct line l;

	clock_rfc3339(now, when); /* to the second: the fraction is cut and written with a fixed width */
	l.len = 0;
	snprintf(head, sizeof(head), "%.19s.%03dZ ", when, (int)(now / 1000000 % 1000));
	line_put(&l, head);
	line_put(&l, lg.program);
	snprintf(head, sizeof(head), "[%d] %s ", (int)getpid(), level_words[level]);
	line_put(&l, head);
	if (line_put(&l, event) && *text && line_put(&l, " "))
		line_put(&l, text);
	l.buf[l.len++] = '\n';
	if (line_write(&l) != (ssize_t)l.len)
		lg.dropped++;
}

static void vlog(enum log_level level, const char *event, const char *fmt, va_list ap) ATTR_PRINTF(3, 0);

static void
vlog(enum log_level level, const char *event, const char *fmt, va_list ap)
{
	/* longer than what a line can show: the cut is made by line_put(), between two characters */
	char text[LOG_LINE_MAX];
	char gap[48];
	uint64_t before = lg.dropped;

	vsnprintf(text, sizeof(text), fmt, ap);
	emit(level, event, text);
	if (lg.dropped == before && lg.told != before) {
		snprintf(gap, sizeof(gap), "lines=%llu", (unsigned long long)(before - lg.told));
		lg.told = before;
		emit(LOG_LVL_WARN, "log_dropped", gap);
	}
}

void
log_line(enum log_level level, const char *event, const char *fmt, ...)
{
	int saved = errno;
	va_list ap;

	if (level > lg.level)
		return;
	va_start(ap, fmt);
	vlog(level, event, fmt, ap);
	va_end(ap);
	errno = saved;
}

void
log_limited(struct log_limit *l, enum log_level level, const char *event, const char *fmt, ...)
{
	int64_t now = clock_now_ms();
	char text[LOG_LINE_MAX];
	int saved = errno;
	va_list ap;

	if (level > lg.level)
		return;
	if (now < l->next_ms) {
		l->suppressed++;
		return;
	}
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (l->suppressed)
		log_line(level, event, "suppressed=%llu %s", (unsigned long long)l->suppressed, text);
	else
		log_line(level, event, "%s", text);
	l->next_ms = now + LIMIT_WINDOW_MS;
	l->suppressed = 0;
	errno = saved;
}

uint64_t
log_dropped(void)
{
	return lg.dropped;
}
