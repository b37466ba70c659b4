/* exec_self.c - for bench/instructions: preloaded into a proxy that runs under valgrind
 *
 * There /proc/self/exe is valgrind, so the master would start valgrind for a worker. This makes it start the program
 * that BENCH_EXE names. bench/instructions compiles it; nothing else uses it.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static const char *program;

__attribute__((constructor)) static void
note_program(void)
{
	program = getenv("BENCH_EXE");
}

int
execve(const char *path, char *const argv[], char *const envp[])
{
	if (program && strcmp(path, "/proc/self/exe") == 0)
		path = program;
	return (int)syscall(SYS_execve, path, argv, envp);
}
