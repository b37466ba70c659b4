/* crash.c - preloaded in tests: the first memfd that a program makes ends it by the signal HYPER_TEST_CRASH names,
 * or with 0 cannot be made; with "w" the program cannot be executed again, which its workers need
 *
 * Always true: only this process is meant. What it executes and what it starts is spared.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static int signo = -1;

__attribute__((constructor)) static void
spare_others(void)
{
	const char *text = getenv("HYPER_TEST_CRASH");

	signo = text && *text != 'w' ? atoi(text) : -1;
	if (text && *text == 'w')
		(void)!chmod("/proc/self/exe", 0);
	unsetenv("HYPER_TEST_CRASH");
	unsetenv("LD_PRELOAD");
}

__attribute__((visibility("default"))) int
memfd_create(const char *name, unsigned flags)
{
	if (signo > 0)
		raise(signo);
	if (signo == 0) {
		errno = EMFILE;
		return -1;
	}
	return (int)syscall(SYS_memfd_create, name, flags);
}
