/* hyper_admin.h - the verbs of `hyper` that look at the running message server: status, connections, explain */
#ifndef HYPER_CLI_HYPER_ADMIN_H
#define HYPER_CLI_HYPER_ADMIN_H

#include "cli/cmd.h"

/* All return exit codes. `socket` is taken; `code` is returned where it is not 0. opt[0]: --json. */
int hyper_admin_status(char *socket, int code, const struct cmd_args *);
int hyper_admin_connections(char *socket, int code, const struct cmd_args *); /* opt[1]: --operator */
int hyper_admin_explain(char *socket, int code, const struct cmd_args *);

#endif
