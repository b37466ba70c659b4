/* spawn.c - a fresh worker process: fork, the descriptors in place, exec
 *
 * Always true:
 *  1. A worker has 0, 1, 2 and the descriptors of worker_abi.h, and no other:
 *     none of the master's sockets, keys or files can be inherited.
 *  2. Between fork and exec only async-signal-safe calls run: libcurl's
 *     resolver threads may hold any lock at that moment.
 *  3. The worker's environment holds what is in `keep_env` and nothing else.
 *
 * /proc/self/exe and not a path: the file may have been replaced by an upgrade,
 * and master and worker must be of one version.
 *
 * Not here: when a worker is started, and what becomes of it (slots.c).
 */
#include "proxy/master/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "hyper/base/bug.h"
#include "hyper/base/fd.h"

extern char **environ;

static const char *const keep_env[] = {
	"PATH=", "TZ=", "ASAN_OPTIONS=", "LSAN_OPTIONS=", "UBSAN_OPTIONS=", "HYPER_TEST_"
};
#define ENV_MAX 16

static void
env_filter(char *ret[ENV_MAX + 1])
{
	size_t i, k, n = 0;

	for (i = 0; environ[i] && n < ENV_MAX; i++)
		for (k = 0; k < ARRAY_LEN(keep_env); k++)
			if (strncmp(environ[i], keep_env[k], strlen(keep_env[k])) == 0) {
				ret[n++] = environ[i];
				break;
			}
	ret[n] = NULL;
}

/* In the child: descriptors src[i] become 3 + i, everything above is closed. 0 or -1. */
static int
child_fds(int *src, int n)
{
	int i, first = WORKER_FD_CHANNEL;

	/* out of the way first: a source may have a number that is another one's target */
	for (i = 0; i < n; i++)
		if ((src[i] = fcntl(src[i], F_DUPFD, WORKER_FD_LISTENER_MAX + 1)) < 0)
			return -1;
	for (i = 0; i < n; i++)
		if (dup2(src[i], first + i) < 0)
			return -1;
	return close_range((unsigned)(first + n), ~0U, 0);
}

_Noreturn static void
child_exec(int *src, int n, char *const argv[], char *const envp[])
{
	struct sigaction sa = { .sa_handler = SIG_DFL };
	sigset_t none;
	int sig;

	/* Ours must not run in the child before the exec resets them; SIGPIPE stays ignored. */
	for (sig = 1; sig < NSIG; sig++)
		if (sig != SIGPIPE)
			sigaction(sig, &sa, NULL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	if (child_fds(src, n) == 0)
		execve("/proc/self/exe", argv, envp);
	_exit(SPAWN_EXIT_NO_EXEC);
}

int
spawn_worker(const struct spawn *s, pid_t *ret_pid)
{
	char slot[16], gen[16], name[] = "proxy", verb[] = "worker";
	char *argv[] = { name, verb, slot, gen, NULL };
	int src[WORKER_FD_LISTENER_MAX + 1], n = 0;
	sigset_t all, old;
	char *envp[ENV_MAX + 1];
	int rc = 0;
	pid_t pid;
	size_t i;

	BUG_ON(s->listeners->n > WORKER_FD_LISTENER_MAX - WORKER_FD_LISTENER + 1);
	snprintf(slot, sizeof(slot), "%u", s->slot);
	snprintf(gen, sizeof(gen), "%u", s->gen);
	env_filter(envp);
	src[n++] = s->channel_fd;
	src[n++] = s->table_fd;
	src[n++] = s->stats_fd;
	src[n++] = s->ledger_fd;
	for (i = 0; i < s->listeners->n; i++)
		src[n++] = s->listeners->fd[i];
	/* No signal in the child before its handlers are gone: libevent's would
	 * write into the pipe that parent and child share. */
	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, &old);
	pid = fork();
	if (pid == 0)
		child_exec(src, n, argv, envp);
	if (pid < 0)
		rc = -errno;
	sigprocmask(SIG_SETMASK, &old, NULL);
	if (rc == 0)
		*ret_pid = pid;
	return rc;
}

int
spawn_stats_new(int *ret_fd, const struct worker_stats **ret)
{
	int fd = memfd_create("hyper-worker-stats", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	void *page;
	int rc = 0;

	if (fd < 0)
		return -errno;
	/* Without SHRINK the worker could cut it, and reading it would be our SIGBUS. */
	if (ftruncate(fd, sizeof(struct worker_stats)) < 0 ||
	    fcntl(fd, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL) < 0) {
		rc = -errno;
		goto out;
	}
	page = mmap(NULL, sizeof(struct worker_stats), PROT_READ, MAP_SHARED, fd, 0);
	if (page == MAP_FAILED) {
		rc = -errno;
		goto out;
	}
	*ret = page;
	*ret_fd = fd;
	fd = -1;
out:
	fd_close(&fd);
	return rc;
}

void
spawn_stats_free(const struct worker_stats *page)
{
	if (page)
		munmap((void *)page, sizeof(*page));
}
