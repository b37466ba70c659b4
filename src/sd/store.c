/* store.c - the records of the service directory in SQLite
 *
 * One table, one row for each record that was ever accepted, in the order of
 * acceptance. The newest chain begins at the last row without a parent; older
 * chains stay, so that what was replaced is still known when it is replayed.
 *
 * Always true:
 *  1. 0 from store_append() means: written to the WAL and fsynced
 *     (journal_mode=WAL, synchronous=FULL), the names of the files as well.
 *  2. After a failure that leaves it open what is on the disk, nothing more is
 *     written by this process. ENOSPC from a write is not one: SQLite has rolled
 *     back, no fsync had failed.
 *  3. One process at a time: locking_mode=EXCLUSIVE, held from the opening on.
 *  4. At the start the whole WAL is moved into the database and fsynced before a
 *     record is served: what a predecessor wrote but could not fsync is durable
 *     or gone from then on.
 *  5. Checkpoints are ours: SQLite's automatic ones hide their errors.
 *
 * Not here: whether a record may be stored (book.c).
 */
#include "sd/store.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <sqlite3.h>

#include "hyper/base/fd.h"
#include "hyper/base/log.h"

#define STORE_APPLICATION_ID  0x48795344 /* "HySD" */
#define STORE_VERSION         1
#define STORE_CHECKPOINT_PAGE 1000 /* WAL pages of 4 KiB after which it is moved into the database */

struct store {
	sqlite3 *db;
	sqlite3_stmt *find, *insert;
	char path[PATH_MAX];
	int wal_pages;
	bool poisoned;
};

static const char schema[] = "CREATE TABLE IF NOT EXISTS record ("
			     " seq INTEGER PRIMARY KEY,"
			     " hash TEXT NOT NULL UNIQUE,"
			     " parent_hash TEXT NOT NULL,"
			     " text TEXT NOT NULL);";

/* Says what failed; the two faults that have a cure of their own say which. */
static int
fail(const struct store *s, int code, const char *what, char *err)
{
	int rc = s->db ? sqlite3_extended_errcode(s->db) : 0, primary = rc & 0xff;

	if (primary == SQLITE_BUSY || primary == SQLITE_LOCKED) {
		snprintf(err, STORE_ERR_MAX, "%.200s: another process uses it: one sd for each store", s->path);
		return -EBUSY;
	}
	if (primary == SQLITE_NOTADB || primary == SQLITE_CORRUPT) {
		snprintf(err, STORE_ERR_MAX,
		    "%.200s: is no database, or a damaged one: restore it from a backup, or move it away and set the "
		    "directory up "
		    "again (SQLite %d)",
		    s->path, rc);
		return -EINVAL;
	}
	snprintf(err, STORE_ERR_MAX, "%.200s: %s: %.160s (SQLite %d)", s->path, what,
	    s->db ? sqlite3_errmsg(s->db) : strerror(-code), rc);
	return code;
}

/* Runs a statement without results. */
static int
run(struct store *s, const char *sql)
{
	return sqlite3_exec(s->db, sql, NULL, NULL, NULL);
}

/* First column of the first row as text, "" without one. */
static int
query_text(struct store *s, const char *sql, char *ret, size_t cap)
{
	sqlite3_stmt *stmt = NULL;
	int rc = sqlite3_prepare_v2(s->db, sql, -1, &stmt, NULL);

	*ret = '\0';
	if (rc == SQLITE_OK)
		rc = sqlite3_step(stmt);
	if (rc == SQLITE_ROW && sqlite3_column_text(stmt, 0))
		snprintf(ret, cap, "%s", (const char *)sqlite3_column_text(stmt, 0));
	sqlite3_finalize(stmt);
	return rc == SQLITE_ROW || rc == SQLITE_DONE ? SQLITE_OK : rc;
}

/* First column of the first row as a number, 0 without one. */
static int
query_number(struct store *s, const char *sql, long long *ret)
{
	char text[32], *end;
	int rc = query_text(s, sql, text, sizeof text);

	*ret = strtoll(text, &end, 10);
	return rc;
}

static int
on_wal(void *arg, sqlite3 *db, const char *name, int pages)
{
	struct store *s = arg;

	(void)db;
	(void)name;
	s->wal_pages = pages;
	return SQLITE_OK;
}

/* The file exists, is ours alone to read, and its name is durable. */
static int
create_file(const struct store *s, char *err)
{
	char dir[PATH_MAX];
	const char *slash = strrchr(s->path, '/');
	int fd, dir_fd, r = 0;

	snprintf(dir, sizeof dir, "%.*s", slash ? (slash == s->path ? 1 : (int)(slash - s->path)) : 1,
	    slash ? s->path : ".");
	fd = open(s->path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0 && errno == ENOENT && mkdir(dir, 0700) == 0)
		fd = open(s->path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0)
		return fail(s, -errno, "cannot be opened", err);
	/* SQLite's locks are lost when another descriptor of the file is closed: none is held yet */
	fd_close(&fd);
	dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir_fd < 0 || fsync(dir_fd) < 0)
		r = fail(s, -errno, "its folder cannot be made durable", err);
	fd_close(&dir_fd);
	return r;
}

static int
check_identity(struct store *s, char *err)
{
	long long id, version, tables;
	char sql[128];

	if (query_number(s, "PRAGMA application_id", &id) != SQLITE_OK ||
	    query_number(s, "PRAGMA user_version", &version) != SQLITE_OK ||
	    query_number(s, "SELECT count(*) FROM sqlite_master", &tables) != SQLITE_OK)
		return fail(s, -EIO, "cannot be read", err);
	if (id == STORE_APPLICATION_ID && version == STORE_VERSION)
		return 0;
	if (id != 0 || version != 0 || tables != 0) {
		snprintf(err, STORE_ERR_MAX,
		    "%.200s: a database, but not one of this program and version (id %lld, version %lld)", s->path, id,
		    version);
		return -EINVAL;
	}
	snprintf(sql, sizeof sql, "BEGIN; PRAGMA application_id=%d; PRAGMA user_version=%d;", STORE_APPLICATION_ID,
	    STORE_VERSION);
	if (run(s, sql) != SQLITE_OK || run(s, schema) != SQLITE_OK || run(s, "COMMIT") != SQLITE_OK)
		return fail(s, -EIO, "cannot be created", err);
	return 0;
}

static int
configure(struct store *s, char *err)
{
	char mode[32], sync[32];
	int rc;

	sqlite3_extended_result_codes(s->db, 1);
	sqlite3_busy_timeout(s->db, 0);
	if (run(s, "PRAGMA locking_mode=EXCLUSIVE; PRAGMA trusted_schema=OFF; PRAGMA synchronous=FULL") != SQLITE_OK)
		return fail(s, -EIO, "cannot be configured", err);
	rc = query_text(s, "PRAGMA journal_mode=WAL", mode, sizeof mode);
	if (rc != SQLITE_OK)
		return fail(s, -EINVAL, "cannot be configured", err);
	if (strcmp(mode, "wal") != 0 || query_text(s, "PRAGMA synchronous", sync, sizeof sync) != SQLITE_OK ||
	    strcmp(sync, "2") != 0)
		return fail(s, -EINVAL, "does not support a write-ahead log (a network file system?)", err);
	/* one write takes the lock that is then held to the end */
	if (run(s, "BEGIN IMMEDIATE; COMMIT") != SQLITE_OK)
		return fail(s, -EIO, "cannot be locked", err);
	sqlite3_wal_hook(s->db, on_wal, s);
	return 0;
}

static int
checkpoint(struct store *s, int mode)
{
	return sqlite3_wal_checkpoint_v2(s->db, NULL, mode, NULL, NULL);
}

static int
prepare(struct store *s, char *err)
{
	static const char find[] = "SELECT text FROM record WHERE hash = ?1",
			  insert[] = "INSERT INTO record (hash, parent_hash, text) VALUES (?1, ?2, ?3)";

	if (sqlite3_prepare_v3(s->db, find, -1, SQLITE_PREPARE_PERSISTENT, &s->find, NULL) != SQLITE_OK ||
	    sqlite3_prepare_v3(s->db, insert, -1, SQLITE_PREPARE_PERSISTENT, &s->insert, NULL) != SQLITE_OK)
		return fail(s, -EINVAL, "lacks the table of records", err);
	return 0;
}

int
store_open(const char *path, struct store **ret, char err[STORE_ERR_MAX])
{
	struct store *s = calloc(1, sizeof *s);
	int r;

	if (!s || strlen(path) >= sizeof s->path) {
		snprintf(err, STORE_ERR_MAX, "%.200s: out of memory, or the path is too long", path);
		free(s);
		return -ENOMEM;
	}
	snprintf(s->path, sizeof s->path, "%s", path);
	r = create_file(s, err);
	if (r == 0 && sqlite3_open_v2(path, &s->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL) != SQLITE_OK)
		r = fail(s, -EIO, "cannot be opened", err);
	if (r == 0)
		r = configure(s, err);
	if (r == 0)
		r = check_identity(s, err);
	/* invariant 4 */
	if (r == 0 && checkpoint(s, SQLITE_CHECKPOINT_TRUNCATE) != SQLITE_OK)
		r = fail(s, -EIO, "what a crash left cannot be made durable", err);
	if (r == 0)
		r = prepare(s, err);
	if (r < 0)
		store_close(s);
	else
		*ret = s;
	return r;
}

void
store_close(struct store *s)
{
	if (!s)
		return;
	sqlite3_finalize(s->find);
	sqlite3_finalize(s->insert);
	if (s->db && s->poisoned)
		sqlite3_db_config(s->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
	sqlite3_close(s->db);
	free(s);
}

bool
store_is_poisoned(const struct store *s)
{
	return s->poisoned;
}

int
store_walk(struct store *s, int (*each)(const char *text, size_t len, void *arg), void *arg, char err[STORE_ERR_MAX])
{
	static const char sql[] = "SELECT text FROM record WHERE seq >= "
				  "(SELECT max(seq) FROM record WHERE parent_hash = '') ORDER BY seq";
	sqlite3_stmt *stmt = NULL;
	int rc = sqlite3_prepare_v2(s->db, sql, -1, &stmt, NULL), r = 0;

	while (rc == SQLITE_OK || rc == SQLITE_ROW) {
		const char *text;

		rc = sqlite3_step(stmt);
		if (rc != SQLITE_ROW)
			break;
		text = (const char *)sqlite3_column_text(stmt, 0);
		r = text ? each(text, (size_t)sqlite3_column_bytes(stmt, 0), arg) : -ENOMEM;
		if (r != 0)
			break;
	}
	if (r == 0 && rc != SQLITE_DONE)
		r = fail(s, -EIO, "cannot be read", err);
	sqlite3_finalize(stmt);
	return r;
}

int
store_find(struct store *s, const char *hash, char **ret)
{
	const char *text;
	char *copy;
	int rc, r = 0;

	if (sqlite3_bind_text(s->find, 1, hash, -1, SQLITE_STATIC) != SQLITE_OK)
		return -ENOMEM;
	rc = sqlite3_step(s->find);
	if (rc == SQLITE_DONE)
		r = -ENOENT;
	else if (rc != SQLITE_ROW)
		r = -EIO;
	else {
		text = (const char *)sqlite3_column_text(s->find, 0);
		copy = text ? strdup(text) : NULL;
		if (copy)
			*ret = copy;
		else
			r = -ENOMEM;
	}
	sqlite3_reset(s->find);
	return r;
}

static int
insert_all(struct store *s, const struct store_record *v, size_t n)
{
	size_t i;
	int rc = SQLITE_DONE;

	for (i = 0; rc == SQLITE_DONE && i < n; i++) {
		if (sqlite3_bind_text(s->insert, 1, v[i].hash, -1, SQLITE_STATIC) != SQLITE_OK ||
		    sqlite3_bind_text(s->insert, 2, v[i].parent_hash, -1, SQLITE_STATIC) != SQLITE_OK ||
		    sqlite3_bind_text(s->insert, 3, v[i].text, -1, SQLITE_STATIC) != SQLITE_OK)
			return SQLITE_NOMEM;
		rc = sqlite3_step(s->insert);
		/* reset() repeats the error of step() */
		sqlite3_reset(s->insert);
	}
	return rc == SQLITE_DONE ? SQLITE_OK : rc;
}

/* Invariant 2: what a failed transaction means. */
static int
give_up(struct store *s, int rc, char *err)
{
	int primary = rc & 0xff;

	snprintf(err, STORE_ERR_MAX, "%.200s: %s (SQLite %d)", s->path, sqlite3_errstr(rc), rc);
	(void)run(s, "ROLLBACK"); /* SQLite may have done it already */
	if ((primary == SQLITE_FULL || primary == SQLITE_NOMEM) && sqlite3_get_autocommit(s->db))
		return primary == SQLITE_FULL ? -ENOSPC : -ENOMEM;
	s->poisoned = true;
	return -EIO;
}

int
store_append(struct store *s, const struct store_record *v, size_t n, char err[STORE_ERR_MAX])
{
	int rc;

	if (s->poisoned) {
		snprintf(err, STORE_ERR_MAX, "%.200s: a write failed before, the program is ending", s->path);
		return -EIO;
	}
	rc = run(s, "BEGIN IMMEDIATE");
	if (rc == SQLITE_OK)
		rc = insert_all(s, v, n);
	if (rc == SQLITE_OK)
		rc = run(s, "COMMIT");
	if (rc != SQLITE_OK)
		return give_up(s, rc, err);
	if (s->wal_pages < STORE_CHECKPOINT_PAGE)
		return 0;
	/* the records are durable in the WAL whatever becomes of this; a full disk only means that the WAL stays */
	rc = checkpoint(s, SQLITE_CHECKPOINT_PASSIVE);
	if (rc != SQLITE_OK && (rc & 0xff) != SQLITE_FULL && (rc & 0xff) != SQLITE_NOMEM) {
		s->poisoned = true;
		log_error("store_checkpoint", "file=%s err=\"%s\" sqlite=%d", s->path, sqlite3_errstr(rc), rc);
	}
	return 0;
}
