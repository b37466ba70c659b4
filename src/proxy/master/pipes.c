/* pipes.c - which pipes one worker process has
 *
 * Always true:
 *  1. The master's descriptor of a pipe has one owner: this table, or the pair
 *     that waits for a worker with bytes in it (pairing.h). Never both.
 *  2. A number is in use from pipes_give() to pipes_take(). As messages to a
 *     worker stay in order, it knows of the second before the number comes again.
 *
 * Not here: making pipes and how many (hand.c), what they hold (ledger.c).
 */
#include "proxy/master/pipes.h"

#include <errno.h>
#include <stdlib.h>

#include "hyper/base/fd.h"

struct pipes {
	uint32_t cap, n_used;
	uint32_t next;   /* numbers from this one on were never given, and their memory was never touched */
	uint32_t n_free; /* of those below */
	uint32_t *free;  /* the last one is used next */
	int fd[];        /* by number, below `next`; -1 none */
};

struct pipes *
pipes_new(uint32_t cap)
{
	struct pipes *p = calloc(1, sizeof(*p) + cap * sizeof(p->fd[0]));

	if (!p)
		return NULL;
	p->free = calloc(cap, sizeof(*p->free));
	if (!p->free) {
		free(p);
		return NULL;
	}
	p->cap = cap;
	return p;
}

void
pipes_free(struct pipes *p)
{
	if (!p)
		return;
	for (uint32_t i = 0; i < p->next; i++)
		fd_close(&p->fd[i]);
	free(p->free);
	free(p);
}

int
pipes_give(struct pipes *p, int fd, uint32_t *ret_no)
{
	uint32_t no;

	if (p->n_used == p->cap) {
		fd_close(&fd);
		return -ENOSPC;
	}
	no = p->n_free > 0 ? p->free[--p->n_free] : p->next++;
	p->n_used++;
	p->fd[no] = fd;
	*ret_no = no;
	return 0;
}

int
pipes_take(struct pipes *p, uint32_t no)
{
	int fd = pipes_get(p, no);

	if (fd < 0)
		return -1;
	p->fd[no] = -1;
	p->free[p->n_free++] = no;
	p->n_used--;
	return fd;
}

int
pipes_get(const struct pipes *p, uint32_t no)
{
	return no < p->next ? p->fd[no] : -1;
}

uint32_t
pipes_count(const struct pipes *p)
{
	return p->n_used;
}

uint32_t
pipes_room(const struct pipes *p)
{
	return p->cap - p->n_used;
}

uint32_t
pipes_made(const struct pipes *p)
{
	return p->next;
}
