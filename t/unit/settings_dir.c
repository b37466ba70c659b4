/* settings_dir.c - a temporary folder of settings files for one test */
#include "settings_dir.h"

#include <ftw.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

char settings_dir[UNIT_TMP_MAX];

void
settings_dir_put(const char *name, const char *text)
{
	char path[512];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", settings_dir, name);
	for (char *p = path + strlen(settings_dir) + 1; (p = strchr(p, '/')); p++) {
		*p = '\0';
		mkdir(path, 0755);
		*p = '/';
	}
	f = fopen(path, "w");
	if (!f || fputs(text, f) < 0 || fclose(f) != 0)
		abort();
}

int
settings_dir_new(void **state)
{
	char path[512];

	(void)state;
	if (!mkdtemp(unit_tmp(settings_dir, "hyper-settings")))
		return -1;
	umask(022);
	settings_dir_put("certs/ca.pem", "");
	settings_dir_put("certs/own.pem", "");
	settings_dir_put("certs/open.key", "");
	settings_dir_put("certs/own.key", "");
	snprintf(path, sizeof(path), "%s/certs/own.key", settings_dir);
	return chmod(path, 0600);
}

static bool keep_certs;

static int
remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	if (keep_certs && (ftw->level == 0 || strstr(path, "/certs")))
		return 0;
	return remove(path);
}

void
settings_dir_clear(void)
{
	keep_certs = true;
	nftw(settings_dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

int
settings_dir_free(void **state)
{
	(void)state;
	keep_certs = false;
	return nftw(settings_dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

const char *
settings_errors_text(struct settings_errors *e)
{
	static char text[65536];
	size_t used = 0, skip = strlen(settings_dir) + 1;

	text[0] = '\0';
	for (size_t i = 0; i < e->n; i++) {
		const char *p = e->v[i];

		while (*p && used + 2 < sizeof(text)) {
			if (strncmp(p, settings_dir, skip - 1) == 0 && p[skip - 1] == '/')
				p += skip;
			else
				text[used++] = *p++;
		}
		text[used++] = '\n';
		text[used] = '\0';
	}
	settings_errors_free(e);
	return text;
}
