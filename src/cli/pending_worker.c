/* pending_worker.c - keeps the programs linking until proxy_worker_run() lands: then delete this file and its line in Makefile.inc */
#include <stdio.h>

#include "hyper/proxy/programs.h"

int
proxy_worker_run(unsigned a, uint32_t b)
{
	(void)a;
	(void)b;
	fputs("proxy_worker_run: remove src/cli/pending_worker.c\n", stderr);
	return 70;
}
