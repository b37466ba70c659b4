/* test_token.c - tokens in their three forms: bytes, base64, and the session id that may be logged */
#include "hyper/wire/token.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "hyper/base/attr.h"
#include "hyper/base/bytes.h"

/* The token captured in protocol.md 7.1; its digests are those of sha256sum. */
static const char captured[] = "EiMIbmDc5ZvWaBkI3p31TaVaz8klBnO8OuEJA3R/0JA=";

static void
test_known(void **state)
{
	struct token t;
	char text[TOKEN_BASE64_MAX], session[SESSION_ID_MAX], hex[SHA256_HEX_LEN + 1];
	uint8_t hash[32];

	(void)state;
	assert_int_equal(token_parse(captured, &t), 0);
	assert_int_equal(t.bytes[0], 0x12);
	assert_int_equal(t.bytes[31], 0x90);
	token_text(&t, text);
	assert_string_equal(text, captured);
	token_hash(&t, hash);
	hex_encode(hash, sizeof hash, hex);
	assert_string_equal(hex, "fd2bda3d984337740e85bb3d40d0ed1feb911645bef773d93538ddc8526ad8c5");
	token_session(&t, session);
	assert_string_equal(session, "69c9189a75eb");
}

static void
test_refused(void **state)
{
	static const char *const texts[] = {
		"",
		"EiMI",
		"EiMIbmDc5ZvWaBkI3p31TaVaz8klBnO8OuEJA3R/0JA",    /* no padding */
		"EiMIbmDc5ZvWaBkI3p31TaVaz8klBnO8OuEJA3R/0JAA",   /* 33 bytes */
		"EiMIbmDc5ZvWaBkI3p31TaVaz8klBnO8OuEJA3R/0J==",   /* 31 bytes */
		"EiMIbmDc5ZvWaBkI3p31TaVaz8klBnO8OuEJA3R/0JB=",   /* bits beyond the end */
		"EiMIbmDc5ZvWaBkI3p31TaVaz8klBnO8OuEJA3R_0JA=",   /* the other alphabet */
		"EiMIbmDc5ZvWaBkI3p31TaVaz8klBnO8OuEJA3R/0JA=\n", /* a line feed behind it */
		" EiMIbmDc5ZvWaBkI3p31TaVaz8klBnO8OuEJA3R/0JA",
		"EiMIbmDc5ZvWaBkI3p31TaVaz8klBnO8OuEJA3R/0JA=EiMIbmDc5ZvWaBkI3p31TaVaz8klBnO8OuEJA3R/0JA=",
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
		struct token t;

		if (token_parse(texts[i], &t) == 0)
			print_message("# accepted: %s\n", texts[i]);
		assert_int_equal(token_parse(texts[i], &t), -EINVAL);
	}
}

static void
test_new(void **state)
{
	struct token a, b, again;
	char text[TOKEN_BASE64_MAX], sa[SESSION_ID_MAX], sb[SESSION_ID_MAX];

	(void)state;
	token_new(&a);
	token_new(&b);
	assert_memory_not_equal(&a, &b, sizeof a);
	token_text(&a, text);
	assert_int_equal(strlen(text), 44);
	assert_int_equal(token_parse(text, &again), 0);
	assert_memory_equal(&a, &again, sizeof a);
	token_session(&a, sa);
	token_session(&b, sb);
	assert_int_equal(strlen(sa), 12);
	assert_string_not_equal(sa, sb);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_known),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_new),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
