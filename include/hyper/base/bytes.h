/* bytes.h - hex, base64, SHA-256, random bytes, UTF-8: small texts of bytes */
#ifndef HYPER_BASE_BYTES_H
#define HYPER_BASE_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "hyper/base/attr.h"

#define SHA256_LEN     32
#define SHA256_HEX_LEN 64

/* Lower-case hex of `len` bytes and a NUL; `ret` holds 2 * len + 1 bytes. */
void hex_encode(const void *data, size_t len, char *ret);

/* Exactly `len` bytes from 2 * len hex digits of either case. 0 or -EINVAL, then `ret` is undefined. */
int hex_decode(const char *text, void *ret, size_t len) ATTR_MUST_USE;

/* Bytes that base64_encode() needs for `len` bytes, the NUL included. */
#define BASE64_SIZE(len) (((len) + 2) / 3 * 4 + 1)

/* Standard alphabet, padding, no line breaks (RFC 4648 section 4). */
void base64_encode(const void *data, size_t len, char *ret);

/* Strict: full groups, canonical padding and zero trailing bits, no white
 * space. Number of bytes written to `ret`, or -EINVAL, -ENOSPC when they are
 * more than `cap`. */
int base64_decode(const char *text, void *ret, size_t cap) ATTR_MUST_USE;

/* SHA-256 of one buffer. Never fails short of a broken libcrypto (BUG). */
void sha256(const void *data, size_t len, uint8_t ret[SHA256_LEN]);

/* `len` bytes from getrandom(2), at most 256. Never fails (BUG). */
void random_bytes(void *ret, size_t len);

/* Random lower-case hex of `nbytes` (at most 32) bytes; `ret` holds 2 * nbytes + 1. */
void random_hex(size_t nbytes, char *ret);

/* True for valid UTF-8 without NUL (RFC 3629: no overlong forms, no surrogates). */
bool utf8_is_clean(const void *data, size_t len);

#endif
