/* value.c - what texts in settings must look like, and how a wrong one is described
 *
 * Not here: resolving of names and addresses. A host may come back after we started.
 */
#include "settings/value.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <regex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "hyper/base/fd.h"
#include "hyper/base/log.h"

#define NAME_MAX_LEN 253
#define KEY_MAX_LEN  64

static bool
is_port(const char *text)
{
	size_t n = strspn(text, "0123456789");

	return n > 0 && n <= 5 && text[n] == '\0' && strtol(text, NULL, 10) <= 65535;
}

static bool
is_host_port(const char *text)
{
	const char *colon = strrchr(text, ':');

	if (!colon || colon == text || !is_port(colon + 1) || strpbrk(text, " \t/@"))
		return false;
	/* an IPv6 address stands in brackets, or its last group would be taken for the port */
	if (text[0] == '[')
		return colon[-1] == ']' && colon - text > 2;
	return strchr(text, ':') == colon;
}

static bool
is_url(const char *text)
{
	size_t host;

	if (strncasecmp(text, "http://", 7) == 0)
		text += 7;
	else if (strncasecmp(text, "https://", 8) == 0)
		text += 8;
	else
		return false;
	host = strcspn(text, "/?#");
	for (const char *p = text; *p; p++)
		if ((unsigned char)*p <= 0x20 || *p == 0x7f)
			return false;
	return host > 0 && text[0] != ':';
}

static bool
is_operator(const char *text)
{
	size_t n;

	for (n = 0; text[n]; n++)
		if (!isalnum((unsigned char)text[n]) && !strchr("._-", text[n]))
			return false;
	return n > 0 && n <= NAME_MAX_LEN;
}

static bool
is_regex(const char *text)
{
	regex_t re;

	if (regcomp(&re, text, REG_EXTENDED | REG_NOSUB) != 0)
		return false;
	regfree(&re);
	return true;
}

/* Opened and not only asked about: access() would answer for the real user. */
static bool
is_file(const char *path, bool is_key, char found[VALUE_TEXT_MAX])
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	bool ok = false;
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0) {
		snprintf(found, VALUE_TEXT_MAX, "%s: %s", strerror(errno), path);
	} else if (!S_ISREG(st.st_mode)) {
		snprintf(found, VALUE_TEXT_MAX, "%s: %s", S_ISDIR(st.st_mode) ? "a folder" : "no regular file", path);
	} else if (is_key && (st.st_mode & S_IRWXO)) {
		snprintf(
		    found, VALUE_TEXT_MAX, "mode %04o (run chmod o= on it): %s", (unsigned)st.st_mode & 07777, path);
	} else {
		ok = true;
	}
	fd_close(&fd);
	return ok;
}

static bool
is_there(const char *path, char found[VALUE_TEXT_MAX])
{
	struct stat st;

	if (stat(path, &st) == 0)
		return true;
	snprintf(found, VALUE_TEXT_MAX, "%s: %s", strerror(errno), path);
	return false;
}

bool
cfg_value_suits(enum cfg_type type, const char *text, char found[VALUE_TEXT_MAX])
{
	snprintf(found, VALUE_TEXT_MAX, "the string \"%.120s\"", text);
	switch (type) {
	case CFG_T_HOST_PORT: return is_host_port(text);
	case CFG_T_URL: return is_url(text);
	case CFG_T_OPERATOR: return is_operator(text);
	case CFG_T_REGEX: return is_regex(text);
	case CFG_T_FILE: return is_file(text, false, found);
	case CFG_T_KEY_FILE: return is_file(text, true, found);
	case CFG_T_LOG: return log_to_parse(text, &(enum log_to){ LOG_TO_STDERR }, &(const char *){ "" }) == 0;
	case CFG_T_EXISTING: return is_there(text, found);
	default: return true;
	}
}

void
cfg_value_describe(const struct cfg_node *n, char ret[VALUE_TEXT_MAX])
{
	switch (n->kind) {
	case CFG_GROUP: snprintf(ret, VALUE_TEXT_MAX, "a group"); break;
	case CFG_LIST: snprintf(ret, VALUE_TEXT_MAX, "%s list", n->n ? "a" : "an empty"); break;
	case CFG_STRING: snprintf(ret, VALUE_TEXT_MAX, "the string \"%.120s\"", n->string); break;
	case CFG_INTEGER: snprintf(ret, VALUE_TEXT_MAX, "%lld", (long long)n->integer); break;
	case CFG_NUMBER: snprintf(ret, VALUE_TEXT_MAX, "%g", n->number); break;
	case CFG_BOOL: snprintf(ret, VALUE_TEXT_MAX, "%s", n->boolean ? "true" : "false"); break;
	}
}

/* How many letters must be inserted, removed or replaced (Levenshtein), where case and - for _ count nothing. */
static size_t
distance(const char *a, const char *b)
{
	size_t row[KEY_MAX_LEN + 1], la = strlen(a), lb = strlen(b), diagonal, above, best;
	char x, y;

	if (la > KEY_MAX_LEN || lb > KEY_MAX_LEN)
		return KEY_MAX_LEN;
	for (size_t j = 0; j <= lb; j++)
		row[j] = j;
	for (size_t i = 1; i <= la; i++) {
		diagonal = row[0];
		row[0] = i;
		for (size_t j = 1; j <= lb; j++) {
			x = a[i - 1] == '-' ? '_' : (char)tolower((unsigned char)a[i - 1]);
			y = (char)tolower((unsigned char)b[j - 1]);
			above = row[j];
			best = diagonal + (x != y);
			best = above + 1 < best ? above + 1 : best;
			best = row[j - 1] + 1 < best ? row[j - 1] + 1 : best;
			row[j] = best;
			diagonal = above;
		}
	}
	return row[lb];
}

const char *
cfg_value_nearest(const struct cfg_option *tab, const char *name)
{
	size_t best = strlen(name) / 3 + 1, d;
	const char *ret = NULL;

	for (; tab->key; tab++) {
		d = tab->type == CFG_T_REFUSED ? KEY_MAX_LEN : distance(name, tab->key);
		if (d < best || (d == best && !ret)) {
			best = d;
			ret = tab->key;
		}
	}
	return ret;
}
