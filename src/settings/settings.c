/* settings.c - the doors of settings.h: read, merge, check, hand out
 *
 * Always true: a struct is handed out only when there was no fault at all, so
 * a reload that fails leaves its caller with the old one.
 */
#include "hyper/settings/settings.h"

#include <errno.h>
#include <string.h>

#include "settings/option.h"

/* Where to look when the environment says nothing: an installed package has a place of its own, a build tree none. */
#ifdef SETTINGS_FOLDER
#define USUAL(service) SETTINGS_FOLDER "/" service ".cfg:" SETTINGS_FOLDER "/" service ".d"
#else
#define USUAL(service) NULL
#endif

static int
load(const struct cfg_program *p, const char *path, void **ret, struct settings_errors *errors)
{
	struct cfg_place nowhere = { .file = p->variable };
	struct cfg_files files = { 0 };
	struct cfg_errors found = { 0 };
	struct cfg_node *root = NULL;
	void *conf = NULL;
	int rc = -EINVAL;

	if (!path || path[strspn(path, ":")] == '\0')
		cfg_errors_add(&found, &nowhere,
		    "expected this environment variable to name a settings folder (or several, separated by colons), "
		    "found %s",
		    path ? "it empty" : "it unset");
	else
		rc = cfg_tree_load(path, &files, &found, &root);
	if (rc == 0)
		rc = cfg_apply(p, root, &found, &conf);
	if (rc == 0)
		*ret = conf;
	else
		cfg_errors_give(&found, errors);
	cfg_node_free(root);
	cfg_files_fini(&files);
	return rc;
}

int
settings_load_hyper(const char *path, struct conf_hyper **ret, struct settings_errors *errors)
{
	void *conf = NULL;
	int rc = load(&cfg_hyper, path ? path : USUAL("server"), &conf, errors);

	if (rc == 0)
		*ret = conf;
	return rc;
}

int
settings_load_sd(const char *path, struct conf_sd **ret, struct settings_errors *errors)
{
	void *conf = NULL;
	int rc = load(&cfg_sd, path ? path : USUAL("directory"), &conf, errors);

	if (rc == 0)
		*ret = conf;
	return rc;
}

int
settings_load_proxy(const char *path, struct conf_proxy **ret, struct settings_errors *errors)
{
	void *conf = NULL;
	int rc = load(&cfg_proxy, path ? path : USUAL("proxy"), &conf, errors);

	if (rc == 0)
		*ret = conf;
	return rc;
}

void
conf_hyper_free(struct conf_hyper *c)
{
	cfg_release(&cfg_hyper, c);
}

void
conf_sd_free(struct conf_sd *c)
{
	cfg_release(&cfg_sd, c);
}

void
conf_proxy_free(struct conf_proxy *c)
{
	cfg_release(&cfg_proxy, c);
}
