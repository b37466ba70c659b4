/* sd.h - the service directory: signed records, durable, served over JSON-RPC */
#ifndef HYPER_SD_SD_H
#define HYPER_SD_SD_H

#include "hyper/settings/conf.h"

/* `sd run`. Runs until stopped. `conf` is borrowed. Returns an exit code (base/daemon.h). */
int sd_run(const struct conf_sd *conf);

#endif
