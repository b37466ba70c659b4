/* internal.c - methods that this server answers itself (protocol.md 4.3)
 *
 * Always true:
 *  1. The broker has checked the permission before; only `_connections` asks
 *     for more: it tells who talks to whom, so it is for the own operator alone.
 *  2. An unknown method that begins with `_` is no internal one: it goes to the
 *     operator's application like any other.
 *
 * Not here: the work of _connectionRequest (accept.c).
 */
#include "server/internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "hyper/base/bug.h"
#include "hyper/base/clock.h"
#include "hyper/directory/directory.h"
#include "hyper/directory/entry.h"
#include "hyper/wire/json.h"
#include "server/reply.h"

struct internal {
	struct event_base *base;
	const struct conf_hyper *conf;
	struct directory *dir;
	internal_accept accept;
	void *accept_arg;
	struct {
		internal_list list;
		void *arg;
	} lister[INTERNAL_MAX_LISTERS];
	unsigned n_listers;
};

/* An answer that is known at once and only has to wait for the loop. */
struct prompt {
	struct reply reply;
};

static struct rpc_answer
internal_ping(struct internal *in, const struct request *req)
{
	const json_t *own = directory_get(in->dir, in->conf->name);
	char now[CLOCK_RFC3339_MAX];

	clock_rfc3339(clock_wall_utc_ns(), now);
	return rpc_ok(json_pack("{s:s, s:s, s:O, s:O?}", "version", PACKAGE_VERSION, "timestamp", now, "params",
	    req->params, "serverInfo", own));
}

/* Does it pass the filters? An absent filter passes all. */
static bool
entry_passes(const json_t *entry, const json_t *params)
{
	const char *group = json_str(params, "group");
	const char *wanted = json_str(params, "operator");
	const char *name = json_str(entry, "name");
	const json_t *channels = json_object_get(params, "channels");
	const json_t *type;
	size_t i;

	if (group && *group && !entry_in_group(entry, group))
		return false;
	if (wanted && *wanted && (!name || strcmp(name, wanted) != 0))
		return false;
	json_array_foreach (channels, i, type)
		if (entry_has_channel(entry, json_string_value(type)))
			return true;
	return json_array_size(channels) == 0;
}

static bool
is_given(const json_t *params, const char *key)
{
	const json_t *v = json_object_get(params, key);

	return v && !json_is_null(v);
}

static struct rpc_answer
directory_form(const json_t *params)
{
	const json_t *channels = json_object_get(params, "channels");
	const json_t *item;
	json_t *form = NULL;
	size_t i;

	if (is_given(params, "group") && !json_str(params, "group"))
		rpc_form_fault(&form, "group", "expected a string");
	if (is_given(params, "operator") && !json_str(params, "operator"))
		rpc_form_fault(&form, "operator", "expected a string");
	if (is_given(params, "channels") && !json_is_array(channels))
		rpc_form_fault(&form, "channels", "expected a list of strings");
	json_array_foreach (channels, i, item) {
		if (json_is_string(item))
			continue;
		rpc_form_fault(&form, "channels", "expected a list of strings");
		break;
	}
	return form ? rpc_form_answer(form) : rpc_ok(NULL);
}

static struct rpc_answer
internal_directory(struct internal *in, const struct request *req)
{
	struct rpc_answer answer = directory_form(req->params);
	json_t *entries = json_array();
	json_t *all = (json_t *)directory_all(in->dir); /* jansson's loops take no const */
	const char *name;
	json_t *entry;

	if (answer.code || !entries) {
		json_decref(entries);
		return answer.code ? answer : rpc_fail(RPC_INTERNAL, NULL, "internal error");
	}
	json_object_foreach (all, name, entry)
		if (entry_passes(entry, req->params) && json_array_append(entries, entry) < 0)
			break;
	return rpc_ok(json_pack("{s:o}", "entries", entries));
}

json_t *
internal_connections_list(const struct internal *in)
{
	json_t *list = json_array();

	for (unsigned i = 0; i < in->n_listers && list; i++)
		in->lister[i].list(in->lister[i].arg, list);
	return list;
}

static struct rpc_answer
internal_connections(struct internal *in, const struct request *req)
{
	if (strcmp(req->client, in->conf->name) != 0)
		return rpc_fail_step(RPC_DENIED, END_DENIED, STEP_NONE, NULL, 0,
		    "Permission denied for method '%s' and client '%s'", req->addr.method, req->client);
	return rpc_ok(json_pack("{s:o}", "connections", internal_connections_list(in)));
}

static const struct {
	const char *method;
	struct rpc_answer (*serve)(
	    struct internal *, const struct request *); /* NULL: _connectionRequest, which takes its time */
} internal_tab[] = {
	{ "_ping", internal_ping },
	{ "_directory", internal_directory },
	{ "_connections", internal_connections },
	{ "_connectionRequest", NULL },
};

static int
internal_index(const char *method)
{
	for (size_t i = 0; i < ARRAY_LEN(internal_tab); i++)
		if (strcmp(internal_tab[i].method, method) == 0)
			return (int)i;
	return -1;
}

static bool
internal_can_deliver(void *arg, const struct request *req)
{
	const struct internal *in = arg;

	return strcmp(req->addr.operator, in->conf->name) == 0 && internal_index(req->addr.method) >= 0;
}

static void
prompt_on_deadline(void *owner)
{
	struct prompt *p = owner;

	reply_give(&p->reply, rpc_fail(RPC_DEADLINE, NULL, "deadline"), true);
}

static void
prompt_on_done(void *owner)
{
	free(owner);
}

static const struct reply_ops prompt_ops = { prompt_on_deadline, prompt_on_done };

/* Answers from the loop. 0 or -ENOMEM; `answer` is given in either case. */
static int
prompt_answer(
    struct internal *in, const struct request *req, struct rpc_answer answer, bool failed, deliver_cb cb, void *arg)
{
	struct prompt *p = calloc(1, sizeof(*p));

	if (!p || reply_init(&p->reply, in->base, req->deadline_ms, &prompt_ops, p, cb, arg) < 0) {
		free(p);
		rpc_answer_fini(&answer);
		return -ENOMEM;
	}
	reply_give(&p->reply, answer, failed);
	return 0;
}

static int
internal_deliver(void *arg, const struct request *req, deliver_cb cb, void *cb_arg)
{
	struct internal *in = arg;
	int i = internal_index(req->addr.method);

	BUG_ON(i < 0);
	if (internal_tab[i].serve)
		return prompt_answer(in, req, internal_tab[i].serve(in, req), false, cb, cb_arg);
	if (in->accept)
		return in->accept(in->accept_arg, req, cb, cb_arg);
	return prompt_answer(in, req,
	    rpc_fail_step(RPC_BROKER, END_REFUSED, STEP_CONFIRMED, NULL, 0, "no channel accepted the request"), true,
	    cb, cb_arg);
}

const struct channel_ops internal_ops = { "internal", internal_can_deliver, internal_deliver };

struct internal *
internal_new(struct event_base *base, const struct conf_hyper *conf, struct directory *dir)
{
	struct internal *in = calloc(1, sizeof(*in));

	if (!in)
		return NULL;
	in->base = base;
	in->conf = conf;
	in->dir = dir;
	return in;
}

void
internal_free(struct internal *in)
{
	free(in);
}

void
internal_apply(struct internal *in, const struct conf_hyper *conf)
{
	in->conf = conf;
}

void
internal_set_accept(struct internal *in, internal_accept fn, void *arg)
{
	in->accept = fn;
	in->accept_arg = arg;
}

void
internal_add_lister(struct internal *in, internal_list list, void *arg)
{
	BUG_ON(in->n_listers == INTERNAL_MAX_LISTERS);
	in->lister[in->n_listers].list = list;
	in->lister[in->n_listers++].arg = arg;
}

void
connection_line_append(json_t *array, const struct connection_line *line)
{
	json_t *object = json_pack("{s:s, s:s, s:s, s:s, s:I, s:I}", "operator", line->name, "kind", line->kind, "via",
	    line->via ? line->via : "", "session", line->session ? line->session : "", "age_ms",
	    (json_int_t)(clock_now_ms() - line->since_ms), "calls", (json_int_t)line->calls);

	if (object && line->timeline)
		json_object_set(object, "timeline", line->timeline);
	if (object)
		json_array_append_new(array, object);
}
