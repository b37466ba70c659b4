/* notify.c - see the header
 *
 * Always true:
 *  1. Nothing waits. What the manager's queue has no room for is said again by a
 *     later tick where it must not be lost (READY, RELOADING, STOPPING).
 *  2. A manager that has gone after READY (start-stop-daemon listens no longer) is
 *     not talked to again, nor by the program that we execute ourselves anew as.
 *  3. WATCHDOG=1 leaves from notify_tick() alone, so a loop that stands still is
 *     not said to live.
 *  4. After STOPPING nothing takes it back.
 *
 * Not here: sockets that the manager hands over (net/activate.c).
 */
#include "hyper/base/notify.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "hyper/base/clock.h"
#include "hyper/base/fd.h"
#include "hyper/base/log.h"

#define STATUS_MS 3000 /* a changed status is told after so long at most */
#define TEXT_MAX  512

static struct {
	notify_describe_cb describe;
	void *arg;
	bool is_ready, is_stopping;
	int64_t watchdog_ms; /* half of what the manager waits; 0: it does not */
	int64_t fed_ms;
	char said[NOTIFY_STATUS_MAX]; /* the last status */
	char owed[TEXT_MAX];          /* "" nothing */
} state;

static const char *
manager(void)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un sun;
	size_t len = path ? strlen(path) : 0;

	return len < 2 || len >= sizeof(sun.sun_path) || (path[0] != '/' && path[0] != '@') ? NULL : path;
}

static int64_t
watchdog_of_environment(void)
{
	const char *usec = getenv("WATCHDOG_USEC"), *pid = getenv("WATCHDOG_PID");
	char *end;
	long long n;

	if (!usec || (pid && strtoll(pid, NULL, 10) != getpid()))
		return 0;
	n = strtoll(usec, &end, 10);
	return *end || n < 2000 || n / 2000 > INT32_MAX ? 0 : n / 2000;
}

void
notify_open(void)
{
	state.is_ready = state.is_stopping = false;
	state.said[0] = state.owed[0] = '\0';
	state.watchdog_ms = manager() ? watchdog_of_environment() : 0;
	state.fed_ms = 0;
}

void
notify_describe(notify_describe_cb cb, void *arg)
{
	state.describe = cb;
	state.arg = arg;
}

/* One datagram. 0 or -errno. */
static int
post(const char *text)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	const char *path = manager();
	size_t len = path ? strlen(path) : 0;
	int fd, rc = 0;

	if (!path)
		return 0;
	memcpy(sun.sun_path, path, len);
	if (path[0] == '@') /* an abstract name begins with NUL and has no end mark */
		sun.sun_path[0] = '\0';
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || sendto(fd, text, strlen(text), MSG_NOSIGNAL | MSG_DONTWAIT, (struct sockaddr *)&sun,
			  (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len)) < 0)
		rc = -errno;
	fd_close(&fd);
	return rc;
}

/* `must`: it is said again where it could not be said now. */
static void
say(const char *text, bool must)
{
	int rc = post(text);

	if (rc == 0) {
		if (must)
			state.owed[0] = '\0';
	} else if (state.is_ready && (rc == -ENOENT || rc == -ECONNREFUSED)) {
		log_debug("notify", "why=\"the service manager listens no longer\"");
		unsetenv("NOTIFY_SOCKET");
	} else if (must && text != state.owed) {
		snprintf(state.owed, sizeof(state.owed), "%s", text);
		log_warn("notify", "err=\"%s\" why=\"NOTIFY_SOCKET could not be told %.*s\"", strerror(-rc),
		    (int)strcspn(text, "\n"), text);
	}
}

/* What is described now, one line; "" for none. */
static void
describe(char ret[NOTIFY_STATUS_MAX])
{
	ret[0] = '\0';
	if (state.describe)
		state.describe(ret, state.arg);
	ret[strcspn(ret, "\n")] = '\0';
}

void
notify_ready(void)
{
	char text[TEXT_MAX];

	if (state.is_stopping || !manager())
		return;
	describe(state.said);
	snprintf(
	    text, sizeof(text), "READY=1\nMAINPID=%d%s%s", (int)getpid(), *state.said ? "\nSTATUS=" : "", state.said);
	say(text, true);
	state.is_ready = true;
}

void
notify_reloading(void)
{
	char text[TEXT_MAX];

	if (state.is_stopping || !state.is_ready || !manager())
		return;
	snprintf(text, sizeof(text), "RELOADING=1\nMONOTONIC_USEC=%lld", (long long)(clock_now_ns() / 1000));
	say(text, true);
}

void
notify_stopping(int64_t timeout_ms)
{
	char text[TEXT_MAX], extend[64] = "";

	/* a program that gives up before it was ready may be followed by another one in this process */
	if (!manager() || !state.is_ready || (state.is_stopping && timeout_ms == 0))
		return;
	if (timeout_ms > 0)
		snprintf(extend, sizeof(extend), "\nEXTEND_TIMEOUT_USEC=%lld", (long long)timeout_ms * 1000);
	state.is_stopping = true;
	describe(state.said);
	snprintf(text, sizeof(text), "STOPPING=1%s%s%s", extend, *state.said ? "\nSTATUS=" : "", state.said);
	say(text, true);
}

void
notify_status(void)
{
	char now[NOTIFY_STATUS_MAX], text[TEXT_MAX];

	if (!state.is_ready || !manager())
		return;
	describe(now);
	if (strcmp(now, state.said) == 0)
		return;
	memcpy(state.said, now, sizeof(now));
	snprintf(text, sizeof(text), "STATUS=%s", now);
	say(text, false);
}

int64_t
notify_tick_ms(void)
{
	int64_t ms = state.watchdog_ms;

	if (!manager())
		return 0;
	/* a whole part of the watchdog's time, so that one of them falls on it */
	return ms > 0 ? ms / ((ms + STATUS_MS - 1) / STATUS_MS) : STATUS_MS;
}

void
notify_tick(void)
{
	int64_t now_ms = clock_now_ms();

	if (!manager())
		return;
	/* a timer may come a little early */
	if (state.watchdog_ms > 0 && now_ms - state.fed_ms >= state.watchdog_ms - state.watchdog_ms / 8) {
		say("WATCHDOG=1", false);
		state.fed_ms = now_ms;
	}
	if (state.owed[0])
		say(state.owed, true);
	notify_status();
}
