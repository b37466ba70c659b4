/* log.c - one line per event on descriptor 2, which is never waited for
 *
 *      log_line() --> lg.buf --> one write: at once, or when the loop's turn ends (log_batch)
 *
 * Wherever the log goes, that is descriptor 2 of this process and of its children: what libraries
 * and sanitizers say lands there too, and a child needs no permission to open anything.
 *
 * Always true:
 *  1. A write is whole lines. To a file with O_APPEND any number of them; to
 *     anything else at most PIPE_BUF bytes: a pipe takes these whole or not at
 *     all. So lines of several processes never mix, and there is never a rest to keep.
 *  2. No write waits. O_NONBLOCK belongs to an open file description, and that
 *     of descriptor 2 is shared with the parent and other programs; so we open
 *     the same file again for ourselves. Where that is impossible (a socket, a
 *     file we may not open) each write is made non-blocking by other means.
 *  3. A line holds no byte that moves a terminal's cursor or forges another line.
 *  4. errno is what it was before.
 *  5. Lines are written in the order they were made, and what is collected is written
 *     at the latest with the next line that is a warning or worse, at exit() and
 *     by bug_abort(). A forked child starts with nothing collected.
 *
 * A program that is killed by a signal loses what it said in the loop's last turn.
 *
 *  6. A file that was renamed gets nothing after log_reopen(), the new one nothing before it.
 *
 * Not here: JSON (logjson.c), what is opened and how (logto.c), addresses (logaddr.c).
 */
#include "hyper/base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/logjson.h"
#include "base/logto.h"
#include "base/utf8.h"
#include "hyper/base/clock.h"
#include "hyper/base/fd.h"

#define LIMIT_WINDOW_MS 1000
#define BUF_MAX         ((size_t)32 * 1024)
#define BATCH_NS        INT64_C(100000000) /* a turn that takes longer is not waited for */
#define NS_PER_S        INT64_C(1000000000)
#define SECOND_LEN      19 /* "2026-11-22T19:54:36" */
#define TIME_LEN        (SECOND_LEN + 5)
#define CONNECT_MS      1000 /* a syslog daemon that is away is looked for so often */

_Static_assert(LOG_LINE_MAX <= PIPE_BUF, "a pipe takes a line whole");
_Static_assert(BUF_MAX >= 2 * LOG_LINE_MAX, "room for the next line");

static const char *const level_words[] = { "bug", "error", "warn", "info", "debug" };

/* A line that grows at the end of lg.buf, or of a buffer of its own. */
struct line {
	char *buf;
	size_t len, cap; /* one byte of cap stays free for the newline */
};

static struct {
	char program[32];
	char who[160]; /* " program[pid] ", escaped */
	size_t who_len;
	enum log_level level;
	enum log_format format;
	enum log_ip ip;
	enum log_to to;
	char path[LOG_PATH_MAX]; /* of the file or socket; "": descriptor 2 was inherited */
	int stderr_fd;           /* what descriptor 2 was before it was a file or socket of ours, or -1 */
	int fd;                  /* own descriptor of what descriptor 2 is, -1: use that one with care */
	bool is_file;            /* a write may be longer than PIPE_BUF */
	bool is_cut;             /* the file ends within a line: the disk was full */
	int64_t connect_ms;      /* monotonic: not before this time again */
	bool is_batched;
	uint64_t dropped;
	uint64_t told;  /* the part of `dropped` that a line has reported */
	int64_t second; /* of the wall clock, that `when` shows */
	char when[CLOCK_RFC3339_MAX];
	int64_t first_ns; /* of the wall clock: when the oldest collected line was made */
	size_t used;
	char buf[BUF_MAX]; /* collected, whole lines */
} lg = { .program = "hyper", .level = LOG_LVL_INFO, .stderr_fd = -1, .fd = -1, .second = INT64_MIN };

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

/* What was collected is the parent's to write. */
static void
in_child(void)
{
	lg.who_len = 0;
	lg.used = 0;
}

/* lg.fd and what follows from it, for what descriptor 2 is now. */
static void
out_attach(void)
{
	int flags = fcntl(STDERR_FILENO, F_GETFL), fd;
	struct stat st = { 0 };
	bool is_reg = fstat(STDERR_FILENO, &st) == 0 && S_ISREG(st.st_mode);

	if (lg.to != LOG_TO_STDERR || (is_reg && flags >= 0 && (flags & O_APPEND)))
		fd = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
	else
		fd = open("/proc/self/fd/2", O_WRONLY | O_APPEND | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
	fd_close(&lg.fd);
	lg.fd = fd;
	lg.is_file = fd >= 0 && is_reg;
	lg.is_cut = false;
	lg.connect_ms = 0;
}

static void
open_as(const char *program, const struct log_shared *s)
{
	int saved = errno;

	log_flush();
	fill_std_fds();
	snprintf(lg.program, sizeof(lg.program), "%s", program);
	lg.who_len = 0;
	lg.level = s->level;
	lg.format = s->format;
	lg.to = s->to;
	lg.ip = s->ip;
	log_ip_set(s->ip);
	out_attach();
	errno = saved;
}

void
log_open(const char *program, enum log_level level)
{
	struct log_shared now = log_share();

	now.level = level;
	open_as(program, &now);
}

void
log_inherit(const char *program, const struct log_shared *s)
{
	open_as(program, s);
}

struct log_shared
log_share(void)
{
	return (struct log_shared){ .level = lg.level, .format = lg.format, .ip = lg.ip, .to = lg.to };
}

int
log_take(int fd)
{
	int rc;

	log_flush();
	rc = dup2(fd, STDERR_FILENO) < 0 ? -errno : 0;
	fd_close(&fd);
	if (rc == 0)
		out_attach();
	return rc;
}

/* Opens what is to be descriptor 2. */
static int
target_open(enum log_to to, const char *path, int *ret_fd, char err[LOG_ERR_MAX])
{
	int rc = 0;

	if (to == LOG_TO_FILE)
		return logto_file(path, ret_fd, err);
	if (to == LOG_TO_SYSLOG)
		return logto_syslog(path, ret_fd, err);
	*ret_fd = fcntl(lg.stderr_fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
	if (*ret_fd < 0)
		rc = -errno;
	if (rc < 0)
		snprintf(err, LOG_ERR_MAX, "stderr: %s", strerror(-rc));
	return rc;
}

int
log_setup(const char *program, const struct log_conf *c, char err[LOG_ERR_MAX])
{
	struct log_shared next = { .level = c->level, .format = c->format, .ip = c->ip };
	const char *path = "";
	int fd = -1, rc = log_to_parse(c->to, &next.to, &path);

	fill_std_fds();
	if (rc < 0) {
		snprintf(err, LOG_ERR_MAX, "%.160s: %s", c->to, strerror(-rc));
		return rc;
	}
	if (next.to != LOG_TO_STDERR && lg.stderr_fd < 0)
		lg.stderr_fd = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
	if (next.to != LOG_TO_STDERR || lg.to != LOG_TO_STDERR)
		rc = target_open(next.to, path, &fd, err);
	if (rc == 0 && fd >= 0) {
		rc = log_take(fd);
		if (rc < 0)
			snprintf(err, LOG_ERR_MAX, "%.160s: %s", c->to, strerror(-rc));
	}
	if (rc < 0)
		return rc;
	snprintf(lg.path, sizeof(lg.path), "%s", path);
	open_as(program, &next);
	return 0;
}

int
log_reopen(char err[LOG_ERR_MAX])
{
	int fd = -1, rc;

	if (lg.to == LOG_TO_STDERR || !*lg.path)
		return 0;
	rc = target_open(lg.to, lg.path, &fd, err);
	if (rc == 0)
		rc = log_take(fd);
	return rc;
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

/* Appends `text` escaped; false when it had to be cut. */
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
		if (l->len + need >= l->cap)
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

static bool
is_plain(const char *text, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if ((unsigned char)text[i] < 0x20 || (unsigned char)text[i] > 0x7e)
			return false;
	return true;
}

static void line_print(struct line *l, const char *fmt, va_list ap) ATTR_PRINTF(2, 0);

/* Nearly all that comes fits and needs no escapes: printed in place then. */
static void
line_print(struct line *l, const char *fmt, va_list ap)
{
	/* longer than what a line can show: the cut is made by line_put(), between two characters */
	char text[LOG_LINE_MAX];
	char *at = l->buf + l->len;
	size_t room = l->cap - l->len;
	va_list again;
	int n;

	va_copy(again, ap);
	n = vsnprintf(at, room, fmt, ap);
	if (n >= 0 && (size_t)n < room && is_plain(at, (size_t)n)) {
		l->len += (size_t)n;
	} else if (n > 0) {
		vsnprintf(text, sizeof(text), fmt, again);
		line_put(l, text);
	}
	va_end(again);
}

/* One line is one datagram. A daemon that was started again is another socket under the same name. */
static ssize_t
out_datagram(const char *data, size_t len)
{
	int fd = lg.fd >= 0 ? lg.fd : STDERR_FILENO;
	ssize_t n = send(fd, data, len - 1, MSG_DONTWAIT | MSG_NOSIGNAL);
	int64_t now;

	if (n < 0 && errno != EAGAIN && errno != ENOBUFS && *lg.path) {
		now = clock_now_ms();
		if (now >= lg.connect_ms && logto_connect(fd, lg.path) == 0)
			n = send(fd, data, len - 1, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (now >= lg.connect_ms)
			lg.connect_ms = now + CONNECT_MS;
	}
	return n < 0 ? n : (ssize_t)len;
}

static ssize_t
out_file(const char *data, size_t len)
{
	ssize_t n;

	if (lg.is_cut && write(lg.fd, "\n", 1) != 1)
		return -1;
	n = write(lg.fd, data, len);
	lg.is_cut = n > 0 && data[n - 1] != '\n';
	return n;
}

static ssize_t
out_write(const char *data, size_t len)
{
	struct pollfd p = { .fd = STDERR_FILENO, .events = POLLOUT };
	ssize_t n;

	if (lg.to == LOG_TO_SYSLOG)
		return out_datagram(data, len);
	if (lg.is_file)
		return out_file(data, len);
	if (lg.fd >= 0)
		return write(lg.fd, data, len);
	n = send(STDERR_FILENO, data, len, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (n >= 0 || errno != ENOTSOCK)
		return n;
	/* a pipe that is writable for poll() has room for PIPE_BUF bytes */
	if (poll(&p, 1, 0) != 1 || !(p.revents & POLLOUT))
		return -1;
	return write(STDERR_FILENO, data, len);
}

/* Bytes of the whole lines that one write may take. */
static size_t
write_len(const char *data, size_t len)
{
	const char *end;

	if (lg.to == LOG_TO_SYSLOG) {
		end = memchr(data, '\n', len);
		return end ? (size_t)(end - data) + 1 : len;
	}
	if (lg.is_file || len <= PIPE_BUF)
		return len;
	end = memrchr(data, '\n', PIPE_BUF);
	return end ? (size_t)(end - data) + 1 : len; /* no line is longer than PIPE_BUF */
}

static uint64_t
count_lines(const char *data, size_t len)
{
	uint64_t n = 0;

	for (size_t i = 0; i < len; i++)
		n += data[i] == '\n';
	return n;
}

/* Room for one more line, at the end of what is collected. */
static struct line
line_begin(void)
{
	if (sizeof(lg.buf) - lg.used < LOG_LINE_MAX)
		log_flush();
	return (struct line){ .buf = lg.buf + lg.used, .cap = LOG_LINE_MAX };
}

static void
who_make(void)
{
	struct line l = { .buf = lg.who, .cap = sizeof(lg.who) };
	static bool is_told_of_forks;
	char pid[24];

	if (!is_told_of_forks)
		is_told_of_forks = pthread_atfork(NULL, NULL, in_child) == 0;
	line_put(&l, " ");
	line_put(&l, lg.program);
	snprintf(pid, sizeof(pid), "[%d] ", (int)getpid());
	line_put(&l, pid);
	lg.who_len = l.len;
}

/* "2026-11-22T19:54:36.123Z" */
static void
time_put(char ret[TIME_LEN], int64_t now)
{
	int64_t second = now / NS_PER_S;
	int ms = (int)(now / 1000000 % 1000);

	if (second != lg.second) {
		clock_rfc3339(second * NS_PER_S, lg.when);
		lg.second = second;
	}
	memcpy(ret, lg.when, SECOND_LEN);
	ret[SECOND_LEN] = '.';
	ret[SECOND_LEN + 1] = (char)('0' + ms / 100);
	ret[SECOND_LEN + 2] = (char)('0' + ms / 10 % 10);
	ret[SECOND_LEN + 3] = (char)('0' + ms % 10);
	ret[SECOND_LEN + 4] = 'Z';
}

/* "2026-11-22T19:54:36.123Z program[pid] ", or what a syslog daemon expects instead. */
static void
line_head(struct line *l, enum log_level level, int64_t now)
{
	if (lg.who_len == 0)
		who_make();
	if (lg.to == LOG_TO_SYSLOG) {
		l->len =
		    logto_syslog_head(l->buf, l->cap, level, (long long)(now / NS_PER_S), lg.program, (int)getpid());
		return;
	}
	time_put(l->buf, now);
	l->len = TIME_LEN;
	memcpy(l->buf + l->len, lg.who, lg.who_len);
	l->len += lg.who_len;
}

static void line_json(struct line *l, enum log_level level, int64_t now, uint64_t suppressed, const char *event,
    const char *fmt, va_list ap) ATTR_PRINTF(6, 0);

static void
line_json(struct line *l, enum log_level level, int64_t now, uint64_t suppressed, const char *event, const char *fmt,
    va_list ap)
{
	char when[TIME_LEN];
	struct logjson_head h = { .time = when,
		.time_len = TIME_LEN,
		.program = lg.program,
		.pid = (int)getpid(),
		.level = level_words[level],
		.event = event,
		.suppressed = suppressed };

	if (lg.to == LOG_TO_SYSLOG)
		line_head(l, level, now);
	time_put(when, now);
	l->len += logjson_make(l->buf + l->len, l->cap - l->len - 1, &h, fmt, ap);
}

static void line_text(struct line *l, enum log_level level, int64_t now, uint64_t suppressed, const char *event,
    const char *fmt, va_list ap) ATTR_PRINTF(6, 0);

static void
line_text(struct line *l, enum log_level level, int64_t now, uint64_t suppressed, const char *event, const char *fmt,
    va_list ap)
{
	char more[40];
	size_t before;

	line_head(l, level, now);
	line_put(l, level_words[level]);
	line_put(l, " ");
	if (!line_put(l, event))
		return;
	if (suppressed) {
		snprintf(more, sizeof(more), " suppressed=%llu", (unsigned long long)suppressed);
		line_put(l, more);
	}
	if (*fmt && line_put(l, " ")) {
		before = l->len;
		line_print(l, fmt, ap);
		if (l->len == before)
			l->len--;
	}
}

static void
vlog(enum log_level level, uint64_t suppressed, const char *event, const char *fmt, va_list ap) ATTR_PRINTF(4, 0);

static void
vlog(enum log_level level, uint64_t suppressed, const char *event, const char *fmt, va_list ap)
{
	struct line l = line_begin();
	int64_t now = clock_wall_utc_ns();

	if (lg.format == LOG_FORMAT_JSON)
		line_json(&l, level, now, suppressed, event, fmt, ap);
	else
		line_text(&l, level, now, suppressed, event, fmt, ap);
	l.buf[l.len++] = '\n';
	if (lg.used == 0)
		lg.first_ns = now;
	lg.used += l.len;
	if (!lg.is_batched || level <= LOG_LVL_WARN || now - lg.first_ns > BATCH_NS)
		log_flush();
}

void
log_flush(void)
{
	uint64_t before = lg.dropped;
	size_t at = 0, used = lg.used, n;
	int saved = errno;

	while (at < used) {
		ssize_t done;

		n = write_len(lg.buf + at, used - at);
		done = out_write(lg.buf + at, n);
		if (done != (ssize_t)n) {
			size_t kept = done > 0 ? (size_t)done : 0;

			lg.dropped += count_lines(lg.buf + at + kept, n - kept);
		}
		at += n;
	}
	lg.used = 0;
	if (used > 0 && lg.dropped == before && lg.told != before) {
		uint64_t lines = before - lg.told;

		lg.told = before;
		log_line(LOG_LVL_WARN, "log_dropped", "lines=%llu", (unsigned long long)lines);
	}
	errno = saved;
}

void
log_batch(bool on)
{
	static bool is_at_exit;

	if (on && !is_at_exit)
		is_at_exit = atexit(log_flush) == 0;
	lg.is_batched = on && is_at_exit;
	if (!on)
		log_flush();
}

void
log_line(enum log_level level, const char *event, const char *fmt, ...)
{
	int saved = errno;
	va_list ap;

	if (level > lg.level)
		return;
	va_start(ap, fmt);
	vlog(level, 0, event, fmt, ap);
	va_end(ap);
	errno = saved;
}

void
log_limited(struct log_limit *l, enum log_level level, const char *event, const char *fmt, ...)
{
	int64_t now = clock_now_ms();
	int saved = errno;
	va_list ap;

	if (level > lg.level)
		return;
	if (now < l->next_ms) {
		l->suppressed++;
		return;
	}
	va_start(ap, fmt);
	vlog(level, l->suppressed, event, fmt, ap);
	va_end(ap);
	l->next_ms = now + LIMIT_WINDOW_MS;
	l->suppressed = 0;
	errno = saved;
}

uint64_t
log_dropped(void)
{
	return lg.dropped;
}
