/* unread.c - preloaded in tests: every second FIONREAD of this process finds a byte that has just come
 *
 * Always true: only this process is meant. What it executes and what it starts is spared.
 */
#include <stdarg.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

__attribute__((constructor)) static void
spare_others(void)
{
	unsetenv("LD_PRELOAD");
}

__attribute__((visibility("default"))) int
ioctl(int fd, unsigned long request, ...)
{
	static unsigned looks;
	va_list ap;
	void *arg;
	int rc;

	va_start(ap, request);
	arg = va_arg(ap, void *);
	va_end(ap);
	rc = (int)syscall(SYS_ioctl, fd, request, arg);
	if (rc == 0 && request == FIONREAD && looks++ % 2 == 1)
		*(int *)arg += 1;
	return rc;
}
