/* notify.h - words to the service manager over NOTIFY_SOCKET (sd_notify(3) describes them); without one all do nothing
 *
 * One for the process, as the log is. None of them waits.
 */
#ifndef HYPER_BASE_NOTIFY_H
#define HYPER_BASE_NOTIFY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NOTIFY_STATUS_MAX 256

/* Reads NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID again: what was said before is forgotten. */
void notify_open(void);

/* Who tells what the program is doing, in one line such as "serving: 3 pairs"; NULL: nobody. */
typedef void (*notify_describe_cb)(char ret[NOTIFY_STATUS_MAX], void *arg);
void notify_describe(notify_describe_cb, void *arg);

/* At the start's end, and where a reload or an upgrade that failed is over. */
void notify_ready(void);
/* A reload or an upgrade begins: notify_ready() is owed. */
void notify_reloading(void);
/* The end begins, of a program that was ready, and takes at most so long: the manager waits so long before it kills. What comes later is not said
 * but a shorter or longer time. */
void notify_stopping(int64_t timeout_ms);

/* What is described is sent where it differs from the last one; for a change of state. */
void notify_status(void);

/* How often notify_tick() is owed, 0: never. */
int64_t notify_tick_ms(void);
/* From the loop, and from nowhere else: the watchdog is fed here. */
void notify_tick(void);

#endif
