/* selftest.h - `proxy selftest`: this process plays both parties through the running proxy's endpoint */
#ifndef HYPER_CLI_SELFTEST_H
#define HYPER_CLI_SELFTEST_H

struct cmd_args;

/* Indices of its options in cmd_args.opt. */
enum { SELFTEST_OPT_JSON, SELFTEST_OPT_WARNING, SELFTEST_OPT_CRITICAL, SELFTEST_OPT_TIMEOUT, SELFTEST_OPT_ENDPOINT };

/* Exit codes of monitoring plugins: 0 ok, 1 slower than --warning, 2 a step failed or slower than --critical, 3 it could
 * not be tried. `socket`: the proxy's admin socket, taken; NULL where there is none. `code`: not 0 where the settings
 * could not be read, which was said. */
int selftest_run(char *socket, int code, const struct cmd_args *);

#define SELFTEST_UNKNOWN 3

#endif
