/* test_directory.c - a client goes only forward: extensions and later roots are taken, all else is refused and forgotten by nobody */
#include "hyper/directory/directory.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <event2/event.h>

#include "authority.h"
#include "hyper/base/clock.h"
#include "hyper/base/log.h"
#include "hyper/net/rpcserver.h"
#include "hyper/wire/json.h"
#include "unit_tmp.h"

/* An sd that serves whatever list it is given, and what a client of it needs. */
struct world {
	struct event_base *base;
	struct authority ca;
	EVP_PKEY *key;
	char *pem;
	/* sd */
	struct conf_rpc_server server_conf;
	struct rpc_server *server;
	char bind[64];
	json_t *served;     /* list of signed records */
	json_t *after_page; /* when set: replaces `served` after the next page */
	const char *says;   /* when set: the raw result instead */
	size_t page;        /* records in one answer */
	unsigned asked;
	int64_t asked_since_ms; /* when `asked` was set to 0 */
	char after[80];         /* of the last request */
	/* client */
	struct conf_rpc_client rpc;
	struct conf_directory conf;
	char url[96], store[UNIT_TMP_MAX + 8];
	char *roots[1], *urls[1];
	struct directory *dir;
	unsigned changes, answers;
	enum directory_state state;
};

static size_t
index_after(const json_t *list, const char *hash)
{
	const json_t *record;
	size_t i;

	json_array_foreach (list, i, record) {
		if (strcmp(json_str(record, "hash"), hash) == 0)
			return i + 1;
	}
	return 0;
}

static void
on_call(struct rpc_call *call, void *arg)
{
	const char *after = json_str(rpc_call_request(call)->params, "after");
	struct world *w = arg;
	json_t *page;
	size_t i;

	assert_string_equal(rpc_call_request(call)->method, "getRecords");
	assert_non_null(after);
	w->asked++;
	snprintf(w->after, sizeof w->after, "%s", after);
	if (w->says) {
		rpc_call_answer(call, rpc_ok(json_loads(w->says, JSON_DECODE_ANY, NULL)));
		return;
	}
	page = json_array();
	for (i = index_after(w->served, after); i < json_array_size(w->served) && json_array_size(page) < w->page; i++)
		json_array_append(page, json_array_get(w->served, i));
	rpc_call_answer(call, rpc_ok(page));
	if (w->after_page) {
		json_decref(w->served);
		w->served = w->after_page;
		w->after_page = NULL;
	}
}

static void
sd_start(struct world *w)
{
	char err[RPC_SERVER_ERR_MAX];

	if (rpc_server_new(w->base, &w->server_conf, NULL, on_call, w, &w->server, err) < 0)
		fail_msg("%s", err);
	/* the second time on the same port */
	snprintf(w->bind, sizeof w->bind, "127.0.0.1:%u", rpc_server_port(w->server));
	snprintf(w->url, sizeof w->url, "http://%s/jsonrpc", w->bind);
}

static void
sd_stop(struct world *w)
{
	rpc_server_free(w->server);
	w->server = NULL;
}

static void
on_change(void *arg)
{
	struct world *w = arg;

	w->changes++;
}

static void
on_answer(enum directory_state state, void *arg)
{
	struct world *w = arg;

	w->answers++;
	w->state = state;
}

static void
dir_open(struct world *w)
{
	char err[DIRECTORY_ERR_MAX];

	if (directory_new(w->base, &w->conf, &w->dir, err) < 0)
		fail_msg("%s", err);
	directory_on_change(w->dir, on_change, w);
}

static void
dir_close(struct world *w)
{
	directory_free(w->dir);
	w->dir = NULL;
}

/* Runs the loop until `w->answers` has grown by one. */
static enum directory_state
wait_answer(struct world *w, unsigned before)
{
	int64_t end = clock_now_ms() + 20000;
	const struct timeval tick = { 0, 20000 };

	while (w->answers == before) {
		event_base_loopexit(w->base, &tick);
		event_base_dispatch(w->base);
		if (clock_now_ms() > end)
			fail_msg("no answer");
	}
	return w->state;
}

static enum directory_state
fresh(struct world *w)
{
	unsigned before = w->answers;

	directory_fresh(w->dir, on_answer, w);
	assert_int_equal(w->answers, before);
	return wait_answer(w, before);
}

/* A look that the directory took by itself has ended: the next one sees all of what is served from
 * now on. */
static void
settle(struct world *w)
{
	unsigned before = w->answers;

	if (!w->dir)
		return;
	directory_refresh(w->dir, on_answer, w);
	wait_answer(w, before);
}

/* A forced refresh that is really sent: tries until sd was asked. */
static enum directory_state
refresh(struct world *w)
{
	unsigned asked = w->asked, before;
	int64_t end = clock_now_ms() + 20000;

	do {
		before = w->answers;
		directory_refresh(w->dir, on_answer, w);
		wait_answer(w, before);
	} while (w->asked == asked && clock_now_ms() < end);
	assert_true(w->asked > asked);
	settle(w); /* whoever asked may not have heard yet */
	return w->state;
}

static json_t *
make_chain(struct world *w, int64_t root_utc_s, const char *const *groups, size_t n)
{
	json_t *list = json_array(), *record;
	const char *parent = "";
	size_t i;

	for (i = 0; i < n; i++) {
		record = signed_record(
		    parent, "groups", "op-1", json_pack("[s]", groups[i]), root_utc_s + (int64_t)i, w->key, w->pem);
		json_array_append_new(list, record);
		parent = json_str(record, "hash");
	}
	return list;
}

static void
serve(struct world *w, json_t *list)
{
	settle(w);
	json_decref(w->served);
	w->served = json_deep_copy(list);
}

static const char *
group_now(struct world *w)
{
	return json_string_value(json_array_get(json_object_get(directory_get(w->dir, "op-1"), "groups"), 0));
}

static void
world_init(struct world *w)
{
	X509 *cert;

	*w = (struct world){ .page = 100,
		.server_conf = { .path = (char *)"/jsonrpc", .max_connections = 16, .request_timeout_ms = 5000 } };
	log_open("test", LOG_LVL_BUG);
	w->base = event_base_new();
	authority_init(&w->ca);
	w->key = EVP_EC_gen("P-256");
	cert = issue(&w->ca, ADMIN, "digitalSignature", NULL, w->key, 5000, 90000);
	w->pem = pem_of(cert);
	X509_free(cert);
	snprintf(w->bind, sizeof w->bind, "127.0.0.1:0");
	w->server_conf.bind_address = w->bind;
	w->served = json_array();
	sd_start(w);
	snprintf(w->store, sizeof w->store, "%s.chain", w->ca.path);
	w->roots[0] = w->ca.path;
	w->urls[0] = w->url;
	w->conf = (struct conf_directory){ .type = CONF_DIRECTORY_API,
		.endpoints = { w->urls, 1 },
		.cache_entries_for_ms = 5000,
		.max_stale_ms = 86400000,
		.rpc_client = &w->rpc,
		.ca_certificate_files = { w->roots, 1 },
		.store = w->store };
}

static void
world_fini(struct world *w)
{
	dir_close(w);
	sd_stop(w);
	json_decref(w->served);
	event_base_free(w->base);
	free(w->pem);
	EVP_PKEY_free(w->key);
	unlink(w->store);
	authority_fini(&w->ca);
}

static const char *const abc[] = { "a", "b", "c", "d", "e", "f", "g" };

/* From now on sd's questions are counted. */
static void
count_asked(struct world *w)
{
	w->asked = 0;
	w->asked_since_ms = clock_now_ms();
}

/* Was sd asked `n` times? After a change the directory also looks by itself, once a second or less. */
static bool
was_asked(const struct world *w, unsigned n)
{
	unsigned spare = (unsigned)((clock_now_ms() - w->asked_since_ms) / 1000);

	return w->asked >= n && w->asked <= n + spare;
}

static void
test_refresh_and_extend(void **state)
{
	struct world w;
	json_t *seven;

	(void)state;
	world_init(&w);
	seven = make_chain(&w, 6000, abc, 7);
	serve(&w, seven);
	while (json_array_size(w.served) > 3)
		json_array_remove(w.served, 3);
	w.page = 2;
	count_asked(&w);
	dir_open(&w);
	assert_int_equal(directory_state(w.dir), DIRECTORY_EMPTY);
	assert_null(directory_get(w.dir, "op-1"));
	assert_int_equal(fresh(&w), DIRECTORY_FRESH);
	assert_string_equal(group_now(&w), "c");
	assert_int_equal(w.changes, 1);
	assert_true(was_asked(&w, 3)); /* two pages and the empty one */

	/* fresh: answered from the cache, nobody is asked */
	assert_int_equal(fresh(&w), DIRECTORY_FRESH);
	assert_true(was_asked(&w, 3));

	serve(&w, seven);
	count_asked(&w);
	assert_int_equal(refresh(&w), DIRECTORY_FRESH);
	assert_string_equal(group_now(&w), "g");
	assert_string_equal(w.after, json_str(json_array_get(seven, 6), "hash"));
	assert_true(was_asked(&w, 3));
	assert_int_equal(w.changes, 2);

	/* nothing new: asked once, nothing changes */
	count_asked(&w);
	refresh(&w);
	assert_true(was_asked(&w, 1));
	assert_int_equal(w.changes, 2);
	json_decref(seven);
	world_fini(&w);
}

/* What an sd may serve to a client that has accepted the chain a, b, c of root time 6000. */
enum offer { PREFIX, FORK, OLDER_ROOT, EQUAL_ROOT, LATER_ROOT, EXTENSION, BAD_EXTENSION, EMPTIED, NO_LIST, NO_RECORDS };

static const struct {
	enum offer offer;
	const char *name, *group_after; /* of op-1 */
} offers[] = {
	{ PREFIX, "prefix", "c" },
	{ FORK, "fork", "c" },
	{ OLDER_ROOT, "older root", "c" },
	{ EQUAL_ROOT, "root of the same time", "c" },
	{ BAD_EXTENSION, "extension with a bad record at its end", "c" },
	{ EMPTIED, "nothing", "c" },
	{ NO_LIST, "no list", "c" },
	{ NO_RECORDS, "a list of something else", "c" },
	{ EXTENSION, "extension", "e" },
	{ LATER_ROOT, "later root", "z" },
};

static void
set_offer(struct world *w, enum offer offer, json_t *chain)
{
	static const char *const forked[] = { "a", "b", "x", "y" }, *const other[] = { "z" };
	json_t *list = NULL;

	settle(w);
	w->says = NULL;
	switch (offer) {
	case PREFIX:
		list = json_deep_copy(chain);
		while (json_array_size(list) > 2)
			json_array_remove(list, 2);
		break;
	case FORK:
		/* ECDSA signatures differ each time, hashes do not: the same root and second record */
		list = make_chain(w, 6000, forked, 4);
		break;
	case OLDER_ROOT: list = make_chain(w, 5500, other, 1); break;
	case EQUAL_ROOT: list = make_chain(w, 6000, other, 1); break;
	case LATER_ROOT: list = make_chain(w, 7000, other, 1); break;
	case EXTENSION:
	case BAD_EXTENSION:
		list = json_deep_copy(chain);
		while (json_array_size(list) > 5)
			json_array_remove(list, 5);
		if (offer == BAD_EXTENSION)
			json_object_set_new(
			    json_object_get(json_array_get(list, 4), "signature"), "r", json_string("12345678901"));
		break;
	case EMPTIED: list = json_array(); break;
	case NO_LIST: w->says = "{\"a\":1}"; return;
	case NO_RECORDS: w->says = "[1,null,\"x\"]"; return;
	}
	json_decref(w->served);
	w->served = list;
}

static void
test_rollback_rules(void **state)
{
	struct world w;
	json_t *seven, *three;
	size_t i;
	int restart;

	(void)state;
	for (restart = 0; restart < 2; restart++) {
		world_init(&w);
		seven = make_chain(&w, 6000, abc, 7);
		three = json_deep_copy(seven);
		while (json_array_size(three) > 3)
			json_array_remove(three, 3);
		serve(&w, three);
		dir_open(&w);
		assert_int_equal(fresh(&w), DIRECTORY_FRESH);
		for (i = 0; i < ARRAY_LEN(offers); i++) {
			set_offer(&w, offers[i].offer, seven);
			if (restart) {
				/* what was accepted is remembered by the next process too */
				dir_close(&w);
				dir_open(&w);
				assert_non_null(directory_get(w.dir, "op-1"));
				fresh(&w);
			} else
				refresh(&w);
			if (strcmp(group_now(&w), offers[i].group_after) != 0)
				fail_msg("%s%s: %s", offers[i].name, restart ? " after a restart" : "", group_now(&w));
		}
		/* the older, longer chain is now a rollback */
		serve(&w, seven);
		refresh(&w);
		assert_string_equal(group_now(&w), "z");
		json_decref(seven);
		json_decref(three);
		world_fini(&w);
	}
}

/* sd is reset between two pages: what is accepted is the new chain, never a mixture. */
static void
test_reset_between_pages(void **state)
{
	struct world w;
	static const char *const other[] = { "x", "y", "z" };
	json_t *seven;

	(void)state;
	world_init(&w);
	seven = make_chain(&w, 6000, abc, 7);
	serve(&w, seven);
	w.page = 2;
	w.after_page = make_chain(&w, 7000, other, 3);
	dir_open(&w);
	fresh(&w);
	assert_string_equal(group_now(&w), "z");
	assert_int_equal(json_array_size(json_object_get(directory_get(w.dir, "op-1"), "records")), 3);
	/* and from an accepted chain on */
	w.after_page = NULL;
	serve(&w, seven);
	refresh(&w);
	assert_string_equal(group_now(&w), "z");
	json_decref(seven);
	world_fini(&w);
}

static void
test_sd_is_away(void **state)
{
	struct world w;
	int64_t start;
	int i;

	(void)state;
	world_init(&w);
	json_decref(w.served);
	w.served = make_chain(&w, 6000, abc, 2);
	sd_stop(&w);
	dir_open(&w);
	/* the first one waits for the try to fail, the others do not wait at all */
	assert_int_equal(fresh(&w), DIRECTORY_EMPTY);
	start = clock_now_ms();
	for (i = 0; i < 20; i++)
		assert_int_equal(fresh(&w), DIRECTORY_EMPTY);
	assert_true(clock_now_ms() - start < 5000);
	/* it comes: found without being asked */
	sd_start(&w);
	start = clock_now_ms();
	while (fresh(&w) != DIRECTORY_FRESH)
		assert_true(clock_now_ms() - start < 20000);
	assert_string_equal(group_now(&w), "b");
	/* it goes: answers stay, and a restart still has them */
	sd_stop(&w);
	assert_int_equal(fresh(&w), DIRECTORY_FRESH);
	dir_close(&w);
	dir_open(&w);
	assert_int_equal(directory_state(w.dir), DIRECTORY_OLD);
	assert_string_equal(group_now(&w), "b");
	assert_int_equal(fresh(&w), DIRECTORY_OLD);
	world_fini(&w);
}

static void
test_too_old(void **state)
{
	const struct timespec old[2] = { { .tv_sec = 1000000000 }, { .tv_sec = 1000000000 } };
	struct world w;

	(void)state;
	world_init(&w);
	json_decref(w.served);
	w.served = make_chain(&w, 6000, abc, 2);
	dir_open(&w);
	fresh(&w);
	dir_close(&w);
	sd_stop(&w);
	assert_int_equal(utimensat(AT_FDCWD, w.store, old, 0), 0);
	dir_open(&w);
	assert_int_equal(directory_state(w.dir), DIRECTORY_STALE);
	assert_string_equal(group_now(&w), "b");
	assert_int_equal(fresh(&w), DIRECTORY_STALE);
	world_fini(&w);
}

static void
write_text(const char *path, const char *text)
{
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	fputs(text, f);
	assert_int_equal(fclose(f), 0);
}

/* A damaged file gives what stands before the damage; the next refresh makes it whole. */
static void
test_damaged_store(void **state)
{
	static const char *const damage[] = { "", "garbage\n", "{\"hyper\":\"chain\",\"version\":1}\n{\"x\":", NULL };
	struct world w;
	struct stat st;
	size_t i;

	(void)state;
	for (i = 0; i < ARRAY_LEN(damage); i++) {
		world_init(&w);
		json_decref(w.served);
		w.served = make_chain(&w, 6000, abc, 3);
		dir_open(&w);
		fresh(&w);
		dir_close(&w);
		assert_int_equal(stat(w.store, &st), 0);
		assert_int_equal(st.st_mode & 0777, 0600);
		if (damage[i])
			write_text(w.store, damage[i]);
		else
			assert_int_equal(truncate(w.store, st.st_size - 100), 0); /* torn in the last record */
		dir_open(&w);
		if (!damage[i])
			assert_string_equal(group_now(&w), "b");
		else
			assert_int_equal(directory_state(w.dir), DIRECTORY_EMPTY);
		assert_int_equal(fresh(&w), DIRECTORY_FRESH);
		assert_string_equal(group_now(&w), "c");
		dir_close(&w);
		sd_stop(&w);
		dir_open(&w);
		assert_string_equal(group_now(&w), "c");
		world_fini(&w);
	}
}

/* Another sd may hold what ours would not let in, and write an empty list as null: no reason to have no directory. */
static void
test_other_sd(void **state)
{
	static const struct {
		const char *section, *name, *data;
	} odd[] = {
		{ "services", "op-2", "[{\"name\":\"map\",\"methods\":[{\"name\":\"list\"}]}]" },
		{ "groups", "my op", "[\"a b\",\"*\"]" },
		{ "settings", "op-2", "[{\"settings\":{\"a\":{\"b\":[{\"c\":12345678901234567}]}}}]" },
		{ "groups", "op-1", "[\"b c\"]" },
	};
	const char *first[] = { "a" };
	struct world w;
	json_t *list;
	size_t i;

	(void)state;
	world_init(&w);
	list = make_chain(&w, 6000, first, 1);
	for (i = 0; i < ARRAY_LEN(odd); i++) {
		const char *parent = json_str(json_array_get(list, i), "hash");

		json_array_append_new(list, signed_record(parent, odd[i].section, odd[i].name,
						json_loads(odd[i].data, 0, NULL), 6001 + (int64_t)i, w.key, w.pem));
	}
	serve(&w, list);
	dir_open(&w);
	assert_int_equal(fresh(&w), DIRECTORY_FRESH);
	assert_string_equal(group_now(&w), "b c");
	assert_null(directory_get(w.dir, "my op"));
	assert_non_null(json_object_get(directory_get(w.dir, "op-2"), "settings"));
	w.says = "null";
	assert_int_equal(refresh(&w), DIRECTORY_FRESH);
	assert_string_equal(group_now(&w), "b c");
	dir_close(&w);
	sd_stop(&w);
	dir_open(&w); /* the same from what it kept */
	assert_string_equal(group_now(&w), "b c");
	json_decref(list);
	world_fini(&w);
}

/* Freeing answers whoever waits. */
static void
test_free_while_waiting(void **state)
{
	struct world w;

	(void)state;
	world_init(&w);
	dir_open(&w);
	directory_fresh(w.dir, on_answer, &w);
	directory_refresh(w.dir, on_answer, &w);
	dir_close(&w);
	assert_int_equal(w.answers, 2);
	assert_int_equal(w.state, DIRECTORY_EMPTY);
	world_fini(&w);
	directory_free(NULL);
}

static void
test_json(void **state)
{
	char dir[UNIT_TMP_MAX], one[UNIT_TMP_MAX + 16], two[UNIT_TMP_MAX + 16], err[DIRECTORY_ERR_MAX];
	struct world w;

	(void)state;
	world_init(&w);
	assert_non_null(mkdtemp(unit_tmp(dir, "test_directory")));
	snprintf(one, sizeof one, "%s/001.json", dir);
	snprintf(two, sizeof two, "%s/002.json", dir);
	w.conf = (struct conf_directory){
		.type = CONF_DIRECTORY_JSON, .path = dir, .cache_entries_for_ms = 5000, .max_stale_ms = 86400000
	};
	assert_int_equal(directory_new(w.base, &w.conf, &w.dir, err), -ENOENT);
	assert_non_null(strstr(err, dir));
	write_text(one, "{\"records\": [{\"name\": \"op-1\", \"section\": \"groups\", \"data\": [1]}]}");
	assert_int_equal(directory_new(w.base, &w.conf, &w.dir, err), -EINVAL);
	assert_non_null(strstr(err, "001.json: records[0]: data[0]"));

	write_text(one, "{\"records\": [{\"name\": \"op-1\", \"section\": \"groups\", \"data\": [\"a\"]}]}");
	write_text(
	    two, "{\"records\": [{\"record\": {\"name\": \"op-1\", \"section\": \"groups\", \"data\": [\"b\"]}}]}");
	dir_open(&w);
	assert_int_equal(directory_state(w.dir), DIRECTORY_FRESH);
	assert_string_equal(group_now(&w), "b"); /* name order: the later one wins */
	assert_int_equal(fresh(&w), DIRECTORY_FRESH);
	assert_int_equal(w.changes, 0);
	write_text(two, "{\"records\": [{\"name\": \"op-1\", \"section\": \"groups\", \"data\": [\"longer\"]}]}");
	/* nothing moves under who holds an entry: changes come from the loop */
	directory_fresh(w.dir, on_answer, &w);
	directory_refresh(w.dir, on_answer, &w);
	assert_string_equal(group_now(&w), "b");
	assert_int_equal(w.changes, 0);
	fresh(&w);
	assert_string_equal(group_now(&w), "longer");
	assert_int_equal(w.changes, 1);
	write_text(two, "{\"records\": [");
	fresh(&w);
	assert_string_equal(group_now(&w), "longer");
	unlink(two);
	fresh(&w);
	assert_string_equal(group_now(&w), "a");
	assert_int_equal(w.changes, 2);
	dir_close(&w);
	unlink(one);
	rmdir(dir);
	world_fini(&w);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_refresh_and_extend),
		cmocka_unit_test(test_rollback_rules),
		cmocka_unit_test(test_reset_between_pages),
		cmocka_unit_test(test_sd_is_away),
		cmocka_unit_test(test_too_old),
		cmocka_unit_test(test_damaged_store),
		cmocka_unit_test(test_other_sd),
		cmocka_unit_test(test_free_while_waiting),
		cmocka_unit_test(test_json),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
