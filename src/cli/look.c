/* look.c - see the header
 *
 * Always true: what is printed is what the answer says; a member that is missing is "" or 0.
 */
#include "cli/look.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "hyper/base/daemon.h"
#include "hyper/net/admin.h"
#include "hyper/wire/json.h"

#define ASK_MS 10000

long long
look_number(const json_t *row, const char *key)
{
	return (long long)json_integer_value(json_object_get(row, key));
}

const char *
look_text(const json_t *row, const char *key)
{
	const char *s = json_str(row, key);

	return s ? s : "";
}

/* "1.5M", "312", for columns of five. */
const char *
look_bytes(long long n, char ret[24])
{
	static const char units[] = "BKMGTP";
	double v = (double)n;
	size_t i = 0;

	while (v >= 1000 && i < sizeof(units) - 2) {
		v /= 1024;
		i++;
	}
	snprintf(ret, 24, i == 0 || v >= 100 ? "%.0f%c" : "%.1f%c", v, units[i]);
	return ret;
}

const char *
look_time(long long ms, char ret[24])
{
	if (ms < 10000)
		snprintf(ret, 24, "%lld.%llds", ms / 1000, ms / 100 % 10);
	else if (ms < 600000)
		snprintf(ret, 24, "%llds", ms / 1000);
	else if (ms < 172800000)
		snprintf(ret, 24, "%lldh%02lldm", ms / 3600000, ms / 60000 % 60);
	else
		snprintf(ret, 24, "%lldd", ms / 86400000);
	return ret;
}

int
look_json(json_t *answer)
{
	char *all = json_dumps(answer, JSON_INDENT(2));

	puts(all ? all : "{}");
	free(all);
	json_decref(answer);
	return EXIT_OK;
}

void
look_story(const json_t *s)
{
	const json_t *step;
	size_t i;

	printf("session %s  %s -> %s  began %s\n", *look_text(s, "session") ? look_text(s, "session") : "-",
	    *look_text(s, "from") ? look_text(s, "from") : "?", *look_text(s, "to") ? look_text(s, "to") : "?",
	    look_text(s, "began"));
	json_array_foreach (json_object_get(s, "steps"), i, step)
		printf("  %lld %-10s %.3f ms\n", look_number(step, "step"), look_text(step, "word"),
		    json_number_value(json_object_get(step, "ms")));
	printf("  %s%s%s%s%s\n", look_text(s, "stage"), *look_text(s, "reason") ? ": " : "", look_text(s, "reason"),
	    *look_text(s, "step") ? *look_text(s, "reason") ? ", at step " : ", next step " : "", look_text(s, "step"));
	if (*look_text(s, "reason"))
		printf("    why: %s\n    do:  %s\n", look_text(s, "why"), look_text(s, "help"));
}

int
look_ask(char *socket, int code, const char *verb, json_t *args, json_t **ret)
{
	const char *me = program_invocation_short_name;
	char err[ADMIN_ERR_MAX];
	json_t *answer = NULL;

	if (code == EXIT_OK && !socket) {
		fprintf(stderr,
		    "%s: the settings have no admin_socket: add one such as \"/run/hyper/admin.sock\", restart\n", me);
		code = EXIT_SETTINGS;
	} else if (code == EXIT_OK && admin_ask(socket, verb, args, ASK_MS, &answer, err) < 0) {
		fprintf(stderr, "%s: %s\n", me, err);
		code = EXIT_UNAVAILABLE;
	}
	free(socket);
	json_decref(args);
	if (answer && !json_is_true(json_object_get(answer, "ok"))) {
		fprintf(stderr, "%s: %s\n", me, look_text(answer, "error"));
		json_decref(answer);
		return EXIT_FAIL;
	}
	*ret = answer;
	return code;
}
