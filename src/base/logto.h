/* logto.h - private to base: opening what a log goes to */
#ifndef BASE_LOGTO_H
#define BASE_LOGTO_H

#include <stddef.h>

#include "hyper/base/log.h"

/* An own open file description, O_APPEND. 0 with *ret_fd taken, or -errno with *ret_fd untouched and `err` filled. */
int logto_file(const char *path, int *ret_fd, char err[LOG_ERR_MAX]) ATTR_MUST_USE;

/* A datagram socket, connected to `path` when somebody listens there. As above. */
int logto_syslog(const char *path, int *ret_fd, char err[LOG_ERR_MAX]) ATTR_MUST_USE;

/* Connects such a socket again; who has it as well uses the new connection. 0 or -errno. */
int logto_connect(int fd, const char *path);

/* "<30>Nov 22 19:54:36 program[pid]: ", as syslog daemons on this machine expect it. Bytes written, at most `cap`. */
size_t logto_syslog_head(char *buf, size_t cap, enum log_level, long long second, const char *program, int pid);

#endif
