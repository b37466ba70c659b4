/* pin.h - which operators a certificate stands for, by the directory's fingerprints */
#ifndef SERVER_PIN_H
#define SERVER_PIN_H

#include <stdbool.h>
#include <stddef.h>

#include "hyper/base/attr.h"
#include "hyper/net/tls.h"

struct directory;

/* Operator names, the first one counts where a caller gives none. */
struct names {
	char **v;
	size_t n;
	char fingerprint[65]; /* of the certificate */
};

/* Names of the certificate whose directory entry pins it for encryption, in the
 * certificate's order (protocol.md 3.3 "pinning"). 0 with *ret taken; -EACCES
 * when there is none, -ENOMEM; then *ret is untouched. */
int pin_names(struct directory *, const struct tls_peer *, struct names *ret) ATTR_MUST_USE;

/* Does the directory still pin that certificate for `name`? Asked for each call:
 * a connection may be older than the directory's last change. */
bool pin_holds(struct directory *, const struct names *, const char *name);

bool names_has(const struct names *, const char *name);
void names_fini(struct names *);

#endif
