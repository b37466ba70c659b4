/* file.c - unsigned change records from files: directory type `json`, and what `hyper sd submit-records` reads
 *
 * Always true:
 *  1. A file is read whole or not at all; its size is bounded by JSON_MAX_BYTES.
 *  2. A folder is read in name order, not recursively, *.json only.
 *
 * Not here: when to read again (directory.c).
 */
#include "directory/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "directory/merge.h"
#include "hyper/base/bytes.h"
#include "hyper/base/fd.h"
#include "hyper/directory/record.h"
#include "hyper/wire/address.h"
#include "hyper/wire/json.h"

#define FILE_TIME_DEFAULT "1970-01-01T00:00:00Z"

static int
say(char *err, int code, const char *path, const char *text)
{
	snprintf(err, RECORD_ERR_MAX, "%.300s: %.200s", path, text);
	return code;
}

int
file_read(int fd, size_t cap, char **ret, size_t *ret_len)
{
	size_t len = 0, room = 4096;
	char *buf = malloc(room + 1), *bigger;
	ssize_t n;
	int r = 0;

	while (buf) {
		n = read(fd, buf + len, room - len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			r = -errno;
		if (n <= 0)
			break;
		len += (size_t)n;
		if (len > cap) {
			r = -EFBIG;
			break;
		}
		if (len < room)
			continue;
		bigger = realloc(buf, room * 2 + 1);
		if (!bigger) {
			r = -ENOMEM;
			break;
		}
		buf = bigger;
		room *= 2;
	}
	if (!buf)
		return -ENOMEM;
	if (r < 0) {
		free(buf);
		return r;
	}
	buf[len] = '\0';
	*ret = buf;
	*ret_len = len;
	return 0;
}

static int
parse_file(const char *path, json_t **ret, char *err)
{
	int fd = strcmp(path, "-") == 0 ? fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 0) : open(path, O_RDONLY | O_CLOEXEC), r;
	char *text = NULL, why[JSON_ERR_MAX];
	size_t len = 0;

	if (fd < 0)
		return say(err, -errno, path, strerror(errno));
	r = file_read(fd, JSON_MAX_BYTES, &text, &len);
	fd_close(&fd);
	if (r < 0)
		return say(err, r, path, r == -EFBIG ? "larger than 4 MiB: split it" : strerror(-r));
	r = json_parse(text, len, ret, why);
	free(text);
	if (r < 0)
		return say(err, r, path, why);
	return 0;
}

/* One change record, bare or as the `record` of a signed one; created_at may be missing in a file. *ret is taken. */
static int
normalise(const json_t *given, enum record_forms forms, json_t **ret, char *err)
{
	const json_t *inner = json_object_get(given, "record");
	json_t *copy;
	int r;

	if (json_is_object(inner))
		given = inner;

	if (!json_is_object(given) || json_object_get(given, "created_at"))
		return record_normalise(given, forms, ret, err);
	copy = json_copy((json_t *)given);
	if (json_object_set_new(copy, "created_at", json_string(FILE_TIME_DEFAULT)) < 0) {
		json_decref(copy);
		snprintf(err, RECORD_ERR_MAX, "out of memory");
		return -ENOMEM;
	}
	r = record_normalise(copy, forms, ret, err);
	json_decref(copy);
	return r;
}

int
record_file_load(const char *path, enum record_forms forms, json_t **ret, char err[RECORD_ERR_MAX])
{
	json_t *doc = NULL, *list, *out = NULL, *record;
	char why[RECORD_ERR_MAX];
	size_t i;
	int r = parse_file(path, &doc, err);

	if (r < 0)
		return r;
	list = json_object_get(doc, "records");
	if (!json_is_array(list)) {
		r = say(err, -EINVAL, path, "expected an object {\"records\": [...]}");
		goto out;
	}
	out = json_array();
	for (i = 0; r == 0 && i < json_array_size(list); i++) {
		record = NULL;
		r = normalise(json_array_get(list, i), forms, &record, why);
		if (r < 0)
			snprintf(err, RECORD_ERR_MAX, "%.200s: records[%zu]: %.250s", path, i, why);
		else if (json_array_append_new(out, record) < 0)
			r = say(err, -ENOMEM, path, "out of memory");
	}
	if (r == 0) {
		*ret = out;
		out = NULL;
	}
out:
	json_decref(out);
	json_decref(doc);
	return r;
}

static int
is_json_file(const struct dirent *e)
{
	size_t len = strlen(e->d_name);

	return len > 5 && e->d_name[0] != '.' && strcmp(e->d_name + len - 5, ".json") == 0;
}

/* The files of a path, at least one: *ret_names has `n` names (taken), or n = 0 when the path is itself the file. */
static int
list_files(const char *path, struct dirent ***ret, int *ret_n)
{
	struct stat st;
	int n;

	if (stat(path, &st) < 0)
		return -errno;
	if (!S_ISDIR(st.st_mode)) {
		*ret = NULL;
		*ret_n = 0;
		return 0;
	}
	n = scandir(path, ret, is_json_file, alphasort);
	if (n < 0)
		return -errno;
	if (n == 0) {
		free(*ret);
		return -ENOENT;
	}
	*ret_n = n;
	return 0;
}

static void
free_files(struct dirent **files, int n)
{
	while (n > 0)
		free(files[--n]);
	free(files);
}

static int
merge_file(const char *path, json_t *entries, char *err)
{
	json_t *records = NULL;
	const json_t *record;
	size_t i;
	int r = record_file_load(path, RECORD_OPEN, &records, err);

	if (r < 0)
		return r;
	json_array_foreach (records, i, record) {
		if (!operator_name_is_valid(json_str(record, "name"))) {
			snprintf(err, RECORD_ERR_MAX,
			    "%.200s: records[%zu]: name: expected the name of an operator ([A-Za-z0-9._-], at most "
			    "253)",
			    path, i);
			r = -EINVAL;
			break;
		}
		if (entries_merge(entries, record, NULL) < 0) {
			r = say(err, -ENOMEM, path, "out of memory");
			break;
		}
	}
	json_decref(records);
	return r;
}

int
file_entries(const char *path, json_t **ret, char err[RECORD_ERR_MAX])
{
	json_t *entries = json_object();
	struct dirent **files = NULL;
	char full[PATH_MAX];
	int n = 0, i, r = list_files(path, &files, &n);

	if (r < 0)
		say(err, r, path, r == -ENOENT ? "no such file, or a folder without *.json" : strerror(-r));
	else if (n == 0)
		r = merge_file(path, entries, err);
	for (i = 0; r == 0 && i < n; i++) {
		snprintf(full, sizeof full, "%s/%s", path, files[i]->d_name);
		r = merge_file(full, entries, err);
	}
	free_files(files, n);
	if (r < 0)
		json_decref(entries);
	else
		*ret = entries;
	return r;
}

/* Mixes what tells one version of a file from another. */
static void
mix(uint64_t *stamp, const char *path)
{
	struct {
		uint64_t before, dev, ino, size, mtime_s, mtime_ns;
	} facts = { .before = *stamp };
	uint8_t digest[SHA256_LEN];
	struct stat st;

	if (stat(path, &st) == 0) {
		facts.dev = (uint64_t)st.st_dev;
		facts.ino = (uint64_t)st.st_ino;
		facts.size = (uint64_t)st.st_size;
		facts.mtime_s = (uint64_t)st.st_mtim.tv_sec;
		facts.mtime_ns = (uint64_t)st.st_mtim.tv_nsec;
	}
	sha256(&facts, sizeof facts, digest);
	memcpy(stamp, digest, sizeof *stamp);
}

uint64_t
file_stamp(const char *path)
{
	struct dirent **files = NULL;
	char full[PATH_MAX];
	uint64_t stamp = 1;
	int n = 0, i;

	if (list_files(path, &files, &n) < 0)
		return 0;
	if (n == 0)
		mix(&stamp, path);
	for (i = 0; i < n; i++) {
		snprintf(full, sizeof full, "%s/%s", path, files[i]->d_name);
		mix(&stamp, full);
	}
	free_files(files, n);
	return stamp;
}
