/* test_settings_values.c - every kind of value, its range, its default and how a wrong one is said */
#include <errno.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "hyper/base/attr.h"

#include "settings_dir.h"

#define TLS                                                                                                      \
	"tls = { ca_certificate_files = [ \"certs/ca.pem\" ]; certificate_file = \"certs/own.pem\"; key_file = " \
	"\"certs/own.key\"; }; "
#define API                                                                                                     \
	"directory = { type = \"api\"; settings = { endpoints = [ \"https://sd:1/\" ]; jsonrpc_client = { " TLS \
	"}; ca_certificate_files = [ \"certs/ca.pem\" ]; }; };\n"
#define HYPER "name = \"hd-1\";\n" API
#define PROXY                                                                                                          \
	"public = { name = \"p\"; jsonrpc_client = { endpoint = \"http://h:1\"; }; jsonrpc_server = { bind_address = " \
	"\"h:1\"; };\n"

static const char *
path_of(const char *text)
{
	static char path[512];

	settings_dir_clear();
	settings_dir_put("s.cfg", text);
	snprintf(path, sizeof(path), "%s/s.cfg", settings_dir);
	return path;
}

static struct conf_proxy *
proxy_of(const char *text)
{
	struct settings_errors e = { 0 };
	struct conf_proxy *c = NULL;

	if (settings_load_proxy(path_of(text), &c, &e) != 0)
		fail_msg("%s", settings_errors_text(&e));
	return c;
}

static struct conf_hyper *
hyper_of(const char *text)
{
	struct settings_errors e = { 0 };
	struct conf_hyper *c = NULL;

	if (settings_load_hyper(path_of(text), &c, &e) != 0)
		fail_msg("%s", settings_errors_text(&e));
	return c;
}

static void
test_proxy_defaults(void **state)
{
	struct conf_proxy *c = proxy_of(PROXY "};");
	struct conf_proxy_public *p = c->public;
	cpu_set_t cpus;

	(void)state;
	assert_int_equal(c->log_level, LOG_LVL_INFO);
	assert_string_equal(p->name, "p");
	assert_string_equal(p->internal_bind_address, "localhost:9999");
	assert_string_equal(p->internal_endpoint, "localhost:9999");
	assert_int_equal(p->tcp_rate_limits.n, 0);
	assert_int_equal(p->accept_timeout_ms, 10000);
	assert_int_equal(p->token_timeout_ms, 5000);
	assert_int_equal(p->call_timeout_ms, 30000);
	assert_int_equal(sched_getaffinity(0, sizeof(cpus), &cpus), 0);
	assert_int_equal(p->workers, CPU_COUNT(&cpus)); /* those that we may run on */
	assert_int_equal(p->table_slots, 65536);
	assert_int_equal(p->max_unauthenticated, 1024);
	assert_int_equal(p->max_unauthenticated_per_source, 256);
	assert_int_equal(p->max_bad_tokens_per_source, 1000);
	assert_int_equal(p->barred_source_time_ms, 10000);
	assert_int_equal(p->max_pairs, 0);
	assert_int_equal(p->max_pipes, 0);
	assert_int_equal(p->max_tokens_per_operator, 1024);
	assert_int_equal(p->max_outstanding_per_operator, 256);
	assert_int_equal(p->max_outstanding_per_target, 1024);
	assert_int_equal(p->request_rate_per_operator, 0);
	assert_int_equal(p->request_rate_per_target, 0);
	assert_int_equal(p->max_parked, 0);
	assert_int_equal(p->max_parked_per_operator, 1024);
	assert_int_equal(p->max_pairs_total, 0);
	assert_int_equal(p->max_pairs_per_operator, 0);
	assert_int_equal(p->bytes_per_second_per_operator, 0);
	assert_int_equal(p->pipe_size, 262144);
	assert_false(p->copy_mode);
	assert_true(p->copy_small_messages);
	assert_int_equal(p->idle_timeout_ms, 0);
	assert_int_equal(p->half_closed_timeout_ms, 0);
	assert_int_equal(p->keepalive_idle_ms, 15000);
	assert_int_equal(p->keepalive_interval_ms, 5000);
	assert_int_equal(p->keepalive_count, 3);
	assert_int_equal(p->user_timeout_ms, 30000);
	assert_string_equal(p->rpc_server->path, "/jsonrpc");
	assert_null(p->rpc_server->tls);
	assert_null(p->rpc_server->cors);
	assert_int_equal(p->rpc_server->max_connections, 1024);
	assert_int_equal(p->rpc_server->request_timeout_ms, 30000);
	assert_int_equal(p->rpc_server->allowed_clients.n, 0);
	assert_null(p->rpc_client->proxy_url);
	conf_proxy_free(c);
	c = proxy_of("log_level = \"debug\";");
	assert_null(c->public);
	assert_int_equal(c->log_level, LOG_LVL_DEBUG);
	conf_proxy_free(c);
}

static void
test_proxy_values(void **state)
{
	struct conf_proxy *c =
	    proxy_of(PROXY "workers = 3; accept_timeout = 0.25; token_timeout = 7; copy_mode = true; "
			   "pipe_size = 0x2000; table_slots = 1000L; max_parked = 16; max_pairs_per_operator = "
			   "1048576; internal_endpoint = \"[::1]:5\"; "
			   "tcp_rate_limits = ( { type = \"second\"; limit = 1; }, { type = \"hour\"; "
			   "limit = 1000000000; } ); };\nmetrics = { bind_address = \"localhost:1\"; };");
	struct conf_proxy_public *p = c->public;

	(void)state;
	assert_int_equal(p->workers, 3);
	assert_int_equal(p->accept_timeout_ms, 250);
	assert_int_equal(p->token_timeout_ms, 7000);
	assert_true(p->copy_mode);
	assert_int_equal(p->pipe_size, 8192);
	assert_int_equal(p->table_slots, 1000);
	assert_int_equal(p->max_parked, 16);
	assert_int_equal(p->max_pairs_per_operator, 1048576);
	assert_string_equal(p->internal_endpoint, "[::1]:5");
	assert_int_equal(p->tcp_rate_limits.n, 2);
	assert_int_equal(p->tcp_rate_limits.v[0].window_ms, 1000);
	assert_int_equal(p->tcp_rate_limits.v[1].window_ms, 3600000);
	assert_int_equal(p->tcp_rate_limits.v[1].limit, 1000000000);
	conf_proxy_free(c);
}

static void
test_hyper(void **state)
{
	struct conf_hyper *c = hyper_of(
	    HYPER "signing = { name = \"s\"; certificate_file = \"certs/own.pem\"; key_file = \"certs/own.key\"; "
		  "ca_certificate_files = [ \"certs/ca.pem\" ]; };\n"
		  "endpoint_allow = [ \"a:1\", \"b:2\" ];\n"
		  "channels = ( { name = \"1\"; type = \"grpc_client\"; settings = { " TLS "useProxy = false; }; },\n"
		  "{ name = \"2\"; type = \"jsonrpc_server\"; settings = { bind_address = \"h:0\"; allowed_clients = [ "
		  "\"x\" ]; "
		  "cors = { allowed_hosts = [ \"^https://.*$\" ]; allowed_methods = [ \"GET\", \"POST\" ]; }; }; },\n"
		  "{ type = \"grpc_server\"; name = \"3\"; settings = { " TLS "tcp_rate_limits = (); }; },\n"
		  "{ settings = { endpoint = \"HTTPS://h/\"; " TLS "}; type = \"jsonrpc_client\"; name = \"4\"; } );");

	(void)state;
	assert_string_equal(c->name, "hd-1");
	assert_int_equal(c->directory->type, CONF_DIRECTORY_API);
	assert_int_equal(c->directory->cache_entries_for_ms, 5000);
	assert_int_equal(c->directory->max_stale_ms, 86400000);
	assert_null(c->directory->rpc_client->endpoint);
	assert_true(c->directory->rpc_client->tls->verify_client);
	assert_null(c->directory->store);
	assert_null(c->directory->path);
	assert_string_equal(c->signing->name, "s");
	assert_int_equal(c->call_timeout_ms, 30000);
	assert_int_equal(c->reconnect_min_ms, 100);
	assert_int_equal(c->reconnect_max_ms, 30000);
	assert_int_equal(c->endpoint_allow.n, 2);
	assert_int_equal(c->max_in_flight, 4096);
	assert_int_equal(c->max_in_flight_bytes, 256 * 1024 * 1024);
	assert_int_equal(c->n_channels, 4);
	assert_int_equal(c->channels[0].type, CONF_CH_GRPC_CLIENT);
	assert_false(c->channels[0].grpc_client->use_proxy);
	assert_int_equal(c->channels[1].type, CONF_CH_JSONRPC_SERVER);
	assert_string_equal(c->channels[1].rpc_server->allowed_clients.v[0], "x");
	assert_int_equal(c->channels[1].rpc_server->cors->allowed_methods.n, 2);
	assert_string_equal(c->channels[1].rpc_server->cors->allowed_methods.v[1], "POST");
	assert_string_equal(c->channels[2].grpc_server->bind_address, "localhost:4444");
	assert_int_equal(c->channels[3].type, CONF_CH_JSONRPC_CLIENT);
	assert_string_equal(c->channels[3].name, "4");
	conf_hyper_free(c);
	c = hyper_of("name = \"x\"; directory = { type = \"json\"; settings = { path = \"certs\"; }; };");
	assert_int_equal(c->directory->type, CONF_DIRECTORY_JSON);
	assert_non_null(strstr(c->directory->path, "/certs"));
	assert_int_equal(c->endpoint_allow.n, 1);
	assert_string_equal(c->endpoint_allow.v[0], "*");
	assert_int_equal(c->n_channels, 0);
	conf_hyper_free(c);
}

struct fault {
	const char *text, *want;
};

/* `text` behind `head` must give `want` and nothing else. */
static void
check_faults(const struct fault *tab, size_t n, const char *head, const char *tail, bool is_hyper)
{
	for (size_t i = 0; i < n; i++) {
		struct settings_errors e = { 0 };
		struct conf_hyper *h = NULL;
		struct conf_proxy *p = NULL;
		char text[4096];
		const char *got;
		int rc;

		snprintf(text, sizeof(text), "%s%s%s", head, tab[i].text, tail);
		rc = is_hyper ? settings_load_hyper(path_of(text), &h, &e) : settings_load_proxy(path_of(text), &p, &e);
		got = settings_errors_text(&e);
		if (rc != -EINVAL || strcmp(got, tab[i].want) != 0)
			fail_msg("case %zu: %d\n%s---\n%s", i, rc, got, tab[i].want);
	}
}

static void
test_proxy_faults(void **state)
{
	static const struct fault tab[] = {
		{ "workers = 0;", "s.cfg:2: public.workers: expected an integer in 1..256 (processes), found 0\n" },
		{ "workers = 257;", "s.cfg:2: public.workers: expected an integer in 1..256 (processes), found 257\n" },
		{ "workers = -1;", "s.cfg:2: public.workers: expected an integer in 1..256 (processes), found -1\n" },
		{ "workers = 1.0;", "s.cfg:2: public.workers: expected an integer in 1..256 (processes), found 1\n" },
		{ "workers = \"1\";",
		    "s.cfg:2: public.workers: expected an integer in 1..256 (processes), found the string \"1\"\n" },
		{ "workers = true;",
		    "s.cfg:2: public.workers: expected an integer in 1..256 (processes), found true\n" },
		{ "workers = [];",
		    "s.cfg:2: public.workers: expected an integer in 1..256 (processes), found an empty list\n" },
		{ "workers = {};",
		    "s.cfg:2: public.workers: expected an integer in 1..256 (processes), found a group\n" },
		/* 705032704 for a library that cuts it */
		{ "workers = 4294967297;",
		    "s.cfg:2: public.workers: expected an integer in 1..256 (processes), found 4294967297\n" },
		{ "workers = 0x100000001;",
		    "s.cfg:2: public.workers: expected an integer in 1..256 (processes), found 4294967297\n" },
		{ "workers = -4294967295;",
		    "s.cfg:2: public.workers: expected an integer in 1..256 (processes), found -4294967295\n" },
		{ "accept_timeout = 1e999;",
		    "s.cfg:2: public.accept_timeout: expected a number in 0.01..3000 (seconds), found inf\n" },
		{ "accept_timeout = 3001;",
		    "s.cfg:2: public.accept_timeout: expected a number in 0.01..3000 (seconds), found 3001\n" },
		{ "\naccept_timeout = \"10 s\";", "s.cfg:3: public.accept_timeout: expected a number in 0.01..3000 "
						  "(seconds), found the string \"10 s\"\n" },
		{ "copy_mode = 1;", "s.cfg:2: public.copy_mode: expected true or false, found 1\n" },
		{ "internal_endpoint = \"a:b\";", "s.cfg:2: public.internal_endpoint: expected host:port with a port "
						  "of 0..65535, found the string \"a:b\"\n" },
		{ "internal_endpoint = \"a:65536\";",
		    "s.cfg:2: public.internal_endpoint: expected host:port with a port of "
		    "0..65535, found the string \"a:65536\"\n" },
		{ "internal_endpoint = \":1\";", "s.cfg:2: public.internal_endpoint: expected host:port with a port of "
						 "0..65535, found the string \":1\"\n" },
		{ "internal_endpoint = \"::1:1\";",
		    "s.cfg:2: public.internal_endpoint: expected host:port with a port of "
		    "0..65535, found the string \"::1:1\"\n" },
		{ "internal_endpoint = \"\";",
		    "s.cfg:2: public.internal_endpoint: expected host:port with a port of 0..65535, "
		    "found an empty string\n" },
		{ "acept_timeout = 1;",
		    "s.cfg:2: public.acept_timeout: expected a known key, found an unknown one: did you mean "
		    "accept_timeout?\n" },
		{ "Accept-Timeout = 1;",
		    "s.cfg:2: public.Accept-Timeout: expected a known key, found an unknown one: did you mean "
		    "accept_timeout?\n" },
		{ "datastore = {};",
		    "s.cfg:2: public.datastore: expected no such key, found it: the proxy keeps its tokens in "
		    "memory; remove the key\n" },
		{ "tcp_rate_limits = ( { type = \"day\"; limit = 1; },\n { limit = 0; }, 5 );",
		    "s.cfg:2: public.tcp_rate_limits[0].type: expected one of second, minute, hour, found the string "
		    "\"day\"\n"
		    "s.cfg:3: public.tcp_rate_limits[1].type: expected one of second, minute, hour, found nothing\n"
		    "s.cfg:3: public.tcp_rate_limits[1].limit: expected an integer in 1..1000000000 (connections), "
		    "found 0\n"
		    "s.cfg:3: public.tcp_rate_limits[2]: expected a group { ... }, found 5\n" },
		{ "tcp_rate_limits = {};",
		    "s.cfg:2: public.tcp_rate_limits: expected a list of groups ( { ... }, ... ), found a group\n" },
		{ "}; private = {",
		    "s.cfg:2: private: expected no such key, found it: this version has no private proxy yet; "
		    "remove the group\n" },
	};

	(void)state;
	check_faults(tab, ARRAY_LEN(tab), PROXY, "};", false);
}

#define CHANNEL(type, settings) "channels = ( { name = \"c\"; type = \"" type "\"; settings = { " settings "}; } );"

static void
test_hyper_faults(void **state)
{
	static const struct fault tab[] = {
		{ "channels = ( { type = \"quic\"; name = \"x\"; settings = { whatever = 1; }; } );",
		    "s.cfg:3: channels[0].type: expected one of jsonrpc_server, jsonrpc_client, grpc_server, "
		    "grpc_client, found "
		    "the string \"quic\"\n" },
		{ "channels = ( { } );", "s.cfg:3: channels[0].name: expected a string, found nothing\n"
					 "s.cfg:3: channels[0].type: expected one of jsonrpc_server, jsonrpc_client, "
					 "grpc_server, grpc_client, found "
					 "nothing\n"
					 "s.cfg:3: channels[0].settings: expected a group { ... }, found nothing\n" },
		{ CHANNEL("jsonrpc_client", "endpoint = \"https://h/\"; "),
		    "s.cfg:3: channels[0].settings.tls: expected a group { ... } since endpoint is an https URL, found "
		    "nothing\n" },
		{ CHANNEL("jsonrpc_client", "endpoint = \"ftp://h/\"; "),
		    "s.cfg:3: channels[0].settings.endpoint: expected a URL like https://host:port/path, found the "
		    "string "
		    "\"ftp://h/\"\n" },
		{ CHANNEL("jsonrpc_client", "endpoint = \"http:///x\"; "),
		    "s.cfg:3: channels[0].settings.endpoint: expected a URL like https://host:port/path, found the "
		    "string "
		    "\"http:///x\"\n" },
		{ CHANNEL("grpc_client", ""),
		    "s.cfg:3: channels[0].settings.tls: expected a group { ... }, found nothing\n" },
		{ CHANNEL("grpc_server", TLS "path = \"/x\"; "), "s.cfg:3: channels[0].settings.path: expected one of "
								 "bind_address, tls, tcp_rate_limits, max_connections, "
								 "found an unknown key\n" },
		{ CHANNEL("grpc_client", "tls = { ca_certificate_files = [ \"certs/ca.pem\" ]; certificate_file = "
					 "\"certs/own.pem\"; }; "),
		    "s.cfg:3: channels[0].settings.tls.key_file: expected the key of certificate_file, found "
		    "nothing\n" },
		{ CHANNEL("grpc_client",
		      "tls = { ca_certificate_files = [ \"certs/ca.pem\" ]; key_file = \"certs/own.key\"; }; "),
		    "s.cfg:3: channels[0].settings.tls.certificate_file: expected the certificate of key_file, found "
		    "nothing\n" },
		{ CHANNEL("grpc_client", "tls = { ca_certificate_files = []; insecure_skip_verify = true; }; "),
		    "s.cfg:3: channels[0].settings.tls.ca_certificate_files: expected a list of at least one, each a "
		    "readable "
		    "file, found an empty list\n"
		    "s.cfg:3: channels[0].settings.tls.insecure_skip_verify: expected false, found true: peers are "
		    "always "
		    "verified; name their authority in ca_certificate_files\n" },
		{ CHANNEL("grpc_client", "tls = { ca_certificate_files = \"certs/ca.pem\"; }; "),
		    "s.cfg:3: channels[0].settings.tls.ca_certificate_files: expected a list of at least one, each a "
		    "readable "
		    "file, found the string \"certs/ca.pem\"\n" },
		{ CHANNEL(
		      "grpc_client", "tls = { ca_certificate_files = ( 5, \"certs\" ); certificate_file = \"\"; }; "),
		    "s.cfg:3: channels[0].settings.tls.ca_certificate_files[0]: expected a readable file, found 5\n"
		    "s.cfg:3: channels[0].settings.tls.ca_certificate_files[1]: expected a readable file, found a "
		    "folder: certs\n"
		    "s.cfg:3: channels[0].settings.tls.certificate_file: expected a readable file, found an empty "
		    "string\n" },
		{ CHANNEL("grpc_client", "tls = { ca_certificate_files = [ \"certs/ca.pem\" ]; certificate_file = "
					 "\"certs/own.pem\"; key_file = \"certs/open.key\"; }; "),
		    "s.cfg:3: channels[0].settings.tls.key_file: expected a key file that only its owner and group may "
		    "read, "
		    "found mode 0644 (run chmod o= on it): certs/open.key\n" },
		{ CHANNEL("jsonrpc_server",
		      "bind_address = \"h:1\"; cors = { allowed_hosts = [ \"(\" ]; allowed_methods = [ "
		      "\"TRACE\" ]; }; "),
		    "s.cfg:3: channels[0].settings.cors.allowed_hosts[0]: expected a POSIX extended regular "
		    "expression, found the "
		    "string \"(\"\n"
		    "s.cfg:3: channels[0].settings.cors.allowed_methods[0]: expected one of GET, POST, PATCH, PUT, "
		    "DELETE, "
		    "OPTIONS, found the string \"TRACE\"\n" },
		{ "channels = ( { name = \"a\"; type = \"grpc_client\"; settings = { " TLS "}; },\n"
		  "{ name = \"b\"; type = \"grpc_client\"; settings = { " TLS "}; } );",
		    "s.cfg:4: channels: expected each type at most once, found grpc_client again\n" },
		{ "reconnect_min = 5;\nreconnect_max = 1;",
		    "s.cfg:1: reconnect_min: expected at most reconnect_max (1), found 5\n" },
	};

	(void)state;
	check_faults(tab, ARRAY_LEN(tab), HYPER, "", true);
}

static void
test_directory_faults(void **state)
{
	static const struct fault tab[] = {
		{ "type = \"api\"; settings = { endpoints = [ \"https://a/\" ];\njsonrpc_client = { "
		  "};\nca_certificate_files = [ "
		  "\"certs/ca.pem\" ];\nserver_names = [ \"a\", \"b\" ]; };",
		    "s.cfg:3: directory.settings.jsonrpc_client.tls: expected a group { ... } since endpoints holds an "
		    "https URL, "
		    "found nothing\n"
		    "s.cfg:5: directory.settings.server_names: expected one name for each of endpoints (1), found "
		    "2\n" },
		{ "type = \"api\"; settings = { };",
		    "s.cfg:2: directory.settings.endpoints: expected a list of at least one, each a URL like "
		    "https://host:port/path, found nothing\n"
		    "s.cfg:2: directory.settings.jsonrpc_client: expected a group { ... }, found nothing\n"
		    "s.cfg:2: directory.settings.ca_certificate_files: expected a list of at least one, each a "
		    "readable file, "
		    "found nothing\n" },
		{ "type = \"json\"; settings = { path = \"none\"; };",
		    "s.cfg:2: directory.settings.path: expected a file or folder that exists, found No such file or "
		    "directory: "
		    "none\n" },
		{ "type = \"json\"; settings = 5;",
		    "s.cfg:2: directory.settings: expected a group { ... }, found 5\n" },
		{ "type = \"file\"; settings = { path = \"none\"; };",
		    "s.cfg:2: directory.type: expected one of api, json, found the string \"file\"\n" },
	};

	(void)state;
	check_faults(tab, ARRAY_LEN(tab), "name = \"a\";\ndirectory = { ", "};", true);
	static const struct fault names[] = {
		{ "name = \"a b\";", "s.cfg:2: name: expected an operator's name (1 to 253 of A-Z a-z 0-9 . _ -), "
				     "found the string \"a b\"\n" },
		{ "", "s.cfg:1: name: expected an operator's name (1 to 253 of A-Z a-z 0-9 . _ -), found nothing\n" },
	};
	check_faults(names, ARRAY_LEN(names), API, "", true);
}

static void
test_options(void **state)
{
	static const struct {
		const char *program, *key, *type, *range, *def, *unit;
	} tab[] = {
		{ "proxy", "public.accept_timeout", "number", "0.01..3000", "10", "seconds" },
		{ "proxy", "public.tcp_rate_limits[].type", "word", "second minute hour", "required", "" },
		{ "proxy", "public.tcp_rate_limits[].limit", "integer", "1..1000000000", "required", "connections" },
		{ "proxy", "public.copy_mode", "bool", "", "false", "" },
		{ "sd", "store.path", "path", "", "required", "" },
		{ "sd", "log_level", "word", "error warn info debug", "\"info\"", "" },
		{ "hyper", "endpoint_allow", "list of string", "", "[ \"*\" ]", "" },
		{ "hyper", "channels[].name", "string", "", "required", "" },
		{ "hyper", "channels[grpc_server].settings.bind_address", "host:port", "", "\"localhost:4444\"", "" },
		{ "hyper", "channels[grpc_client].settings.tls.key_file", "file", "", "", "" },
		{ "hyper", "directory.settings.path", "path", "", "required", "" },
	};
	size_t n = 0;

	(void)state;
	assert_null(settings_options("nothing", &n));
	for (size_t i = 0; i < ARRAY_LEN(tab); i++) {
		const struct settings_option *o = settings_options(tab[i].program, &n);
		size_t k = 0;

		while (k < n && strcmp(o[k].key, tab[i].key) != 0)
			k++;
		if (k == n)
			fail_msg("no option %s", tab[i].key);
		assert_string_equal(o[k].type, tab[i].type);
		assert_string_equal(o[k].range, tab[i].range);
		assert_string_equal(o[k].def, tab[i].def);
		assert_string_equal(o[k].unit, tab[i].unit);
		for (k = 0; k < n; k++) {
			assert_true(strlen(o[k].help) > 8);
			for (size_t j = 0; j < k; j++)
				assert_string_not_equal(o[k].key, o[j].key);
		}
	}
}

static void
note_change(const char *key, const char *before, const char *after, int reload, void *arg)
{
	size_t n = strlen(arg);

	(void)reload;
	snprintf((char *)arg + n, 2000 - n, "%s: %s -> %s\n", key, before ? before : "none", after ? after : "none");
}

static void
test_diff(void **state)
{
	static const struct {
		const char *a, *b, *want;
	} tab[] = {
		{ PROXY "};", PROXY "};", "" },
		{ PROXY "workers = 2; };", PROXY "workers = 3; accept_timeout = 2.5; };",
		    "public.accept_timeout: 10 -> 2.5\npublic.workers: 2 -> 3\n" },
		{ PROXY "copy_mode = true; };", PROXY "copy_mode = false; }; log_level = \"debug\";",
		    "log_level: \"info\" -> \"debug\"\npublic.copy_mode: true -> false\n" },
		{ PROXY "tcp_rate_limits = ( { type = \"second\"; limit = 1; } ); };", PROXY "};",
		    "public.tcp_rate_limits[0].type: \"second\" -> none\n"
		    "public.tcp_rate_limits[0].limit: 1 -> none\n" },
		{ PROXY "};", PROXY "}; metrics = { bind_address = \"localhost:1\"; };",
		    "metrics.bind_address: none -> \"localhost:1\"\n" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(tab); i++) {
		struct conf_proxy *a = proxy_of(tab[i].a), *b = proxy_of(tab[i].b);
		struct settings_values before = { 0 }, after = { 0 };
		char text[2000] = "";

		assert_int_equal(settings_values_proxy(a, &before), 0);
		assert_int_equal(settings_values_proxy(b, &after), 0);
		settings_diff(&before, &after, note_change, text);
		assert_string_equal(text, tab[i].want);
		settings_values_free(&before);
		settings_values_free(&after);
		conf_proxy_free(a);
		conf_proxy_free(b);
	}
}

static void
test_values_of_hyper(void **state)
{
	struct conf_hyper *c =
	    hyper_of(HYPER "channels = ( { name = \"in\"; type = \"jsonrpc_server\"; settings = { bind_address "
			   "= \"h:0\"; }; } );");
	struct settings_values v = { 0 };
	const char *found = NULL;

	(void)state;
	assert_int_equal(settings_values_hyper(c, &v), 0);
	for (size_t i = 0; i < v.n; i++)
		if (strcmp(v.v[i].key, "channels[0].settings.bind_address") == 0)
			found = v.v[i].value;
	assert_non_null(found);
	assert_string_equal(found, "\"h:0\"");
	settings_values_free(&v);
	conf_hyper_free(c);
}

static void
note_fate(const char *key, const char *before, const char *after, int reload, void *arg)
{
	size_t n = strlen(arg);

	(void)before;
	(void)after;
	snprintf((char *)arg + n, 2000 - n, "%s %s\n", key, reload ? "live" : "restart");
}

/* Adds what the settings hold for all keys, so that two of them can be compared. */
static char *
all_values(const struct conf_hyper *c)
{
	struct settings_values v = { 0 };
	char *text = calloc(1, 20000);

	assert_int_equal(settings_values_hyper(c, &v), 0);
	for (size_t i = 0; i < v.n; i++)
		snprintf(text + strlen(text), 20000 - strlen(text), "%s=%s\n", v.v[i].key, v.v[i].value);
	settings_values_free(&v);
	return text;
}

#define RPC_IN  "{ name = \"in\"; type = \"jsonrpc_server\"; settings = { bind_address = \"h:0\"; }; }"
#define RPC_OUT "{ name = \"out\"; type = \"jsonrpc_client\"; settings = { endpoint = \"http://h/\"; }; }"
#define OTHER   "{ name = \"in\"; type = \"jsonrpc_server\"; settings = { bind_address = \"h:1\"; path = \"/p\"; }; }"

/* What a reload takes over, and what stays: values, lists of another length, groups of another type. */
static void
test_carry(void **state)
{
	static const struct {
		const char *in_use, *to, *want, *same_as; /* same_as: what `to` is afterwards; NULL: as in use */
	} tab[] = {
		{ HYPER "", HYPER "", "", NULL },
		{ HYPER "", HYPER "call_timeout = 7;", "call_timeout live\n", HYPER "call_timeout = 7;" },
		{ HYPER "", HYPER "admin_socket = \"/a\"; call_timeout = 7;",
		    "admin_socket restart\ncall_timeout live\n", HYPER "call_timeout = 7;" },
		{ HYPER "admin_socket = \"/a\";", HYPER "", "admin_socket restart\n", NULL },
		{ HYPER "channels = ( " RPC_IN " );", HYPER "channels = ( " OTHER " );",
		    "channels[0].settings.bind_address restart\nchannels[0].settings.path live\n",
		    HYPER "channels = ( { name = \"in\"; type = \"jsonrpc_server\"; settings = { bind_address = "
			  "\"h:0\"; path = \"/p\"; }; } );" },
		{ HYPER "channels = ( " RPC_IN " );", HYPER "channels = ( " RPC_OUT " );",
		    "channels[0].name restart\nchannels[0].type restart\nchannels[0].settings.endpoint restart\n"
		    "channels[0].settings.bind_address restart\nchannels[0].settings.path restart\n"
		    "channels[0].settings.allowed_clients restart\n"
		    "channels[0].settings.max_connections restart\nchannels[0].settings.request_timeout restart\n",
		    NULL },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(tab); i++) {
		struct conf_hyper *in_use = hyper_of(tab[i].in_use), *to = hyper_of(tab[i].to);
		struct conf_hyper *want = hyper_of(tab[i].same_as ? tab[i].same_as : tab[i].in_use);
		char text[2000] = "", *is, *should;

		assert_int_equal(settings_carry_hyper(to, in_use, note_fate, text), 0);
		assert_string_equal(text, tab[i].want);
		is = all_values(to);
		should = all_values(want);
		assert_string_equal(is, should);
		free(is);
		free(should);
		conf_hyper_free(in_use);
		conf_hyper_free(want);
		conf_hyper_free(to);
	}
}

/* A list of another length stays as a whole. */
static void
test_carry_length(void **state)
{
	struct conf_hyper *in_use = hyper_of(HYPER "channels = ( " RPC_IN ", " RPC_OUT " );");
	struct conf_hyper *to = hyper_of(HYPER "channels = ( " OTHER " );");
	char text[2000] = "", *is, *should = all_values(in_use);

	(void)state;
	assert_int_equal(settings_carry_hyper(to, in_use, note_fate, text), 0);
	assert_null(strstr(text, "live"));
	assert_non_null(strstr(text, "channels[1].name restart\n"));
	is = all_values(to);
	assert_string_equal(is, should);
	free(is);
	free(should);
	conf_hyper_free(in_use);
	conf_hyper_free(to);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_diff),
		cmocka_unit_test(test_carry),
		cmocka_unit_test(test_carry_length),
		cmocka_unit_test(test_values_of_hyper),
		cmocka_unit_test(test_proxy_defaults),
		cmocka_unit_test(test_proxy_values),
		cmocka_unit_test(test_hyper),
		cmocka_unit_test(test_proxy_faults),
		cmocka_unit_test(test_hyper_faults),
		cmocka_unit_test(test_directory_faults),
		cmocka_unit_test(test_options),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, settings_dir_new, settings_dir_free);
}
