/* rescue.h - what becomes of the pairs of a worker that died */
#ifndef HYPER_PROXY_MASTER_RESCUE_H
#define HYPER_PROXY_MASTER_RESCUE_H

#include <stdbool.h>

#include "proxy/master/pairing.h"

/* The process is gone and all it had sent was read; its ledger and pipes are still there.
 * `crashed`: by a signal that its own code caused. Each of its pairs is DONE or WAITING afterwards. */
void rescue_pairs(struct pairs *, struct slot *, bool crashed);

#endif
