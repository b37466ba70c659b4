/* logto.c - what a log goes to: a file, or the machine's syslog daemon
 *
 * Always true: nothing opened here ever waits. A file is opened O_NONBLOCK (it may be a FIFO);
 * syslog is a datagram socket, written with MSG_DONTWAIT.
 *
 * Not here: when it is opened and written (log.c).
 */
#include "base/logto.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>

#include "hyper/base/fd.h"

#define FACILITY_DAEMON (3 << 3)

int
log_to_parse(const char *text, enum log_to *ret, const char **ret_path)
{
	static const struct {
		const char *word;
		enum log_to to;
		const char *path; /* NULL: one must follow */
	} tab[] = {
		{ "stderr", LOG_TO_STDERR, "" },
		{ "syslog", LOG_TO_SYSLOG, "/dev/log" },
		{ "syslog:", LOG_TO_SYSLOG, NULL },
		{ "file:", LOG_TO_FILE, NULL },
	};

	for (size_t i = 0; i < ARRAY_LEN(tab); i++) {
		size_t n = strlen(tab[i].word);

		if (tab[i].path ? strcmp(text, tab[i].word) != 0 : strncmp(text, tab[i].word, n) != 0)
			continue;
		if (!tab[i].path && (text[n] != '/' || strlen(text + n) >= LOG_PATH_MAX))
			return -EINVAL;
		*ret = tab[i].to;
		*ret_path = tab[i].path ? tab[i].path : text + n;
		return 0;
	}
	return -EINVAL;
}

int
logto_file(const char *path, int *ret_fd, char err[LOG_ERR_MAX])
{
	int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_NONBLOCK | O_CLOEXEC | O_NOCTTY, 0640);
	int rc = -errno;

	if (fd < 0) {
		snprintf(err, LOG_ERR_MAX, "%.160s: %s", path, strerror(-rc));
		return rc;
	}
	*ret_fd = fd;
	return 0;
}

int
logto_connect(int fd, const char *path)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	size_t len = strlen(path);

	if (len >= sizeof(sun.sun_path))
		return -ENAMETOOLONG;
	memcpy(sun.sun_path, path, len);
	return connect(fd, (struct sockaddr *)&sun, (socklen_t)sizeof(sun)) < 0 ? -errno : 0;
}

int
logto_syslog(const char *path, int *ret_fd, char err[LOG_ERR_MAX])
{
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), rc = -errno;

	if (fd >= 0)
		rc = logto_connect(fd, path);
	if (fd < 0 || rc == -ENAMETOOLONG) {
		snprintf(err, LOG_ERR_MAX, "%.160s: %s", path, strerror(-rc));
		fd_close(&fd);
		return rc;
	}
	*ret_fd = fd;
	return 0;
}

size_t
logto_syslog_head(char *buf, size_t cap, enum log_level level, long long second, const char *program, int pid)
{
	static const int severity[] = { 2, 3, 4, 6, 7 }; /* crit err warning info debug */
	static char when[32];
	static time_t made_for = -1;
	time_t now = (time_t)second;
	struct tm tm;
	int n;

	if (now != made_for && localtime_r(&now, &tm) && strftime(when, sizeof(when), "%b %e %T", &tm) > 0)
		made_for = now;
	n = snprintf(buf, cap, "<%d>%s %s[%d]: ", FACILITY_DAEMON | severity[level], when, program, pid);
	return n < 0 ? 0 : (size_t)n < cap ? (size_t)n : cap - 1;
}
