/* http.h - HTTP/1.1 requests as bytes: strict head, chunked bodies, status words; no sockets */
#ifndef NET_HTTP_H
#define NET_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "hyper/base/attr.h"

struct evbuffer;

#define HTTP_HEAD_MAX    ((size_t)16 * 1024) /* request line and all header lines */
#define HTTP_FIELDS_MAX  100
#define HTTP_LINE_MAX    256 /* a chunk's size line with its extensions */
#define HTTP_TRAILER_MAX ((size_t)4 * 1024)

/* A parsed request head. Texts point into the buffer that was parsed; NULL when the field was not sent. */
struct http_head {
	const char *method;
	const char *path; /* without query; "*" for OPTIONS * */
	int64_t length;   /* Content-Length, -1 without one */
	bool chunked;
	bool keep; /* the connection may serve another request */
	bool http11;
	bool expect_continue;
	const char *host;
	const char *content_type;
	const char *origin;
	const char *acr_headers; /* Access-Control-Request-Headers */
};

/* Looks for the end of a head in `data`, going on at *scanned (0 at first).
 * >0: its length; 0: not all there yet; -EINVAL: a byte that no head holds
 * (control characters, a line feed alone); -EMSGSIZE: no end within HTTP_HEAD_MAX. */
ssize_t http_head_scan(const char *data, size_t len, size_t *scanned) ATTR_MUST_USE;

/* `text` holds the `len` bytes of a head and room for a NUL; it is cut into
 * pieces in place and must outlive *ret. 0 with *ret filled, or the HTTP status
 * that refuses it (400, 417, 501, 505) with *ret_why set to a static text. What two
 * programs could read differently is refused: both kinds of length, repeated
 * lengths, folded lines, white space before a colon. */
int http_head_parse(char *text, size_t len, struct http_head *ret, const char **ret_why) ATTR_MUST_USE;

/* Is the media type application/json, whatever its parameters? NULL is not. */
bool http_is_json(const char *content_type);

/* "Not Found". Static. */
const char *http_status_text(int status);

/* A body in one piece, grown as it comes: a Content-Length alone reserves nothing. */
struct http_body {
	char *data;
	size_t len, cap;
};
/* Moves `n` bytes (at most what `in` holds) to the end. 0 or -ENOMEM. */
int http_body_append(struct http_body *, struct evbuffer *in, size_t n) ATTR_MUST_USE;
void http_body_fini(struct http_body *);

/* Decoder of one chunked body. All zero at first. */
struct http_chunks {
	enum { CHUNK_SIZE, CHUNK_DATA, CHUNK_DATA_END, CHUNK_TRAILER } at;
	size_t left;
	size_t trailer;
};
/* Takes from `in` what belongs to the body. 1: complete; 0: more is needed;
 * -EINVAL: not chunked; -EMSGSIZE: more than `max` bytes; -ENOMEM. */
int http_chunks_step(struct http_chunks *, struct evbuffer *in, struct http_body *, size_t max) ATTR_MUST_USE;

#endif
