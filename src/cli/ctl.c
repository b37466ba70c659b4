/* ctl.c - see the header
 *
 * Always true: what a verb prints on stdout is about the running program, faults are on stderr; the exit status alone
 * tells a script what it needs.
 *
 * Not here: what the program does (proxy/master/reload.c, drain.c).
 */
#include "cli/ctl.h"

#include <errno.h>
#include <math.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "hyper/base/daemon.h"
#include "hyper/base/fd.h"
#include "hyper/net/admin.h"
#include "hyper/wire/json.h"

#define ASK_MS      30000
#define DAY_MS      86400000
#define GONE_MS     15000                 /* from the answer to `stop` until the process is gone */
#define NO_DEADLINE (2 * (int64_t)DAY_MS) /* the program's own setting counts then */

static const char *
me(void)
{
	return program_invocation_short_name;
}

/* An exit code, with *ret taken where it is EXIT_OK. `socket` and `args` are taken. */
static int
ask(char *socket, int code, const char *verb, json_t *args, int64_t timeout_ms, json_t **ret)
{
	char err[ADMIN_ERR_MAX];

	if (code == EXIT_OK && !socket) {
		fprintf(stderr,
		    "%s: the settings have no admin_socket: add one such as \"/run/hyper/admin.sock\", restart\n",
		    me());
		code = EXIT_UNAVAILABLE;
	} else if (code == EXIT_OK && admin_ask(socket, verb, args, timeout_ms, ret, err) < 0) {
		fprintf(stderr, "%s: %s\n", me(), err);
		code = EXIT_UNAVAILABLE;
	}
	free(socket);
	json_decref(args);
	return code;
}

static bool
is_ok(const json_t *answer)
{
	return json_is_true(json_object_get(answer, "ok"));
}

static void
print_error(const json_t *answer)
{
	const char *error = json_str(answer, "error");

	fprintf(stderr, "%s: %s\n", me(), error ? error : "it said no without a reason");
}

/* --- reload --- */

static void
print_changes(const json_t *list, const char *what)
{
	const json_t *c;
	size_t i;

	json_array_foreach (list, i, c)
		printf("%s: %s %s -> %s\n", what, json_str(c, "key"), json_str(c, "before"), json_str(c, "after"));
}

static int
print_faults(const json_t *faults)
{
	const json_t *f;
	size_t i;

	json_array_foreach (faults, i, f)
		fprintf(stderr, "%s: %s\n", me(), json_string_value(f));
	fprintf(stderr, "%s: %zu fault%s, nothing was changed\n", me(), json_array_size(faults),
	    json_array_size(faults) == 1 ? "" : "s");
	return EXIT_SETTINGS;
}

static int
print_reload(const json_t *a, bool dry)
{
	const json_t *changed = json_object_get(a, "changed"), *restart = json_object_get(a, "restart"), *n;
	const char *key;
	size_t i;

	print_changes(changed, dry ? "would change" : "changed");
	print_changes(restart, "needs a restart");
	json_object_foreach ((json_t *)json_object_get(a, "over"), key, n)
		printf("over the new limit: %s: %lld now, they stay\n", key, (long long)json_integer_value(n));
	json_array_foreach (json_object_get(a, "touched"), i, n)
		printf("touched: %s: %lld %s\n", json_string_value(json_object_get(n, "key")),
		    (long long)json_integer_value(json_object_get(n, "n")),
		    json_string_value(json_object_get(n, "what")));
	if (json_array_size(changed) + json_array_size(restart) == 0)
		printf("no setting differs%s\n", dry ? "" : "; certificates and keys were read again");
	return EXIT_OK;
}

int
ctl_reload(char *socket, int code, bool dry)
{
	json_t *answer = NULL, *faults;

	code = ask(socket, code, "reload", json_pack("{s:b}", "dry", dry), ASK_MS, &answer);
	if (code != EXIT_OK)
		return code;
	faults = json_object_get(answer, "faults");
	if (is_ok(answer)) {
		code = print_reload(answer, dry);
	} else if (faults) {
		code = print_faults(faults);
	} else {
		print_error(answer);
		code = EXIT_FAIL;
	}
	json_decref(answer);
	return code;
}

/* --- drain, stop --- */

/* Programs count what they have: connections or calls, or nothing that could be left. */
static int
print_left(const json_t *a, const char *done)
{
	static const char *const kinds[] = { "pairs", "tokens", "calls" };
	const char *between = ": ";

	if (!is_ok(a))
		print_error(a);
	printf("%s", done);
	for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
		const json_t *n = json_object_get(a, kinds[i]);

		if (!n)
			continue;
		printf("%s%lld %s", between, (long long)json_integer_value(n), kinds[i]);
		between = ", ";
	}
	puts(*between == ',' ? " left" : "");
	return is_ok(a) ? EXIT_OK : EXIT_FAIL;
}

/* 0, or -EINVAL after saying why. */
static int
add_number(json_t *args, const char *key, const char *option, const char *text, double scale, double max)
{
	char *end;
	double n;

	if (!text)
		return 0;
	n = strtod(text, &end);
	if (*end || end == text || !isfinite(n) || n < 0 || n * scale > max) {
		fprintf(stderr, "%s: --%s: expected a number of 0..%g, found '%s'\n", me(), option, max / scale, text);
		return -EINVAL;
	}
	json_object_set_new(args, key, json_integer((json_int_t)(n * scale)));
	return 0;
}

static int64_t
patience(const json_t *args)
{
	const json_t *ms = json_object_get(args, "deadline_ms");

	return (ms ? json_integer_value(ms) : NO_DEADLINE) + ASK_MS;
}

int
ctl_drain(char *socket, int code, const char *until, const char *deadline_s)
{
	json_t *args = json_object(), *answer = NULL;

	if (add_number(args, "until", "until", until, 1, INT32_MAX) < 0 ||
	    add_number(args, "deadline_ms", "deadline", deadline_s, 1000, DAY_MS) < 0) {
		json_decref(args);
		free(socket);
		return EXIT_USAGE;
	}
	code = ask(socket, code, "drain", args, patience(args), &answer);
	if (code == EXIT_OK)
		code = print_left(answer, "drained");
	json_decref(answer);
	return code;
}

int
ctl_undrain(char *socket, int code)
{
	json_t *answer = NULL;

	code = ask(socket, code, "undrain", json_object(), ASK_MS, &answer);
	if (code == EXIT_OK)
		code = print_left(answer, "serving again");
	json_decref(answer);
	return code;
}

/* It ends itself; whoever started it may be slow to take notice. */
static int
wait_gone(pid_t pid)
{
	struct pollfd p = { .fd = pid > 0 ? (int)syscall(SYS_pidfd_open, pid, 0) : -1, .events = POLLIN };
	int n = p.fd >= 0 ? poll(&p, 1, GONE_MS) : 1;

	fd_close(&p.fd);
	if (n > 0)
		return EXIT_OK;
	fprintf(stderr, "%s: process %d is still there\n", me(), (int)pid);
	return EXIT_FAIL;
}

int
ctl_stop(char *socket, int code, const char *deadline_s)
{
	json_t *args = json_object(), *answer = NULL;
	int gone;

	if (add_number(args, "deadline_ms", "deadline", deadline_s, 1000, DAY_MS) < 0) {
		json_decref(args);
		free(socket);
		return EXIT_USAGE;
	}
	code = ask(socket, code, "stop", args, patience(args), &answer);
	if (code != EXIT_OK)
		return code;
	if (!json_object_get(answer, "pid")) {
		print_error(answer);
		code = EXIT_FAIL;
	} else {
		gone = wait_gone((pid_t)json_integer_value(json_object_get(answer, "pid")));
		code = print_left(answer, "stopped");
		code = code == EXIT_OK ? gone : code;
	}
	json_decref(answer);
	return code;
}
