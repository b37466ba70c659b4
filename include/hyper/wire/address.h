/* address.h - operator.method(id), parsed once, the only thing that is authorised and dispatched */
#ifndef HYPER_WIRE_ADDRESS_H
#define HYPER_WIRE_ADDRESS_H

#include <stdbool.h>

#include "hyper/base/attr.h"

/* protocol.md section 5: ^(.*)\.([^(.]+)\(([^)]+)\)$, and ours: a non-empty operator */
struct address {
	char *operator;
	char *method; /* without dots */
	char *id;     /* inner id */
};

/* 0 with *ret taken, or -EINVAL, -ENOMEM with *ret untouched. */
int address_parse(const char *text, struct address *ret) ATTR_MUST_USE;

/* Does `method` ("operator.method") name the same operator and method? A
 * request where it does not is refused with -32600. */
bool address_fits(const struct address *, const char *method);

/* "operator.method(id)"; NULL when out of memory. */
char *address_text(const char *operator, const char * method, const char *id);

void address_fini(struct address *);

/* protocol.md "Records": [A-Za-z0-9._-]{1,253} */
bool operator_name_is_valid(const char *name);

#endif
