/* expand.c - a settings file with its @include lines replaced by what they name
 *
 * libconfig could do the including itself. It is done here because version 1.5
 *  - resolves every relative name against one folder, wherever the include stands;
 *  - ends the process when it is told to read a folder;
 *  - cuts integers over 32 bit silently, takes an unterminated string or comment
 *    at the end as complete, and stops at a NUL.
 * So a small scanner that knows strings, comments and numbers goes first.
 *
 * Always true:
 *  1. Each line of the text knows its file and line.
 *  2. What is opened is a regular file of at most FILE_MAX bytes of clean UTF-8;
 *     depth and total are bounded, so a circle of includes ends with an error.
 *  3. An integer that needs 64 bit carries libconfig's L.
 *
 * Not here: syntax (libconfig), meaning (apply.c).
 */
#include "settings/expand.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "hyper/base/bytes.h"
#include "hyper/base/fd.h"

#define FILE_MAX  (1u << 20)
#define TEXT_MAX  (4u << 20)
#define DEPTH_MAX 10

struct scan {
	struct cfg_files *files;
	struct cfg_errors *errors;
	struct cfg_text *out;
	struct cfg_place at; /* of the byte that is read now */
	const char *p, *end;
	unsigned depth;
	bool is_line_empty; /* only blanks since the line began */
};

void
cfg_text_fini(struct cfg_text *t)
{
	free(t->buf);
	free(t->line);
	memset(t, 0, sizeof(*t));
}

char *
cfg_path_from(const char *file, const char *path)
{
	const char *slash = strrchr(file, '/');
	char *ret;

	if (path[0] == '/' || !slash)
		return strdup(path);
	return asprintf(&ret, "%.*s/%s", (int)(slash - file), file, path) < 0 ? NULL : ret;
}

static bool
is_name_char(char c)
{
	return c == '_' || isalnum((unsigned char)c);
}

int
cfg_expand_env(const char *text, char **ret, char why[160])
{
	char *out = NULL, name[64];
	size_t size, len;
	const char *value;
	FILE *f = open_memstream(&out, &size);
	int rc = f ? 0 : -ENOMEM;

	while (rc == 0 && *text) {
		if (text[0] != '$' || text[1] != '{') {
			fputc(*text++, f);
			continue;
		}
		for (len = 0; is_name_char(text[2 + len]); len++)
			;
		if (text[2 + len] != '}' || len == 0 || len >= sizeof(name)) {
			snprintf(why, 160, "${NAME} with an environment variable's name, found \"%.40s\"", text);
			rc = -EINVAL;
			break;
		}
		snprintf(name, sizeof(name), "%.*s", (int)len, text + 2);
		value = getenv(name);
		if (!value) {
			snprintf(why, 160, "the environment variable %s to be set, found it undefined", name);
			rc = -EINVAL;
			break;
		}
		fputs(value, f);
		text += len + 3;
	}
	if (f && fclose(f) != 0 && rc == 0)
		rc = -ENOMEM;
	if (rc < 0)
		free(out);
	else
		*ret = out;
	return rc;
}

/* Notes the place of the output line that begins now. */
static int
text_begin_line(struct cfg_text *t, const struct cfg_place *at)
{
	size_t cap = t->cap_lines ? 2 * t->cap_lines : 64;
	struct cfg_place *v;

	if (t->n_lines == t->cap_lines) {
		v = realloc(t->line, cap * sizeof(*v));
		if (!v)
			return -ENOMEM;
		t->line = v;
		t->cap_lines = cap;
	}
	t->line[t->n_lines++] = *at;
	return 0;
}

static bool
text_at_line_start(const struct cfg_text *t)
{
	return t->len == 0 || t->buf[t->len - 1] == '\n';
}

static int
put(struct scan *s, char c)
{
	struct cfg_text *t = s->out;
	size_t cap = t->cap ? 2 * t->cap : 4096;
	char *buf;

	if (t->len + 2 > t->cap) {
		buf = realloc(t->buf, cap);
		if (!buf)
			return -ENOMEM;
		t->buf = buf;
		t->cap = cap;
	}
	if (text_at_line_start(t) && text_begin_line(t, &s->at) < 0)
		return -ENOMEM;
	t->buf[t->len++] = c;
	t->buf[t->len] = '\0';
	return 0;
}

/* Copies the next byte and keeps account of lines. */
static int
copy(struct scan *s)
{
	char c = *s->p++;
	int rc = put(s, c);

	if (c == '\n') {
		s->at.line++;
		s->is_line_empty = true;
	} else if (c != ' ' && c != '\t' && c != '\r') {
		s->is_line_empty = false;
	}
	return rc;
}

static bool
looking_at(const struct scan *s, const char *word)
{
	size_t n = strlen(word);

	return (size_t)(s->end - s->p) >= n && memcmp(s->p, word, n) == 0;
}

/* Copies up to and with `close`. A string's backslash hides the next byte. */
static int
copy_until(struct scan *s, const char *close, bool is_string, const char *what)
{
	struct cfg_place start = s->at;
	int rc = 0;

	while (rc == 0 && s->p < s->end) {
		if (looking_at(s, close)) {
			for (size_t n = strlen(close); rc == 0 && n > 0; n--)
				rc = copy(s);
			return rc;
		}
		if (is_string && *s->p == '\\' && s->p + 1 < s->end)
			rc = copy(s);
		if (rc == 0)
			rc = copy(s);
	}
	if (rc < 0 || *close == '\n') /* a file may end in a line comment */
		return rc;
	cfg_errors_add(s->errors, &start, "expected %s to end with %s, found the end of the file", what, close);
	return -EINVAL;
}

/* An integer over 32 bit gets the L that libconfig wants; one over 64 bit is refused. */
static int
copy_number(struct scan *s)
{
	const char *start = s->p;
	bool is_negative = s->out->len > 0 && s->out->buf[s->out->len - 1] == '-';
	bool is_hex = looking_at(s, "0x") || looking_at(s, "0X"), is_wide;
	char digits[64];
	size_t n = is_hex ? 2 : 0;
	unsigned long long v;
	int rc = 0;

	while (start + n < s->end && (is_hex ? isxdigit((unsigned char)start[n]) : isdigit((unsigned char)start[n])))
		n++;
	/* 1.5, 1e3, 10L: libconfig reads these to their end itself */
	if (start + n < s->end && strchr(".eE", start[n])) {
		while (rc == 0 && s->p < s->end && (isalnum((unsigned char)*s->p) || *s->p == '.'))
			rc = copy(s);
		return rc;
	}
	snprintf(digits, sizeof(digits), "%.*s", (int)(n < 63 ? n : 63), start);
	errno = 0;
	v = strtoull(digits, NULL, is_hex ? 16 : 10);
	if (n >= 63 || errno == ERANGE || v > INT64_MAX) {
		cfg_errors_add(s->errors, &s->at, "expected an integer of at most 64 bit, found %s", digits);
		return -EINVAL;
	}
	is_wide = v > (unsigned long long)INT32_MAX + is_negative;
	while (rc == 0 && s->p < start + n)
		rc = copy(s);
	if (rc == 0 && is_wide && (s->p == s->end || *s->p != 'L'))
		rc = put(s, 'L');
	while (rc == 0 && s->p < s->end && *s->p == 'L')
		rc = copy(s);
	return rc;
}

static int scan_file(struct scan *s, const char *path, const struct cfg_place *from);

/* @include "name": the file's text takes the place of the directive. */
static int
include(struct scan *s)
{
	struct cfg_place at = s->at;
	char name[1024], why[160], *env = NULL, *path = NULL;
	size_t n = 0;
	int rc;

	s->p += strlen("@include");
	while (s->p < s->end && (*s->p == ' ' || *s->p == '\t'))
		s->p++;
	if (s->p < s->end && *s->p == '"')
		for (s->p++; s->p < s->end && *s->p != '"' && *s->p != '\n' && n + 1 < sizeof(name); s->p++)
			name[n++] = *s->p;
	name[n] = '\0';
	if (n == 0 || s->p == s->end || *s->p != '"') {
		cfg_errors_add(s->errors, &at, "@include: expected a file name in double quotes, found none");
		return -EINVAL;
	}
	s->p++;
	rc = cfg_expand_env(name, &env, why);
	if (rc == -EINVAL)
		cfg_errors_add(s->errors, &at, "@include: expected %s", why);
	if (rc < 0)
		return rc;
	path = cfg_path_from(at.file, env);
	rc = path && (text_at_line_start(s->out) || put(s, '\n') == 0) ? 0 : -ENOMEM;
	if (rc == 0)
		rc = scan_file(s, path, &at);
	if (rc == 0 && !text_at_line_start(s->out))
		rc = put(s, '\n');
	free(env);
	free(path);
	return rc;
}

/* One string, comment, word, number, directive or byte. */
static int
scan_one(struct scan *s)
{
	int rc;

	if (s->is_line_empty && looking_at(s, "@include"))
		return include(s);
	if (*s->p == '#' || looking_at(s, "//"))
		return copy_until(s, "\n", false, "a comment");
	if (looking_at(s, "/*")) {
		rc = copy(s);
		if (rc == 0)
			rc = copy(s);
		return rc < 0 ? rc : copy_until(s, "*/", false, "the comment that begins here");
	}
	if (*s->p == '"') {
		rc = copy(s);
		return rc < 0 ? rc : copy_until(s, "\"", true, "the string that begins here");
	}
	if (isdigit((unsigned char)*s->p))
		return copy_number(s);
	rc = copy(s);
	/* the rest of a word, so that its digits are no number: also ".5" */
	if (isalpha((unsigned char)s->p[-1]) || strchr("*_.", s->p[-1]))
		while (rc == 0 && s->p < s->end && (is_name_char(*s->p) || *s->p == '-'))
			rc = copy(s);
	return rc;
}

/* The whole of a regular file. 0 with *ret taken, -EINVAL (said), -ENOMEM. */
static int
read_whole(struct scan *s, const char *path, const struct cfg_place *from, char **ret, size_t *ret_len)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO would wait for its writer */
	const char *what = NULL;
	char *buf = NULL;
	struct stat st;
	size_t len = 0;
	ssize_t n = 1;

	if (fd < 0 || fstat(fd, &st) < 0)
		what = strerror(errno);
	else if (!S_ISREG(st.st_mode))
		what = S_ISDIR(st.st_mode) ? "a folder" : "something that is no file";
	else if (st.st_size > FILE_MAX)
		what = "more than a megabyte";
	buf = what ? NULL : malloc(FILE_MAX + 1);
	while (buf && n > 0 && len <= FILE_MAX) {
		n = read(fd, buf + len, FILE_MAX + 1 - len);
		len += n > 0 ? (size_t)n : 0;
	}
	if (buf && n < 0)
		what = strerror(errno);
	else if (len > FILE_MAX)
		what = "more than a megabyte";
	fd_close(&fd);
	if (what && from)
		cfg_errors_add(s->errors, from, "@include: expected a readable file, found %s: %s", what, path);
	else if (what)
		cfg_errors_add(s->errors, &s->at, "expected a readable file, found %s", what);
	if (what || !buf) {
		free(buf);
		return what ? -EINVAL : -ENOMEM;
	}
	*ret = buf;
	*ret_len = len;
	return 0;
}

/* NULL when out of memory. Places borrow the name, so it lives in `files`. */
static const char *
keep_name(struct cfg_files *files, const char *path)
{
	char **v = realloc(files->v, (files->n + 1) * sizeof(*v));

	if (!v)
		return NULL;
	files->v = v;
	v[files->n] = strdup(path);
	return v[files->n] ? v[files->n++] : NULL;
}

static bool
is_text(struct scan *s)
{
	const char *p = s->p, *eol;
	struct cfg_place at = s->at;

	for (at.line = 1; p < s->end; p = eol + 1, at.line++) {
		eol = memchr(p, '\n', (size_t)(s->end - p));
		eol = eol ? eol : s->end;
		if (!utf8_is_clean(p, (size_t)(eol - p))) {
			cfg_errors_add(s->errors, &at, "expected text in UTF-8, found other bytes");
			return false;
		}
	}
	return true;
}

static int
scan_file(struct scan *s, const char *path, const struct cfg_place *from)
{
	struct scan outer = *s;
	char *buf = NULL;
	size_t len = 0;
	int rc;

	if (s->depth >= DEPTH_MAX) {
		cfg_errors_add(
		    s->errors, from, "@include: expected at most %d levels, found more: is it a circle?", DEPTH_MAX);
		return -EINVAL;
	}
	memset(&s->at, 0, sizeof(s->at));
	s->at.file = keep_name(s->files, path);
	s->at.order = (unsigned)s->files->n;
	if (!s->at.file)
		return -ENOMEM;
	rc = read_whole(s, path, from, &buf, &len);
	if (rc == 0) {
		s->p = buf;
		s->end = buf + len;
		s->at.line = 1;
		s->depth++;
		s->is_line_empty = true;
		if (!is_text(s))
			rc = -EINVAL;
		while (rc == 0 && s->p < s->end) {
			rc = s->out->len > TEXT_MAX ? -EFBIG : scan_one(s);
		}
		if (rc == -EFBIG) {
			cfg_errors_add(s->errors, &s->at, "expected at most 4 megabytes in all, found more");
			rc = -EINVAL;
		}
	}
	free(buf);
	/* go on behind the directive; the place is the outer file's again */
	s->at = outer.at;
	s->p = outer.p;
	s->end = outer.end;
	s->depth = outer.depth;
	s->is_line_empty = false;
	return rc;
}

int
cfg_expand_file(const char *path, struct cfg_files *files, struct cfg_errors *errors, struct cfg_text *ret)
{
	struct scan s = { .files = files, .errors = errors, .out = ret };
	int rc;

	memset(ret, 0, sizeof(*ret));
	rc = scan_file(&s, path, NULL);
	if (rc == 0 && !text_at_line_start(ret))
		rc = put(&s, '\n');
	return rc;
}
