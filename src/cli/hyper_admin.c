/* hyper_admin.c - see the header
 *
 * Always true: with --json the answer is printed as it came; without, the same as lines of at most 80 columns where no
 * word is longer.
 */
#include "cli/hyper_admin.h"

#include <stdio.h>

#include "cli/look.h"
#include "hyper/base/daemon.h"

int
hyper_admin_status(char *socket, int code, const struct cmd_args *args)
{
	char up[24], age[24], in[24], out[24];
	json_t *a = NULL;
	const json_t *reason;
	size_t i;

	code = look_ask(socket, code, "status", json_object(), &a);
	if (code != EXIT_OK)
		return code;
	if (args->opt[0])
		return look_json(a);
	printf("%s  %s, version %s, pid %lld, up %s\n", look_text(a, "name"), look_text(a, "state"),
	    look_text(a, "version"), look_number(a, "pid"), look_time(look_number(a, "uptime_ms"), up));
	printf("calls %lld, %lld of %lld in flight, connections %lld, in %s, out %s\n", look_number(a, "calls"),
	    look_number(a, "in_flight"), look_number(a, "in_flight_limit"), look_number(a, "connections"),
	    look_bytes(look_number(a, "bytes_in"), in), look_bytes(look_number(a, "bytes_out"), out));
	if (json_object_get(a, "directory_age_ms"))
		printf("directory %lld operators, %s old\n", look_number(a, "directory_entries"),
		    look_time(look_number(a, "directory_age_ms"), age));
	json_array_foreach (json_object_get(a, "reasons"), i, reason)
		printf("not ready: %s\n", json_string_value(reason));
	json_decref(a);
	return EXIT_OK;
}

static void
print_connections(const json_t *list)
{
	const json_t *c;
	char age[24];
	size_t i;

	printf("%-19s %-12s %-19s %-12s %6s %7s\n", "OPERATOR", "KIND", "VIA", "SESSION", "AGE", "CALLS");
	json_array_foreach (list, i, c)
		printf("%-19.19s %-12s %-19.19s %-12s %6s %7lld\n", look_text(c, "operator"), look_text(c, "kind"),
		    *look_text(c, "via") ? look_text(c, "via") : "-",
		    *look_text(c, "session") ? look_text(c, "session") : "-", look_time(look_number(c, "age_ms"), age),
		    look_number(c, "calls"));
}

int
hyper_admin_connections(char *socket, int code, const struct cmd_args *args)
{
	json_t *a = NULL;

	code = look_ask(socket, code, "connections",
	    args->opt[1] ? json_pack("{s:s}", "operator", args->opt[1]) : json_object(), &a);
	if (code != EXIT_OK)
		return code;
	if (args->opt[0])
		return look_json(a);
	print_connections(json_object_get(a, "connections"));
	json_decref(a);
	return EXIT_OK;
}

int
hyper_admin_explain(char *socket, int code, const struct cmd_args *args)
{
	json_t *a = NULL;
	const json_t *c, *s;
	size_t i;

	code = look_ask(socket, code, "explain", json_pack("{s:s}", "what", args->argv[0]), &a);
	if (code != EXIT_OK)
		return code;
	if (args->opt[0])
		return look_json(a);
	json_array_foreach (json_object_get(a, "checks"), i, c)
		printf("%-4s %-12s %s\n", json_is_true(json_object_get(c, "ok")) ? "ok" : "NO", look_text(c, "check"),
		    look_text(c, "text"));
	if (json_array_size(json_object_get(a, "connections")) > 0)
		print_connections(json_object_get(a, "connections"));
	json_array_foreach (json_object_get(a, "stories"), i, s)
		look_story(s);
	json_decref(a);
	return EXIT_OK;
}
