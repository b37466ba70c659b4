/* counts.c - see the header
 *
 * Not here: what is true now (show.c asks the parts), stories (story.c).
 */
#include "server/counts.h"

static struct counts counts;

const struct counts *
counts_get(void)
{
	return &counts;
}

void
counts_reload(bool ok)
{
	counts.reloads++;
	counts.last_reload_failed = !ok;
}
