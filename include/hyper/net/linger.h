/* linger.h - closing a connection so that the other side sees an end and not a reset */
#ifndef HYPER_NET_LINGER_H
#define HYPER_NET_LINGER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct event_base;

/* Makes a copy of the descriptor that reads and drops what still comes, until
 * the peer's end, at most LINGER_MS long: the owner may say FIN (shutdown())
 * and close its own whenever it likes. False where that cannot be had (over
 * LINGER_SOCKETS at a time, no memory, no descriptor). */
#define LINGER_MS      1000
#define LINGER_SOCKETS 1024
bool linger_copy(struct event_base *, int fd);

/* Runs the loop until no socket of it lingers, at most `ms`, and closes those
 * that still do. To be called before event_base_free(). */
void linger_wait(struct event_base *, int64_t ms);

#endif
