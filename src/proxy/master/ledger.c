/* ledger.c - a worker's ledger, seen from the master
 *
 * Always true:
 *  1. The master writes the head before anybody else has the memfd, and never
 *     again; its own view is read-only.
 *  2. How many pipes and seats there are is the master's own memory; what the
 *     worker may have done to the head changes nothing here.
 *  3. Without F_SEAL_SHRINK the worker could cut the memfd, and reading it would
 *     be our SIGBUS.
 *
 * Not here: what the numbers mean for a pair (rescue.c).
 */
#include "proxy/master/ledger.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "hyper/base/bug.h"
#include "hyper/base/fd.h"

struct ledger {
	uint32_t n_pipes, n_seats;
	struct worker_ledger *map; /* read-only */
};

static int
ledger_make(struct ledger *l, int fd)
{
	struct worker_ledger head = { .magic = WORKER_LEDGER_MAGIC,
		.version = WORKER_LEDGER_VERSION,
		.n_pipes = l->n_pipes,
		.n_seats = l->n_seats };
	size_t size = worker_ledger_size(l->n_pipes, l->n_seats);
	void *map;

	if (ftruncate(fd, (off_t)size) < 0 || pwrite(fd, &head, sizeof(head), 0) != (ssize_t)sizeof(head) ||
	    fcntl(fd, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL) < 0)
		return errno ? -errno : -EIO;
	map = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED)
		return -errno;
	l->map = map;
	return 0;
}

int
ledger_new(uint32_t n_pipes, uint32_t n_seats, int *ret_fd, struct ledger **ret)
{
	struct ledger *l = calloc(1, sizeof(*l));
	int fd = -1, rc = l ? 0 : -ENOMEM;

	BUG_ON(n_pipes == 0 || n_pipes > WORKER_LEDGER_PIPES_MAX || n_seats == 0 || n_seats > WORKER_LEDGER_SEATS_MAX);
	if (rc == 0) {
		l->n_pipes = n_pipes;
		l->n_seats = n_seats;
		fd = memfd_create("hyper-worker-ledger", MFD_CLOEXEC | MFD_ALLOW_SEALING);
		rc = fd < 0 ? -errno : ledger_make(l, fd);
	}
	if (rc < 0) {
		fd_close(&fd);
		free(l);
		return rc;
	}
	*ret_fd = fd;
	*ret = l;
	return 0;
}

void
ledger_free(struct ledger *l)
{
	if (!l)
		return;
	munmap(l->map, worker_ledger_size(l->n_pipes, l->n_seats));
	free(l);
}

uint64_t
ledger_turn(const struct ledger *l)
{
	return __atomic_load_n(&l->map->turn, __ATOMIC_ACQUIRE);
}

uint64_t
ledger_entry(const struct ledger *l, uint32_t no)
{
	return no < l->n_pipes ? __atomic_load_n(&worker_ledger_pipes(l->map)[no], __ATOMIC_ACQUIRE) : 0;
}

const struct relay_copy *
ledger_copy(const struct ledger *l)
{
	return &l->map->copy;
}

bool
ledger_seat(const struct ledger *l, uint32_t i, struct relay_seat *ret)
{
	const struct relay_seat *from;
	uint64_t pair;

	if (i >= l->n_seats)
		return false;
	from = &worker_ledger_seats(l->map, l->n_pipes)[i];
	pair = __atomic_load_n(&from->pair, __ATOMIC_ACQUIRE);
	if (pair == 0)
		return false;
	ret->pair = pair;
	ret->bytes_ab = __atomic_load_n(&from->bytes_ab, __ATOMIC_RELAXED);
	ret->bytes_ba = __atomic_load_n(&from->bytes_ba, __ATOMIC_RELAXED);
	ret->flags = __atomic_load_n(&from->flags, __ATOMIC_RELAXED);
	ret->active_s = __atomic_load_n(&from->active_s, __ATOMIC_RELAXED);
	__atomic_thread_fence(__ATOMIC_ACQUIRE);
	return __atomic_load_n(&from->pair, __ATOMIC_RELAXED) == pair; /* else these may be the next taker's numbers */
}

uint32_t
ledger_seats(const struct ledger *l)
{
	uint64_t used = __atomic_load_n(&l->map->used_seats, __ATOMIC_RELAXED);

	return used < l->n_seats ? (uint32_t)used : l->n_seats;
}
