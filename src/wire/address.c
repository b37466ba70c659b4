/* address.c - operator.method(id) into its three parts, by the expression of protocol.md 5
 *
 * Always true: the parts joined again give the very text, and the operator is
 * as long as it can be (the expression's first group is greedy). So "a.b(c.d(e)" is
 * operator "a.b(c", method "d": no directory knows it, and address_fits() with
 * the request's method refuses it before that.
 */
#include "hyper/wire/address.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hyper/base/attr.h"

/* Longer than any address of ours: 253 + 100 + an id of 1024 with its n's doubled */
#define ADDRESS_MAX  4096
#define OPERATOR_MAX 253

/* Is the text behind the dot "method(id)", with no `)` before `close`, the last byte? */
static const char *
method_end(const char *rest, const char *close)
{
	const char *open = rest + strcspn(rest, "(.");

	if (open == rest || *open != '(' || open + 1 >= close)
		return NULL;
	return memchr(open, ')', (size_t)(close - open)) == NULL ? open : NULL;
}

static int
address_take(const char *text, const char *dot, const char *open, const char *close, struct address *ret)
{
	struct address a = {
		strndup(text, (size_t)(dot - text)),
		strndup(dot + 1, (size_t)(open - dot - 1)),
		strndup(open + 1, (size_t)(close - open - 1)),
	};

	if (!a.operator|| !a.method || !a.id) {
		address_fini(&a);
		return -ENOMEM;
	}
	*ret = a;
	return 0;
}

int
address_parse(const char *text, struct address *ret)
{
	size_t len = strnlen(text, ADDRESS_MAX + 1);
	const char *close, *open;

	if (len < 2 || len > ADDRESS_MAX || text[len - 1] != ')')
		return -EINVAL;
	close = text + len - 1;
	for (const char *dot = close; dot > text; dot--) { /* not at `text`: the operator has a byte at least */
		if (*dot != '.')
			continue;
		open = method_end(dot + 1, close);
		if (open == NULL)
			continue;
		/* the expression's `.` does not match a line feed */
		if (memchr(text, '\n', (size_t)(dot - text)) != NULL)
			continue;
		return address_take(text, dot, open, close, ret);
	}
	return -EINVAL;
}

bool
address_fits(const struct address *a, const char *method)
{
	size_t n = strlen(a->operator);

	return strncmp(method, a->operator, n) == 0 && method[n] == '.' && strcmp(method + n + 1, a->method) == 0;
}

char *
address_text(const char *operator, const char * method, const char *id)
{
	char *text;

	return asprintf(&text, "%s.%s(%s)", operator, method, id) < 0 ? NULL : text;
}

void
address_fini(struct address *a)
{
	free(a->operator);
	free(a->method);
	free(a->id);
	*a = (struct address){ 0 };
}

bool
operator_name_is_valid(const char *name)
{
	size_t n = strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-");

	return n >= 1 && n <= OPERATOR_MAX && name[n] == '\0';
}
