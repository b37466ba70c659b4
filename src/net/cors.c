/* cors.c - protocol.md 4.1 "CORS": which origins may read answers, and the headers that say so
 *
 * Always true:
 *  1. What a stranger sent is given back only when it matched, and then only
 *     bytes that a header may hold (the head scan saw to that).
 *
 * Not here: permissions. A program without a browser ignores all of this.
 */
#include "net/cors.h"

#include <errno.h>
#include <regex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <event2/buffer.h>

#define CORS_ORIGIN_MAX  256
#define CORS_REQUEST_MAX 512

struct cors {
	const struct conf_cors *conf;
	size_t n;
	regex_t hosts[];
};

int
cors_new(const struct conf_cors *conf, struct cors **ret, char err[CORS_ERR_MAX])
{
	struct cors *c = calloc(1, sizeof(*c) + conf->allowed_hosts.n * sizeof(c->hosts[0]));
	size_t i;

	if (c == NULL) {
		snprintf(err, CORS_ERR_MAX, "cors: out of memory");
		return -ENOMEM;
	}
	c->conf = conf;
	for (i = 0; i < conf->allowed_hosts.n; i++) {
		char why[100];
		int rc = regcomp(&c->hosts[i], conf->allowed_hosts.v[i], REG_EXTENDED | REG_NOSUB);

		if (rc != 0) {
			regerror(rc, &c->hosts[i], why, sizeof(why));
			snprintf(err, CORS_ERR_MAX, "cors.allowed_hosts: '%.80s' is no regular expression: %s",
			    conf->allowed_hosts.v[i], why);
			cors_free(c);
			return -EINVAL;
		}
		c->n++;
	}
	*ret = c;
	return 0;
}

void
cors_free(struct cors *c)
{
	if (c == NULL)
		return;
	while (c->n > 0)
		regfree(&c->hosts[--c->n]);
	free(c);
}

bool
cors_permits(const struct cors *c, const char *origin)
{
	size_t i;

	if (c == NULL || origin == NULL || strlen(origin) > CORS_ORIGIN_MAX)
		return false;
	for (i = 0; i < c->n; i++)
		if (regexec(&c->hosts[i], origin, 0, NULL, 0) == 0)
			return true;
	return false;
}

static void
add_list(struct evbuffer *out, const struct conf_strings *list, const char *sep)
{
	size_t i;

	for (i = 0; i < list->n; i++) {
		evbuffer_add_printf(out, "%s%s", sep, list->v[i]);
		sep = ", ";
	}
	evbuffer_add(out, "\r\n", 2);
}

void
cors_add_headers(const struct cors *c, const char *origin, const char *requested, struct evbuffer *out)
{
	size_t i, len = requested != NULL ? strlen(requested) : 0;

	if (len > CORS_REQUEST_MAX)
		len = 0;
	evbuffer_add_printf(out,
	    "Access-Control-Allow-Origin: %s\r\nVary: Origin\r\nAccess-Control-Max-Age: 60\r\n"
	    "Access-Control-Allow-Headers: ",
	    origin);
	for (i = 0; i < len; i++) {
		char ch = requested[i];

		if (ch >= 'A' && ch <= 'Z')
			ch = (char)(ch - 'A' + 'a');
		evbuffer_add(out, &ch, 1);
	}
	add_list(out, &c->conf->allowed_headers, len > 0 ? ", " : "");
	evbuffer_add_printf(out, "Access-Control-Allow-Methods: ");
	add_list(out, &c->conf->allowed_methods, "");
}
