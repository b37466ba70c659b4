/* test_bytes.c - hex, base64, SHA-256, random bytes and UTF-8 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "hyper/base/bytes.h"

static void
test_hex(void **state)
{
	static const struct {
		const char *text;
		size_t len;
		int rc;
	} tab[] = {
		{ "", 0, 0 },
		{ "00ff7f", 3, 0 },
		{ "00FF7f", 3, 0 },
		{ "00ff7", 3, -EINVAL },
		{ "00ff7f0", 3, -EINVAL },
		{ "00ff7f00", 3, -EINVAL },
		{ "0gff7f", 3, -EINVAL },
		{ "0", 1, -EINVAL },
		{ "", 1, -EINVAL },
		{ " 0", 1, -EINVAL },
	};
	uint8_t out[8];
	char text[8];

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(tab); i++)
		assert_int_equal(hex_decode(tab[i].text, out, tab[i].len), tab[i].rc);
	assert_int_equal(hex_decode("00FF7f", out, 3), 0);
	hex_encode(out, 3, text);
	assert_string_equal(text, "00ff7f");
}

static void
test_base64_round(void **state)
{
	static const struct {
		const char *plain, *text;
	} tab[] = { /* RFC 4648 section 10 */
		{ "", "" }, { "f", "Zg==" }, { "fo", "Zm8=" }, { "foo", "Zm9v" }, { "foob", "Zm9vYg==" },
		{ "fooba", "Zm9vYmE=" }, { "foobar", "Zm9vYmFy" }, { "\xff\xfe\xfd", "//79" },
		{ "\xfb\xef\xbe", "++++" }
	};
	char text[BASE64_SIZE(6)];
	uint8_t out[6];

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(tab); i++) {
		size_t len = strlen(tab[i].plain);

		base64_encode(tab[i].plain, len, text);
		assert_string_equal(text, tab[i].text);
		assert_int_equal(strlen(text) + 1, BASE64_SIZE(len));
		assert_int_equal(base64_decode(text, out, sizeof(out)), len);
		assert_memory_equal(out, tab[i].plain, len);
	}
}

static void
test_base64_refused(void **state)
{
	static const struct {
		const char *text;
		size_t cap;
		int rc;
	} tab[] = {
		{ "Zg", 8, -EINVAL },       /* no padding */
		{ "Zg=", 8, -EINVAL },      /* half of it */
		{ "Zh==", 8, -EINVAL },     /* trailing bits */
		{ "Zm9=", 8, -EINVAL },     /* trailing bits */
		{ "Zg==Zg==", 8, -EINVAL }, /* padding inside */
		{ "====", 8, -EINVAL },
		{ "Z===", 8, -EINVAL },
		{ "=Zg=", 8, -EINVAL },
		{ "Zg=A", 8, -EINVAL },
		{ "Zm9v\n", 8, -EINVAL },
		{ "Zm9vZm\n=", 8, -EINVAL },
		{ " Zm9", 8, -EINVAL },
		{ "Zm-_", 8, -EINVAL }, /* the URL alphabet */
		{ "Zm9v", 2, -ENOSPC },
		{ "Zm9v", 3, 3 },
		{ "", 0, 0 },
	};
	uint8_t out[8];

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(tab); i++)
		assert_int_equal(base64_decode(tab[i].text, out, tab[i].cap), tab[i].rc);
}

static void
test_sha256(void **state)
{
	static const struct {
		const char *plain, *hex;
	} tab[] = {
		{ "", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855" },
		{ "abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" },
	};
	uint8_t hash[SHA256_LEN];
	char hex[SHA256_HEX_LEN + 1];

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(tab); i++) {
		sha256(tab[i].plain, strlen(tab[i].plain), hash);
		hex_encode(hash, sizeof(hash), hex);
		assert_string_equal(hex, tab[i].hex);
	}
}

static void
test_random(void **state)
{
	uint8_t a[256] = { 0 }, b[256] = { 0 };
	char hex[65];

	(void)state;
	random_bytes(a, sizeof(a));
	random_bytes(b, sizeof(b));
	assert_memory_not_equal(a, b, sizeof(a));
	random_hex(32, hex);
	assert_int_equal(strspn(hex, "0123456789abcdef"), 64);
	assert_int_equal(hex[64], 0);
}

static void
test_utf8(void **state)
{
	static const struct {
		const char *text;
		size_t len;
		bool is_clean;
	} tab[] = {
		{ "", 0, true },
		{ "plain", 5, true },
		{ "a\0b", 3, false },
		{ "\xc3\xa9", 2, true },
		{ "\xc3", 1, false },
		{ "\xa9", 1, false },
		{ "\xc0\x80", 2, false },
		{ "\xc1\xbf", 2, false },
		{ "\xc3\x28", 2, false },
		{ "\xe0\x9f\xbf", 3, false },
		{ "\xe0\xa0\x80", 3, true },
		{ "\xed\x9f\xbf", 3, true },
		{ "\xed\xa0\x80", 3, false }, /* surrogate */
		{ "\xef\xbf\xbf", 3, true },
		{ "\xe2\x82", 2, false },
		{ "\xf0\x8f\xbf\xbf", 4, false },
		{ "\xf0\x90\x80\x80", 4, true },
		{ "\xf4\x8f\xbf\xbf", 4, true },
		{ "\xf4\x90\x80\x80", 4, false }, /* over U+10FFFF */
		{ "\xf5\x80\x80\x80", 4, false },
		{ "\xf0\x90\x80", 3, false },
		{ "\xff", 1, false },
		{ "ok\xe2\x82\xac!", 6, true },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(tab); i++)
		if (utf8_is_clean(tab[i].text, tab[i].len) != tab[i].is_clean)
			fail_msg("case %zu", i);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_hex),
		cmocka_unit_test(test_base64_round),
		cmocka_unit_test(test_base64_refused),
		cmocka_unit_test(test_sha256),
		cmocka_unit_test(test_random),
		cmocka_unit_test(test_utf8),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
