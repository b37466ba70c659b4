/* textbuf.c - writes JSON text the way protocol.md wants it
 *
 * Always true:
 *  1. What comes out is valid JSON in valid UTF-8, whatever the strings hold.
 *  2. A number that is read back as a double gives the same double.
 *  3. Failure is sticky: one check at the end (textbuf_take) is enough.
 *
 * jansson's own dump is not used because it prints 1.0 for an integral real.
 *
 * Not here: reading JSON (json.c). Nothing sets a locale in our programs, so
 * printf writes `.` as the decimal point.
 */
#include "wire/textbuf.h"

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hyper/base/bytes.h"

/* Values that we parsed are at most 64 deep; this guards against ones built in a loop. */
#define WRITE_MAX_DEPTH 256
#define NUMBER_MAX      40
#define EXACT_INTEGERS  9007199254740992.0 /* 2^53 */
#define THOUSANDTHS_MAX 1e11               /* 1,000 times it has 15 digits at most: %.15g prints the same */

bool
textbuf_reserve(struct textbuf *tb, size_t more)
{
	size_t cap = tb->cap > 0 ? tb->cap : 256;
	char *text;

	if (tb->failed || more > SIZE_MAX / 4 - tb->len) {
		tb->failed = true;
		return false;
	}
	while (cap < tb->len + more + 1) /* + 1: the NUL of textbuf_take() */
		cap *= 2;
	if (cap == tb->cap)
		return true;
	text = realloc(tb->text, cap);
	if (text == NULL) {
		tb->failed = true;
		return false;
	}
	tb->text = text;
	tb->cap = cap;
	return true;
}

void
textbuf_puts(struct textbuf *tb, const char *text)
{
	textbuf_put(tb, text, strlen(text));
}

static void
put_escaped(struct textbuf *tb, unsigned char c)
{
	char hex[8];

	switch (c) {
	case '"': textbuf_puts(tb, "\\\""); break;
	case '\\': textbuf_puts(tb, "\\\\"); break;
	case '\n': textbuf_puts(tb, "\\n"); break;
	case '\r': textbuf_puts(tb, "\\r"); break;
	case '\t': textbuf_puts(tb, "\\t"); break;
	default: snprintf(hex, sizeof hex, "\\u%04x", (unsigned)c); textbuf_puts(tb, hex);
	}
}

static bool
is_plain(unsigned char c)
{
	return c >= 0x20 && c != '"' && c != '\\';
}

void
textbuf_clean_string(struct textbuf *tb, const char *text, size_t len)
{
	size_t done = 0; /* bytes before this one are written */

	textbuf_put(tb, "\"", 1);
	for (size_t i = 0; i < len; i++) {
		if (is_plain((unsigned char)text[i]))
			continue;
		textbuf_put(tb, text + done, i - done);
		put_escaped(tb, (unsigned char)text[i]);
		done = i + 1;
	}
	textbuf_put(tb, text + done, len - done);
	textbuf_put(tb, "\"", 1);
}

void
textbuf_string(struct textbuf *tb, const char *text, size_t len)
{
	if (utf8_is_clean(text, len)) {
		textbuf_clean_string(tb, text, len);
		return;
	}
	textbuf_put(tb, "\"", 1);
	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)text[i];

		if (c >= 0x80)
			textbuf_put(tb, "?", 1);
		else if (is_plain(c))
			textbuf_put(tb, &text[i], 1);
		else
			put_escaped(tb, c);
	}
	textbuf_put(tb, "\"", 1);
}

/* Milliseconds to the microsecond, which our timelines are made of. A quotient of
 * two integers below 2^53 is the double nearest to the true value, and so is what is read of the
 * decimal text: equal quotients make equal doubles. False: it is no such number. */
static bool
put_thousandths(struct textbuf *tb, double d)
{
	long long n = (long long)(d * 1000.0 + (d < 0 ? -0.5 : 0.5)), part;
	char text[NUMBER_MAX];
	int digits = 3;

	if ((double)n / 1000.0 != d)
		return false;
	n = n < 0 ? -n : n;
	for (part = n % 1000; digits > 1 && part % 10 == 0; part /= 10)
		digits--;
	snprintf(text, sizeof text, "%s%lld.%0*lld", d < 0 ? "-" : "", n / 1000, digits, part);
	textbuf_puts(tb, text);
	return true;
}

void
textbuf_number(struct textbuf *tb, double d)
{
	char text[NUMBER_MAX];

	if (!isfinite(d)) { /* jansson refuses to make one; JSON has no word for it */
		tb->failed = true;
		return;
	}
	if (fabs(d) < EXACT_INTEGERS && d == (double)(long long)d) {
		snprintf(text, sizeof text, "%lld", (long long)d);
		textbuf_puts(tb, text);
		return;
	}
	if (fabs(d) >= 0.001 && fabs(d) < THOUSANDTHS_MAX && put_thousandths(tb, d))
		return;
	for (int digits = 15; digits <= 17; digits++) {
		snprintf(text, sizeof text, "%.*g", digits, d);
		if (strtod(text, NULL) == d)
			break;
	}
	textbuf_puts(tb, text);
}

static void put_value(struct textbuf *, const json_t *, int depth);

static void
put_array(struct textbuf *tb, const json_t *array, int depth)
{
	size_t n = json_array_size(array);

	textbuf_put(tb, "[", 1);
	for (size_t i = 0; i < n; i++) {
		if (i > 0)
			textbuf_put(tb, ",", 1);
		put_value(tb, json_array_get(array, i), depth);
	}
	textbuf_put(tb, "]", 1);
}

static void
put_object(struct textbuf *tb, const json_t *object, int depth)
{
	json_t *map = (json_t *)object; /* jansson's iterators are not const */
	void *iter = json_object_iter(map);

	textbuf_put(tb, "{", 1);
	for (bool first = true; iter != NULL; iter = json_object_iter_next(map, iter), first = false) {
		const char *key = json_object_iter_key(iter);

		if (!first)
			textbuf_put(tb, ",", 1);
		textbuf_string(tb, key, strlen(key));
		textbuf_put(tb, ":", 1);
		put_value(tb, json_object_iter_value(iter), depth);
	}
	textbuf_put(tb, "}", 1);
}

static void
put_value(struct textbuf *tb, const json_t *value, int depth)
{
	char text[NUMBER_MAX];

	if (value == NULL || depth >= WRITE_MAX_DEPTH)
		tb->failed = true;
	if (tb->failed)
		return;
	switch (json_typeof(value)) {
	case JSON_OBJECT: put_object(tb, value, depth + 1); break;
	case JSON_ARRAY: put_array(tb, value, depth + 1); break;
	case JSON_STRING: textbuf_string(tb, json_string_value(value), json_string_length(value)); break;
	case JSON_INTEGER:
		snprintf(text, sizeof text, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
		textbuf_puts(tb, text);
		break;
	case JSON_REAL: textbuf_number(tb, json_real_value(value)); break;
	case JSON_TRUE: textbuf_puts(tb, "true"); break;
	case JSON_FALSE: textbuf_puts(tb, "false"); break;
	case JSON_NULL: textbuf_puts(tb, "null"); break;
	}
}

void
textbuf_json(struct textbuf *tb, const json_t *value)
{
	put_value(tb, value, 0);
}

char *
textbuf_take(struct textbuf *tb)
{
	char *text = NULL;

	if (textbuf_reserve(tb, 0)) {
		text = tb->text;
		text[tb->len] = '\0';
	} else {
		free(tb->text);
	}
	*tb = (struct textbuf){ 0 };
	return text;
}
