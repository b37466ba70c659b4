/* adminframe.h - frames of the admin socket; for its two sides in src/net only */
#ifndef NET_ADMINFRAME_H
#define NET_ADMINFRAME_H

#include <stddef.h>
#include <stdint.h>

#include <jansson.h>

#include "hyper/base/attr.h"

struct evbuffer;

#define ADMINFRAME_HEAD 4

/* 1 with *ret taken, 0 not whole yet, -EMSGSIZE, -EPROTO. */
int adminframe_take(struct evbuffer *in, size_t max, json_t **ret) ATTR_MUST_USE;
void adminframe_put(struct evbuffer *out, const uint8_t *data, size_t len);

/* {"ok": false, "error": text}, without waiting and whatever becomes of it. */
void adminframe_send_last(int fd, const char *text);

#endif
