/* tell.c - what the admin socket tells of the running message server and changes nothing by it
 *
 *   status                      numbers of now
 *   connections [operator]      one row each: pooled, accepted, standing
 *   explain ID|OPERATOR         how the operator is reached, and the last connections with it: where each stands or
 *                               ended, why, what to do     (hyper(1) has the same list)
 *
 * Always true: an answer holds what story.c and the connections hold, so it is bounded as they are.
 */
#include <string.h>
#include <unistd.h>

#include "hyper/base/clock.h"
#include "hyper/directory/directory.h"
#include "hyper/directory/entry.h"
#include "hyper/net/admin.h"
#include "hyper/net/grpc.h"
#include "hyper/wire/json.h"
#include "server/counts.h"
#include "server/parts.h"
#include "server/show.h"
#include "server/story.h"

static json_t *
status(const struct server *s)
{
	struct status_reasons why = { .n = 0 };
	const char *state = server_state_with_reasons(s, &why);
	json_t *connections = internal_connections_list(s->internal), *reasons = json_array(), *a;
	int64_t age_ms = directory_age_ms(s->dir);

	for (size_t i = 0; i < why.n; i++)
		json_array_append_new(reasons, json_string(why.v[i]));
	a = json_pack("{s:b, s:s, s:s, s:b, s:o, s:s, s:i, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "ok", 1, "name",
	    s->conf->name, "state", state, "ready", why.n == 0, "reasons", reasons, "version", PACKAGE_VERSION, "pid",
	    (int)getpid(), "uptime_ms", (json_int_t)(clock_now_ms() - s->start_ms), "in_flight",
	    (json_int_t)broker_in_flight(s->broker), "in_flight_limit", (json_int_t)s->conf->max_in_flight, "calls",
	    (json_int_t)counts_calls(), "connections", (json_int_t)json_array_size(connections), "bytes_in",
	    (json_int_t)grpc_bytes()[0], "bytes_out", (json_int_t)grpc_bytes()[1], "directory_entries",
	    (json_int_t)json_object_size(directory_all(s->dir)));
	if (a && age_ms != INT64_MAX)
		json_object_set_new(a, "directory_age_ms", json_integer((json_int_t)age_ms));
	json_decref(connections);
	return a;
}

/* Those with that operator, or through it; NULL: all. */
static json_t *
connections_of(const struct server *s, const char *name)
{
	json_t *all = internal_connections_list(s->internal), *some;
	json_t *c;
	size_t i;

	if (!name || !all)
		return all;
	some = json_array();
	json_array_foreach (all, i, c)
		if (strcmp(json_str(c, "operator"), name) == 0 || strcmp(json_str(c, "via"), name) == 0)
			json_array_append(some, c);
	json_decref(all);
	return some;
}

/* --- explain --- */

/* One answer to "could it work?"; is_ok false: and this is why not. */
static void
check(json_t *list, bool is_ok, const char *what, json_t *text)
{
	json_array_append_new(list, json_pack("{s:b, s:s, s:o}", "ok", is_ok, "check", what, "text", text));
}

static bool
has_kind(const json_t *connections, const char *name, const char *kind)
{
	const json_t *c;
	size_t i;

	json_array_foreach (connections, i, c)
		if (strcmp(json_str(c, "operator"), name) == 0 && (!kind || strcmp(json_str(c, "kind"), kind) == 0))
			return true;
	return false;
}

static void
check_directory(const struct server *s, json_t *list)
{
	enum directory_state state = directory_state(s->dir);
	int64_t age_s = directory_age_ms(s->dir) / 1000;

	if (state == DIRECTORY_EMPTY)
		check(list, false, "directory", json_string("not fetched yet: is sd running, and its endpoint right?"));
	else
		check(list, state != DIRECTORY_STALE, "directory",
		    json_sprintf("%zu operators, %lld s old%s", json_object_size(directory_all(s->dir)),
			(long long)age_s, state == DIRECTORY_STALE ? ": older than max_stale, is sd running?" : ""));
	if (!directory_get(s->dir, s->conf->name))
		check(list, false, "own entry",
		    json_sprintf("the directory has no entry of %s: submit one", s->conf->name));
}

/* How calls to it travel, by its entry. */
static void
check_way(const struct server *s, json_t *list, const char *name, const json_t *entry, const json_t *connections)
{
	struct entry_grpc grpc = { 0 };
	bool is_in = has_kind(connections, name, "standing-in");

	if (!entry_grpc_server(entry, &grpc) || grpc.internal)
		check(list, is_in, "way",
		    json_sprintf("it cannot be dialled: calls go over the stream that it opens to us%s",
			is_in ? "" : ", and there is none: is it running, and may we be called by it?"));
	else if (!s->pool)
		check(list, is_in, "way", json_string("this server has no channel grpc_client"));
	else if (strcmp(grpc.proxy, s->conf->name) == 0)
		check(list, is_in, "way",
		    json_sprintf("this server is its proxy's: calls go over the stream that it opens to us%s",
			is_in ? "" : ", and there is none: is it running?"));
	else if (!*grpc.proxy)
		check(list, true, "way", json_sprintf("dialled directly at %s", grpc.address));
	else
		check(list, directory_get(s->dir, grpc.proxy) != NULL, "way",
		    json_sprintf("brokered by the proxy %s%s", grpc.proxy,
			directory_get(s->dir, grpc.proxy) ? "" : ", which the directory does not know"));
}

static void
check_operator(const struct server *s, json_t *list, const char *name, const json_t *connections)
{
	const json_t *entry = directory_get(s->dir, name), *own = directory_get(s->dir, s->conf->name);
	bool may;

	check_directory(s, list);
	if (!entry) {
		check(list, false, "entry", json_sprintf("the directory has no entry of %s (unknown_operator)", name));
		return;
	}
	check_way(s, list, name, entry, connections);
	check(list, true, "connected",
	    json_string(has_kind(connections, name, NULL) ? "now" : "not now; the next call makes a connection"));
	if (!own)
		return;
	may = entry_may_be_called_by(entry, own);
	check(list, may, "may call it",
	    json_sprintf("%s of its services permit%s a group of %s", may ? "one or more" : "none", may ? "" : "s",
		s->conf->name));
	may = entry_may_be_called_by(own, entry);
	check(list, true, "may call us", json_string(may ? "yes, one or more methods" : "no method"));
}

static json_t *
explain(const struct server *s, const json_t *args)
{
	const char *what = json_str(args, "what");
	json_t *stories, *checks, *connections;

	if (!what || !*what)
		return admin_error("explain: expected a session id or an operator's name");
	stories = story_list(s->conf->name, what);
	checks = json_array();
	connections = connections_of(s, what);
	if (!directory_get(s->dir, what) && json_array_size(stories) > 0)
		check_directory(s, checks); /* a session, or an operator that is gone */
	else
		check_operator(s, checks, what, connections);
	return json_pack(
	    "{s:b, s:o, s:o, s:o}", "ok", 1, "checks", checks, "connections", connections, "stories", stories);
}

json_t *
server_tell(const struct server *s, const char *verb, const json_t *args)
{
	if (strcmp(verb, "status") == 0)
		return status(s);
	if (strcmp(verb, "connections") == 0)
		return json_pack("{s:b, s:o}", "ok", 1, "connections", connections_of(s, json_str(args, "operator")));
	if (strcmp(verb, "explain") == 0)
		return explain(s, args);
	return admin_error("this message server knows no verb %s", verb);
}
