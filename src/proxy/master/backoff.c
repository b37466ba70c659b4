/* backoff.c - see the header
 *
 *   crashes in a row   1     2     3     4     5     6     7     8 ...
 *   pause, seconds     0.1   0.2   0.4   0.8   1.6   3.2   6.4   10 ...
 *
 * A worker that dies before it is READY has served nobody, and nothing says that the next one will: a broken
 * program, a filter that forbids too much, no memory. One that had served and dies by a signal which processes do not
 * send themselves is no crash, however often: a storm of kills costs a tenth of a second each.
 *
 * Not here: when a slot starts (slots.c).
 */
#include "proxy/master/backoff.h"

#include <signal.h>
#include <sys/wait.h>

#include "proxy/master/spawn.h"

#define DOUBLINGS 7 /* from BACKOFF_MIN_MS beyond BACKOFF_MAX_MS */

static bool
is_from_outside(int status)
{
	int sig = WIFSIGNALED(status) ? WTERMSIG(status) : 0;

	return sig == SIGKILL || sig == SIGTERM || sig == SIGINT || sig == SIGQUIT || sig == SIGHUP;
}

bool
backoff_is_crash(const struct backoff_death *d)
{
	if (d->lived_ms >= BACKOFF_LIVED_MS)
		return false;
	return !d->has_served || d->is_at_fault || !is_from_outside(d->status);
}

int64_t
backoff_ms(unsigned crashes, uint32_t random)
{
	int64_t ms = BACKOFF_MIN_MS;

	if (crashes < 2)
		return ms;
	ms = crashes > DOUBLINGS ? BACKOFF_MAX_MS : ms << (crashes - 1);
	return ms + ms / 4 * (int64_t)(random >> 16) / UINT16_MAX;
}

bool
backoff_is_step(unsigned crashes)
{
	return crashes > 1 && crashes <= DOUBLINGS + 1;
}

const char *
backoff_hint(const struct backoff_death *d)
{
	if (d->is_at_fault)
		return "the master killed it: worker_killed says why";
	if (WIFEXITED(d->status) && WEXITSTATUS(d->status) == SPAWN_EXIT_NO_EXEC)
		return "the program could not be executed: is its file whole, permitted and not in a noexec place?";
	if (WIFEXITED(d->status))
		return "it ended by itself: its own lines before this one say why";
	if (WTERMSIG(d->status) == SIGSYS)
		return "a system call was forbidden: by a filter of the unit or of the container?";
	if (is_from_outside(d->status))
		return "killed from outside before it was ready: too little memory? See the kernel's log";
	return "it crashed: report it with the core file, or upgrade to a version that does not";
}
