/* test_settings.c - which files are read, how they merge, include and take the environment, and how faults are said */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "hyper/base/attr.h"
#include "hyper/base/fd.h"

#include "settings_dir.h"

#define SERVER "jsonrpc_server = { bind_address = \"localhost:1\"; };\n"
#define STORE  "store = { type = \"sqlite\"; path = \"db\"; };\n"
#define TRUST  "directory = { ca_certificate_files = [ \"certs/ca.pem\" ]; };\n"

struct file {
	const char *name, *text;
};

/* Loads sd's settings from "DIR/a:DIR/b" for paths = "a:b". */
static int
load(const struct file *files, const char *paths, struct conf_sd **ret, struct settings_errors *errors)
{
	char path[1024] = "", *end = path;

	settings_dir_clear();
	for (; files->name; files++)
		settings_dir_put(files->name, files->text);
	for (const char *p = paths; *p; p += strcspn(p, ":"), p += *p == ':')
		end += snprintf(end, sizeof(path) - (size_t)(end - path), "%s%s/%.*s", p == paths ? "" : ":",
		    settings_dir, (int)strcspn(p, ":"), p);
	return settings_load_sd(path, ret, errors);
}

/* What each file may change of a store's path and a server's address. */
static void
test_merge(void **state)
{
	static const struct {
		struct file files[8];
		const char *paths, *want; /* "store_path bind_address first-ca" */
	} tab[] = {
		{ { { "s.cfg", SERVER STORE TRUST } }, "s.cfg", "db localhost:1 certs/ca.pem" },
		{ { { "s.other", SERVER STORE TRUST } }, "s.other", "db localhost:1 certs/ca.pem" },
		{ { { "d/1.cfg", SERVER STORE "directory = { ca_certificate_files = [ \"../certs/ca.pem\" ]; };" } },
		    "d", "d/db localhost:1 d/../certs/ca.pem" },
		/* groups merge, the rest is replaced: by name order in a folder, by position in the list */
		{ { { "s.cfg", SERVER STORE TRUST }, { "d/2.cfg", "store = { path = \"two\"; };" },
		      { "d/10.cfg", "store = { path = \"ten\"; };" } },
		    "s.cfg:d", "d/two localhost:1 certs/ca.pem" },
		{ { { "d/1.cfg", SERVER STORE }, { "s.cfg", TRUST "store = { path = \"later\"; };" } }, "d:s.cfg",
		    "later localhost:1 certs/ca.pem" },
		{ { { "d/1.cfg", SERVER STORE }, { "s.cfg", TRUST "store = { path = \"first\"; };" } }, "s.cfg:d",
		    "d/db localhost:1 certs/ca.pem" },
		/* lists are replaced whole */
		{ { { "s.cfg", SERVER STORE "directory = { ca_certificate_files = [ \"a\", \"b\" ]; };" },
		      { "t.cfg", TRUST } },
		    "s.cfg:t.cfg", "db localhost:1 certs/ca.pem" },
		/* a group takes the place of a value and the other way round */
		{ { { "s.cfg", "jsonrpc_server = 5; store = \"x\";" }, { "t.cfg", SERVER STORE TRUST } }, "s.cfg:t.cfg",
		    "db localhost:1 certs/ca.pem" },
		/* not settings: other names, hidden files, folders below */
		{ { { "d/1.cfg", SERVER STORE "directory = { ca_certificate_files = [ \"../certs/ca.pem\" ]; };" },
		      { "d/.#2.cfg", "x" }, { "d/2.cfg~", "x" }, { "d/2.conf", "x" }, { "d/sub/3.cfg", "x" },
		      { "d/cfg", "x" } },
		    "d", "d/db localhost:1 d/../certs/ca.pem" },
		/* empty files and empty parts of the list */
		{ { { "s.cfg", SERVER STORE TRUST }, { "e.cfg", "" }, { "f.cfg", "# nothing" } }, "e.cfg:s.cfg:f.cfg",
		    "db localhost:1 certs/ca.pem" },
	};
	size_t before = fd_count();

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(tab); i++) {
		struct settings_errors e = { 0 };
		struct conf_sd *c = NULL;
		char got[600];
		size_t skip = strlen(settings_dir) + 1;

		if (load(tab[i].files, tab[i].paths, &c, &e) != 0)
			fail_msg("case %zu: %s", i, settings_errors_text(&e));
		snprintf(got, sizeof(got), "%s %s %s", c->store_path + skip, c->rpc_server->bind_address,
		    c->ca_certificate_files.v[0] + skip);
		assert_string_equal(got, tab[i].want);
		assert_int_equal(c->ca_certificate_files.n, 1);
		conf_sd_free(c);
	}
	assert_int_equal(fd_count(), before);
}

static void
test_include(void **state)
{
	static const struct {
		struct file files[8];
		const char *want;
	} tab[] = {
		{ { { "s.cfg", "@include \"inc.cfg\"\n" SERVER TRUST }, { "inc.cfg", STORE } }, "db" },
		/* the whole of it relative to the file it stands in, at each level */
		{ { { "s.cfg", "@include \"a/b/inc.cfg\"\n" SERVER TRUST },
		      { "a/b/inc.cfg", "  @include  \"../c/deep.cfg\"" }, { "a/c/deep.cfg", STORE } },
		    "a/b/../c/db" },
		/* into a group; the rest of the line goes on */
		{ { { "s.cfg", SERVER TRUST "store = {\n\t@include \"inc\" type = \"sqlite\"; };" },
		      { "inc", "path = \"in\";" } },
		    "in" },
		{ { { "s.cfg", SERVER TRUST "store = { path =\n@include \"v\"\n; type = \"sqlite\"; };" },
		      { "v", "\"val\"" } },
		    "val" },
		/* no directives: in comments and strings */
		{ { { "s.cfg", SERVER TRUST STORE "# \n/*\n@include \"none\"\n*/ // \"\n# \"\n" } }, "db" },
		{ { { "s.cfg", SERVER TRUST "store = { type = \"sqlite\"; path = \"\n@include\"; };" } },
		    "\n@include" },
		{ { { "s.cfg", SERVER TRUST "store = { type = \"sqlite\"; path = \"q\\\"\n@include\"; };" } },
		    "q\"\n@include" },
		/* strings that stand side by side are one */
		{ { { "s.cfg", SERVER TRUST "store = { type = \"sqlite\"; path = \"one\" /* and */ \"two\"; };" } },
		    "onetwo" },
		/* the environment */
		{ { { "s.cfg", SERVER TRUST "@include \"${T_INC}/i\"\n" }, { "env/i", STORE } }, "env/db" },
		{ { { "s.cfg", SERVER TRUST "store = { type = \"sqlite\"; path = \"a${T_INC}b${T_INC}$c$\"; };" } },
		    "aenvbenv$c$" },
		/* what is replaced later need not be defined */
		{ { { "s.cfg", SERVER TRUST "store = { path = \"${T_UNDEFINED}\"; };\n@include \"inc\"" },
		      { "inc", "" } },
		    NULL },
	};

	(void)state;
	setenv("T_INC", "env", 1);
	for (size_t i = 0; i < ARRAY_LEN(tab); i++) {
		struct settings_errors e = { 0 };
		struct conf_sd *c = NULL;

		if (!tab[i].want) {
			assert_int_equal(load(tab[i].files, "s.cfg", &c, &e), -EINVAL);
			settings_errors_free(&e);
			continue;
		}
		if (load(tab[i].files, "s.cfg", &c, &e) != 0)
			fail_msg("case %zu: %s", i, settings_errors_text(&e));
		assert_string_equal(c->store_path + strlen(settings_dir) + 1, tab[i].want);
		conf_sd_free(c);
	}
	struct settings_errors e = { 0 };
	struct conf_sd *c = NULL;
	struct file two[] = { { "s.cfg", SERVER TRUST "store = { path = \"${T_UNDEFINED}\"; };" }, { "t.cfg", STORE },
		{ 0 } };

	assert_int_equal(load(two, "s.cfg:t.cfg", &c, &e), 0);
	conf_sd_free(c);
}

#define OK   SERVER STORE TRUST
#define DEEP "((((((((((((((((((((((((((((1))))))))))))))))))))))))))))"

struct fault_case {
	struct file files[6];
	const char *paths, *want;
};

/* Each case must give its errors, all of them, and leave nothing behind. */
static void
check_faults(const struct fault_case *tab, size_t n)
{
	size_t before = fd_count();

	unsetenv("T_UNDEFINED");
	for (size_t i = 0; i < n; i++) {
		struct settings_errors e = { 0 };
		struct conf_sd *c = (struct conf_sd *)&e; /* must stay as it is */
		const char *got;
		int rc = load(tab[i].files, tab[i].paths, &c, &e);

		got = settings_errors_text(&e);
		if (rc != -EINVAL || c != (struct conf_sd *)&e || strcmp(got, tab[i].want) != 0)
			fail_msg("case %zu: %d\n%s---\n%s", i, rc, got, tab[i].want);
	}
	assert_int_equal(fd_count(), before);
}

static void
test_faults(void **state)
{
	static const struct fault_case tab[] = {
		{ { { "s.cfg", "\n" OK "\nstorre = 5;\n" } }, "s.cfg",
		    "s.cfg:6: storre: expected a known key, found an unknown one: did you mean store?\n" },
		{ { { "s.cfg", OK "jsonrpc_server-x = 1;" } }, "s.cfg",
		    "s.cfg:4: jsonrpc_server-x: expected a known key, found an unknown one: did you mean "
		    "jsonrpc_server?\n" },
		{ { { "s.cfg", OK "quite_different = 1;" } }, "s.cfg",
		    "s.cfg:4: quite_different: expected one of log_level, log, log_format, log_ip, metrics, "
		    "admin_socket, jsonrpc_server, "
		    "store, directory, "
		    "found an "
		    "unknown "
		    "key\n" },
		/* all at once, in the order of the lines */
		{ { { "s.cfg",
		      "log_level = \"loud\";\nstore = {\n type = 5;\n};\ndirectory = {\n ca_certificate_files = [ "
		      "\"none.pem\" ];\n};\njsonrpc_server = {\n bind_address = \"nowhere\";\n tls = "
		      "{ };\n};" } },
		    "s.cfg",
		    "s.cfg:1: log_level: expected one of error, warn, info, debug, found the string \"loud\"\n"
		    "s.cfg:2: store.path: expected a path, found nothing\n"
		    "s.cfg:3: store.type: expected one of sqlite, found 5\n"
		    "s.cfg:6: directory.ca_certificate_files[0]: expected a readable file, found No such file or "
		    "directory: "
		    "none.pem\n"
		    "s.cfg:9: jsonrpc_server.bind_address: expected host:port with a port of 0..65535, found the "
		    "string "
		    "\"nowhere\"\n"
		    "s.cfg:10: jsonrpc_server.tls.ca_certificate_files: expected a list of at least one, each a "
		    "readable file, "
		    "found nothing\n"
		    "s.cfg:10: jsonrpc_server.tls.certificate_file: expected a readable file, found nothing\n"
		    "s.cfg:10: jsonrpc_server.tls.key_file: expected a key file that only its owner and group may "
		    "read, found "
		    "nothing\n" },
		{ { { "s.cfg", "" } }, "s.cfg",
		    "s.cfg:1: jsonrpc_server: expected a group { ... }, found nothing\n"
		    "s.cfg:1: store: expected a group { ... }, found nothing\n"
		    "s.cfg:1: directory: expected a group { ... }, found nothing\n" },
		/* one syntax error a file, the others go on; nothing is called missing then */
		{ { { "a.cfg", "store = {\n path \"x\";\n};" }, { "b.cfg", "x = 1;\n\n}" },
		      { "c.cfg", "log_level = 1;" } },
		    "a.cfg:b.cfg:c.cfg",
		    "a.cfg:2: expected settings like `key = value;`, found a syntax error here or just before\n"
		    "b.cfg:3: expected settings like `key = value;`, found a syntax error here or just before\n"
		    "c.cfg:1: log_level: expected one of error, warn, info, debug, found 1\n" },
		{ { { "s.cfg", "store = {};\n\nstore = {};" } }, "s.cfg",
		    "s.cfg:3: expected each key once in a group, found one for the second time\n" },
		{ { { "s.cfg", "a = [ 1,\n \"x\" ];" } }, "s.cfg",
		    "s.cfg:2: expected values of one type between [ and ], found another (use parentheses)\n" },
		{ { { "s.cfg", "a = 1;\nb = \"open\n\n" } }, "s.cfg",
		    "s.cfg:2: expected the string that begins here to end with \", found the end of the file\n" },
		{ { { "s.cfg", OK "\n  /* open" } }, "s.cfg",
		    "s.cfg:5: expected the comment that begins here to end with */, found the end of the file\n" },
		{ { { "s.cfg", "a = 1;\nb = \"\xff\";" } }, "s.cfg",
		    "s.cfg:2: expected text in UTF-8, found other bytes\n" },
		{ { { "s.cfg", "a = 18446744073709551616;" } }, "s.cfg",
		    "s.cfg:1: expected an integer of at most 64 bit, found 18446744073709551616\n" },
		{ { { "s.cfg", OK "x =\n" DEEP ";" } }, "s.cfg",
		    "s.cfg:4: x: expected one of log_level, log, log_format, log_ip, metrics, admin_socket, "
		    "jsonrpc_server, store, directory, "
		    "found an "
		    "unknown key\n"
		    "s.cfg:5: expected at most 24 levels of groups and lists, found more\n" },
	};

	(void)state;
	check_faults(tab, ARRAY_LEN(tab));
}

static void
test_file_faults(void **state)
{
	static const struct fault_case tab[] = {
		/* files */
		{ { { 0 } }, "none",
		    "none: expected a settings file or folder, found none (No such file or directory)\n" },
		{ { { "d/x.conf", "" } }, "d", "d: expected files named *.cfg in this folder, found none\n" },
		{ { { "d/x.conf", "" }, { "e/y.conf", "" } }, "d:e",
		    "d:e: expected files named *.cfg in this folder, found none\n" },
		{ { { "d/x.conf", "" }, { "s.cfg", OK "x = 1;" } }, "s.cfg:d",
		    "s.cfg:4: x: expected one of log_level, log, log_format, log_ip, metrics, admin_socket, "
		    "jsonrpc_server, store, directory, "
		    "found an "
		    "unknown key\n" },
		{ { { "d/x.cfg/y", "" } }, "d", "d/x.cfg: expected a readable file, found a folder\n" },
		{ { { "s.cfg", OK "x = 1;" } }, "none:s.cfg",
		    "none: expected a settings file or folder, found none (No such file or directory)\n"
		    "s.cfg:4: x: expected one of log_level, log, log_format, log_ip, metrics, admin_socket, "
		    "jsonrpc_server, store, directory, "
		    "found an "
		    "unknown key\n" },
		/* includes: the fault is where it stands, lines after it count on */
		{ { { "s.cfg", "\n@include \"inc\"\n\n" OK "y = 1;" }, { "inc", "\n\nx = 1;\n\n" } }, "s.cfg",
		    "s.cfg:7: y: expected one of log_level, log, log_format, log_ip, metrics, admin_socket, "
		    "jsonrpc_server, store, directory, "
		    "found an "
		    "unknown key\n"
		    "inc:3: x: expected one of log_level, log, log_format, log_ip, metrics, admin_socket, "
		    "jsonrpc_server, store, directory, "
		    "found an unknown "
		    "key\n" },
		{ { { "s.cfg", OK "@include \"inc\"\n" }, { "inc", "\n}" } }, "s.cfg",
		    "inc:2: expected settings like `key = value;`, found a syntax error here or just before\n" },
		{ { { "s.cfg", "\n@include \"none\"\n" } }, "s.cfg",
		    "s.cfg:2: @include: expected a readable file, found No such file or directory: none\n" },
		{ { { "s.cfg", "\n@include \"certs\"\n" } }, "s.cfg",
		    "s.cfg:2: @include: expected a readable file, found a folder: certs\n" },
		{ { { "s.cfg", "@include none" } }, "s.cfg",
		    "s.cfg:1: @include: expected a file name in double quotes, found none\n" },
		{ { { "s.cfg", "@include \"none\n\"" } }, "s.cfg",
		    "s.cfg:1: @include: expected a file name in double quotes, found none\n" },
		{ { { "s.cfg", "@include \"\"" } }, "s.cfg",
		    "s.cfg:1: @include: expected a file name in double quotes, found none\n" },
		{ { { "s.cfg", "@include \"t.cfg\"" }, { "t.cfg", "\n@include \"s.cfg\"" } }, "s.cfg",
		    "t.cfg:2: @include: expected at most 10 levels, found more: is it a circle?\n" },
		{ { { "s.cfg", "@include \"${T_UNDEFINED}\"" } }, "s.cfg",
		    "s.cfg:1: @include: expected the environment variable T_UNDEFINED to be set, found it "
		    "undefined\n" },
		/* environment */
		{ { { "s.cfg", OK "log_level = \"${T_UNDEFINED}\";" } }, "s.cfg",
		    "s.cfg:4: log_level: expected the environment variable T_UNDEFINED to be set, found it "
		    "undefined\n" },
		{ { { "s.cfg", OK "log_level = \"${}\";" } }, "s.cfg",
		    "s.cfg:4: log_level: expected ${NAME} with an environment variable's name, found \"${}\"\n" },
		{ { { "s.cfg", OK "log_level = \"a${B\";" } }, "s.cfg",
		    "s.cfg:4: log_level: expected ${NAME} with an environment variable's name, found \"${B\"\n" },
		{ { { "s.cfg", OK "log_level = \"${A-B}\";" } }, "s.cfg",
		    "s.cfg:4: log_level: expected ${NAME} with an environment variable's name, found \"${A-B}\"\n" },
	};

	(void)state;
	check_faults(tab, ARRAY_LEN(tab));
}

static void
test_no_path(void **state)
{
	static const char *const paths[] = { NULL, "", ":", "::" };
	struct settings_errors e = { 0 };
	struct conf_hyper *h = NULL;
	struct conf_proxy *p = NULL;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(paths); i++) {
		assert_int_equal(settings_load_hyper(paths[i], &h, &e), -EINVAL);
		assert_non_null(strstr(settings_errors_text(&e), "HYPER_SETTINGS: expected"));
		assert_int_equal(settings_load_proxy(paths[i], &p, &e), -EINVAL);
		assert_non_null(strstr(settings_errors_text(&e), "PROXY_SETTINGS: expected"));
	}
	assert_null(h);
	assert_null(p);
	conf_hyper_free(NULL);
	conf_sd_free(NULL);
	conf_proxy_free(NULL);
	settings_errors_free(NULL);
}

/* A megabyte of nonsense, a FIFO, a file without read permission, more faults than anybody reads. */
static void
test_hostile_files(void **state)
{
	static char big[(1 << 20) + 2], many[6000];
	struct file huge[] = { { "s.cfg", big }, { 0 } }, lots[] = { { "s.cfg", many }, { 0 } };
	struct settings_errors e = { 0 };
	struct conf_sd *c = NULL;
	char path[512];
	size_t used = 0;

	(void)state;
	memset(big, ' ', sizeof(big) - 1);
	assert_int_equal(load(huge, "s.cfg", &c, &e), -EINVAL);
	assert_string_equal(settings_errors_text(&e), "s.cfg: expected a readable file, found more than a megabyte\n");
	memset(big, '{', sizeof(big) - 2);
	big[sizeof(big) - 2] = '\0';
	assert_int_equal(load(huge, "s.cfg", &c, &e), -EINVAL);
	settings_errors_free(&e);
	for (int i = 0; i < 300; i++)
		used += (size_t)snprintf(many + used, sizeof(many) - used, "zz%d = 1;\n", i);
	assert_int_equal(load(lots, "s.cfg", &c, &e), -EINVAL);
	assert_int_equal(e.n, 101);
	assert_string_equal(e.v[100], "and 203 more faults");
	settings_errors_free(&e);
	snprintf(path, sizeof(path), "%s/fifo.cfg", settings_dir);
	assert_int_equal(mkfifo(path, 0600), 0);
	assert_int_equal(settings_load_sd(path, &c, &e), -EINVAL);
	assert_string_equal(
	    settings_errors_text(&e), "fifo.cfg: expected a readable file, found something that is no file\n");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_merge),
		cmocka_unit_test(test_include),
		cmocka_unit_test(test_faults),
		cmocka_unit_test(test_file_faults),
		cmocka_unit_test(test_no_path),
		cmocka_unit_test(test_hostile_files),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, settings_dir_new, settings_dir_free);
}
