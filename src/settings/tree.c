/* tree.c - files and folders -> one tree of values, each with its file and line
 *
 * Always true:
 *  1. Groups merge recursively; any other value is replaced by the later one.
 *  2. A file that cannot be read or parsed is left out whole, and then
 *     errors.is_partial says that what seems missing may stand in it.
 *
 * Not here: which keys exist (tables.c), what a value must be (apply.c).
 */
#include "settings/tree.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#ifdef HYPER_SANITIZE
#include <sanitizer/lsan_interface.h>
#endif

#include <libconfig.h>

#include "settings/expand.h"

#define DEPTH_MAX 24

struct cfg_node *
cfg_node_new(const char *name, enum cfg_kind kind, const struct cfg_place *at)
{
	struct cfg_node *n = calloc(1, sizeof(*n));

	if (!n)
		return NULL;
	n->kind = kind;
	n->at = *at;
	n->name = name ? strdup(name) : NULL;
	if (name && !n->name) {
		free(n);
		return NULL;
	}
	return n;
}

void
cfg_node_free(struct cfg_node *n)
{
	if (!n)
		return;
	if (n->kind == CFG_GROUP || n->kind == CFG_LIST) {
		for (size_t i = 0; i < n->n; i++)
			cfg_node_free(n->child[i]);
		free(n->child);
	} else if (n->kind == CFG_STRING) {
		free(n->string);
	}
	free(n->name);
	free(n);
}

int
cfg_node_add(struct cfg_node *parent, struct cfg_node *child)
{
	struct cfg_node **v = realloc(parent->child, (parent->n + 1) * sizeof(struct cfg_node *));

	if (!v) {
		cfg_node_free(child);
		return -ENOMEM;
	}
	parent->child = v;
	v[parent->n++] = child;
	return 0;
}

struct cfg_node *
cfg_node_find(const struct cfg_node *group, const char *name)
{
	for (size_t i = 0; i < group->n; i++)
		if (strcmp(group->child[i]->name, name) == 0)
			return group->child[i];
	return NULL;
}

int
cfg_node_merge(struct cfg_node *into, struct cfg_node *later)
{
	int rc = 0;

	for (size_t i = 0; i < later->n; i++) {
		struct cfg_node *new = later->child[i], *old = cfg_node_find(into, new->name);
		size_t k = 0;

		later->child[i] = NULL; /* given to one of the three below */
		if (!old) {
			if (cfg_node_add(into, new) < 0)
				rc = -ENOMEM;
			continue;
		}
		if (old->kind == CFG_GROUP && new->kind == CFG_GROUP) {
			rc = cfg_node_merge(old, new) < 0 ? -ENOMEM : rc;
			continue;
		}
		while (into->child[k] != old)
			k++;
		cfg_node_free(old);
		into->child[k] = new;
	}
	cfg_node_free(later);
	return rc;
}

static int
fill_scalar(struct cfg_node *n, const config_setting_t *s)
{
	switch (config_setting_type(s)) {
	case CONFIG_TYPE_STRING:
		n->kind = CFG_STRING;
		n->string = strdup(config_setting_get_string(s));
		return n->string ? 0 : -ENOMEM;
	case CONFIG_TYPE_INT:
		n->kind = CFG_INTEGER;
		n->integer = config_setting_get_int(s);
		return 0;
	case CONFIG_TYPE_INT64:
		n->kind = CFG_INTEGER;
		n->integer = config_setting_get_int64(s);
		return 0;
	case CONFIG_TYPE_FLOAT:
		n->kind = CFG_NUMBER;
		n->number = config_setting_get_float(s);
		return 0;
	default:
		n->kind = CFG_BOOL;
		n->boolean = config_setting_get_bool(s) != 0;
		return 0;
	}
}

/* libconfig's tree -> ours. NULL when out of memory or too deep (said). */
static struct cfg_node *
convert(config_setting_t *s, const struct cfg_text *text, struct cfg_errors *errors, unsigned depth)
{
	unsigned line = config_setting_source_line(s);
	const struct cfg_place *at = &text->line[line > 0 && line <= text->n_lines ? line - 1 : 0];
	enum cfg_kind kind = config_setting_is_group(s) ? CFG_GROUP : CFG_LIST;
	struct cfg_node *n = cfg_node_new(config_setting_name(s), kind, at), *child;
	int rc = n ? 0 : -ENOMEM, count;

	if (n && config_setting_is_scalar(s)) {
		rc = fill_scalar(n, s);
	} else if (n && depth >= DEPTH_MAX) {
		cfg_errors_add(errors, at, "expected at most %d levels of groups and lists, found more", DEPTH_MAX);
		errors->is_partial = true;
	} else if (n) {
		count = config_setting_length(s);
		for (int i = 0; rc == 0 && i < count; i++) {
			child = convert(config_setting_get_elem(s, (unsigned)i), text, errors, depth + 1);
			rc = child ? cfg_node_add(n, child) : -ENOMEM;
		}
	}
	if (rc == 0)
		return n;
	cfg_node_free(n);
	return NULL;
}

static void
say_parse_error(const config_t *config, const struct cfg_text *text, struct cfg_errors *errors)
{
	const char *why = config_error_text(config);
	int line = config_error_line(config);
	const struct cfg_place *at = &text->line[line > 0 && (size_t)line <= text->n_lines ? line - 1 : 0];

	if (why && strcmp(why, "duplicate setting name") == 0)
		cfg_errors_add(errors, at, "expected each key once in a group, found one for the second time");
	else if (why && strcmp(why, "mismatched element type in array") == 0)
		cfg_errors_add(
		    errors, at, "expected values of one type between [ and ], found another (use parentheses)");
	else
		cfg_errors_add(
		    errors, at, "expected settings like `key = value;`, found a syntax error here or just before");
}

/* libconfig 1.5 loses the string in front of a syntax error: some bytes for each
 * refused file, nothing that we could free. LeakSanitizer is told so. */
static int
parse(config_t *config, const char *text)
{
	int ok;

#ifdef HYPER_SANITIZE
	__lsan_disable();
#endif
	ok = config_read_string(config, text);
#ifdef HYPER_SANITIZE
	__lsan_enable();
#endif
	return ok;
}

/* 0 with the file merged into `root` or its faults said, or -ENOMEM. */
static int
load_file(const char *path, struct cfg_files *files, struct cfg_errors *errors, struct cfg_node *root)
{
	struct cfg_node *tree = NULL;
	struct cfg_text text;
	config_t config;
	int rc = cfg_expand_file(path, files, errors, &text);

	config_init(&config);
	if (rc == -EINVAL) {
		errors->is_partial = true;
		rc = 0;
	} else if (rc == 0 && text.len > 0) {
		if (parse(&config, text.buf)) {
			tree = convert(config_root_setting(&config), &text, errors, 0);
			rc = tree ? cfg_node_merge(root, tree) : -ENOMEM;
		} else {
			say_parse_error(&config, &text, errors);
			errors->is_partial = true;
		}
	}
	config_destroy(&config);
	cfg_text_fini(&text);
	return rc;
}

static int
is_settings_name(const struct dirent *e)
{
	size_t n = strlen(e->d_name);

	/* an editor's lock file begins with a dot */
	return e->d_name[0] != '.' && n > 4 && strcmp(e->d_name + n - 4, ".cfg") == 0;
}

static int
by_name(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

static int
load_folder(const char *path, struct cfg_files *files, struct cfg_errors *errors, struct cfg_node *root)
{
	struct cfg_place at = { .file = path, .order = (unsigned)files->n };
	struct dirent **v = NULL;
	int n = scandir(path, &v, is_settings_name, by_name), rc = 0;
	char *file;

	/* An empty one is fine beside others, as /etc/hyper/proxy.d is: cfg_tree_load() judges all together. */
	if (n < 0) {
		cfg_errors_add(errors, &at, "expected a readable folder, found %s", strerror(errno));
		errors->is_partial = true;
	}
	for (int i = 0; i < n; i++) {
		file = NULL;
		if (rc == 0 &&
		    asprintf(&file, "%s%s%s", path, path[strlen(path) - 1] == '/' ? "" : "/", v[i]->d_name) < 0)
			rc = -ENOMEM;
		if (rc == 0)
			rc = load_file(file, files, errors, root);
		free(file);
		free(v[i]);
	}
	free(v);
	return rc;
}

static int
load_one(const char *path, struct cfg_files *files, struct cfg_errors *errors, struct cfg_node *root)
{
	struct cfg_place at = { .file = path, .order = (unsigned)files->n };
	struct stat st;

	if (stat(path, &st) < 0) {
		cfg_errors_add(errors, &at, "expected a settings file or folder, found none (%s)", strerror(errno));
		errors->is_partial = true;
		return 0;
	}
	return S_ISDIR(st.st_mode) ? load_folder(path, files, errors, root) : load_file(path, files, errors, root);
}

int
cfg_tree_load(const char *path, struct cfg_files *files, struct cfg_errors *errors, struct cfg_node **ret)
{
	struct cfg_place start = { .file = path };
	struct cfg_node *root = cfg_node_new(NULL, CFG_GROUP, &start);
	int rc = root ? 0 : -ENOMEM;
	size_t len, before = errors->n;
	char *one;

	while (rc == 0 && *path) {
		len = strcspn(path, ":");
		one = strndup(path, len);
		if (!one)
			rc = -ENOMEM;
		else if (len > 0)
			rc = load_one(one, files, errors, root);
		free(one);
		path += len + (path[len] == ':');
	}
	if (rc < 0) {
		cfg_node_free(root);
		return rc;
	}
	if (files->n == 0 && errors->n == before) {
		cfg_errors_add(errors, &start, "expected files named *.cfg in this folder, found none");
		errors->is_partial = true;
	}
	/* what is missing at the top is missing from the files as a whole: the first one stands for them */
	if (files->n > 0)
		root->at = (struct cfg_place){ .file = files->v[0], .order = 1, .line = 1 };
	*ret = root;
	return 0;
}

void
cfg_files_fini(struct cfg_files *files)
{
	for (size_t i = 0; i < files->n; i++)
		free(files->v[i]);
	free(files->v);
	files->v = NULL;
	files->n = 0;
}
