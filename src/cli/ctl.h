/* ctl.h - the verbs that change a running program over its admin socket and wait for the outcome: reload, drain, stop */
#ifndef HYPER_CLI_CTL_H
#define HYPER_CLI_CTL_H

#include <stdbool.h>

/* All return exit codes: 0 done; 1 it said no, or connections are left; 69 nobody serves the socket; 78 wrong
 * settings. `socket` is taken; NULL: there is none, which is said. `code` is returned where it is not 0. */

/* New settings are read there; prints what changed and what needs a restart. `dry`: what would. */
int ctl_reload(char *socket, int code, bool dry);

/* Numbers as texts, NULL: not given. */
int ctl_drain(char *socket, int code, const char *until, const char *deadline_s);
int ctl_undrain(char *socket, int code);

/* Returns when the process is gone. */
int ctl_stop(char *socket, int code, const char *deadline_s);

#endif
