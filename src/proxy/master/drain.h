/* drain.h - nothing new, what is under way comes to its end: for a stop, or to be waited for */
#ifndef HYPER_PROXY_MASTER_DRAIN_H
#define HYPER_PROXY_MASTER_DRAIN_H

#include <stdbool.h>
#include <stdint.h>

#include <jansson.h>

struct admin_call;
struct master;

/* TERM: SERVING -> DRAINING -> STOPPING, at once when nothing is under way, at the latest after `timeout_ms`. */
void drain_then_stop(struct master *, int64_t timeout_ms);

/* The verbs, true when it is one of them; then the call is taken, and answered now or later:
 *   drain { "until": pairs, "deadline_ms" }  waits until so many pairs are left (and with 0 no token either); goes on serving
 *   undrain                                  back to SERVING
 *   stop { "deadline_ms" }                   answered before the workers are told to stop
 * The answers say what is left: { "ok", "pairs", "tokens", "pid" }. Without "deadline_ms": public.drain_timeout. */
bool drain_on_admin(struct master *, struct admin_call *, const char *verb, const json_t *args);

/* It stops now: who waits is answered. NULL is fine. */
void drain_over(struct master *);
void drain_fini(struct master *);

#endif
