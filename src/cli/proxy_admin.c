/* proxy_admin.c - see the header
 *
 * Always true: with --json the answer is printed as it came; without, the same
 * numbers as a table that fits into 80 columns.
 */
#include "cli/proxy_admin.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "cli/cmd.h"
#include "cli/look.h"
#include "hyper/base/clock.h"
#include "hyper/base/daemon.h"
#include "hyper/net/admin.h"
#include "hyper/settings/settings.h"
#include "hyper/wire/json.h"

#define ASK_MS 10000
#define TOP_MS 2000

#define UPGRADE_MS 60000 /* its deadlines together are shorter */

/* The socket of the settings, taken; NULL after saying why not. */
static char *
socket_of_settings(int *ret_code)
{
	struct settings_errors errors = { 0 };
	struct conf_proxy *conf = NULL;
	char *path;

	if (settings_load_proxy(getenv("PROXY_SETTINGS"), &conf, &errors) < 0) {
		*ret_code = cmd_settings_failed(&errors);
		return NULL;
	}
	path = conf->admin_socket ? strdup(conf->admin_socket) : NULL;
	conf_proxy_free(conf);
	if (!path) {
		fprintf(stderr,
		    "%s: the settings have no admin_socket: add one such as \"/run/hyper/proxy/admin.sock\", restart\n",
		    program_invocation_short_name);
		*ret_code = EXIT_SETTINGS;
	}
	return path;
}

/* 0 with *ret_answer taken, or an exit code after saying why. `args` is stolen. */
static int
ask(const char *verb, json_t *args, json_t **ret_answer)
{
	char err[ADMIN_ERR_MAX];
	json_t *answer = NULL;
	int code = EXIT_OK;
	char *path = socket_of_settings(&code);

	if (path && admin_ask(path, verb, args, ASK_MS, &answer, err) < 0) {
		fprintf(stderr, "%s: %s\n", program_invocation_short_name, err);
		code = EXIT_UNAVAILABLE;
	}
	free(path);
	json_decref(args);
	if (answer && !json_is_true(json_object_get(answer, "ok"))) {
		fprintf(stderr, "%s: %s\n", program_invocation_short_name, json_str(answer, "error"));
		json_decref(answer);
		return EXIT_FAIL;
	}
	*ret_answer = answer;
	return code;
}

/* --- status --- */

static void
print_worker(const json_t *w)
{
	long long crashes = look_number(w, "crashes"), ms = look_number(w, "starts_in_ms");
	char up[24];

	printf("worker %lld  pid %-7lld %-9s pairs %-6lld up %s", look_number(w, "worker"), look_number(w, "pid"),
	    look_text(w, "state"), look_number(w, "pairs"), look_time(look_number(w, "age_ms"), up));
	if (crashes > 1)
		printf("  crashed %lld times in a row", crashes);
	if (crashes > 1 && look_number(w, "pid") == 0)
		printf(", next start in %.1f s", ms > 0 ? (double)ms / 1e3 : 0.0);
	putchar('\n');
}

static void
print_status(const json_t *a)
{
	char up[24], bytes[24];
	const json_t *w;
	size_t i;

	printf("%s  %s, version %s, pid %lld, up %s, endpoint %s\n", look_text(a, "name"), look_text(a, "state"),
	    look_text(a, "version"), look_number(a, "pid"), look_time(look_number(a, "uptime_ms"), up),
	    look_text(a, "endpoint"));
	printf(
	    "pairs %lld of %lld (%lld wait for a worker), parked %lld, tokens %lld of %lld, moved %s, restarts %lld\n",
	    look_number(a, "pairs"), look_number(a, "pairs_limit"), look_number(a, "pairs_waiting"),
	    look_number(a, "parked"), look_number(a, "tokens"), look_number(a, "tokens_limit"),
	    look_bytes(look_number(a, "bytes"), bytes), look_number(a, "restarts"));
	json_array_foreach (json_object_get(a, "workers"), i, w)
		print_worker(w);
}

int
proxy_admin_status(const struct cmd_args *args)
{
	json_t *a = NULL;
	int code = ask("status", json_object(), &a);

	if (code != EXIT_OK)
		return code;
	if (args->opt[0])
		return look_json(a);
	print_status(a);
	json_decref(a);
	return EXIT_OK;
}

/* --- pairs, tokens --- */

static json_t *
only(const char *operator_name)
{
	return operator_name ? json_pack("{s:s}", "operator", operator_name) : json_object();
}

static void
print_pairs(const json_t *list, size_t most)
{
	char age[24], idle[24], ab[24], ba[24];
	const json_t *p;
	size_t i;

	printf("%-12s %-15s %-15s %6s %6s %7s %7s %2s\n", "SESSION", "FROM", "TO", "AGE", "IDLE", "A>B", "B>A", "W");
	json_array_foreach (list, i, p) {
		if (i == most)
			break;
		printf("%-12s %-15.15s %-15.15s %6s %6s %7s %7s %2lld\n", look_text(p, "session"), look_text(p, "from"),
		    look_text(p, "to"), look_time(look_number(p, "age_ms"), age),
		    look_time(look_number(p, "idle_ms"), idle), look_bytes(look_number(p, "bytes_ab"), ab),
		    look_bytes(look_number(p, "bytes_ba"), ba), look_number(p, "worker"));
	}
}

int
proxy_admin_pairs(const struct cmd_args *args)
{
	json_t *a = NULL;
	int code = ask("pairs", only(args->opt[1]), &a);

	if (code != EXIT_OK)
		return code;
	if (args->opt[0])
		return look_json(a);
	print_pairs(json_object_get(a, "pairs"), SIZE_MAX);
	json_decref(a);
	return EXIT_OK;
}

int
proxy_admin_tokens(const struct cmd_args *args)
{
	json_t *a = NULL, *t;
	char age[24], left[24];
	int code = ask("tokens", only(args->opt[1]), &a);
	size_t i;

	if (code != EXIT_OK)
		return code;
	if (args->opt[0])
		return look_json(a);
	printf("%-12s %-20s %-20s %-7s %7s %7s\n", "SESSION", "FROM", "TO", "STATE", "AGE", "LEFT");
	json_array_foreach (json_object_get(a, "tokens"), i, t)
		printf("%-12s %-20.20s %-20.20s %-7s %7s %7s\n", look_text(t, "session"), look_text(t, "from"),
		    look_text(t, "to"), look_text(t, "state"), look_time(look_number(t, "age_ms"), age),
		    look_time(look_number(t, "left_ms"), left));
	json_decref(a);
	return EXIT_OK;
}

/* --- kick, explain --- */

int
proxy_admin_kick(const struct cmd_args *args)
{
	json_t *a = NULL;
	int code;

	if ((args->argc > 0) == (args->opt[1] != NULL)) {
		fprintf(stderr, "%s: kick: expected a session id, or --operator NAME\n", program_invocation_short_name);
		return EXIT_USAGE;
	}
	code = ask("kick", args->opt[1] ? only(args->opt[1]) : json_pack("{s:s}", "id", args->argv[0]), &a);
	if (code != EXIT_OK)
		return code;
	if (args->opt[0])
		return look_json(a);
	printf("%lld pairs and %lld tokens ended\n", look_number(a, "pairs"), look_number(a, "tokens"));
	json_decref(a);
	return EXIT_OK;
}

int
proxy_admin_explain(const struct cmd_args *args)
{
	json_t *a = NULL, *s;
	int code = ask("explain", json_pack("{s:s}", "what", args->argv[0]), &a);
	size_t i;

	if (code != EXIT_OK)
		return code;
	if (args->opt[0])
		return look_json(a);
	json_array_foreach (json_object_get(a, "stories"), i, s)
		look_story(s);
	json_decref(a);
	return EXIT_OK;
}

/* --- top --- */

static int
by_bytes(const void *a, const void *b)
{
	const json_t *x = *(json_t *const *)a, *y = *(json_t *const *)b;
	long long bx = look_number(x, "bytes_ab") + look_number(x, "bytes_ba"),
		  by = look_number(y, "bytes_ab") + look_number(y, "bytes_ba");

	return bx < by ? 1 : bx > by ? -1 : 0;
}

/* A new list, those that moved most first; NULL when out of memory. */
static json_t *
sorted(const json_t *list)
{
	size_t n = json_array_size(list);
	json_t **v = calloc(n + 1, sizeof(json_t *)), *ret = json_array();

	for (size_t i = 0; v && i < n; i++)
		v[i] = json_array_get(list, i);
	if (v)
		qsort(v, n, sizeof(json_t *), by_bytes);
	for (size_t i = 0; v && i < n; i++)
		json_array_append(ret, v[i]);
	free(v);
	return ret;
}

static size_t
screen_lines(void)
{
	struct winsize w;

	return ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_row > 6 ? w.ws_row : 24;
}

/* Until `q` or the end of standard input; once where standard output is no terminal. */
int
proxy_admin_top(const struct cmd_args *args)
{
	struct pollfd in = { .fd = STDIN_FILENO, .events = POLLIN };
	bool is_screen = isatty(STDOUT_FILENO);
	json_t *status, *pairs, *list;
	char c = 0;
	int code;

	(void)args;
	do {
		status = pairs = NULL;
		code = ask("status", json_object(), &status);
		if (code == EXIT_OK)
			code = ask("pairs", json_object(), &pairs);
		if (code == EXIT_OK) {
			list = sorted(json_object_get(pairs, "pairs"));
			if (is_screen)
				printf("\033[H\033[2J");
			print_status(status);
			print_pairs(list, screen_lines() - 5 - json_array_size(json_object_get(status, "workers")));
			fflush(stdout);
			json_decref(list);
		}
		json_decref(status);
		json_decref(pairs);
		if (!is_screen || code != EXIT_OK)
			return code;
		if (poll(&in, 1, TOP_MS) > 0 && read(STDIN_FILENO, &c, 1) <= 0)
			return EXIT_OK;
	} while (c != 'q');
	return EXIT_OK;
}

/* --- upgrade --- */

/* How often it was executed anew; -1 nobody answers, or not yet with "serving". `ret_why`: why the new program gave up
 * and the old one is back; taken, NULL otherwise. */
static long long
upgrades_of(const char *path, char **ret_why)
{
	char err[ADMIN_ERR_MAX];
	json_t *args = json_object(), *answer = NULL;
	long long n = -1;

	*ret_why = NULL;
	if (args && admin_ask(path, "status", args, ASK_MS, &answer, err) == 0) {
		if (strcmp(look_text(answer, "state"), "serving") == 0) {
			n = look_number(answer, "upgrades");
			*ret_why = json_object_get(answer, "upgrade_failed")
				       ? strdup(look_text(answer, "upgrade_failed"))
				       : NULL;
		}
		json_decref(answer);
	}
	json_decref(args);
	return n;
}

/* The new program has no answer to give to a question that the old one was asked: that one's connection ends, and
 * the new one tells how often it was executed. */
static int
wait_for_new(const char *path, long long before)
{
	int64_t until_ms = clock_now_ms() + UPGRADE_MS;
	const char *name = program_invocation_short_name;
	char *why = NULL;
	long long n;

	while ((n = upgrades_of(path, &why)) < 0 && clock_now_ms() < until_ms)
		poll(NULL, 0, 50);
	if (n > before) {
		printf("upgraded\n");
		free(why);
		return EXIT_OK;
	}
	if (n >= 0) {
		fprintf(stderr, "%s: not upgraded, the old program is back: %s\n", name,
		    why ? why : "it was started anew, see the proxy's log");
		free(why);
		return EXIT_FAIL;
	}
	fprintf(
	    stderr, "%s: the new program does not serve within %d s: see the proxy's log\n", name, UPGRADE_MS / 1000);
	return EXIT_FAIL;
}

int
proxy_admin_upgrade(const struct cmd_args *args)
{
	char err[ADMIN_ERR_MAX];
	json_t *none = json_object(), *answer = NULL;
	int code = EXIT_OK, rc;
	char *path = socket_of_settings(&code);
	char *why = NULL;
	long long before = path ? upgrades_of(path, &why) : -1;

	(void)args;
	free(why);
	if (path) {
		rc = none ? admin_ask(path, "upgrade", none, UPGRADE_MS, &answer, err) : -ENOMEM;
		if (rc == -ECONNRESET || rc == -EPIPE) {
			code = wait_for_new(path, before);
		} else if (rc < 0) {
			fprintf(stderr, "%s: %s\n", program_invocation_short_name, err);
			code = EXIT_UNAVAILABLE;
		} else {
			fprintf(stderr, "%s: not upgraded, the old program goes on: %s\n",
			    program_invocation_short_name, look_text(answer, "error"));
			code = EXIT_FAIL;
		}
	}
	json_decref(answer);
	json_decref(none);
	free(path);
	return code;
}
