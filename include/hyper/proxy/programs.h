/* programs.h - the entry functions of the proxy's processes */
#ifndef HYPER_PROXY_PROGRAMS_H
#define HYPER_PROXY_PROGRAMS_H

#include "hyper/settings/conf.h"

/* `proxy run public`: the master. Runs until stopped. `conf` is borrowed.
 * Returns an exit code (base/daemon.h). */
int proxy_master_run(const struct conf_proxy *conf);

/* `proxy run public` cannot go on before proxy_master_run(): where this is an upgrade, the old program is executed
 * again and this does not return. */
void proxy_master_go_back(const char *why);

/* `proxy check`, after the settings were read: are there descriptors enough? An exit code, the sum on standard error. */
int proxy_master_check(const struct conf_proxy *conf);

/* `proxy worker SLOT GENERATION`, exec'ed by the master. Returns an exit code. */
int proxy_worker_run(unsigned slot, uint32_t gen);

#endif
