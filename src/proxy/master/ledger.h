/* ledger.h - the master's view of one worker process's ledger: what its pairs are about, read after its death */
#ifndef HYPER_PROXY_MASTER_LEDGER_H
#define HYPER_PROXY_MASTER_LEDGER_H

#include <stdbool.h>
#include <stdint.h>

#include "hyper/base/attr.h"
#include "hyper/proxy/worker_abi.h"

struct ledger;

/* A memfd for so many pipes and pairs, sealed against growing, shrinking and sealing, and our read-only view of
 * it. 0 with both taken, or -errno with both untouched. */
int ledger_new(uint32_t n_pipes, uint32_t n_seats, int *ret_fd, struct ledger **ret) ATTR_MUST_USE;
/* NULL is fine. */
void ledger_free(struct ledger *);

/* All of it is a sibling's: numbers that it holds may be anything. */
uint64_t ledger_turn(const struct ledger *);
/* What pipe `no` holds: 0 or pair << 1 | direction. 0 for a number that does not exist. */
uint64_t ledger_entry(const struct ledger *, uint32_t no);
/* The message that its worker had in its hands. */
const struct relay_copy *ledger_copy(const struct ledger *);
/* Seat i; false when it is free. */
bool ledger_seat(const struct ledger *, uint32_t i, struct relay_seat *ret);
/* Those below this one were taken some time; to look at others would only make memory of them. */
uint32_t ledger_seats(const struct ledger *);

#endif
