/* token.c - tokens, their hash for the table and their session id for the logs
 *
 * The token itself appears in no log, table or error: its session id does (faults.md).
 */
#include "hyper/wire/token.h"

#include <errno.h>
#include <string.h>

#include <openssl/crypto.h>

#include "hyper/base/bytes.h"

#define SESSION_SALT       "session"
#define SESSION_ID_BYTES   6
#define TOKEN_BASE64_CHARS 44

_Static_assert(SESSION_ID_MAX == 2 * SESSION_ID_BYTES + 1, "12 hex digits and a NUL");
_Static_assert(TOKEN_BASE64_MAX == BASE64_SIZE(TOKEN_LEN), "what base64_encode() writes");

void
token_new(struct token *ret)
{
	random_bytes(ret->bytes, sizeof ret->bytes);
}

void
token_hash(const struct token *t, uint8_t ret[32])
{
	sha256(t->bytes, sizeof t->bytes, ret);
}

void
token_session(const struct token *t, char ret[SESSION_ID_MAX])
{
	uint8_t salted[sizeof SESSION_SALT - 1 + TOKEN_LEN], hash[SHA256_LEN];

	memcpy(salted, SESSION_SALT, sizeof SESSION_SALT - 1);
	memcpy(salted + sizeof SESSION_SALT - 1, t->bytes, TOKEN_LEN);
	sha256(salted, sizeof salted, hash);
	hex_encode(hash, SESSION_ID_BYTES, ret);
	OPENSSL_cleanse(salted, sizeof salted);
}

void
token_text(const struct token *t, char ret[TOKEN_BASE64_MAX])
{
	base64_encode(t->bytes, sizeof t->bytes, ret);
}

int
token_parse(const char *base64, struct token *ret)
{
	if (strnlen(base64, TOKEN_BASE64_CHARS + 1) != TOKEN_BASE64_CHARS)
		return -EINVAL;
	return base64_decode(base64, ret->bytes, sizeof ret->bytes) == TOKEN_LEN ? 0 : -EINVAL;
}
