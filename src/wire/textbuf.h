/* textbuf.h - a growing text that JSON is written into; private to src/wire */
#ifndef WIRE_TEXTBUF_H
#define WIRE_TEXTBUF_H

#include <stdbool.h>
#include <stddef.h>

#include <jansson.h>

/* Starts zeroed. After a failed allocation all further writes do nothing. */
struct textbuf {
	char *text; /* owned; NUL-terminated only by textbuf_take() */
	size_t len;
	size_t cap;
	bool failed;
};

void textbuf_put(struct textbuf *, const void *data, size_t len);
void textbuf_puts(struct textbuf *, const char *text);

/* A JSON string with its quotes. Bytes that are no clean UTF-8 become `?`. */
void textbuf_string(struct textbuf *, const char *text, size_t len);

/* A JSON value, compact, numbers as in protocol.md "Numbers". Nesting over 256 fails. */
void textbuf_json(struct textbuf *, const json_t *);

/* The text (taken, free()), or NULL when something failed. The buffer is zeroed. */
char *textbuf_take(struct textbuf *);

#endif
