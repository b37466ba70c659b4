/* mpjson.c - see the header
 *
 * Always true: no count in the bytes is believed before as many bytes are seen
 * to follow it: a 5-byte array32 makes msgpack-c reserve 2 GB (faults.md).
 *
 * Source of the format: msgpack specification, "Formats".
 */
#include "hyper/wire/mpjson.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include <msgpack.h>

/* --- to msgpack --- */

static int pack_value(msgpack_packer *pk, const json_t *v, unsigned depth);

static int
pack_text(msgpack_packer *pk, const char *text, size_t len)
{
	return msgpack_pack_str(pk, len) || msgpack_pack_str_body(pk, text, len) ? -ENOMEM : 0;
}

static int
pack_object(msgpack_packer *pk, const json_t *v, unsigned depth)
{
	int rc = msgpack_pack_map(pk, json_object_size(v)) ? -ENOMEM : 0;
	const char *key;
	json_t *one;

	json_object_foreach ((json_t *)v, key, one) {
		if (rc == 0)
			rc = pack_text(pk, key, strlen(key));
		if (rc == 0)
			rc = pack_value(pk, one, depth + 1);
	}
	return rc;
}

static int
pack_array(msgpack_packer *pk, const json_t *v, unsigned depth)
{
	int rc = msgpack_pack_array(pk, json_array_size(v)) ? -ENOMEM : 0;

	for (size_t i = 0; rc == 0 && i < json_array_size(v); i++)
		rc = pack_value(pk, json_array_get(v, i), depth + 1);
	return rc;
}

static int
pack_value(msgpack_packer *pk, const json_t *v, unsigned depth)
{
	if (depth > MPJSON_DEPTH_MAX)
		return -EINVAL;
	switch (json_typeof(v)) {
	case JSON_OBJECT: return pack_object(pk, v, depth);
	case JSON_ARRAY: return pack_array(pk, v, depth);
	case JSON_STRING: return pack_text(pk, json_string_value(v), json_string_length(v));
	case JSON_INTEGER: return msgpack_pack_int64(pk, json_integer_value(v)) ? -ENOMEM : 0;
	case JSON_REAL: return msgpack_pack_double(pk, json_real_value(v)) ? -ENOMEM : 0;
	case JSON_TRUE: return msgpack_pack_true(pk) ? -ENOMEM : 0;
	case JSON_FALSE: return msgpack_pack_false(pk) ? -ENOMEM : 0;
	default: return msgpack_pack_nil(pk) ? -ENOMEM : 0;
	}
}

int
mpjson_pack(const json_t *value, uint8_t **ret, size_t *ret_len)
{
	msgpack_sbuffer buf;
	msgpack_packer pk;
	int rc;

	msgpack_sbuffer_init(&buf);
	msgpack_packer_init(&pk, &buf, msgpack_sbuffer_write);
	rc = pack_value(&pk, value, 0);
	if (rc < 0) {
		msgpack_sbuffer_destroy(&buf);
		return rc;
	}
	*ret_len = buf.size;
	*ret = (uint8_t *)msgpack_sbuffer_release(&buf);
	return 0;
}

/* --- from msgpack --- */

/* What a value's first byte says: bytes of its own behind the head, and values that belong to it. */
struct head {
	size_t skip; /* head and own bytes */
	size_t kids;
};

static uint64_t
big_endian(const uint8_t *p, size_t n)
{
	uint64_t v = 0;

	while (n-- > 0)
		v = v << 8 | *p++;
	return v;
}

/* A count of `width` bytes behind the first one. */
static bool
counted(const uint8_t *p, size_t left, size_t width, uint64_t *ret)
{
	if (left < 1 + width)
		return false;
	*ret = big_endian(p + 1, width);
	return true;
}

/* False: a kind that we do not take (bin, ext), or cut off. */
static bool
head_read(const uint8_t *p, size_t left, struct head *ret)
{
	static const uint8_t number_bytes[] = { 4, 8, 1, 2, 4, 8, 1, 2, 4, 8 }; /* 0xca to 0xd3 */
	uint8_t b = *p;
	uint64_t n = 0;

	*ret = (struct head){ .skip = 1 };
	if (b <= 0x7f || b >= 0xe0 || b == 0xc0 || b == 0xc2 || b == 0xc3)
		return true;
	if (b >= 0xca && b <= 0xd3) {
		ret->skip = 1 + (size_t)number_bytes[b - 0xca];
		return true;
	}
	if (b <= 0x8f) {
		ret->kids = 2 * (size_t)(b & 0x0f);
	} else if (b <= 0x9f) {
		ret->kids = b & 0x0f;
	} else if (b <= 0xbf) {
		ret->skip = 1 + (size_t)(b & 0x1f);
	} else if (b >= 0xd9 && b <= 0xdb) {
		size_t width = (size_t)1 << (b - 0xd9);

		if (!counted(p, left, width, &n) || n > left)
			return false;
		ret->skip = 1 + width + (size_t)n;
	} else if (b >= 0xdc && b <= 0xdf) {
		size_t width = b & 1 ? 4 : 2;

		if (!counted(p, left, width, &n))
			return false;
		ret->skip = 1 + width;
		ret->kids = (size_t)n * (b >= 0xde ? 2 : 1);
	} else {
		return false;
	}
	return true;
}

/* One value and all in it, to the last byte; each kid needs at least one byte, so no count can lie. */
static bool
is_well_formed(const uint8_t *data, size_t len)
{
	size_t open[MPJSON_DEPTH_MAX + 2] = { 1 }, depth = 0, at = 0, values = 0;

	for (;;) {
		struct head h;

		while (depth > 0 && open[depth] == 0)
			depth--;
		if (open[depth] == 0)
			return at == len;
		if (at >= len || ++values > MPJSON_VALUES_MAX || !head_read(data + at, len - at, &h) ||
		    h.skip > len - at || h.kids > len - at)
			return false;
		open[depth]--;
		at += h.skip;
		if (h.kids > 0) {
			if (depth > MPJSON_DEPTH_MAX)
				return false;
			open[++depth] = h.kids;
		}
	}
}

/* msgpack-c gives NULL for a text of no bytes, which jansson takes for an error. */
static const char *
str_of(const msgpack_object *o)
{
	return o->via.str.size > 0 ? o->via.str.ptr : "";
}

/* NULL: a key that is no str, bad UTF-8, or out of memory. */
static json_t *
to_json(const msgpack_object *o)
{
	json_t *v = NULL, *kid = NULL;
	bool ok = true;

	switch (o->type) {
	case MSGPACK_OBJECT_NIL: return json_null();
	case MSGPACK_OBJECT_BOOLEAN: return json_boolean(o->via.boolean);
	case MSGPACK_OBJECT_POSITIVE_INTEGER: return json_integer((json_int_t)o->via.u64);
	case MSGPACK_OBJECT_NEGATIVE_INTEGER: return json_integer((json_int_t)o->via.i64);
	case MSGPACK_OBJECT_FLOAT32:
	case MSGPACK_OBJECT_FLOAT64: return json_real(o->via.f64);
	case MSGPACK_OBJECT_STR: return json_stringn(str_of(o), o->via.str.size);
	case MSGPACK_OBJECT_ARRAY:
		v = json_array();
		for (size_t i = 0; ok && i < o->via.array.size; i++)
			ok = json_array_append_new(v, to_json(&o->via.array.ptr[i])) == 0;
		break;
	case MSGPACK_OBJECT_MAP:
		v = json_object();
		for (size_t i = 0; ok && i < o->via.map.size; i++) {
			const msgpack_object_kv *kv = &o->via.map.ptr[i];

			kid = to_json(&kv->val);
			ok = kv->key.type == MSGPACK_OBJECT_STR && kid &&
			     json_object_setn_new(v, str_of(&kv->key), kv->key.via.str.size, json_incref(kid)) == 0;
			json_decref(kid);
		}
		break;
	default: return NULL;
	}
	if (ok)
		return v;
	json_decref(v);
	return NULL;
}

int
mpjson_unpack(const uint8_t *data, size_t len, json_t **ret)
{
	msgpack_unpacked up;
	size_t off = 0;
	json_t *v = NULL;

	if (!is_well_formed(data, len))
		return -EPROTO;
	msgpack_unpacked_init(&up);
	if (msgpack_unpack_next(&up, (const char *)data, len, &off) == MSGPACK_UNPACK_SUCCESS)
		v = to_json(&up.data);
	msgpack_unpacked_destroy(&up);
	if (!v)
		return -EPROTO;
	*ret = v;
	return 0;
}
