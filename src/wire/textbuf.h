/* textbuf.h - a growing text that JSON is written into; private to src/wire */
#ifndef WIRE_TEXTBUF_H
#define WIRE_TEXTBUF_H

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include <jansson.h>

/* Starts zeroed. After a failed allocation all further writes do nothing. */
struct textbuf {
	char *text; /* owned; NUL-terminated only by textbuf_take() */
	size_t len;
	size_t cap;
	bool failed;
};

/* Room for `more` bytes; what textbuf_put() does when there is none. False: failed. */
bool textbuf_reserve(struct textbuf *, size_t more);

static inline void
textbuf_put(struct textbuf *tb, const void *data, size_t len)
{
	/* one more for the NUL of textbuf_take() */
	if (len == 0 || (tb->cap - tb->len <= len && !textbuf_reserve(tb, len)))
		return;
	memcpy(tb->text + tb->len, data, len);
	tb->len += len;
}

void textbuf_puts(struct textbuf *, const char *text);

/* A JSON string with its quotes. Bytes that are no clean UTF-8 become `?`. */
void textbuf_string(struct textbuf *, const char *text, size_t len);

/* The same of text that is known to be clean UTF-8 (utf8_is_clean()). */
void textbuf_clean_string(struct textbuf *, const char *text, size_t len);

/* A number as in protocol.md "Numbers": an integral one below 2^53 as an integer. */
void textbuf_number(struct textbuf *, double);

/* A JSON value, compact, numbers as in protocol.md "Numbers". Nesting over 256 fails. */
void textbuf_json(struct textbuf *, const json_t *);

/* The text (taken, free()), or NULL when something failed. The buffer is zeroed. */
char *textbuf_take(struct textbuf *);

#endif
