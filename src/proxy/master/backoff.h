/* backoff.h - how long a worker slot waits after deaths in a row, and what to say about them */
#ifndef HYPER_PROXY_MASTER_BACKOFF_H
#define HYPER_PROXY_MASTER_BACKOFF_H

#include <stdbool.h>
#include <stdint.h>

#define BACKOFF_MIN_MS   100
#define BACKOFF_MAX_MS   10000
#define BACKOFF_LIVED_MS 30000 /* a life that makes the deaths before it forgotten */

/* How a process ended. */
struct backoff_death {
	int status; /* of waitpid() */
	int64_t lived_ms;
	bool has_served;  /* it had said READY */
	bool is_at_fault; /* and was killed by the master for what it did or did not do */
};

/* Is it a sign that the next one will die as well? Not after a long life, nor of one that had
 * served and was ended from outside: an operator, or a kernel without memory. */
bool backoff_is_crash(const struct backoff_death *);

/* The pause after so many crashes in a row: BACKOFF_MIN_MS for up to one, then doubling to
 * BACKOFF_MAX_MS, and up to a quarter more by `random`, so that slots do not start in step. */
int64_t backoff_ms(unsigned crashes, uint32_t random);

/* Is this number of crashes worth a line? Each step once, until there is no longer pause. */
bool backoff_is_step(unsigned crashes);

/* What such a death means and what to do; static. */
const char *backoff_hint(const struct backoff_death *);

#endif
