/* daemon.h - what each long-running program does the same way: limits, signals, the loop */
#ifndef HYPER_BASE_DAEMON_H
#define HYPER_BASE_DAEMON_H

#include "hyper/base/attr.h"

struct event_base;
struct daemon;

/* sysexits.h: what programs return */
enum daemon_exit { EXIT_OK = 0, EXIT_FAIL = 1, EXIT_USAGE = 64, EXIT_UNAVAILABLE = 69, EXIT_SETTINGS = 78 };

enum daemon_signal { DAEMON_STOP, DAEMON_STOP_NOW, DAEMON_RELOAD, DAEMON_REOPEN, DAEMON_UPGRADE, DAEMON_CHILD };

/* Called from the loop, so without any restriction of signal handlers. */
typedef void (*daemon_on_signal)(enum daemon_signal, void *arg);

/* Ignores SIGPIPE and SIGXFSZ, raises the soft descriptor limit to the hard one, creates
 * the event base and arms TERM (first: STOP, second: STOP_NOW), INT and QUIT
 * (STOP_NOW), HUP (RELOAD), USR1 (REOPEN, after log_reopen()), USR2 (UPGRADE), CHLD (CHILD). A service manager's
 * watchdog is fed from the loop (notify.h). 0 with *ret taken by the caller, or -errno with *ret untouched. */
int daemon_new(daemon_on_signal cb, void *arg, struct daemon **ret) ATTR_MUST_USE;

/* Borrowed until daemon_free(). */
struct event_base *daemon_base(struct daemon *);

/* Runs until daemon_stop(). Returns the exit code given to it. */
int daemon_run(struct daemon *);

/* Ends daemon_run() after the current callback. The first code given wins. The service manager is told. */
void daemon_stop(struct daemon *, int exit_code);

/* Signals back to default, base freed. NULL is fine. */
void daemon_free(struct daemon *);

/* Writes the `ready` log line with `fmt` as its key=value part, and tells the
 * service manager (notify.h). */
void daemon_ready(const char *fmt, ...) ATTR_PRINTF(1, 2);

#endif
