/* options_dump.c - prints the option table of hyper, sd or proxy as tab-separated lines, for tools/check-conf */
#include <stdio.h>

#include "hyper/settings/settings.h"

int
main(int argc, char **argv)
{
	const struct settings_option *o;
	size_t n = 0;

	if (argc != 2 || !(o = settings_options(argv[1], &n))) {
		fputs("usage: options_dump hyper|sd|proxy\n", stderr);
		return 64;
	}
	for (size_t i = 0; i < n; i++)
		printf("%s\t%s\t%s\t%s\t%s\t%d\t%s\n", o[i].key, o[i].type, o[i].range, o[i].def, o[i].unit,
		    o[i].reload, o[i].help);
	return 0;
}
