/* keep.c - the chain a client has accepted, kept over restarts (protocol.md "Rollback")
 *
 * The file: one line {"hyper":"chain","version":1}, then one line for each
 * signed record. Its modification time says when the chain was last current.
 *
 * Always true:
 *  1. The file is either the old or the new chain, whole, whenever the machine
 *     stops: it is written beside, fsynced and renamed.
 *  2. Nothing in it is believed: each record is verified again when it is read.
 *     A damaged file gives the part before the damage, and a part of a chain is
 *     safe: it only allows less to be refused.
 *
 * Not here: which chain is accepted (feed.c).
 */
#include "directory/keep.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "hyper/base/fd.h"
#include "hyper/wire/json.h"

#define KEEP_HEAD     "{\"hyper\":\"chain\",\"version\":1}"
#define KEEP_LINE_MAX (RECORD_MAX_BYTES + 2)
#define NS_PER_S      ((int64_t)1000000000)

static int
load_line(const char *line, size_t len, struct chain *c, struct record_trust *trust, char *err)
{
	char why[JSON_ERR_MAX];
	json_t *record = NULL;
	int r = json_parse(line, len, &record, why);

	if (r < 0) {
		snprintf(err, RECORD_ERR_MAX, "%s", why);
		return r;
	}
	r = chain_append(c, trust, record, err);
	json_decref(record);
	return r;
}

static int
load_lines(FILE *f, struct chain *c, struct record_trust *trust, char *err)
{
	char *line = NULL;
	size_t cap = 0, n = 0;
	ssize_t len;
	int r = 0;

	while (r == 0 && (len = getline(&line, &cap, f)) > 0) {
		if (line[len - 1] == '\n')
			line[--len] = '\0';
		if (n++ == 0) {
			if (strcmp(line, KEEP_HEAD) != 0) {
				snprintf(err, RECORD_ERR_MAX, "not a kept chain of this version");
				r = -EINVAL;
			}
		} else if ((size_t)len > KEEP_LINE_MAX) {
			snprintf(err, RECORD_ERR_MAX, "line %zu is too long", n);
			r = -EINVAL;
		} else
			r = load_line(line, (size_t)len, c, trust, err);
	}
	if (r == 0 && ferror(f)) {
		snprintf(err, RECORD_ERR_MAX, "%s", strerror(EIO));
		r = -EIO;
	}
	free(line);
	return r;
}

int
keep_load(const char *path, struct chain *c, struct record_trust *trust, int64_t *ret_utc_ns, char err[RECORD_ERR_MAX])
{
	FILE *f = fopen(path, "re");
	struct stat st;
	int r;

	*ret_utc_ns = 0;
	if (!f && errno == ENOENT)
		return 0;
	if (!f) {
		r = -errno;
		snprintf(err, RECORD_ERR_MAX, "%s", strerror(-r));
		return r;
	}
	r = load_lines(f, c, trust, err);
	if (r == 0 && fstat(fileno(f), &st) == 0)
		*ret_utc_ns = (int64_t)st.st_mtim.tv_sec * NS_PER_S + st.st_mtim.tv_nsec;
	fclose(f);
	return r;
}

static int
write_chain(FILE *f, const struct chain *c)
{
	char *text;
	size_t i;
	int r = 0;

	if (fputs(KEEP_HEAD "\n", f) < 0)
		return -EIO;
	for (i = 0; r == 0 && i < chain_length(c); i++) {
		text = json_text(chain_record(c, i));
		if (!text)
			return -ENOMEM;
		if (fputs(text, f) < 0 || fputc('\n', f) < 0)
			r = errno ? -errno : -EIO;
		free(text);
	}
	return r;
}

/* The folder is made when it is missing (one level: a store of its own below an existing folder). */
static int
open_new(const char *path, const char *dir)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	if (fd < 0 && errno == ENOENT && mkdir(dir, 0700) == 0)
		fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	return fd < 0 ? -errno : fd;
}

static int
sync_folder(const char *dir)
{
	int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC), r = 0;

	if (fd < 0)
		return -errno;
	if (fsync(fd) < 0)
		r = -errno;
	fd_close(&fd);
	return r;
}

static void
folder_of(const char *path, char ret[PATH_MAX])
{
	const char *slash = strrchr(path, '/');

	if (!slash)
		snprintf(ret, PATH_MAX, ".");
	else
		snprintf(ret, PATH_MAX, "%.*s", slash == path ? 1 : (int)(slash - path), path);
}

int
keep_save(const char *path, const struct chain *c)
{
	char beside[PATH_MAX], dir[PATH_MAX];
	FILE *f;
	int fd, r;

	if ((size_t)snprintf(beside, sizeof beside, "%s.new", path) >= sizeof beside)
		return -ENAMETOOLONG;
	folder_of(path, dir);
	fd = open_new(beside, dir);
	if (fd < 0)
		return fd;
	f = fdopen(fd, "w");
	if (!f) {
		fd_close(&fd);
		return -ENOMEM;
	}
	r = write_chain(f, c);
	if (r == 0 && (fflush(f) != 0 || fsync(fileno(f)) < 0))
		r = -errno;
	if (fclose(f) != 0 && r == 0)
		r = -errno;
	if (r == 0 && rename(beside, path) < 0)
		r = -errno;
	if (r < 0)
		unlink(beside);
	return r < 0 ? r : sync_folder(dir);
}

void
keep_touch(const char *path)
{
	if (utimensat(AT_FDCWD, path, NULL, 0) < 0)
		return; /* an older time only makes the chain count as older after a restart */
}
