/* hyper_sd.c - `hyper sd ...`: read, sign and send records of the service directory (protocol.md 6.7)
 *
 *   submit-records: file -> closed form -> present chain fetched and verified -> created_at, link, hash, sign
 *                   -> verified as everybody will verify it -> one submitRecords
 *
 * Always true:
 *  1. One call at a time; the private loop ends with its answer, and every call
 *     has a deadline.
 *  2. What is sent has been verified here with the same code that sd and every
 *     client use: a wrong certificate is found before anything leaves.
 *  3. The signing key is read only by the verbs that sign.
 *
 * Not here: forms, hash and signatures (hyper/directory/record.h).
 */
#include "cli/hyper_sd.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <event2/event.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include "cli/cmd.h"
#include "hyper/base/clock.h"
#include "hyper/base/daemon.h"
#include "hyper/base/log.h"
#include "hyper/directory/directory.h"
#include "hyper/directory/record.h"
#include "hyper/net/rpcclient.h"
#include "hyper/settings/settings.h"
#include "hyper/wire/json.h"
#include "hyper/wire/rechash.h"

#define SD_CALL_MS     30000
#define SD_RECORDS_MAX ((size_t)100000) /* as sd's own limit: pages without an end are no directory */

struct sd_client {
	struct conf_hyper *conf;
	struct event_base *base;
	struct directory_endpoint endpoint;
	struct rpc_client *rpc;
	struct rpc_answer answer; /* taken from the reply */
	bool answered;
};

struct sd_signer {
	EVP_PKEY *key;
	char *pem; /* the leaf alone */
};

static int complain(const char *fmt, ...) ATTR_PRINTF(1, 2);

static int
complain(const char *fmt, ...)
{
	va_list ap;

	fputs("hyper sd: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	return EXIT_FAIL;
}

static int
load_settings(struct conf_hyper **ret)
{
	struct settings_errors errors = { 0 };

	if (settings_load_hyper(getenv("HYPER_SETTINGS"), ret, &errors) < 0)
		return cmd_settings_failed(&errors);
	log_open("hyper-sd", LOG_LVL_WARN);
	return EXIT_OK;
}

static void
client_fini(struct sd_client *c)
{
	rpc_client_free(c->rpc);
	rpc_answer_fini(&c->answer);
	if (c->base)
		event_base_free(c->base);
	conf_hyper_free(c->conf);
}

/* Settings and connection. An exit code; client_fini() in every case. */
static int
client_init(struct sd_client *c)
{
	char err[RPC_CLIENT_ERR_MAX];
	int code = load_settings(&c->conf);

	if (code != EXIT_OK)
		return code;
	if (c->conf->directory->type != CONF_DIRECTORY_API) {
		complain("directory.type is json: these settings name no service directory (directory.type = \"api\")");
		return EXIT_SETTINGS;
	}
	directory_endpoint(c->conf->directory, &c->endpoint);
	c->base = event_base_new();
	if (!c->base)
		return complain("out of memory");
	if (rpc_client_new(c->base, &c->endpoint.client, &c->rpc, err) < 0) {
		complain("%s", err);
		return EXIT_SETTINGS;
	}
	return EXIT_OK;
}

static void
on_reply(struct rpc_answer *answer, void *arg)
{
	struct sd_client *c = arg;

	c->answer = *answer;
	*answer = (struct rpc_answer){ 0 };
	c->answered = true;
	event_base_loopbreak(c->base);
}

/* Calls and waits. An exit code; with EXIT_OK the result is in c->answer.result. */
static int
call(struct sd_client *c, const char *method, const json_t *params)
{
	const char *reason;

	rpc_answer_fini(&c->answer);
	c->answered = false;
	rpc_client_call(c->rpc, method, params, "", SD_CALL_MS, on_reply, c);
	while (!c->answered)
		if (event_base_dispatch(c->base) != 0 && !c->answered)
			return complain("the event loop ended before the answer came");
	if (c->answer.code == 0)
		return EXIT_OK;
	reason = json_str(c->answer.data, "reason");
	complain("%s: %s", method, c->answer.message ? c->answer.message : "out of memory");
	if (json_object_get(c->answer.data, "data")) {
		char *text = json_text(json_object_get(c->answer.data, "data"));

		complain("%s: %s", method, text ? text : "");
		free(text);
	}
	return c->answer.is_local && reason &&
		       (strcmp(reason, "unreachable") == 0 || strcmp(reason, "deadline") == 0 ||
			   strcmp(reason, "tls") == 0)
		   ? EXIT_UNAVAILABLE
		   : EXIT_FAIL;
}

/* All records after a hash, page by page, each given to `each`, which returns an exit code. */
static int
fetch_records(struct sd_client *c, const char *after, int (*each)(const json_t *record, void *arg), void *arg)
{
	char last[80];
	json_t *params, *page;
	const json_t *record;
	size_t i, n = 0;
	int code;

	snprintf(last, sizeof last, "%s", after);
	for (;;) {
		params = json_pack("{s:s}", "after", last);
		code = params ? call(c, "getRecords", params) : complain("out of memory");
		json_decref(params);
		if (code != EXIT_OK)
			return code;
		if (!json_is_array(c->answer.result))
			return complain("getRecords: the answer is no list");
		if (json_array_size(c->answer.result) == 0)
			return EXIT_OK;
		n += json_array_size(c->answer.result);
		if (n > SD_RECORDS_MAX)
			return complain(
			    "getRecords: more than %zu records: is this a service directory?", SD_RECORDS_MAX);
		page = json_incref(c->answer.result);
		json_array_foreach (page, i, record) {
			const char *hash = json_str(record, "hash");

			if (code == EXIT_OK)
				code = hash ? each(record, arg) : complain("getRecords: a record without a hash");
			if (code == EXIT_OK)
				snprintf(last, sizeof last, "%s", hash);
		}
		json_decref(page);
		if (code != EXIT_OK)
			return code;
	}
}

static int
print_json(const json_t *value)
{
	if (json_dumpf(value, stdout, JSON_INDENT(2) | JSON_ENCODE_ANY) < 0 || putchar('\n') == EOF ||
	    fflush(stdout) != 0)
		return complain("standard output: %s", strerror(errno));
	return EXIT_OK;
}

static int
collect(const json_t *record, void *arg)
{
	return json_array_append(arg, (json_t *)record) < 0 ? complain("out of memory") : EXIT_OK;
}

enum { RECORDS_OPT_AFTER };

static int
verb_records(const struct cmd_args *args)
{
	const char *after = args->opt[RECORDS_OPT_AFTER] ? args->opt[RECORDS_OPT_AFTER] : "";
	struct sd_client c = { 0 };
	json_t *list = json_array();
	int code;

	if (*after && (strlen(after) != 64 || strspn(after, "0123456789abcdef") != 64)) {
		json_decref(list);
		complain("--after: expected the hash of a record, 64 lower-case hex digits");
		return EXIT_USAGE;
	}
	code = client_init(&c);
	if (code == EXIT_OK)
		code = fetch_records(&c, after, collect, list);
	if (code == EXIT_OK)
		code = print_json(list);
	json_decref(list);
	client_fini(&c);
	return code;
}

static int
verb_entries(const struct cmd_args *args)
{
	struct sd_client c = { 0 };
	json_t *params = args->argc > 0 ? json_pack("{s:s}", "name", args->argv[0]) : json_object();
	int code = client_init(&c);

	if (code == EXIT_OK && !params)
		code = complain("the name is not UTF-8");
	if (code == EXIT_OK)
		code = call(&c, args->argc > 0 ? "getEntry" : "getEntries", params);
	if (code == EXIT_OK)
		code = print_json(c.answer.result);
	json_decref(params);
	client_fini(&c);
	return code;
}

static void
signer_fini(struct sd_signer *s)
{
	EVP_PKEY_free(s->key);
	free(s->pem);
}

static int
read_key(const char *path, EVP_PKEY **ret)
{
	struct stat st;
	FILE *f = fopen(path, "re");

	if (!f || fstat(fileno(f), &st) < 0) {
		complain("%s: %s", path, strerror(errno));
		if (f)
			fclose(f);
		return EXIT_SETTINGS;
	}
	if (st.st_mode & S_IRWXO) {
		fclose(f);
		complain("%s: everybody on this machine may read the key: chmod 600 it", path);
		return EXIT_SETTINGS;
	}
	*ret = PEM_read_PrivateKey(f, NULL, NULL, NULL);
	fclose(f);
	ERR_clear_error();
	if (*ret)
		return EXIT_OK;
	complain("%s: holds no private key in PEM", path);
	return EXIT_SETTINGS;
}

static char *
pem_text(X509 *cert)
{
	BIO *bio = BIO_new(BIO_s_mem());
	char *data, *text = NULL;
	long len;

	if (bio && PEM_write_bio_X509(bio, cert) == 1) {
		len = BIO_get_mem_data(bio, &data);
		text = strndup(data, (size_t)len);
	}
	BIO_free(bio);
	return text;
}

/* The leaf: its name and key must be the ones that sign (protocol.md 6.4 step 5). */
static int
read_certificate(const struct conf_signing *conf, EVP_PKEY *key, char **ret)
{
	const char *path = conf->certificate_file;
	FILE *f = fopen(path, "re");
	X509 *cert = f ? PEM_read_X509(f, NULL, NULL, NULL) : NULL;
	int code = EXIT_OK;

	if (!f)
		complain("%s: %s", path, strerror(errno));
	else if (!cert)
		complain("%s: holds no certificate in PEM", path);
	else if (X509_check_private_key(cert, key) != 1)
		complain("%s: does not belong to the key %s", path, conf->key_file);
	else if (X509_check_host(cert, conf->name, 0, X509_CHECK_FLAG_NO_WILDCARDS, NULL) != 1)
		complain("%s: is not a certificate of %s (signing.name): its DNS names lack it", path, conf->name);
	else
		*ret = pem_text(cert);
	if (!*ret)
		code = EXIT_SETTINGS;
	if (f)
		fclose(f);
	X509_free(cert);
	ERR_clear_error();
	return code;
}

static int
signer_init(struct sd_signer *s, const struct conf_hyper *conf)
{
	int code;

	if (!conf->signing) {
		complain(
		    "the settings lack the group `signing` (certificate_file, key_file, ...): nothing can be signed");
		return EXIT_SETTINGS;
	}
	code = read_key(conf->signing->key_file, &s->key);
	return code == EXIT_OK ? read_certificate(conf->signing, s->key, &s->pem) : code;
}

struct submission {
	struct chain *chain;
	struct record_trust *trust;
	struct sd_signer signer;
	json_t *records; /* as read, then with their created_at */
	json_t *signed_records;
};

static int
add_present(const json_t *record, void *arg)
{
	struct submission *s = arg;
	char err[RECORD_ERR_MAX];

	if (chain_append(s->chain, s->trust, record, err) == 0)
		return EXIT_OK;
	return complain("the directory's present record %zu does not verify here: %s. "
			"If the certificates were made anew, begin a new chain: --reset",
	    chain_length(s->chain), err);
}

/* Strictly increasing, from now or from the tip on. */
static int
sign_all(struct submission *s)
{
	size_t n = chain_length(s->chain), i;
	int64_t at = n > 0 ? record_created_utc_ns(chain_record(s->chain, n - 1)) : INT64_MIN, now;
	char when[CLOCK_RFC3339_MAX], err[RECORD_ERR_MAX] = "out of memory";
	json_t *record;

	json_array_foreach (s->records, i, record) {
		json_t *signed_record = NULL;

		now = clock_wall_utc_ns();
		at = now > at ? now : at + 1;
		clock_rfc3339(at, when);
		if (json_object_set_new(record, "created_at", json_string(when)) < 0 ||
		    record_sign(record, chain_tip(s->chain), s->signer.key, s->signer.pem, &signed_record, err) < 0)
			return complain("records[%zu]: %s", i, err);
		if (chain_append(s->chain, s->trust, signed_record, err) < 0) {
			json_decref(signed_record);
			return complain("records[%zu]: what was signed does not verify: %s", i, err);
		}
		if (json_array_append_new(s->signed_records, signed_record) < 0)
			return complain("out of memory");
	}
	return EXIT_OK;
}

static int
send_all(struct sd_client *c, const struct submission *s)
{
	json_t *params = json_pack("{s:O}", "records", s->signed_records);
	size_t size = params ? json_dumpb(params, NULL, 0, JSON_COMPACT) : 0;
	int code;

	if (!params)
		return complain("out of memory");
	if (size > JSON_MAX_BYTES - 1024) {
		json_decref(params);
		return complain(
		    "%zu bytes are more than one call may carry (%zu): split the file", size, JSON_MAX_BYTES);
	}
	code = call(c, "submitRecords", params);
	json_decref(params);
	if (code == EXIT_OK)
		printf("%zu records stored, tip %s\n", json_array_size(s->signed_records), chain_tip(s->chain));
	return code;
}

static int
submit(struct sd_client *c, struct submission *s, const char *file, bool reset)
{
	const struct conf_signing *signing = c->conf->signing;
	char err[RECORD_ERR_MAX];
	int code = signer_init(&s->signer, c->conf);

	if (code != EXIT_OK)
		return code;
	if (record_trust_new(
		&signing->ca_certificate_files, &signing->ca_intermediate_certificate_files, &s->trust, err) < 0) {
		complain("%s", err);
		return EXIT_SETTINGS;
	}
	if (record_file_load(file, RECORD_STRICT, &s->records, err) < 0)
		return complain("%s", err);
	s->chain = chain_new(RECORD_OPEN);
	s->signed_records = json_array();
	if (!s->chain || !s->signed_records)
		return complain("out of memory");
	if (!reset)
		code = fetch_records(c, "", add_present, s);
	if (code == EXIT_OK)
		code = sign_all(s);
	if (code == EXIT_OK)
		code = send_all(c, s);
	return code;
}

enum { SUBMIT_OPT_RESET };

static int
verb_submit(const struct cmd_args *args)
{
	struct submission s = { 0 };
	struct sd_client c = { 0 };
	int code = client_init(&c);

	if (code == EXIT_OK)
		code = submit(&c, &s, args->argv[0], args->opt[SUBMIT_OPT_RESET] != NULL);
	chain_free(s.chain);
	record_trust_free(s.trust);
	signer_fini(&s.signer);
	json_decref(s.records);
	json_decref(s.signed_records);
	client_fini(&c);
	return code;
}

static int
read_json(const char *path, json_t **ret)
{
	FILE *f = strcmp(path, "-") == 0 ? stdin : fopen(path, "re");
	char *text = malloc(JSON_MAX_BYTES + 1), err[JSON_ERR_MAX];
	size_t len = f && text ? fread(text, 1, JSON_MAX_BYTES + 1, f) : 0;
	int code = EXIT_OK;

	if (!f || !text || ferror(f))
		code = complain("%s: %s", path, strerror(errno));
	else if (json_parse(text, len, ret, err) < 0)
		code = complain("%s: %s", path, err);
	if (f && f != stdin)
		fclose(f);
	free(text);
	return code;
}

static int
verb_sign(const struct cmd_args *args)
{
	struct sd_signer signer = { 0 };
	struct conf_hyper *conf = NULL;
	json_t *data = NULL, *signature = NULL, *out = NULL;
	char *text = NULL;
	uint8_t digest[32];
	int code = load_settings(&conf);

	if (code == EXIT_OK)
		code = signer_init(&signer, conf);
	if (code == EXIT_OK)
		code = read_json(args->argv[0], &data);
	if (code == EXIT_OK &&
	    (rechash(data, digest) < 0 || record_sign_digest(digest, signer.key, signer.pem, &signature) < 0))
		code = complain("the key could not sign: an EC P-256 key is needed");
	if (code == EXIT_OK) {
		out = json_pack("{s:O, s:O}", "signature", signature, "data", data);
		text = out ? json_text(out) : NULL;
		code = text && puts(text) != EOF && fflush(stdout) == 0 ? EXIT_OK
									: complain("the result could not be written");
	}
	free(text);
	json_decref(out);
	json_decref(signature);
	json_decref(data);
	signer_fini(&signer);
	conf_hyper_free(conf);
	return code;
}

static const struct cmd sd_verbs[] = {
	{ .words = "submit-records",
	    .args = "FILE",
	    .help =
		"sign the change records of a file {\"records\": [...]} and send them to the directory, all or none",
	    .min_args = 1,
	    .max_args = 1,
	    .run = verb_submit,
	    .opts = { { "reset", NULL, "begin a new chain that replaces the whole directory" } } },
	{ .words = "records",
	    .args = "",
	    .help = "print the directory's signed records",
	    .run = verb_records,
	    .opts = { { "after", "HASH", "only those after the record with this hash (all when it is unknown)" } } },
	{ .words = "entries",
	    .args = "[NAME]",
	    .help = "print the directory's entries, or one of them",
	    .max_args = 1,
	    .run = verb_entries },
	{ .words = "sign",
	    .args = "FILE",
	    .help = "sign any JSON (- for standard input), print {signature, data}",
	    .min_args = 1,
	    .max_args = 1,
	    .run = verb_sign },
};

int
hyper_sd_main(int argc, char **argv)
{
	static const struct cmd_program program = { "hyper sd", "records of the service directory", "HYPER_SETTINGS",
		sd_verbs, ARRAY_LEN(sd_verbs), NULL };

	return cmd_main(&program, argc, argv);
}
