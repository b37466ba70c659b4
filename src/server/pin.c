/* pin.c - TLS proves that a certificate is of our CA; this decides whose it is
 *
 * Always true: a name is accepted only if the certificate carries it AND the
 * directory's entry of that name pins this very certificate (SHA-256 of its DER).
 *
 * A refusal makes the directory look for news, so that an operator that was
 * just added is not kept out until somebody else asks for something.
 *
 * Not here: the TLS handshake (src/net), permissions (broker.c).
 */
#include "server/pin.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "hyper/directory/directory.h"
#include "hyper/directory/entry.h"

static void
ignore(enum directory_state state, void *arg)
{
	(void)state;
	(void)arg;
}

/* The directory may know better by now: what was refused can succeed at the next attempt. At most one a second is sent. */
static void
ask_again(struct directory *dir)
{
	directory_refresh(dir, ignore, NULL);
}

int
pin_names(struct directory *dir, const struct tls_peer *peer, struct names *ret)
{
	struct names names = { .v = calloc(peer->n_names + 1, sizeof(*names.v)) };

	if (!names.v)
		return -ENOMEM;
	for (size_t i = 0; i < peer->n_names; i++) {
		const json_t *entry = directory_get(dir, peer->names[i]);

		if (!entry || !entry_has_encryption_key(entry, peer->fingerprint))
			continue;
		names.v[names.n] = strdup(peer->names[i]);
		if (!names.v[names.n]) {
			names_fini(&names);
			return -ENOMEM;
		}
		names.n++;
	}
	if (names.n == 0) {
		ask_again(dir);
		names_fini(&names);
		return -EACCES;
	}
	memcpy(names.fingerprint, peer->fingerprint, sizeof(names.fingerprint));
	*ret = names;
	return 0;
}

bool
pin_holds(struct directory *dir, const struct names *names, const char *name)
{
	const json_t *entry = names_has(names, name) ? directory_get(dir, name) : NULL;

	if (entry && entry_has_encryption_key(entry, names->fingerprint))
		return true;
	ask_again(dir);
	return false;
}

bool
names_has(const struct names *names, const char *name)
{
	for (size_t i = 0; i < names->n; i++)
		if (strcmp(names->v[i], name) == 0)
			return true;
	return false;
}

void
names_fini(struct names *names)
{
	for (size_t i = 0; i < names->n; i++)
		free(names->v[i]);
	free(names->v);
	*names = (struct names){ 0 };
}
