/* server.h - the Hyper message server: broker, channels, standing and pooled connections */
#ifndef HYPER_SERVER_SERVER_H
#define HYPER_SERVER_SERVER_H

#include "hyper/settings/conf.h"

/* `hyper server run`. Runs until stopped. `conf` is borrowed. Returns an exit code (base/daemon.h). */
int hyper_server_run(const struct conf_hyper *conf);

#endif
