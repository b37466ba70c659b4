/* state.c - the master's state as bytes, for its successor in the same process
 *
 * Always true:
 *  1. state_unpack() gives back what state_pack() was given, or says what is wrong;
 *     it never gives a part.
 *  2. Every number is in its range and every text has its length before anything
 *     is made of it; each descriptor is named once.
 *  3. What is packed can be unpacked: more than that is refused before.
 *
 * Not here: what the descriptors are (upgrade.c looks at them), when all this happens.
 */
#include "proxy/master/state.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hyper/base/attr.h"
#include "hyper/base/bytes.h"
#include "hyper/wire/mpjson.h"

#define WHAT         "hyper proxy state"
#define FD_MIN       3
#define HASH_HEX     64
#define NAME_LEN_MAX 1024
#define SESSION_COLS (10 + BROKER_STEP_MAX)
#define PAIR_COLS    16
#define SEEN_FLAGS   (RELAY_EOF_AB | RELAY_EOF_BA | RELAY_BROKEN_A | RELAY_BROKEN_B)
#define PID_LIMIT    4194304 /* PID_MAX_LIMIT of the kernel */

/* --- packing --- */

static int
add(json_t *to, json_t *value)
{
	return json_array_append_new(to, value);
}

static json_t *
listener_row(const struct listeners_named *v)
{
	json_t *row = json_pack("[s, i]", v->hostport, (int)v->l.port);
	size_t i;

	for (i = 0; row && i < v->l.n; i++)
		if (add(row, json_integer(v->l.fd[i])) < 0) {
			json_decref(row);
			row = NULL;
		}
	return row;
}

static json_t *
session_row(const struct session_saved *v)
{
	char hex[HASH_HEX + 1];
	json_t *row;
	int i, rc = 0;

	hex_encode(v->hash, sizeof(v->hash), hex);
	row = json_pack("[s, s, s, s, s, i, i, I, I, I]", v->id, v->from, v->to, v->channel, hex, v->parked_fd,
	    (int)v->first_worker, (json_int_t)v->issued_ns, (json_int_t)v->deadline_ns, (json_int_t)v->asked_ns);
	for (i = 0; row && rc == 0 && i < BROKER_STEP_MAX; i++)
		rc = add(row, json_integer(v->step_ns[i]));
	if (rc == 0)
		return row;
	json_decref(row);
	return NULL;
}

static json_t *
pair_row(const struct state_pair *v)
{
	const struct pair *p = &v->as;

	return json_pack("[I, s, s, s, I, i, I, I, i, i, i, i, i, b, i, I]", (json_int_t)p->id, p->session, v->from,
	    v->to, (json_int_t)p->since_ms, (int)p->last_worker, (json_int_t)p->bytes[0], (json_int_t)p->bytes[1],
	    (int)p->flags, p->fd[0], p->fd[1], p->pipe_fd[0], p->pipe_fd[1], (int)p->suspect, (int)p->crashes,
	    (json_int_t)p->crash_s);
}

/* Values of all but the notes; a row counts as one too, listeners and the rest are few. */
static size_t
count_values(const struct state *s)
{
	return s->n_sessions * (SESSION_COLS + 1) + s->n_pairs * (PAIR_COLS + 1) + s->n_left +
	       json_object_size(s->counters) + 512;
}

/* They are not worth an upgrade. */
static bool
notes_fit(const struct state *s)
{
	size_t cols = json_array_size(json_array_get(s->notes, 0));

	return count_values(s) + json_array_size(s->notes) * (cols + 1) <= MPJSON_VALUES_MAX;
}

static json_t *
to_json(const struct state *s)
{
	json_t *l = json_array(), *se = json_array(), *p = json_array(), *left = json_array(), *root = NULL;
	int rc = l && se && p && left ? 0 : -1;
	size_t i;

	for (i = 0; rc == 0 && i < s->n_listeners; i++)
		rc = add(l, listener_row(&s->listeners[i]));
	for (i = 0; rc == 0 && i < s->n_sessions; i++)
		rc = add(se, session_row(&s->sessions[i]));
	for (i = 0; rc == 0 && i < s->n_pairs; i++)
		rc = add(p, pair_row(&s->pairs[i]));
	for (i = 0; rc == 0 && i < s->n_left; i++)
		rc = add(left, json_integer(s->left[i]));
	if (rc == 0)
		root = json_pack("{s:s, s:i, s:I, s:I, s:I, s:O, s:O, s:O, s:O, s:O?, s:O?}", "what", WHAT, "version",
		    STATE_VERSION, "began_ms", (json_int_t)s->began_ms, "last_pair", (json_int_t)s->last_pair,
		    "upgrades", (json_int_t)s->upgrades, "listeners", l, "sessions", se, "pairs", p, "left", left,
		    "counters", s->counters, "notes", notes_fit(s) ? s->notes : NULL);
	json_decref(l);
	json_decref(se);
	json_decref(p);
	json_decref(left);
	return root;
}

int
state_pack(const struct state *s, uint8_t **ret, size_t *ret_len)
{
	json_t *root;
	int rc;

	if (count_values(s) > MPJSON_VALUES_MAX)
		return -EMSGSIZE;
	root = to_json(s);
	if (!root)
		return -ENOMEM;
	rc = mpjson_pack(root, ret, ret_len);
	json_decref(root);
	return rc;
}

/* --- unpacking --- */

struct reader {
	const json_t *row;
	size_t at;
	bool is_wrong;
};

static int64_t
get_int(struct reader *r, int64_t min, int64_t max)
{
	const json_t *v = json_array_get(r->row, r->at++);
	int64_t n = json_integer_value(v);

	if (json_is_integer(v) && n >= min && n <= max)
		return n;
	r->is_wrong = true;
	return min;
}

static bool
get_bool(struct reader *r)
{
	const json_t *v = json_array_get(r->row, r->at++);

	r->is_wrong |= !json_is_boolean(v);
	return json_is_true(v);
}

/* Borrowed from the row. */
static const char *
get_text(struct reader *r, size_t min, size_t max)
{
	const json_t *v = json_array_get(r->row, r->at++);
	const char *s = json_string_value(v);
	size_t len = json_string_length(v);

	if (s && len >= min && len <= max && strlen(s) == len)
		return s;
	r->is_wrong = true;
	return "";
}

static int
get_fd(struct reader *r, bool may_be_none)
{
	int64_t fd = get_int(r, -1, INT_MAX);

	r->is_wrong |= fd < FD_MIN && !(fd == -1 && may_be_none);
	return (int)fd;
}

static bool
read_listener(const json_t *row, struct listeners_named *ret)
{
	struct reader r = { .row = row };
	size_t i, n = json_array_size(row);

	if (n < 3 || n > 2 + LISTEN_MAX)
		return false;
	snprintf(ret->hostport, sizeof(ret->hostport), "%s", get_text(&r, 1, sizeof(ret->hostport) - 1));
	ret->l.port = (uint16_t)get_int(&r, 1, UINT16_MAX);
	ret->l.n = n - 2;
	for (i = 0; i < ret->l.n; i++)
		ret->l.fd[i] = get_fd(&r, false);
	return !r.is_wrong;
}

static bool
read_session(const json_t *row, struct session_saved *ret)
{
	struct reader r = { .row = row };
	int i;

	if (json_array_size(row) != SESSION_COLS)
		return false;
	snprintf(ret->id, sizeof(ret->id), "%s", get_text(&r, SESSION_ID_MAX - 1, SESSION_ID_MAX - 1));
	ret->from = get_text(&r, 0, NAME_LEN_MAX);
	ret->to = get_text(&r, 0, NAME_LEN_MAX);
	snprintf(ret->channel, sizeof(ret->channel), "%s", get_text(&r, 0, sizeof(ret->channel) - 1));
	r.is_wrong |= hex_decode(get_text(&r, HASH_HEX, HASH_HEX), ret->hash, sizeof(ret->hash)) != 0;
	ret->parked_fd = get_fd(&r, true);
	ret->first_worker = (unsigned)get_int(&r, 0, UINT16_MAX);
	ret->issued_ns = get_int(&r, 0, INT64_MAX);
	ret->deadline_ns = get_int(&r, 0, INT64_MAX);
	ret->asked_ns = get_int(&r, 0, INT64_MAX);
	for (i = 0; i < BROKER_STEP_MAX; i++)
		ret->step_ns[i] = get_int(&r, -1, INT64_MAX);
	return !r.is_wrong;
}

static bool
read_pair(const json_t *row, struct state_pair *ret)
{
	struct reader r = { .row = row };
	struct pair *p = &ret->as;

	if (json_array_size(row) != PAIR_COLS)
		return false;
	p->id = (uint64_t)get_int(&r, 1, INT64_MAX);
	snprintf(p->session, sizeof(p->session), "%s", get_text(&r, SESSION_ID_MAX - 1, SESSION_ID_MAX - 1));
	ret->from = get_text(&r, 0, NAME_LEN_MAX);
	ret->to = get_text(&r, 0, NAME_LEN_MAX);
	p->since_ms = get_int(&r, 0, INT64_MAX);
	p->last_worker = (uint16_t)get_int(&r, 0, UINT16_MAX);
	p->bytes[0] = (uint64_t)get_int(&r, 0, INT64_MAX);
	p->bytes[1] = (uint64_t)get_int(&r, 0, INT64_MAX);
	p->flags = (uint32_t)get_int(&r, 0, SEEN_FLAGS);
	r.is_wrong |= (p->flags & ~(uint32_t)SEEN_FLAGS) != 0;
	p->fd[0] = get_fd(&r, false);
	p->fd[1] = get_fd(&r, false);
	p->pipe_fd[0] = get_fd(&r, true);
	p->pipe_fd[1] = get_fd(&r, true);
	p->suspect = get_bool(&r);
	p->crashes = (uint8_t)get_int(&r, 0, UINT8_MAX);
	p->crash_s = (uint32_t)get_int(&r, 0, UINT32_MAX);
	return !r.is_wrong;
}

static bool
read_left(const json_t *v, pid_t *ret)
{
	int64_t pid = json_integer_value(v);

	*ret = (pid_t)pid;
	return json_is_integer(v) && pid > 1 && pid <= PID_LIMIT;
}

/* An array of the root; its length. calloc(0) may be NULL, so one more than needed. -1: not there, or out of memory. */
static ssize_t
open_rows(const json_t *root, const char *key, size_t size, void **ret, const json_t **ret_rows)
{
	const json_t *rows = json_object_get(root, key);

	if (!json_is_array(rows))
		return -1;
	*ret_rows = rows;
	*ret = calloc(json_array_size(rows) + 1, size);
	return *ret ? (ssize_t)json_array_size(rows) : -1;
}

/* The name of what is wrong, NULL: nothing. */
static const char *
read_rows(struct state *s)
{
	const json_t *rows;
	void *mem;
	ssize_t n;

#define ROWS(key, count, array, max, read)                                      \
	n = open_rows(s->root, key, sizeof(s->array[0]), &mem, &rows);          \
	if (n < 0)                                                              \
		return key;                                                     \
	s->array = mem;                                                         \
	if ((size_t)n > (max))                                                  \
		return key;                                                     \
	for (s->count = 0; s->count < (size_t)n; s->count++)                    \
		if (!read(json_array_get(rows, s->count), &s->array[s->count])) \
			return key;
	ROWS("listeners", n_listeners, listeners, LISTEN_SETS_MAX, read_listener)
	ROWS("sessions", n_sessions, sessions, MPJSON_VALUES_MAX, read_session)
	ROWS("pairs", n_pairs, pairs, MPJSON_VALUES_MAX, read_pair)
	ROWS("left", n_left, left, MPJSON_VALUES_MAX, read_left)
#undef ROWS
	return NULL;
}

void
state_each_fd(const struct state *s, void (*each)(int fd, void *arg), void *arg)
{
	size_t i, k;

	for (i = 0; i < s->n_listeners; i++)
		for (k = 0; k < s->listeners[i].l.n; k++)
			each(s->listeners[i].l.fd[k], arg);
	for (i = 0; i < s->n_sessions; i++)
		if (s->sessions[i].parked_fd >= 0)
			each(s->sessions[i].parked_fd, arg);
	for (i = 0; i < s->n_pairs; i++)
		for (k = 0; k < 2; k++) {
			each(s->pairs[i].as.fd[k], arg);
			if (s->pairs[i].as.pipe_fd[k] >= 0)
				each(s->pairs[i].as.pipe_fd[k], arg);
		}
}

struct fd_list {
	int *v;
	size_t n;
};

static void
add_fd(int fd, void *arg)
{
	struct fd_list *l = arg;

	l->v[l->n++] = fd;
}

static int
by_number(const void *a, const void *b)
{
	int x = *(const int *)a, y = *(const int *)b;

	return (x > y) - (x < y);
}

/* Two owners of one descriptor would close it under each other's feet. 0, -EPROTO, -ENOMEM. */
static int
check_once(const struct state *s)
{
	size_t i, most = s->n_listeners * LISTEN_MAX + s->n_sessions + s->n_pairs * 4 + 1;
	struct fd_list l = { .v = calloc(most, sizeof(*l.v)) };
	int rc = 0;

	if (!l.v)
		return -ENOMEM;
	state_each_fd(s, add_fd, &l);
	qsort(l.v, l.n, sizeof(*l.v), by_number);
	for (i = 1; i < l.n; i++)
		if (l.v[i] == l.v[i - 1])
			rc = -EPROTO;
	free(l.v);
	return rc;
}

static bool
get_count(const json_t *root, const char *key, int64_t *ret)
{
	const json_t *v = json_object_get(root, key);

	*ret = json_integer_value(v);
	return json_is_integer(v) && *ret >= 0;
}

/* Names are for who reads them: one that is unknown there is passed over, as another version may count other things. */
static bool
read_counters(struct state *s)
{
	json_t *counters = json_object_get(s->root, "counters"), *v;
	const char *key;

	json_object_foreach (counters, key, v)
		if (!json_is_integer(v) || json_integer_value(v) < 0)
			return false;
	s->counters = counters;
	return !counters || json_is_object(counters);
}

static int
read_root(struct state *s, char err[STATE_ERR_MAX])
{
	const char *what = json_string_value(json_object_get(s->root, "what")), *wrong;
	int64_t version, last_pair, upgrades;
	int rc;

	if (!what || strcmp(what, WHAT) != 0 || !get_count(s->root, "version", &version)) {
		snprintf(err, STATE_ERR_MAX, "it is no state of a proxy");
		return -EPROTO;
	}
	if (version != STATE_VERSION) {
		snprintf(err, STATE_ERR_MAX, "it has version %" PRId64 ", this program reads version %d", version,
		    STATE_VERSION);
		return -EPROTO;
	}
	wrong = !get_count(s->root, "began_ms", &s->began_ms)  ? "began_ms"
		: !get_count(s->root, "last_pair", &last_pair) ? "last_pair"
		: !get_count(s->root, "upgrades", &upgrades)   ? "upgrades"
		: !read_counters(s)                            ? "counters"
							       : read_rows(s);
	if (wrong) {
		snprintf(err, STATE_ERR_MAX, "its %s are damaged", wrong);
		return -EPROTO;
	}
	s->notes = json_object_get(s->root, "notes");
	s->last_pair = (uint64_t)last_pair;
	s->upgrades = (uint64_t)upgrades;
	rc = check_once(s);
	if (rc < 0)
		snprintf(err, STATE_ERR_MAX, rc == -EPROTO ? "a descriptor is in it twice" : "out of memory");
	return rc;
}

int
state_unpack(const uint8_t *data, size_t len, struct state *ret, char err[STATE_ERR_MAX])
{
	struct state s = { 0 };
	int rc = mpjson_unpack(data, len, &s.root);

	if (rc < 0) {
		snprintf(err, STATE_ERR_MAX, rc == -ENOMEM ? "out of memory" : "its bytes are no msgpack");
		return rc;
	}
	rc = read_root(&s, err);
	if (rc < 0) {
		state_fini(&s);
		return rc;
	}
	*ret = s;
	return 0;
}

void
state_fini(struct state *s)
{
	free(s->listeners);
	free(s->sessions);
	free(s->pairs);
	free(s->left);
	json_decref(s->root);
	*s = (struct state){ 0 };
}
