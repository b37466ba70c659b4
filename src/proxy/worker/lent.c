/* lent.c - this worker's ledger, and the pipes that the master lends
 *
 * Always true:
 *  1. The head was checked once against the size of the memfd; its numbers are
 *     remembered in private memory and never read again.
 *  2. A pipe that was closed here is said to be FREED exactly once. The numbers
 *     wait in a ring that has room for all there are, so saying so never fails.
 *  3. The engine writes into the ledger, nobody else does (src/relay).
 *
 * Not here: what is in the ledger and when it is written (relay.h, docs/shm.md),
 * what the master makes of it after our death (src/proxy/master/rescue.c).
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "hyper/base/bug.h"
#include "hyper/base/fd.h"
#include "hyper/base/log.h"
#include "proxy/worker/worker.h"

static void
pipes_make(struct worker *w, struct out *o, struct chan_msg *ret, int *ret_fd)
{
	(void)o;
	(void)ret_fd;
	if (w->n_freed > 0) {
		ret->type = CHAN_FREED;
		ret->pipe = w->freed[w->freed_first];
	} else {
		ret->type = CHAN_WANT;
		ret->n = w->want > w->n_pipes ? w->n_pipes : (uint32_t)w->want;
	}
}

static bool
pipes_sent(struct worker *w, struct out *o)
{
	(void)o;
	if (w->n_freed > 0) {
		w->freed_first = (w->freed_first + 1) % w->n_pipes;
		w->n_freed--;
	} else {
		w->want = 0;
	}
	return w->n_freed > 0 || w->want > 0;
}

static const struct out_kind pipes_kind = { pipes_make, pipes_sent };

int
lent_init(struct worker *w)
{
	struct worker_ledger *l;
	struct stat st;
	void *map;

	if (fstat(WORKER_FD_LEDGER, &st) < 0)
		return -errno;
	if (st.st_size < (off_t)sizeof(*l))
		return -EPROTO;
	map = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, WORKER_FD_LEDGER, 0);
	if (map == MAP_FAILED)
		return -errno;
	l = map;
	w->n_pipes = l->n_pipes;
	w->n_seats = l->n_seats;
	if (l->magic != WORKER_LEDGER_MAGIC || l->version != WORKER_LEDGER_VERSION || w->n_pipes == 0 ||
	    w->n_pipes > WORKER_LEDGER_PIPES_MAX || w->n_seats == 0 || w->n_seats > WORKER_LEDGER_SEATS_MAX ||
	    worker_ledger_size(w->n_pipes, w->n_seats) != (size_t)st.st_size) {
		munmap(map, (size_t)st.st_size);
		return -EPROTO;
	}
	close_range(WORKER_FD_LEDGER, WORKER_FD_LEDGER, 0);
	w->ledger = l;
	w->freed = calloc(w->n_pipes, sizeof(*w->freed));
	w->pipes_out.kind = &pipes_kind;
	return w->freed ? 0 : -ENOMEM;
}

struct relay_ledger
lent_ledger(const struct worker *w)
{
	return (struct relay_ledger){
		.turn = &w->ledger->turn,
		.used_seats = &w->ledger->used_seats,
		.copy = &w->ledger->copy,
		.pipes = worker_ledger_pipes(w->ledger),
		.seats = worker_ledger_seats(w->ledger, w->n_pipes),
		.n_pipes = w->n_pipes,
		.n_seats = w->n_seats,
	};
}

void
lent_on_want(size_t n, void *arg)
{
	struct worker *w = arg;

	w->want += n;
	channel_put(w, &w->pipes_out);
}

void
lent_on_pipe_gone(uint32_t no, void *arg)
{
	struct worker *w = arg;

	BUG_ON(w->n_freed >= w->n_pipes);
	w->freed[(w->freed_first + w->n_freed++) % w->n_pipes] = no;
	channel_put(w, &w->pipes_out);
}

int
lent_on_pipe(struct worker *w, uint32_t no, int fd, bool lost)
{
	if (no >= w->n_pipes) {
		fd_close(&fd);
		return -EPROTO;
	}
	if (lost) { /* cannot be, see the channel's reserve; should it, the pipe is one that we have closed */
		lent_on_pipe_gone(no, w);
		relay_pipe_none(w->relay);
		return 0;
	}
	return relay_pipe_give(w->relay, no, fd) < 0 ? -EPROTO : 0;
}

void
lent_on_nopipe(struct worker *w)
{
	static struct log_limit limit;

	log_limited(&limit, LOG_LVL_WARN, "no_pipe",
	    "why=\"public.max_pipes are in use: some bytes are copied, and lost if this worker is killed\"");
	relay_pipe_none(w->relay);
}

void
lent_fini(struct worker *w)
{
	if (w->ledger)
		munmap(w->ledger, worker_ledger_size(w->n_pipes, w->n_seats));
	w->ledger = NULL;
	free(w->freed);
}
