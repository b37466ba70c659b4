/* token.h - the 32 bytes that bring two sockets together, and what may be said about them */
#ifndef HYPER_WIRE_TOKEN_H
#define HYPER_WIRE_TOKEN_H

#include <stdint.h>

#include "hyper/base/attr.h"

#define TOKEN_LEN        32 /* protocol.md 7.1 "token" */
#define TOKEN_BASE64_MAX 45 /* 44 characters and a NUL */
#define SESSION_ID_MAX   13 /* 12 hex digits and a NUL */

struct token {
	uint8_t bytes[TOKEN_LEN];
};

void token_new(struct token *ret);

/* What the table stores: SHA-256(token). */
void token_hash(const struct token *, uint8_t ret[32]);

/* First 12 hex digits of SHA-256("session" + token): the only name of a token in logs (faults.md). */
void token_session(const struct token *, char ret[SESSION_ID_MAX]);

void token_text(const struct token *, char ret[TOKEN_BASE64_MAX]);

/* Base64 of exactly 32 bytes; 0, or -EINVAL with *ret undefined. */
int token_parse(const char *base64, struct token *ret) ATTR_MUST_USE;

#endif
