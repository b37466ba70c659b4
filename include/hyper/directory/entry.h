/* entry.h - questions about directory entries (JSON objects as in protocol.md 6.1) */
#ifndef HYPER_DIRECTORY_ENTRY_H
#define HYPER_DIRECTORY_ENTRY_H

#include <stdbool.h>

#include <jansson.h>

/* protocol.md section 5 "Permission rule": may `client` call `method` of `callee`? */
bool entry_permits(const json_t *callee, const json_t *client, const char *method);

bool entry_in_group(const json_t *entry, const char *group);

/* Is `fingerprint` pinned with key_usage "encryption"? (protocol.md 3.3) */
bool entry_has_encryption_key(const json_t *entry, const char *fingerprint);

/* protocol.md 3.6. false without a grpc_server channel; then *ret is untouched. Texts borrowed from the entry. */
struct entry_grpc {
	const char *address;
	bool internal;
	const char *proxy; /* "" none */
};
bool entry_grpc_server(const json_t *entry, struct entry_grpc *ret);
bool entry_has_channel(const json_t *entry, const char *type);

/* "Settings for (service, operator)" of protocol.md 6.1; borrowed, NULL when there are none. */
const json_t *entry_settings(const json_t *entry, const char *service, const char *operator);

/* Does any group named in the permissions of `own`'s services contain `other`?
 * Whom to open a standing stream to (protocol.md 3.5). */
bool entry_may_be_called_by(const json_t *own, const json_t *other);

#endif
