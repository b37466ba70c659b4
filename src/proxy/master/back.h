/* back.h - the way back from an upgrade: until its successor serves, the old program can be executed again
 *
 *   old program --exec--> new one: back_arm() --all is taken over--> back_forget()
 *        ^                     |
 *        `--- back_go(): a failed start, SIGSEGV, SIGABRT, ...
 *
 * Once only: who came back has no way back.
 */
#ifndef HYPER_PROXY_MASTER_BACK_H
#define HYPER_PROXY_MASTER_BACK_H

#include <stdbool.h>

#include "hyper/base/attr.h"

struct state;

#define BACK_ENV     "HYPER_PROXY_BACK"     /* "descriptor of the old program, descriptor of the state" */
#define BACK_ENV_WHY "HYPER_PROXY_BACK_WHY" /* why we are executed again, for who came back */
#define BACK_WHY_MAX 256

#define BACK_ARGS_MAX  64
#define BACK_ARGS_SIZE 8192

struct back_args { /* back_args(): how this process was called; do not copy */
	char text[BACK_ARGS_SIZE];
	char *argv[BACK_ARGS_MAX + 1];
};

/* 0, or -E2BIG. */
int back_args(struct back_args *ret) ATTR_MUST_USE;

/* A descriptor of the running program, close-on-exec, also when its file is gone: taken; or -errno. */
int back_open(void) ATTR_MUST_USE;

/* In the old program, around its exec. `on` false: that failed. 0 or -errno. */
int back_offer(int program_fd, int state_fd, bool on) ATTR_MUST_USE;

/* In the new program, before anything can fail: takes the offer, if there is one, and catches crashes. May come again. */
void back_arm(void);

/* Descriptors that the old program wants to find again; until then none of them may be close-on-exec, afterwards all. */
void back_keep(const struct state *);

/* Executes the old program again. Returns where there is none to go back to, or that fails. No descriptor of the state may
 * have been closed, no byte of a parked socket been read. */
void back_go(const char *why);

/* It is all ours now: from here on only another exec of that kind leads back. The old program's descriptor, taken; -1
 * there is none. */
int back_forget(void);

/* Is this the state's memfd, which is closed by back_forget()? */
bool back_owns(int fd);

#endif
