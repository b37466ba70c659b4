/* grpcmsg.c - requests and answers as gRPC frames (protocol.md 3.1, 3.2)
 *
 *      frame = 00, length of the message (4 bytes, big endian), message
 *
 * Always true:
 *  1. protobuf-c packs and never unpacks: a stranger's bytes are read by pbscan.c and
 *     pbread.c, which know their limits before anything is allocated.
 *  2. A Response with an error is an error: code 0 in it is read as RPC_INTERNAL.
 *  3. What we pack is at most GRPC_MAX_MESSAGE, the peer's limit.
 *
 * Not here: the frame's head on the way in and its compressed flag (src/net, which
 * collects DATA until a message is whole).
 */
#include "hyper/wire/grpcmsg.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hyper/base/bytes.h"
#include "wire/hyper.pb-c.h"
#include "wire/pbread.h"
#include "wire/pbscan.h"
#include "wire/pbvalue.h"
#include "wire/textbuf.h"

void
grpc_request_fini(struct grpc_request *r)
{
	free(r->method);
	free(r->id);
	free(r->client_name);
	json_decref(r->params);
	*r = (struct grpc_request){ 0 };
}

void
grpc_response_fini(struct grpc_response *r)
{
	free(r->id);
	rpc_answer_fini(&r->answer);
	*r = (struct grpc_response){ 0 };
}

/* proto3 strings are never NULL; protobuf-c packs without writing to them. */
static char *
pb_string(const char *text)
{
	return text != NULL ? (char *)text : (char *)protobuf_c_empty_string;
}

static bool
is_clean(const char *text)
{
	return text == NULL || utf8_is_clean(text, strlen(text));
}

static int
frame_make(const ProtobufCMessage *msg, uint8_t **ret, size_t *ret_len)
{
	size_t len = protobuf_c_message_get_packed_size(msg);
	uint8_t *frame;

	if (len > GRPC_MAX_MESSAGE)
		return -EMSGSIZE;
	frame = malloc(GRPC_FRAME_HEAD + len);
	if (frame == NULL)
		return -ENOMEM;
	frame[0] = 0;
	for (int i = 0; i < 4; i++)
		frame[1 + i] = (uint8_t)(len >> (24 - 8 * i));
	protobuf_c_message_pack(msg, frame + GRPC_FRAME_HEAD);
	*ret = frame;
	*ret_len = GRPC_FRAME_HEAD + len;
	return 0;
}

int
grpc_request_pack(const struct grpc_request *r, uint8_t **ret, size_t *ret_len)
{
	struct pb_arena arena = { 0 };
	Request msg = REQUEST__INIT;
	int e = 0;

	if (!is_clean(r->method) || !is_clean(r->id) || !is_clean(r->client_name))
		return -EINVAL;
	msg.method = pb_string(r->method);
	msg.id = pb_string(r->id);
	msg.clientname = pb_string(r->client_name);
	if (r->params != NULL)
		e = json_is_object(r->params) ? pb_struct_make(&arena, r->params, &msg.params) : -EINVAL;
	if (e == 0)
		e = frame_make(&msg.base, ret, ret_len);
	pb_arena_fini(&arena);
	return e;
}

/* A null `data` is no data; a null `result` is one (getTip of an empty directory). */
static int
response_fill(struct pb_arena *arena, const struct rpc_answer *a, Response *msg, Error *error)
{
	if (a->code == 0)
		return a->result != NULL ? pb_struct_make(arena, a->result, &msg->result) : 0;
	if (!is_clean(a->message))
		return -EINVAL;
	error->code = a->code;
	error->message = pb_string(a->message != NULL ? a->message : "out of memory");
	msg->error = error;
	if (a->data == NULL || json_is_null(a->data))
		return 0;
	return pb_struct_make(arena, a->data, &error->data);
}

int
grpc_response_pack(const struct grpc_response *r, uint8_t **ret, size_t *ret_len)
{
	struct pb_arena arena = { 0 };
	Response msg = RESPONSE__INIT;
	Error error = ERROR__INIT;
	int e;

	if (!is_clean(r->id))
		return -EINVAL;
	msg.id = pb_string(r->id);
	e = response_fill(&arena, &r->answer, &msg, &error);
	if (e == 0)
		e = frame_make(&msg.base, ret, ret_len);
	pb_arena_fini(&arena);
	return e;
}

/* Taken; a field that is not there is "". NULL when out of memory. */
static char *
text_of(const struct pb_part *part)
{
	return part->is_set ? strndup((const char *)part->field.body.at, part->field.body.left) : strdup("");
}

int
grpc_request_unpack(const uint8_t *msg, size_t len, struct grpc_request *ret)
{
	static const enum pb_kind form[] = { PB_STRING, PB_MESSAGE, PB_STRING, PB_STRING };
	struct pb_part part[PB_FORM_FIELDS];
	struct grpc_request r = { 0 };
	struct pb_tally tally = { 0 };
	int e;

	if (len > GRPC_MAX_MESSAGE || pb_form_read(form, (struct pb_cursor){ msg, len }, &tally, part) < 0)
		return -EINVAL;
	r.method = text_of(&part[0]);
	r.id = text_of(&part[2]);
	r.client_name = text_of(&part[3]);
	e = r.method != NULL && r.id != NULL && r.client_name != NULL ? 0 : -ENOMEM;
	if (e == 0 && part[1].is_set) {
		e = pb_struct_read(part[1].field.body, false, &tally, &r.params);
	} else if (e == 0) {
		r.params = json_object();
		e = r.params != NULL ? 0 : -ENOMEM;
	}
	if (e < 0)
		grpc_request_fini(&r);
	else
		*ret = r;
	return e;
}

/* `code` comes as the low 32 bits of its varint. */
static int
error_take(struct pb_cursor error, struct pb_tally *tally, struct rpc_answer *ret)
{
	static const enum pb_kind form[] = { PB_VARINT, PB_STRING, PB_MESSAGE, PB_NONE };
	struct pb_part part[PB_FORM_FIELDS];

	if (pb_form_read(form, error, tally, part) < 0)
		return -EINVAL;
	ret->code = (int32_t)(uint32_t)part[0].field.value;
	if (ret->code == 0)
		ret->code = RPC_INTERNAL;
	ret->message = text_of(&part[1]);
	if (ret->message == NULL)
		return -ENOMEM;
	return part[2].is_set ? pb_struct_read(part[2].field.body, true, tally, &ret->data) : 0;
}

/* As text if that is possible, as a value otherwise. */
static int
result_print(struct pb_cursor result, struct pb_tally *tally, struct rpc_answer *ret)
{
	struct pb_tally copy = *tally;
	struct textbuf tb = { 0 };
	int e;

	textbuf_reserve(&tb, result.left + result.left / 4);
	e = pb_struct_print(result, true, tally, &tb);
	ret->result_len = tb.len;
	ret->result_text = textbuf_take(&tb);
	if (e == 0)
		return ret->result_text != NULL ? 0 : -ENOMEM;
	free(ret->result_text);
	ret->result_text = NULL;
	if (e != -EAGAIN)
		return e;
	*tally = copy;
	return pb_struct_read(result, true, tally, &ret->result);
}

/* A result beside an error must be well-formed and counts for nothing. */
static int
answer_take(const struct pb_part part[PB_FORM_FIELDS], bool as_text, struct pb_tally *tally, struct rpc_answer *ret)
{
	int e = 0;

	if (part[1].is_set && as_text)
		e = result_print(part[1].field.body, tally, ret);
	else if (part[1].is_set)
		e = pb_struct_read(part[1].field.body, true, tally, &ret->result);
	if (e < 0 || !part[2].is_set)
		return e;
	rpc_answer_fini(ret);
	return error_take(part[2].field.body, tally, ret);
}

int
grpc_response_unpack(const uint8_t *msg, size_t len, bool as_text, struct grpc_response *ret)
{
	static const enum pb_kind form[] = { PB_STRING, PB_MESSAGE, PB_MESSAGE, PB_NONE };
	struct pb_part part[PB_FORM_FIELDS];
	struct grpc_response r = { 0 };
	struct pb_tally tally = { 0 };
	int e;

	if (len > GRPC_MAX_MESSAGE || pb_form_read(form, (struct pb_cursor){ msg, len }, &tally, part) < 0)
		return -EINVAL;
	r.id = text_of(&part[0]);
	e = r.id != NULL ? answer_take(part, as_text, &tally, &r.answer) : -ENOMEM;
	if (e < 0)
		grpc_response_fini(&r);
	else
		*ret = r;
	return e;
}

/* PROTOCOL-HTTP2.md: "Percent-Byte-Unencoded → 1*( %x20-%x24 / %x26-%x7E )" */
char *
grpc_message_encode(const char *text)
{
	char *out = malloc(3 * strlen(text) + 1), *p = out;

	if (out == NULL)
		return NULL;
	for (; *text != '\0'; text++) {
		unsigned char c = (unsigned char)*text;

		if (c >= 0x20 && c <= 0x7e && c != '%')
			*p++ = (char)c;
		else
			p += snprintf(p, 4, "%%%02X", (unsigned)c);
	}
	*p = '\0';
	return out;
}

/* Bad escapes stay as they are ("MUST NOT error"). What is no clean UTF-8
 * afterwards has its odd bytes replaced: the text goes into answers. */
char *
grpc_message_decode(const char *text, size_t len)
{
	char *out = malloc(len + 1);
	size_t n = 0;
	uint8_t byte;

	if (out == NULL)
		return NULL;
	for (size_t i = 0; i < len; i++) {
		if (text[i] == '%' && len - i > 2 &&
		    hex_decode((char[]){ text[i + 1], text[i + 2], '\0' }, &byte, 1) == 0) {
			out[n++] = (char)byte;
			i += 2;
		} else {
			out[n++] = text[i];
		}
	}
	out[n] = '\0';
	if (!utf8_is_clean(out, n)) {
		for (size_t i = 0; i < n; i++)
			if (out[i] == '\0' || (out[i] & 0x80) != 0)
				out[i] = '?';
	}
	return out;
}
