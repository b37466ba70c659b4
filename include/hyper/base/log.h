/* log.h - one line per event: time program[pid] level event key=value ... */
#ifndef HYPER_BASE_LOG_H
#define HYPER_BASE_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "hyper/base/attr.h"

/* Longest line; a longer one is cut. Smaller than PIPE_BUF so that lines of several processes never mix. */
#define LOG_LINE_MAX 2048

enum log_level { LOG_LVL_BUG, LOG_LVL_ERROR, LOG_LVL_WARN, LOG_LVL_INFO, LOG_LVL_DEBUG };

/* Names the program in each line ("proxy", "proxy-worker-2"; copied, cut at 31
 * bytes) and sets the level. Lines go to stderr, which is never waited for:
 * a line that would block is dropped and counted. May be called again. */
void log_open(const char *program, enum log_level level);

/* Batched, lines below `warn` are collected, and it is the loop's duty to call
 * log_flush() at the end of each turn, before it waits: one write for all that
 * a turn had to say. Warnings and worse are written at once, with what was
 * collected before them; so is all at exit(), in bug_abort() and when a turn
 * takes longer than 100 ms. A process that is killed by a signal loses the lines of its last
 * turn. Not batched (the default, and again after false) each line is written as it is made. */
void log_batch(bool on);
void log_flush(void);

/* "error", "warn", "info", "debug" -> level. 0, or -EINVAL with *ret untouched. */
int log_level_parse(const char *word, enum log_level *ret);

/* One line. `event` is one lower-case word, `fmt` the "key=value" rest
 * ("" for none). Bytes below 0x20, 0x7f and invalid UTF-8 are escaped as \xNN.
 * Never a token, key or certificate body. errno is preserved. */
void log_line(enum log_level level, const char *event, const char *fmt, ...) ATTR_PRINTF(3, 4);

#define log_error(event, ...) log_line(LOG_LVL_ERROR, event, __VA_ARGS__)
#define log_warn(event, ...)  log_line(LOG_LVL_WARN, event, __VA_ARGS__)
#define log_info(event, ...)  log_line(LOG_LVL_INFO, event, __VA_ARGS__)
#define log_debug(event, ...) log_line(LOG_LVL_DEBUG, event, __VA_ARGS__)

/* Per-site limit for lines that strangers can cause: at most one a second,
 * the next one that is written carries suppressed=N. */
struct log_limit {
	int64_t next_ms; /* monotonic; written by log_limited() only */
	uint64_t suppressed;
};
void log_limited(struct log_limit *, enum log_level level, const char *event, const char *fmt, ...) ATTR_PRINTF(4, 5);

/* Lines that could not be written since the start. */
uint64_t log_dropped(void);

#endif
