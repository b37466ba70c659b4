/* test_records.c - the reference's chain verifies; a changed, misplaced or unauthorised record never does */
#include "hyper/directory/record.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

#include <cmocka.h>

#include "authority.h"
#include "hyper/base/bytes.h"
#include "hyper/base/clock.h"
#include "hyper/wire/json.h"
#include "hyper/wire/rechash.h"

static const char *
vector_path(const char *name)
{
	static char path[4096];
	const char *source = getenv("HYPER_SOURCE");

	snprintf(path, sizeof path, "%s/t/vectors/%s", source ? source : ".", name);
	return path;
}

static json_t *
load(const char *name)
{
	json_error_t e;
	json_t *v = json_load_file(vector_path(name), JSON_REJECT_DUPLICATES, &e);

	assert_non_null(v);
	return v;
}

static json_t *
parse(const char *text)
{
	char err[JSON_ERR_MAX];
	json_t *v = NULL;

	if (json_parse(text, strlen(text), &v, err) < 0)
		fail_msg("%s: %s", err, text);
	return v;
}

static struct record_trust *
vector_trust(void)
{
	char root[4096];

	snprintf(root, sizeof root, "%s", vector_path("root.crt"));
	return trust_of(root, vector_path("intermediate.crt"));
}

static void
append_all(struct chain *c, struct record_trust *t, const json_t *list)
{
	char err[RECORD_ERR_MAX];
	const json_t *item;
	size_t i;

	json_array_foreach (list, i, item) {
		if (chain_append(c, t, item, err) < 0)
			fail_msg("record %zu: %s", i, err);
	}
}

static void
test_vectors_verify(void **state)
{
	struct record_trust *t = vector_trust();
	struct chain *c = chain_new(RECORD_STRICT), *two = chain_new(RECORD_STRICT);
	json_t *list = load("records.json"), *short_list = load("one_records.json"), *entries, *hd1;

	(void)state;
	append_all(c, t, list);
	append_all(two, t, short_list);
	assert_int_equal(chain_length(c), 28);
	assert_int_equal(chain_length(two), 2);
	assert_string_equal(chain_tip(c), json_str(json_array_get(list, 27), "hash"));
	assert_int_equal(chain_index(c, chain_tip(c)), 27);
	assert_int_equal(chain_index(c, "00"), -1);
	assert_int_equal(chain_root_utc_ns(c), record_created_utc_ns(json_array_get(list, 0)));

	entries = chain_entries(c);
	assert_int_equal(json_object_size(entries), 12);
	hd1 = json_object_get(entries, "hd-1");
	assert_int_equal(json_object_size(hd1), 9);
	assert_int_equal(json_array_size(json_object_get(hd1, "records")), 5);
	assert_true(json_is_null(json_object_get(json_array_get(json_object_get(hd1, "channels"), 0), "settings")));
	assert_true(json_is_null(json_object_get(json_object_get(entries, "demo-app"), "groups")));
	json_decref(entries);
	json_decref(list);
	json_decref(short_list);
	chain_free(c);
	chain_free(two);
	record_trust_free(t);
}

/* Each change of record 5 of the reference's chain, and how it is refused. */
static const struct {
	const char *change; /* merged over the signed record, one level deep */
	int code;
	const char *says;
} tampered[] = {
	{ "{\"hash\": \"ABC\"}", -EINVAL, "hash: expected 64" },
	{ "{\"hash\": \"64c8cde3a8b0401922641f5961d123c7aba2ed27e1b1b6e8a23f95c65627ee0c\"}", -EINVAL, "wrong hash" },
	{ "{\"parent_hash\": \"\"}", -ESTALE, "stale parent" },
	{ "{\"parent_hash\": \"64c8cde3a8b0401922641f5961d123c7aba2ed27e1b1b6e8a23f95c65627ee0c\"}", -ESTALE,
	    "stale parent" },
	{ "{\"parent_hash\": 1}", -EINVAL, "parent_hash: expected" },
	{ "{\"record\": {\"created_at\": \"2026-11-22T12:39:08Z\"}}", -EINVAL, "wrong hash" },
	{ "{\"record\": {\"name\": \"hd-1\"}}", -EINVAL, "wrong hash" },
	{ "{\"record\": null}", -EINVAL, "record: expected an object" },
	{ "{\"signature\": {\"r\": \"12345678901\"}}", -EINVAL, "wrong signature" },
	{ "{\"signature\": {\"r\": \"123\"}}", -EINVAL, "r and s must be" },
	{ "{\"signature\": {\"r\": \"-12345678901\"}}", -EINVAL, "r and s must be" },
	{ "{\"signature\": {\"s\": \"0000000000\"}}", -EINVAL, "wrong signature" },
	{ "{\"signature\": {\"s\": 7}}", -EINVAL, "signature: expected" },
	{ "{\"signature\": {\"c\": \"\"}}", -EINVAL, "not a PEM" },
	{ "{\"signature\": {\"c\": \"-----BEGIN CERTIFICATE-----\\nAAAA\\n-----END CERTIFICATE-----\\n\"}}", -EINVAL,
	    "not a PEM" },
	{ "{\"signature\": null}", -EINVAL, "signature: expected" },
};

static void
test_tampered_records_are_refused(void **state)
{
	struct record_trust *t = vector_trust();
	struct chain *c = chain_new(RECORD_STRICT);
	json_t *list = load("records.json"), *head = json_array(), *value, *change, *copy;
	char err[RECORD_ERR_MAX];
	const char *key;
	size_t i;

	(void)state;
	for (i = 0; i < 5; i++)
		json_array_append(head, json_array_get(list, i));
	append_all(c, t, head);
	for (i = 0; i < ARRAY_LEN(tampered); i++) {
		copy = json_deep_copy(json_array_get(list, 5));
		change = parse(tampered[i].change);
		json_object_foreach (change, key, value) {
			if (json_is_object(value))
				json_object_update(json_object_get(copy, key), value);
			else
				json_object_set(copy, key, value);
		}
		assert_int_equal(chain_append(c, t, copy, err), tampered[i].code);
		if (!strstr(err, tampered[i].says))
			fail_msg("%s: \"%s\" lacks \"%s\"", tampered[i].change, err, tampered[i].says);
		assert_int_equal(chain_length(c), 5);
		json_decref(change);
		json_decref(copy);
	}
	/* untouched it fits, twice it does not, and after undoing it fits again */
	assert_int_equal(chain_append(c, t, json_array_get(list, 5), err), 0);
	assert_int_equal(chain_append(c, t, json_array_get(list, 5), err), -EINVAL);
	chain_truncate(c, 5);
	assert_int_equal(chain_length(c), 5);
	assert_string_equal(chain_tip(c), json_str(json_array_get(list, 4), "hash"));
	assert_int_equal(chain_append(c, t, json_array_get(list, 5), err), 0);
	chain_truncate(c, 0);
	assert_string_equal(chain_tip(c), "");
	assert_int_equal(chain_append(c, t, json_array_get(list, 5), err), -ESTALE);
	assert_int_equal(chain_append(c, t, json_array_get(list, 0), err), 0);
	json_decref(head);
	json_decref(list);
	chain_free(c);
	record_trust_free(t);
}

/* `form`: the record's data as JSON; `says` NULL: accepted and equal to `expect`. */
static const struct {
	const char *section, *form, *expect, *says;
} forms[] = {
	{ "groups", "[\"a\",\"b.c-1\"]", "[\"a\",\"b.c-1\"]", NULL },
	{ "groups", "[]", "[]", NULL },
	{ "groups", "[\"*\"]", "[\"*\"]", NULL },
	{ "groups", "[\"a b\"]", NULL, "data[0]" },
	{ "groups", "[1]", NULL, "data[0]" },
	{ "groups", "{}", NULL, "data: expected a list" },
	{ "groups", "null", NULL, "data: expected a list" },
	{ "groups", "[\"list\"]", NULL, "could mean something else" },
	{ "groups", "[\"a\",\"substring\"]", NULL, "could mean something else" },
	{ "groups", "[\"map\"]", NULL, "could mean something else" },
	{ "channels", "[{\"type\":\"grpc_client\"}]", "[{\"type\":\"grpc_client\"}]", NULL },
	{ "channels", "[{\"type\":\"grpc_client\",\"settings\":null,\"x\":1}]", "[{\"type\":\"grpc_client\"}]", NULL },
	{ "channels",
	    "[{\"settings\":{\"address\":\"a:1\",\"internal\":false,\"n\":1.0,\"l\":[\"x\",2]},\"type\":\"q\"}]",
	    "[{\"type\":\"q\",\"settings\":{\"address\":\"a:1\",\"internal\":false,\"n\":1,\"l\":[\"x\",2]}}]", NULL },
	{ "channels", "[{\"type\":\"\"}]", NULL, "data[0].type: expected" },
	{ "channels", "[{}]", NULL, "data[0].type: expected" },
	{ "channels", "[\"x\"]", NULL, "data[0]: expected an object" },
	{ "channels", "[{\"type\":\"q\",\"settings\":{\"a\":{}}}]", NULL, "no object inside settings" },
	{ "channels", "[{\"type\":\"q\",\"settings\":{\"a\":[{}]}}]", NULL, "lists inside settings" },
	{ "channels", "[{\"type\":\"q\",\"settings\":{\"a\":[[\"b\"]]}}]", NULL, "lists inside settings" },
	{ "channels", "[{\"type\":\"q\",\"settings\":{\"a\":[\"\",\"\"]}}]", NULL, "lists inside settings" },
	{ "channels", "[{\"type\":\"q\",\"settings\":{\"a\":[0]}}]", NULL, "lists inside settings" },
	{ "channels", "[{\"type\":\"q\",\"settings\":{\"\":1}}]", NULL, "keys that are not empty" },
	{ "channels", "[{\"type\":\"q\",\"settings\":{\"12\":1}}]", NULL, "could mean something else" },
	{ "channels", "[{\"type\":\"q\",\"settings\":{\"float\":1}}]", NULL, "could mean something else" },
	{ "channels", "[{\"type\":\"q\",\"settings\":[]}]", NULL, "settings: expected an object" },
	{ "certificates", "[{\"key_usage\":\"signing\",\"fingerprint\":\"ab\",\"more\":{}}]",
	    "[{\"fingerprint\":\"ab\",\"key_usage\":\"signing\"}]", NULL },
	{ "certificates", "[{\"fingerprint\":\"ab\"}]", NULL, "data[0].key_usage: expected" },
	{ "services", "[{\"name\":\"s\"}]", "[{\"name\":\"s\",\"permissions\":[],\"methods\":[]}]", NULL },
	{ "services",
	    "[{\"name\":\"s\",\"methods\":[{\"name\":\"m\",\"params\":[1],\"parameters\":[{\"name\":\"p\","
	    "\"validators\":[{\"type\":"
	    "\"t\",\"parameters\":{\"a\":1}}]}]}],\"permissions\":[{\"group\":\"*\",\"rights\":[\"call\"]}]}]",
	    "[{\"name\":\"s\",\"permissions\":[{\"group\":\"*\",\"rights\":[\"call\"]}],\"methods\":[{\"name\":\"m\","
	    "\"permissions\":"
	    "[],\"parameters\":[{\"name\":\"p\",\"validators\":[{\"type\":\"t\",\"parameters\":{\"a\":1}}]}]}]}]",
	    NULL },
	{ "services", "[{\"name\":\"s\",\"permissions\":[{\"group\":\"g\",\"rights\":[\"call\",\"call\"]}]}]", NULL,
	    "data[0].permissions[0].rights" },
	{ "services", "[{\"name\":\"s\",\"permissions\":[{\"group\":\"g\",\"rights\":[\"write\"]}]}]", NULL, "rights" },
	{ "services", "[{\"name\":\"s\",\"permissions\":[{\"group\":\"g\"}]}]", NULL, "rights" },
	{ "services", "[{\"name\":\"s\",\"permissions\":[{\"group\":\"\",\"rights\":[]}]}]", NULL, "group" },
	{ "services", "[{\"name\":\"s\",\"methods\":[{}]}]", NULL, "data[0].methods[0].name" },
	{ "services",
	    "[{\"name\":\"s\",\"methods\":[{\"name\":\"m\",\"parameters\":[{\"name\":\"p\",\"validators\":[{\"type\":"
	    "\"t\","
	    "\"parameters\":{\"a\":{}}}]}]}]}]",
	    NULL, "no object inside settings" },
	{ "settings", "[{\"settings\":{}}]",
	    "[{\"operator\":\"\",\"service\":\"\",\"environment\":\"\",\"settings\":{}}]", NULL },
	{ "preferences", "[{\"service\":\"s\",\"settings\":{\"a\":[\".b\"]}}]",
	    "[{\"operator\":\"\",\"service\":\"s\",\"environment\":\"\",\"settings\":{\"a\":[\".b\"]}}]", NULL },
	{ "settings", "[{\"operator\":1,\"settings\":{}}]", NULL, "data[0].operator: expected a string" },
	{ "settings", "[{\"operator\":\"a\"}]", NULL, "data[0].settings: expected an object" },
	{ "nope", "[]", NULL, "section: expected" },
};

static void
test_forms(void **state)
{
	char err[RECORD_ERR_MAX], *text;
	json_t *record, *got;
	size_t i;

	(void)state;
	for (i = 0; i < ARRAY_LEN(forms); i++) {
		record = json_pack("{s:s, s:s, s:s, s:o, s:i}", "name", "op-1", "section", forms[i].section,
		    "created_at", "2026-11-22T12:00:00.100+00:00", "data", parse(forms[i].form), "more", 1);
		got = NULL;
		if (forms[i].says) {
			assert_int_equal(record_normalise(record, RECORD_STRICT, &got, err), -EINVAL);
			assert_null(got);
			if (!strstr(err, forms[i].says))
				fail_msg(
				    "%s %s: \"%s\" lacks \"%s\"", forms[i].section, forms[i].form, err, forms[i].says);
		} else {
			if (record_normalise(record, RECORD_STRICT, &got, err) < 0)
				fail_msg("%s %s: %s", forms[i].section, forms[i].form, err);
			text = json_text(json_object_get(got, "data"));
			assert_string_equal(text, forms[i].expect);
			free(text);
			assert_string_equal(json_str(got, "created_at"), "2026-11-22T12:00:00.1Z");
			assert_int_equal(json_object_size(got), 4);
			json_decref(got);
		}
		json_decref(record);
	}
}

/* What we would not let in, and another directory may have: each with what it becomes, and that it hashes at all. */
static const struct {
	const char *name, *section, *form, *expect;
} open_forms[] = {
	{ "op-1", "groups", "[\"gesundheits amt\",\"list\",\"\"]", "[\"gesundheits amt\",\"list\",\"\"]" },
	{ "op 1", "groups", "null", "[]" },
	{ "list", "channels", "[{\"type\":\"\",\"settings\":{\"\":[[1],{\"1\":null}]},\"x\":1}]",
	    "[{\"type\":\"\",\"settings\":{\"\":[[1],{\"1\":null}]}}]" },
	{ "op-1", "settings", "[{\"settings\":{\"a\":{\"b\":12345678901234567}}}]",
	    "[{\"operator\":\"\",\"service\":\"\",\"environment\":\"\",\"settings\":{\"a\":{\"b\":12345678901234567}}}"
	    "]" },
	{ "op-1", "groups", "{}", NULL },
	{ "op-1", "groups", "[1]", NULL },
	{ "op-1", "channels", "[{\"type\":1}]", NULL },
	{ "op-1", "settings", "[{\"settings\":[]}]", NULL },
	{ "op-1", "nope", "[]", NULL },
};

static void
test_open_forms(void **state)
{
	char err[RECORD_ERR_MAX], *text;
	json_t *record, *got;
	uint8_t digest[32];
	size_t i;

	(void)state;
	for (i = 0; i < ARRAY_LEN(open_forms); i++) {
		record = json_pack("{s:s, s:s, s:s, s:o}", "name", open_forms[i].name, "section", open_forms[i].section,
		    "created_at", "2026-11-22T12:00:00Z", "data", parse(open_forms[i].form));
		got = NULL;
		assert_int_equal(record_normalise(record, RECORD_STRICT, &got, err), -EINVAL);
		assert_int_equal(record_normalise(record, RECORD_OPEN, &got, err), open_forms[i].expect ? 0 : -EINVAL);
		if (got) {
			text = json_text(json_object_get(got, "data"));
			assert_string_equal(text, open_forms[i].expect);
			free(text);
			assert_int_equal(rechash(got, digest), 0);
			json_decref(got);
		}
		json_decref(record);
	}
}

static void
test_names_and_times(void **state)
{
	static const struct {
		const char *name, *when, *expect;
	} cases[] = {
		{ "a", "2026-11-22T12:00:00Z", "2026-11-22T12:00:00Z" },
		{ "a", "2026-11-22T12:00:00.000Z", "2026-11-22T12:00:00Z" },
		{ "a", "2026-11-22T12:00:00.120000000Z", "2026-11-22T12:00:00.12Z" },
		{ "a", "2026-11-22T12:00:00-00:00", "2026-11-22T12:00:00Z" },
		{ "a", "2026-11-22T12:00:00.5+01:00", "2026-11-22T12:00:00.5+01:00" },
		{ "a", "2026-11-22 12:00:00Z", NULL },
		{ "a", "2026-13-22T12:00:00Z", NULL },
		{ "a", "", NULL },
		{ "", "2026-11-22T12:00:00Z", NULL },
		{ "a b", "2026-11-22T12:00:00Z", NULL },
		{ "*", "2026-11-22T12:00:00Z", NULL },
		{ "xstringx", "2026-11-22T12:00:00Z", NULL },
		{ "list", "2026-11-22T12:00:00Z", NULL },
	};
	char err[RECORD_ERR_MAX];
	json_t *record, *got;
	size_t i;

	(void)state;
	for (i = 0; i < ARRAY_LEN(cases); i++) {
		record = json_pack("{s:s, s:s, s:s, s:[]}", "name", cases[i].name, "section", "groups", "created_at",
		    cases[i].when, "data");
		got = NULL;
		assert_int_equal(record_normalise(record, RECORD_STRICT, &got, err), cases[i].expect ? 0 : -EINVAL);
		if (cases[i].expect)
			assert_string_equal(json_str(got, "created_at"), cases[i].expect);
		json_decref(got);
		json_decref(record);
	}
}

static void
test_signers(void **state)
{
	static const struct {
		const char *san, *usage, *eku, *curve;
		int64_t at_utc_s; /* of the record; the certificate is valid from 5000 to 9000 */
		int code;
		const char *says;
	} cases[] = {
		{ ADMIN, "digitalSignature", NULL, "P-256", 6000, 0, "" },
		{ ADMIN, "digitalSignature", "codeSigning", "P-256", 6000, 0, "" },
		{ ADMIN, "digitalSignature", NULL, "P-256", 5000, 0, "" },
		{ ADMIN, "digitalSignature", NULL, "P-256", 8999, 0, "" },
		{ ADMIN, "digitalSignature", NULL, "P-256", 4999, -EINVAL, "not valid when the record was made" },
		{ ADMIN, "digitalSignature", NULL, "P-256", 9000, -EINVAL, "not valid when the record was made" },
		{ ADMIN, "digitalSignature", "serverAuth", "P-256", 6000, -EINVAL, "codeSigning" },
		{ ADMIN, "keyAgreement", NULL, "P-256", 6000, -EINVAL, "digitalSignature" },
		{ ADMIN, NULL, NULL, "P-256", 6000, -EINVAL, "digitalSignature" },
		{ ADMIN, "digitalSignature", NULL, "P-384", 6000, -EINVAL, "P-256" },
		{ "URI:iris-group://,URI:iris-name://hd-1", "digitalSignature", NULL, "P-256", 6000, -EACCES,
		    "sd-admin" },
		{ "URI:iris-group://sd-admins,URI:iris-name://hd-1", "digitalSignature", NULL, "P-256", 6000, -EACCES,
		    "sd-admin" },
		{ "DNS:sd-admin,URI:iris-name://hd-1", "digitalSignature", NULL, "P-256", 6000, -EACCES, "sd-admin" },
		{ "URI:iris-group://sd-admin", "digitalSignature", NULL, "P-256", 6000, -EINVAL, "iris-name" },
		{ ADMIN ",URI:iris-name://hd-2", "digitalSignature", NULL, "P-256", 6000, -EINVAL, "iris-name" },
	};
	struct authority a;
	char err[RECORD_ERR_MAX], *pem;
	json_t *record;
	struct chain *c;
	EVP_PKEY *key;
	X509 *cert;
	size_t i;
	int twice, r;

	(void)state;
	authority_init(&a);
	for (i = 0; i < ARRAY_LEN(cases); i++) {
		key = EVP_EC_gen(cases[i].curve);
		cert = issue(&a, cases[i].san, cases[i].usage, cases[i].eku, key, 5000, 9000);
		pem = pem_of(cert);
		record = signed_record("", "groups", "op-1", json_pack("[s]", "g"), cases[i].at_utc_s, key, pem);
		/* the second time the signer may come from the cache */
		for (twice = 0; twice < 2; twice++) {
			c = chain_new(RECORD_STRICT);
			r = chain_append(c, a.trust, record, err);
			if (r != cases[i].code || (r < 0 && !strstr(err, cases[i].says)))
				fail_msg("case %zu: %d %s", i, r, err);
			chain_free(c);
		}
		json_decref(record);
		free(pem);
		X509_free(cert);
		EVP_PKEY_free(key);
	}
	authority_fini(&a);
}

/* A cached signer is not believed outside of its certificate's time. */
static void
test_cache_minds_the_time(void **state)
{
	struct authority a;
	EVP_PKEY *key = EVP_EC_gen("P-256");
	char err[RECORD_ERR_MAX], *pem;
	static const struct {
		int64_t at_utc_s;
		int code;
	} steps[] = { { 6000, 0 }, { 9500, -EINVAL }, { 7000, 0 }, { 100, -EINVAL } };
	struct chain *c = chain_new(RECORD_STRICT);
	json_t *record;
	X509 *cert;
	size_t i;

	(void)state;
	authority_init(&a);
	cert = issue(&a, ADMIN, "digitalSignature", NULL, key, 5000, 9000);
	pem = pem_of(cert);
	for (i = 0; i < ARRAY_LEN(steps); i++) {
		record =
		    signed_record(chain_tip(c), "groups", "op-1", json_pack("[s]", "g"), steps[i].at_utc_s, key, pem);
		assert_int_equal(chain_append(c, a.trust, record, err), steps[i].code);
		json_decref(record);
	}
	assert_int_equal(chain_length(c), 2);
	chain_free(c);
	free(pem);
	X509_free(cert);
	EVP_PKEY_free(key);
	authority_fini(&a);
}

/* protocol.md 6.4 step 4: who is pinned for a name signs for it; undoing a record undoes its pin. */
static void
test_pins(void **state)
{
	struct authority a, stranger;
	EVP_PKEY *key[2] = { EVP_EC_gen("P-256"), EVP_EC_gen("P-256") };
	char err[RECORD_ERR_MAX], *pem[2], fingerprint[65];
	struct chain *c = chain_new(RECORD_STRICT);
	json_t *record[4];
	uint8_t digest[32];
	unsigned char *der = NULL;
	X509 *cert[2];
	int i, len;

	(void)state;
	authority_init(&a);
	authority_init(&stranger);
	for (i = 0; i < 2; i++) {
		cert[i] = issue(&a, ADMIN, "digitalSignature", NULL, key[i], 5000, 9000);
		pem[i] = pem_of(cert[i]);
	}
	len = i2d_X509(cert[0], &der);
	sha256(der, (size_t)len, digest);
	hex_encode(digest, 32, fingerprint);
	OPENSSL_free(der);

	record[0] = signed_record("", "groups", "op-1", json_array(), 6000, key[1], pem[1]);
	assert_int_equal(chain_append(c, a.trust, record[0], err), 0);
	record[1] = signed_record(chain_tip(c), "certificates", "hd-1",
	    json_pack("[{s:s, s:s}]", "fingerprint", fingerprint, "key_usage", "signing"), 6001, key[1], pem[1]);
	assert_int_equal(chain_append(c, a.trust, record[1], err), 0);
	record[2] = signed_record(chain_tip(c), "groups", "op-1", json_array(), 6002, key[1], pem[1]);
	assert_int_equal(chain_append(c, a.trust, record[2], err), -EACCES);
	assert_non_null(strstr(err, "another signing certificate"));
	record[3] = signed_record(chain_tip(c), "groups", "op-1", json_array(), 6002, key[0], pem[0]);
	assert_int_equal(chain_append(c, a.trust, record[3], err), 0);
	assert_int_equal(chain_append(c, stranger.trust, record[3], err), -EINVAL);
	chain_truncate(c, 2);
	assert_int_equal(chain_append(c, a.trust, record[2], err), -EACCES);
	assert_int_equal(chain_append(c, stranger.trust, record[3], err), -EINVAL);
	assert_non_null(strstr(err, "not valid"));
	chain_truncate(c, 1);
	json_decref(record[2]);
	record[2] = signed_record(chain_tip(c), "groups", "op-1", json_array(), 6002, key[1], pem[1]);
	assert_int_equal(chain_append(c, a.trust, record[2], err), 0);

	for (i = 0; i < 4; i++)
		json_decref(record[i]);
	for (i = 0; i < 2; i++) {
		free(pem[i]);
		X509_free(cert[i]);
		EVP_PKEY_free(key[i]);
	}
	chain_free(c);
	authority_fini(&a);
	authority_fini(&stranger);
}

static void
test_signer_of_the_vectors(void **state)
{
	json_t *in = load("sign_in.json"), *out = load("sign_out.json"), *mine = NULL;
	EVP_PKEY *key = EVP_EC_gen("P-256"), *rsa = EVP_RSA_gen(2048);
	uint8_t digest[32];

	(void)state;
	assert_int_equal(rechash(in, digest), 0);
	assert_true(json_equal(in, json_object_get(out, "data")));
	assert_int_equal(record_sign_digest(digest, key, "pem", &mine), 0);
	assert_string_equal(json_str(mine, "c"), "pem");
	assert_true(strspn(json_str(mine, "r"), "0123456789") == strlen(json_str(mine, "r")));
	json_decref(mine);
	mine = NULL;
	assert_int_equal(record_sign_digest(digest, rsa, "pem", &mine), -EINVAL);
	assert_null(mine);
	EVP_PKEY_free(key);
	EVP_PKEY_free(rsa);
	json_decref(in);
	json_decref(out);
}

static void
test_trust_says_what_is_wrong(void **state)
{
	char *missing[] = { (char *)"/nonexistent/root.crt" }, *no_pem[] = { (char *)vector_path("sign_in.json") };
	struct conf_strings none = { NULL, 0 }, gone = { missing, 1 }, text = { no_pem, 1 };
	struct record_trust *t = NULL;
	char err[RECORD_ERR_MAX];

	(void)state;
	assert_int_equal(record_trust_new(&none, &none, &t, err), -EINVAL);
	assert_int_equal(record_trust_new(&gone, &none, &t, err), -ENOENT);
	assert_non_null(strstr(err, "/nonexistent/root.crt"));
	assert_int_equal(record_trust_new(&text, &none, &t, err), -EINVAL);
	assert_non_null(strstr(err, "no PEM certificate"));
	assert_null(t);
	record_trust_free(NULL);
	chain_free(NULL);
}

static void
test_size(void **state)
{
	char err[RECORD_ERR_MAX], *big = calloc(1, RECORD_MAX_BYTES + 1);
	json_t *record, *got = NULL;

	(void)state;
	memset(big, 'a', RECORD_MAX_BYTES);
	record = json_pack("{s:s, s:{s:s, s:s, s:s}, s:{s:s, s:s, s:s, s:[{s:s}]}}", "hash",
	    "64c8cde3a8b0401922641f5961d123c7aba2ed27e1b1b6e8a23f95c65627ee0c", "signature", "r", "1", "s", "1", "c",
	    "c", "record", "name", "a", "section", "channels", "created_at", "2026-11-22T12:00:00Z", "data", "type",
	    big);
	assert_int_equal(record_normalise_signed(record, RECORD_STRICT, &got, err), -EINVAL);
	assert_non_null(strstr(err, "larger than"));
	json_decref(record);
	free(big);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_vectors_verify),
		cmocka_unit_test(test_tampered_records_are_refused),
		cmocka_unit_test(test_forms),
		cmocka_unit_test(test_open_forms),
		cmocka_unit_test(test_names_and_times),
		cmocka_unit_test(test_signers),
		cmocka_unit_test(test_cache_minds_the_time),
		cmocka_unit_test(test_pins),
		cmocka_unit_test(test_signer_of_the_vectors),
		cmocka_unit_test(test_trust_says_what_is_wrong),
		cmocka_unit_test(test_size),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
