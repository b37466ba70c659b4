/* log.h - one line per event: time program[pid] level event key=value ..., or the same as a JSON object */
#ifndef HYPER_BASE_LOG_H
#define HYPER_BASE_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "hyper/base/attr.h"

/* Longest line; a longer one is cut. Smaller than PIPE_BUF so that lines of several processes never mix. */
#define LOG_LINE_MAX 2048

/* Longest text of log_addr(). */
#define LOG_ADDR_MAX 64
#define LOG_ERR_MAX  256
#define LOG_PATH_MAX 4096

enum log_level { LOG_LVL_BUG, LOG_LVL_ERROR, LOG_LVL_WARN, LOG_LVL_INFO, LOG_LVL_DEBUG };

/* Names the program in each line ("proxy", "proxy-worker-2"; copied, cut at 31
 * bytes) and sets the level. Lines go to stderr, which is never waited for:
 * a line that would block is dropped and counted. May be called again. */
void log_open(const char *program, enum log_level level);

enum log_to { LOG_TO_STDERR, LOG_TO_FILE, LOG_TO_SYSLOG, LOG_TO_MAX };
enum log_format { LOG_FORMAT_TEXT, LOG_FORMAT_JSON, LOG_FORMAT_MAX };
enum log_ip { LOG_IP_FULL, LOG_IP_PREFIX, LOG_IP_NONE, LOG_IP_MAX };

struct log_conf {
	enum log_level level;
	enum log_format format;
	enum log_ip ip;
	const char *to; /* "stderr", "syslog", "syslog:/socket" or "file:/path"; copied */
};

/* What a process that shares our descriptor 2 must know of it. */
struct log_shared {
	enum log_level level;
	enum log_format format;
	enum log_ip ip;
	enum log_to to;
};

/* Like log_open(), and opens what `to` names. The file or socket becomes descriptor 2,
 * so children have it too. No syslog socket is no fault, it may come later: lines are
 * dropped and counted until then. 0, or -errno with the words in `err` and all as it was. */
int log_setup(const char *program, const struct log_conf *, char err[LOG_ERR_MAX]) ATTR_MUST_USE;

/* After SIGUSR1: the file or socket is opened again by its name, nothing collected is lost.
 * 0 (also on stderr: nothing to do), or -errno with the words in `err` and the old one kept. */
int log_reopen(char err[LOG_ERR_MAX]) ATTR_MUST_USE;

/* For children: what is on descriptor 2, and in the child: use it. */
struct log_shared log_share(void);
void log_inherit(const char *program, const struct log_shared *);

/* `fd` becomes descriptor 2: given. 0, or -errno and the old one is kept. */
int log_take(int fd) ATTR_MUST_USE;

/* The kind of "file:/path" and so on; the path is a part of `text` ("" none). 0 or -EINVAL. */
int log_to_parse(const char *text, enum log_to *ret, const char **ret_path) ATTR_MUST_USE;

/* A struct sockaddr of a peer for a log line, as log_ip permits: "192.0.2.7:80", "192.0.2.0/24", "-". */
void log_addr(const void *sockaddr, bool with_port, char ret[LOG_ADDR_MAX]);
void log_ip_set(enum log_ip);

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
