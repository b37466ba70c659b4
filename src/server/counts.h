/* counts.h - what the message server counted since its start, for metrics and the status page
 *
 * One for the process, as the log is: whoever ends something says so here, once.
 */
#ifndef SERVER_COUNTS_H
#define SERVER_COUNTS_H

#include <stdbool.h>
#include <stdint.h>

struct counts {
	uint64_t reloads;
	bool last_reload_failed;
};
const struct counts *counts_get(void);

void counts_reload(bool ok);

#endif
