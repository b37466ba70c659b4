/* hyper_sd.h - `hyper sd ...`: records of the service directory */
#ifndef HYPER_CLI_HYPER_SD_H
#define HYPER_CLI_HYPER_SD_H

/* argv[0] is "sd". Settings from HYPER_SETTINGS. Returns an exit code (base/daemon.h). */
int hyper_sd_main(int argc, char **argv);

#endif
