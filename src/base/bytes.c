/* bytes.c - hex, base64, SHA-256, random bytes and UTF-8
 *
 * Always true:
 *  1. What base64_decode() accepts is exactly what base64_encode() writes: two
 *     texts never stand for the same bytes, so a text can be compared.
 *  2. Random bytes come from the kernel, never from a generator in the process.
 *
 * Not here: anything that must take the same time for every input (tokens are
 * compared with CRYPTO_memcmp by those who compare them).
 */
#include "hyper/base/bytes.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>

#define OPENSSL_SUPPRESS_DEPRECATED /* see sha256() */
#include <openssl/sha.h>

#include "base/utf8.h"
#include "hyper/base/bug.h"

static const char b64_digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

void
hex_encode(const void *data, size_t len, char *ret)
{
	static const char digits[] = "0123456789abcdef";
	const uint8_t *p = data;
	size_t i;

	for (i = 0; i < len; i++) {
		ret[2 * i] = digits[p[i] >> 4];
		ret[2 * i + 1] = digits[p[i] & 15];
	}
	ret[2 * len] = '\0';
}

static int
hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

int
hex_decode(const char *text, void *ret, size_t len)
{
	uint8_t *out = ret;
	size_t i;
	int hi, lo;

	for (i = 0; i < len; i++) {
		hi = hex_value(text[2 * i]);
		lo = hi < 0 ? -1 : hex_value(text[2 * i + 1]);
		if (lo < 0)
			return -EINVAL;
		out[i] = (uint8_t)(hi << 4 | lo);
	}
	return text[2 * len] == '\0' ? 0 : -EINVAL;
}

void
base64_encode(const void *data, size_t len, char *ret)
{
	const uint8_t *p = data;
	uint32_t v;
	size_t i;

	for (i = 0; i < len; i += 3) {
		v = (uint32_t)p[i] << 16;
		if (i + 1 < len)
			v |= (uint32_t)p[i + 1] << 8;
		if (i + 2 < len)
			v |= p[i + 2];
		*ret++ = b64_digits[v >> 18];
		*ret++ = b64_digits[v >> 12 & 63];
		*ret++ = i + 1 < len ? b64_digits[v >> 6 & 63] : '=';
		*ret++ = i + 2 < len ? b64_digits[v & 63] : '=';
	}
	*ret = '\0';
}

static int
b64_value(char c)
{
	const char *p = c ? strchr(b64_digits, c) : NULL;

	return p ? (int)(p - b64_digits) : -1;
}

/* One group of four characters -> 1 to 3 bytes in `out`, or -EINVAL. */
static int
b64_group(const char *g, bool is_last, uint8_t out[3])
{
	int v[4], n = 3, i;

	if (is_last && g[3] == '=')
		n = g[2] == '=' ? 1 : 2;
	for (i = 0; i < 4; i++) {
		v[i] = i <= n ? b64_value(g[i]) : 0;
		if (v[i] < 0)
			return -EINVAL;
	}
	if ((n == 1 && (v[1] & 15)) || (n == 2 && (v[2] & 3)))
		return -EINVAL;
	out[0] = (uint8_t)(v[0] << 2 | v[1] >> 4);
	out[1] = (uint8_t)(v[1] << 4 | v[2] >> 2);
	out[2] = (uint8_t)(v[2] << 6 | v[3]);
	return n;
}

int
base64_decode(const char *text, void *ret, size_t cap)
{
	size_t len = strlen(text), i, used = 0;
	uint8_t *out = ret, group[3];
	int n;

	if (len % 4 != 0 || len / 4 > (size_t)INT32_MAX / 3)
		return -EINVAL;
	for (i = 0; i < len; i += 4) {
		n = b64_group(text + i, i + 4 == len, group);
		if (n < 0)
			return n;
		if ((size_t)n > cap - used)
			return -ENOSPC;
		memcpy(out + used, group, (size_t)n);
		used += (size_t)n;
	}
	return (int)used;
}

void
sha256(const void *data, size_t len, uint8_t ret[SHA256_LEN])
{
	SHA256_CTX ctx;
	int ok;

	/* What OpenSSL 3 recommends instead takes memory at each call, so it can fail: a program with
	 * none left could not look up a token. These three only compute. */
	ok = SHA256_Init(&ctx) == 1 && SHA256_Update(&ctx, data, len) == 1 && SHA256_Final(ret, &ctx) == 1;
	BUG_ON(!ok);
}

void
random_bytes(void *ret, size_t len)
{
	ssize_t n;

	/* up to 256 bytes getrandom() is neither short nor interrupted once the pool is ready; before that it waits */
	BUG_ON(len > 256);
	do
		n = getrandom(ret, len, 0);
	while (n < 0 && errno == EINTR);
	BUG_ON(n != (ssize_t)len);
}

void
random_hex(size_t nbytes, char *ret)
{
	uint8_t raw[32];

	BUG_ON(nbytes > sizeof(raw));
	random_bytes(raw, nbytes);
	hex_encode(raw, nbytes, ret);
}

/* How many bytes of ASCII without NUL `p` begins with, in steps of eight: most text is that. */
static size_t
ascii_span(const uint8_t *p, size_t len)
{
	const uint64_t ones = UINT64_C(0x0101010101010101), high = ones << 7;
	size_t n = 0;
	uint64_t w;

	for (; len - n >= sizeof(w); n += sizeof(w)) {
		memcpy(&w, p + n, sizeof(w));
		/* a byte of 0 borrows from its high bit, one over 0x7f has it */
		if (((w - ones) | w) & high)
			break;
	}
	return n;
}

bool
utf8_is_clean(const void *data, size_t len)
{
	const uint8_t *p = data;
	size_t n = ascii_span(p, len);

	p += n;
	len -= n;
	while (len > 0) {
		n = *p ? utf8_span(p, len) : 0;
		if (n == 0)
			return false;
		p += n;
		len -= n;
	}
	return true;
}
