/* daemon.c - limits, signals and the loop of every long-running program
 *
 * Always true:
 *  1. Signals arrive from the event loop, between two other callbacks. So what
 *     runs because of one may allocate, log and free like any other code.
 *  2. The first exit code given to daemon_stop() is the program's.
 *
 * Not here: what a stop means (drain or not), children, reload.
 */
#include "hyper/base/daemon.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <event2/event.h>

#include "hyper/base/fd.h"
#include "hyper/base/log.h"
#include "hyper/base/notify.h"

static const struct {
	int signo;
	enum daemon_signal what;
} sig_tab[] = {
	{ SIGTERM, DAEMON_STOP },
	{ SIGINT, DAEMON_STOP_NOW },
	{ SIGQUIT, DAEMON_STOP_NOW },
	{ SIGHUP, DAEMON_RELOAD },
	{ SIGUSR1, DAEMON_REOPEN },
	{ SIGUSR2, DAEMON_UPGRADE },
	{ SIGCHLD, DAEMON_CHILD },
};

struct daemon {
	struct event_base *base;
	struct event *sig[ARRAY_LEN(sig_tab)];
	struct event *tick; /* NULL: no service manager */
	daemon_on_signal cb;
	void *arg;
	unsigned terms; /* TERM signals seen */
	bool is_stopped;
	int exit_code;
};

/* --- memory of libevent -------------------------------------------------------- */

/* bufferevent_setwatermark() and bufferevent_socket_new() of libevent 2.1.12 add a callback of 40 bytes and do not
 * look whether there was memory for it: a null pointer, or a connection that never writes. When there is none for one
 * of its buffers (136 bytes), bufferevent_openssl_socket_new() frees what it has not finished, and crashes. What is that
 * small comes out of here when malloc() has nothing. Only the loop's thread uses libevent. */
#define SPARE_BYTES  144
#define SPARE_BLOCKS 128

union spare {
	union spare *next; /* while it is free */
	char bytes[SPARE_BYTES];
	max_align_t align;
};

static union spare spare[SPARE_BLOCKS], *spare_free;

static bool
is_spare(const void *p)
{
	return (uintptr_t)p >= (uintptr_t)spare && (uintptr_t)p < (uintptr_t)(spare + SPARE_BLOCKS);
}

static void *
event_malloc(size_t len)
{
	void *p = malloc(len);

	if (p || len > SPARE_BYTES || !spare_free)
		return p;
	p = spare_free;
	spare_free = spare_free->next;
	return p;
}

static void
event_mfree(void *p)
{
	if (!is_spare(p)) {
		free(p);
		return;
	}
	((union spare *)p)->next = spare_free;
	spare_free = p;
}

static void *
event_realloc(void *old, size_t len)
{
	void *p;

	if (!is_spare(old))
		return realloc(old, len);
	p = len > 0 ? malloc(len) : NULL;
	if (p)
		memcpy(p, old, len < SPARE_BYTES ? len : SPARE_BYTES);
	if (p || len == 0)
		event_mfree(old);
	return p;
}

static void
set_event_memory(void)
{
	static bool is_set;

	if (is_set)
		return;
	is_set = true;
	for (size_t i = 0; i < SPARE_BLOCKS; i++)
		event_mfree(&spare[i]);
	event_set_mem_functions(event_malloc, event_realloc, event_mfree);
}

/* --- signals ------------------------------------------------------------------- */

static void
reopen_log(void)
{
	static const char *const words[] = { "stderr", "file", "syslog" };
	char err[LOG_ERR_MAX];

	_Static_assert(ARRAY_LEN(words) == LOG_TO_MAX, "one word for each");
	if (log_reopen(err) < 0)
		log_warn("reopen", "err=\"%s\" why=\"the old log is written on\"", err);
	else
		log_info("reopened", "log=%s", words[log_share().to]);
}

static void
on_signal(evutil_socket_t signo, short what, void *arg)
{
	struct daemon *d = arg;
	enum daemon_signal sig = DAEMON_STOP_NOW;
	size_t i;

	(void)what;
	for (i = 0; i < ARRAY_LEN(sig_tab); i++)
		if (sig_tab[i].signo == signo)
			sig = sig_tab[i].what;
	if (sig == DAEMON_REOPEN)
		reopen_log();
	if (sig == DAEMON_STOP && d->terms++ > 0)
		sig = DAEMON_STOP_NOW;
	d->cb(sig, d->arg);
}

static void
raise_fd_limit(void)
{
	struct rlimit rl;

	if (getrlimit(RLIMIT_NOFILE, &rl) < 0 || rl.rlim_cur == rl.rlim_max)
		return;
	rl.rlim_cur = rl.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &rl) < 0)
		log_warn("descriptor_limit", "err=\"%s\" why=\"the soft limit could not be raised to the hard one\"",
		    strerror(errno));
}

/* SIGXFSZ: a file at its limit of size is a failed write, no death. */
static void
set_write_signals(void (*disposition)(int))
{
	struct sigaction sa = { .sa_handler = disposition };

	sigemptyset(&sa.sa_mask);
	sigaction(SIGPIPE, &sa, NULL);
	sigaction(SIGXFSZ, &sa, NULL);
}

/* 0 or -ENOMEM. A parent may have left signals blocked; ours must come. */
static int
arm_signals(struct daemon *d)
{
	sigset_t set;
	size_t i;

	sigemptyset(&set);
	for (i = 0; i < ARRAY_LEN(sig_tab); i++) {
		d->sig[i] = evsignal_new(d->base, sig_tab[i].signo, on_signal, d);
		if (!d->sig[i] || event_add(d->sig[i], NULL) < 0)
			return -ENOMEM;
		sigaddset(&set, sig_tab[i].signo);
	}
	sigprocmask(SIG_UNBLOCK, &set, NULL);
	return 0;
}

static void
on_tick(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	(void)arg;
	notify_tick();
}

/* 0 or -ENOMEM. The manager hears from the loop now and then, and not at all when the loop stands still. */
static int
arm_tick(struct daemon *d)
{
	int64_t ms;
	struct timeval tv;

	notify_open();
	ms = notify_tick_ms();
	if (ms == 0)
		return 0;
	tv.tv_sec = ms / 1000;
	tv.tv_usec = ms % 1000 * 1000;
	d->tick = event_new(d->base, -1, EV_PERSIST, on_tick, d);
	if (!d->tick || event_add(d->tick, &tv) < 0)
		return -ENOMEM;
	notify_tick(); /* what was executed anew continues its predecessor's watchdog */
	return 0;
}

int
daemon_new(daemon_on_signal cb, void *arg, struct daemon **ret)
{
	struct daemon *d = calloc(1, sizeof(*d));
	int rc;

	if (!d)
		return -ENOMEM;
	d->cb = cb;
	d->arg = arg;
	d->exit_code = EXIT_OK;
	/* splice() has no MSG_NOSIGNAL */
	set_write_signals(SIG_IGN);
	raise_fd_limit();
	set_event_memory();
	d->base = event_base_new();
	rc = d->base ? arm_signals(d) : -ENOMEM;
	if (rc == 0)
		rc = arm_tick(d);
	if (rc < 0) {
		daemon_free(d);
		return rc;
	}
	*ret = d;
	return 0;
}

struct event_base *
daemon_base(struct daemon *d)
{
	return d->base;
}

int
daemon_run(struct daemon *d)
{
	log_batch(true);
	/* turn by turn, so that a turn's lines are written before the next wait;
	 * event_base_loop() forgets a loopbreak() that came before it */
	while (!d->is_stopped) {
		if (event_base_loop(d->base, EVLOOP_ONCE | EVLOOP_NO_EXIT_ON_EMPTY) < 0)
			daemon_stop(d, EXIT_FAIL);
		log_flush();
	}
	log_batch(false);
	return d->exit_code;
}

void
daemon_stop(struct daemon *d, int exit_code)
{
	if (!d->is_stopped) {
		d->exit_code = exit_code;
		notify_stopping(0);
	}
	d->is_stopped = true;
	event_base_loopbreak(d->base);
}

void
daemon_free(struct daemon *d)
{
	size_t i;

	if (!d)
		return;
	for (i = 0; i < ARRAY_LEN(d->sig); i++)
		if (d->sig[i])
			event_free(d->sig[i]);
	if (d->tick)
		event_free(d->tick);
	if (d->base)
		event_base_free(d->base);
	notify_describe(NULL, NULL);
	set_write_signals(SIG_DFL);
	free(d);
}

void
daemon_ready(const char *fmt, ...)
{
	char text[LOG_LINE_MAX];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	log_info("ready", "%s", text);
	notify_ready();
}
