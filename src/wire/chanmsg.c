/* chanmsg.c - packs and unpacks the messages between proxy master and worker
 *
 *      datagram = 1 to CHAN_DATAGRAM_MSGS messages
 *      message  = array of n <= CHAN_SCALARS_MAX scalars: fixarray, or array16 where n > 15
 *                 [0] CHAN_VERSION   [1] type   [2] generation   [3..] the type's fields
 *
 * Each type's fields, in their order, are the rows of CHAN_FIELDS and nowhere else; docs/ipc.md repeats them.
 *
 * Always true:
 *  1. msgpack-c sees only a message whose bytes were walked to the last one: a
 *     5-byte array32 would make it reserve 2 GB (faults.md).
 *  2. What one side packs the other unpacks to the same struct; fields that the
 *     type lacks are zero.
 *  3. A number is within the range of its row, so an enum read here is a member.
 *
 * Not here: descriptors (base/fd.h), who may send what and when (src/proxy).
 */
#include "hyper/wire/chanmsg.h"

#include <errno.h>
#include <string.h>

#include <msgpack.h>

#include "hyper/base/bug.h"
#include "hyper/base/log.h"

#define HEAD_FIELDS   3
#define ROOM_BYTES    1024
#define SESSION_CHARS (sizeof(((struct chan_msg *)NULL)->session) - 1)

/* How a field is written: UINT a positive integer, BOOL true or false, BIN32
 * a bin of 32 bytes, WORD a str of at most 12 printable ASCII characters. */
enum field_kind { UINT64, UINT32, UINT8, ENUM, BOOL, BIN32, WORD };

/* X(type, field of struct chan_msg, kind, largest value) in wire order */
#define CHAN_FIELDS(X)                                                   \
	X(READY, pid, UINT32, UINT32_MAX)                                \
	X(SETTINGS, settings.accept_timeout_ms, UINT64, UINT64_MAX)      \
	X(SETTINGS, settings.max_unauthenticated, UINT64, UINT64_MAX)    \
	X(SETTINGS, settings.max_pairs, UINT64, UINT64_MAX)              \
	X(SETTINGS, settings.pipe_size, UINT64, UINT64_MAX)              \
	X(SETTINGS, settings.per_second, UINT64, UINT64_MAX)             \
	X(SETTINGS, settings.per_minute, UINT64, UINT64_MAX)             \
	X(SETTINGS, settings.per_hour, UINT64, UINT64_MAX)               \
	X(SETTINGS, settings.copy_mode, BOOL, 1)                         \
	X(SETTINGS, settings.log_level, UINT8, LOG_LVL_DEBUG)            \
	X(SETTINGS, settings.max_per_source, UINT64, UINT64_MAX)         \
	X(SETTINGS, settings.max_bad_tokens, UINT64, UINT64_MAX)         \
	X(SETTINGS, settings.barred_ms, UINT64, UINT64_MAX)              \
	X(SETTINGS, settings.copy_small, BOOL, 1)                        \
	X(SETTINGS, settings.idle_timeout_ms, UINT64, UINT64_MAX)        \
	X(SETTINGS, settings.half_closed_timeout_ms, UINT64, UINT64_MAX) \
	X(SETTINGS, settings.keepalive_idle_s, UINT32, INT32_MAX)        \
	X(SETTINGS, settings.keepalive_interval_s, UINT32, INT32_MAX)    \
	X(SETTINGS, settings.keepalive_count, UINT32, INT32_MAX)         \
	X(SETTINGS, settings.user_timeout_ms, UINT64, INT32_MAX)         \
	X(SETTINGS, settings.log_format, UINT8, LOG_FORMAT_MAX - 1)      \
	X(SETTINGS, settings.log_ip, UINT8, LOG_IP_MAX - 1)              \
	X(SETTINGS, settings.log_to, UINT8, LOG_TO_MAX - 1)              \
	X(ARRIVED, conn, UINT64, UINT64_MAX)                             \
	X(ARRIVED, token, BIN32, 0)                                      \
	X(PARKED, conn, UINT64, UINT64_MAX)                              \
	X(PAIR, conn, UINT64, UINT64_MAX)                                \
	X(PAIR, pair, UINT64, UINT64_MAX)                                \
	X(PAIR, session, WORD, 0)                                        \
	X(PAIR, asker, UINT64, UINT64_MAX)                               \
	X(PAIR, rate, UINT64, UINT64_MAX)                                \
	X(REFUSED, conn, UINT64, UINT64_MAX)                             \
	X(REFUSED, reason, ENUM, END_REASON_MAX - 1)                     \
	X(PAIRED, pair, UINT64, UINT64_MAX)                              \
	X(ENDED, pair, UINT64, UINT64_MAX)                               \
	X(ENDED, reason, ENUM, END_REASON_MAX - 1)                       \
	X(ENDED, bytes_ab, UINT64, UINT64_MAX)                           \
	X(ENDED, bytes_ba, UINT64, UINT64_MAX)                           \
	X(ENDED, ms, UINT64, UINT64_MAX)                                 \
	X(WANT, n, UINT32, UINT32_MAX)                                   \
	X(FREED, pipe, UINT32, UINT32_MAX)                               \
	X(PIPE, pipe, UINT32, UINT32_MAX)                                \
	X(MOVED, pair, UINT64, UINT64_MAX)                               \
	X(MOVED, flags, UINT32, UINT32_MAX)                              \
	X(MOVED, bytes_ab, UINT64, UINT64_MAX)                           \
	X(MOVED, bytes_ba, UINT64, UINT64_MAX)                           \
	X(MOVED, pipe_ab, UINT32, UINT32_MAX)                            \
	X(MOVED, pipe_ba, UINT32, UINT32_MAX)                            \
	X(ADOPT, pair, UINT64, UINT64_MAX)                               \
	X(ADOPT, part, UINT8, CHAN_PART_MAX - 1)                         \
	X(ADOPT, pipe, UINT32, UINT32_MAX)                               \
	X(RESUME, pair, UINT64, UINT64_MAX)                              \
	X(RESUME, session, WORD, 0)                                      \
	X(RESUME, flags, UINT32, UINT32_MAX)                             \
	X(RESUME, bytes_ab, UINT64, UINT64_MAX)                          \
	X(RESUME, bytes_ba, UINT64, UINT64_MAX)                          \
	X(RESUME, suspect, BOOL, 1)                                      \
	X(RESUME, asker, UINT64, UINT64_MAX)                             \
	X(RESUME, rate, UINT64, UINT64_MAX)                              \
	X(MOVE, pair, UINT64, UINT64_MAX)                                \
	X(END, pair, UINT64, UINT64_MAX)                                 \
	X(END, reason, ENUM, END_REASON_MAX - 1)                         \
	X(RATE, asker, UINT64, UINT64_MAX)                               \
	X(RATE, rate, UINT64, UINT64_MAX)

struct chan_field {
	enum chan_type type;
	enum field_kind kind;
	size_t offset;
	size_t size;
	uint64_t max;
};

#define FIELD_SIZE(field) sizeof(((struct chan_msg *)NULL)->field)
static const struct chan_field chan_fields[] = {
#define X(type, field, kind, max) { CHAN_##type, kind, offsetof(struct chan_msg, field), FIELD_SIZE(field), max },
	CHAN_FIELDS(X)
#undef X
};

static const struct {
	enum chan_type type;
	const char *name;
	bool fd;
} chan_types[] = {
#define X(n, num, fd) { num, #n, fd },
	CHAN_TYPES(X)
#undef X
};

static bool
type_is_known(uint64_t type)
{
	for (size_t i = 0; i < ARRAY_LEN(chan_types); i++)
		if (chan_types[i].type == type)
			return true;
	return false;
}

static size_t
fields_of(enum chan_type type)
{
	size_t n = 0;

	for (size_t i = 0; i < ARRAY_LEN(chan_fields); i++)
		n += chan_fields[i].type == type;
	return n;
}

bool
chan_has_fd(enum chan_type type)
{
	for (size_t i = 0; i < ARRAY_LEN(chan_types); i++)
		if (chan_types[i].type == type)
			return chan_types[i].fd;
	return false;
}

const char *
chan_type_name(enum chan_type type)
{
	for (size_t i = 0; i < ARRAY_LEN(chan_types); i++)
		if (chan_types[i].type == type)
			return chan_types[i].name;
	return "?";
}

/* Integers of any width in struct chan_msg, by their size. */
static uint64_t
uint_load(const void *from, size_t size)
{
	uint64_t v64;
	uint32_t v32;

	switch (size) {
	case sizeof v64: memcpy(&v64, from, sizeof v64); return v64;
	case sizeof v32: memcpy(&v32, from, sizeof v32); return v32;
	default: BUG_ON(size != 1); return *(const uint8_t *)from;
	}
}

static void
uint_store(void *to, size_t size, uint64_t value)
{
	uint32_t v32 = (uint32_t)value;

	switch (size) {
	case sizeof value: memcpy(to, &value, sizeof value); break;
	case sizeof v32: memcpy(to, &v32, sizeof v32); break;
	default: BUG_ON(size != 1); *(uint8_t *)to = (uint8_t)value;
	}
}

static bool
word_is_plain(const char *word, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (word[i] <= 0x20 || word[i] >= 0x7f)
			return false;
	return len <= SESSION_CHARS;
}

/* msgpack-c writes through this into the caller's CHAN_MSG_MAX bytes. */
struct sink {
	uint8_t *buf;
	size_t len;
	bool full;
};

static int
sink_write(void *arg, const char *data, size_t len)
{
	struct sink *s = arg;

	if (s->full || len > CHAN_MSG_MAX - s->len) {
		s->full = true;
		return -1;
	}
	memcpy(s->buf + s->len, data, len);
	s->len += len;
	return 0;
}

static int
pack_field(msgpack_packer *pk, const struct chan_field *f, const struct chan_msg *msg)
{
	const char *at = (const char *)msg + f->offset;
	size_t len;

	switch (f->kind) {
	case BOOL: *(const bool *)(const void *)at ? msgpack_pack_true(pk) : msgpack_pack_false(pk); return 0;
	case BIN32: msgpack_pack_bin_with_body(pk, at, f->size); return 0;
	case WORD:
		len = strnlen(at, f->size);
		if (!word_is_plain(at, len))
			return -EINVAL;
		msgpack_pack_str_with_body(pk, at, len);
		return 0;
	case UINT64:
	case UINT32:
	case UINT8:
	case ENUM:
		if (uint_load(at, f->size) > f->max)
			return -EINVAL;
		msgpack_pack_uint64(pk, uint_load(at, f->size));
		return 0;
	}
	return -EINVAL;
}

int
chan_pack(const struct chan_msg *msg, uint8_t buf[CHAN_MSG_MAX])
{
	struct sink s = { .buf = buf };
	msgpack_packer pk;

	if (!type_is_known(msg->type))
		return -EINVAL;
	msgpack_packer_init(&pk, &s, sink_write);
	msgpack_pack_array(&pk, HEAD_FIELDS + fields_of(msg->type));
	msgpack_pack_uint64(&pk, CHAN_VERSION);
	msgpack_pack_uint64(&pk, msg->type);
	msgpack_pack_uint64(&pk, msg->gen);
	for (size_t i = 0; i < ARRAY_LEN(chan_fields); i++) {
		if (chan_fields[i].type == msg->type && pack_field(&pk, &chan_fields[i], msg) < 0)
			return -EINVAL;
	}
	return s.full ? -EMSGSIZE : (int)s.len;
}

/* Bytes of the scalar that starts here, or 0: nested, nil, float, ext, or a
 * string longer than 255. */
static size_t
scalar_len(const uint8_t *p, size_t left)
{
	uint8_t b = p[0];

	if (b <= 0x7f || b >= 0xe0 || b == 0xc2 || b == 0xc3) /* fixint, negative fixint, false, true */
		return 1;
	if (b >= 0xa0 && b <= 0xbf) /* fixstr */
		return 1 + (size_t)(b & 0x1f);
	if (b >= 0xcc && b <= 0xcf) /* uint 8 to 64 */
		return 1 + ((size_t)1 << (b - 0xcc));
	if (b >= 0xd0 && b <= 0xd3) /* int 8 to 64 */
		return 1 + ((size_t)1 << (b - 0xd0));
	if ((b == 0xc4 || b == 0xd9) && left >= 2) /* bin 8, str 8 */
		return 2 + (size_t)p[1];
	return 0;
}

/* Elements of the array that begins here, and where its first one is. 0: none, too many, or few in the long form. */
static size_t
array_len(const uint8_t *buf, size_t len, size_t *ret_first)
{
	bool is_long = len >= 3 && buf[0] == 0xdc; /* array16 */
	size_t n = 0;

	if (is_long)
		n = (size_t)buf[1] << 8 | buf[2];
	else if (len >= 1 && (buf[0] & 0xf0) == 0x90)
		n = buf[0] & 0x0f;
	*ret_first = is_long ? 3 : 1;
	return n > CHAN_SCALARS_MAX || (is_long && n < 16) ? 0 : n;
}

/* Bytes of the flat array of scalars, not too many, that begins here; 0: it is none, or is cut. (invariant 1) */
static size_t
flat_len(const uint8_t *buf, size_t len)
{
	size_t at, n = array_len(buf, len, &at);

	if (n == 0)
		return 0;
	for (; n > 0 && at < len; n--) {
		size_t step = scalar_len(buf + at, len - at);

		if (step == 0 || step > len - at)
			return 0;
		at += step;
	}
	return n == 0 && at <= CHAN_MSG_MAX ? at : 0;
}

static bool
read_uint(const msgpack_object *o, uint64_t max, uint64_t *ret)
{
	if (o->type != MSGPACK_OBJECT_POSITIVE_INTEGER || o->via.u64 > max)
		return false;
	*ret = o->via.u64;
	return true;
}

static bool
read_field(const msgpack_object *o, const struct chan_field *f, struct chan_msg *msg)
{
	char *at = (char *)msg + f->offset;
	uint64_t value;

	switch (f->kind) {
	case BOOL:
		if (o->type != MSGPACK_OBJECT_BOOLEAN)
			return false;
		*(bool *)(void *)at = o->via.boolean;
		return true;
	case BIN32:
		if (o->type != MSGPACK_OBJECT_BIN || o->via.bin.size != f->size)
			return false;
		memcpy(at, o->via.bin.ptr, f->size);
		return true;
	case WORD:
		if (o->type != MSGPACK_OBJECT_STR || !word_is_plain(o->via.str.ptr, o->via.str.size))
			return false;
		if (o->via.str.size > 0) /* msgpack-c has no pointer to nothing */
			memcpy(at, o->via.str.ptr, o->via.str.size);
		return true;
	case UINT64:
	case UINT32:
	case UINT8:
	case ENUM:
		if (!read_uint(o, f->max, &value))
			return false;
		uint_store(at, f->size, value);
		return true;
	}
	return false;
}

static bool
read_message(const msgpack_object_array *a, struct chan_msg *ret)
{
	struct chan_msg msg = { 0 };
	uint64_t version, type, gen;
	size_t n = HEAD_FIELDS;

	if (a->size < HEAD_FIELDS || !read_uint(&a->ptr[0], CHAN_VERSION, &version) || version != CHAN_VERSION ||
	    !read_uint(&a->ptr[1], UINT8_MAX, &type) || !type_is_known(type) ||
	    !read_uint(&a->ptr[2], UINT32_MAX, &gen))
		return false;
	msg.type = (enum chan_type)type;
	msg.gen = (uint32_t)gen;
	if (a->size != HEAD_FIELDS + fields_of(msg.type))
		return false;
	for (size_t i = 0; i < ARRAY_LEN(chan_fields); i++) {
		if (chan_fields[i].type == msg.type && !read_field(&a->ptr[n++], &chan_fields[i], &msg))
			return false;
	}
	*ret = msg;
	return true;
}

/* msgpack-c unpacks into this, which is taken once: a message that came must not be lost, nor a process ended,
 * because there is no memory at that moment. A flat array of 15 needs 360 bytes. */
static msgpack_zone *
unpack_room(void)
{
	static __thread msgpack_zone room;
	static __thread bool is_there;

	if (is_there)
		msgpack_zone_clear(&room);
	else
		is_there = msgpack_zone_init(&room, ROOM_BYTES);
	return is_there ? &room : NULL;
}

/* Bytes of the message that begins here, or -errno. */
static int
unpack_first(const uint8_t *buf, size_t len, struct chan_msg *ret)
{
	size_t off = 0, mine = flat_len(buf, len);
	msgpack_unpack_return end;
	msgpack_zone *room;
	msgpack_object got;

	if (mine == 0)
		return -EPROTO;
	room = unpack_room();
	if (!room)
		return -ENOMEM;
	end = msgpack_unpack((const char *)buf, mine, &off, room, &got);
	if (end == MSGPACK_UNPACK_NOMEM_ERROR)
		return -ENOMEM;
	if (end != MSGPACK_UNPACK_SUCCESS || off != mine || got.type != MSGPACK_OBJECT_ARRAY ||
	    !read_message(&got.via.array, ret))
		return -EPROTO;
	return (int)mine;
}

int
chan_unpack(const uint8_t *buf, size_t len, struct chan_msg *ret)
{
	struct chan_msg msg;
	int n = unpack_first(buf, len, &msg);

	if (n < 0 || (size_t)n != len)
		return n < 0 ? n : -EPROTO;
	*ret = msg;
	return 0;
}

int
chan_unpack_all(const uint8_t *buf, size_t len, struct chan_msg ret[CHAN_DATAGRAM_MSGS], size_t *ret_fds)
{
	size_t at = 0, fds = 0;
	int n = 0, step;

	for (; at < len; at += (size_t)step) {
		step = n < CHAN_DATAGRAM_MSGS ? unpack_first(buf + at, len - at, &ret[n]) : -EPROTO;
		if (step < 0)
			return step;
		fds += chan_has_fd(ret[n++].type);
	}
	*ret_fds = fds;
	return n > 0 ? n : -EPROTO;
}
