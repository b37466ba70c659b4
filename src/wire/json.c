/* json.c - JSON from strangers: scanned for its limits first, then parsed by jansson
 *
 * Always true:
 *  1. jansson sees a text only when its size, depth and number of values are
 *     within the limits of json.h, so what one text can cost is bounded.
 *  2. An error text holds no byte of the input: it may go into a log line or
 *     an answer as it is.
 *  3. An integer that does not fit 64 bits becomes a double (protocol.md
 *     "Numbers"). jansson refuses such integers, so they reach it as `<digits>e0`.
 *
 * The scan does not judge grammar, jansson does. It only has to find every
 * bracket, comma and number outside strings, and must see the same strings as
 * jansson does; where the text is not JSON the two may differ, and it is refused.
 *
 * Not here: writing JSON (textbuf.c), meaning of any member (rpc*.c), what was seen before (jsonmemo.c).
 */
#include "hyper/wire/json.h"

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "wire/jsonmemo.h"
#include "wire/textbuf.h"

#define INT64_DIGITS 19

struct scan {
	const char *text;
	size_t len;
	size_t at;
	size_t line_start; /* where the current line begins */
	int line;
	int depth;
	size_t values;
	size_t wide;                   /* integers that do not fit 64 bits */
	size_t memo_from, memo_values; /* where an object of MEMO_DEPTH has begun, and the values before it */
	struct json_span memo;         /* the first one that is worth remembering */
	char *out;                     /* NULL, or where to copy the text with `e0` after each of these */
	size_t out_len;
};

static void
say(char err[JSON_ERR_MAX], int line, size_t column, const char *what)
{
	snprintf(err, JSON_ERR_MAX, "line %d column %zu: %s", line, column, what);
}

static bool
is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/* Does `digits` of `n` digits, negative or not, fit an int64_t? */
static bool
fits_int64(const char *digits, size_t n, bool negative)
{
	const char *most = negative ? "9223372036854775808" : "9223372036854775807";

	return n < INT64_DIGITS || (n == INT64_DIGITS && memcmp(digits, most, INT64_DIGITS) <= 0);
}

static void
scan_emit(struct scan *s, const char *data, size_t len)
{
	if (s->out != NULL) {
		memcpy(s->out + s->out_len, data, len);
		s->out_len += len;
	}
}

/* At the opening quote; afterwards behind the closing one, or at the end. */
static void
scan_string(struct scan *s)
{
	size_t i = s->at + 1;

	while (i < s->len && s->text[i] != '"')
		i += s->text[i] == '\\' && i + 1 < s->len ? 2 : 1;
	if (i < s->len)
		i++;
	scan_emit(s, s->text + s->at, i - s->at);
	s->at = i;
}

/* At `-` or a digit; afterwards behind all that can belong to a number. */
static void
scan_number(struct scan *s)
{
	bool negative = s->text[s->at] == '-', integer = true;
	size_t from = s->at + (negative ? 1 : 0), i = from, digits;

	while (i < s->len && is_digit(s->text[i]))
		i++;
	digits = i - from;
	while (i < s->len && (is_digit(s->text[i]) || memchr(".eE+-", s->text[i], 5) != NULL)) {
		integer = false;
		i++;
	}
	scan_emit(s, s->text + s->at, i - s->at);
	if (integer && !fits_int64(s->text + from, digits, negative)) {
		s->wide++;
		scan_emit(s, "e0", 2);
	}
	s->at = i;
}

/* At a closing brace of MEMO_DEPTH. */
static void
scan_object_end(struct scan *s)
{
	size_t len = s->at + 1 - s->memo_from;

	if (s->memo.len == 0 && s->text[s->memo_from] == '{' && len >= MEMO_MIN && len <= MEMO_MAX &&
	    s->values - s->memo_values <= MEMO_MAX_VALUES)
		s->memo = (struct json_span){ .from = s->memo_from, .len = len };
}

/* One byte outside strings and numbers. NULL, or what is wrong with it. */
static const char *
scan_byte(struct scan *s)
{
	switch (s->text[s->at]) {
	case '{':
	case '[':
		if (++s->depth > JSON_MAX_DEPTH)
			return "nested deeper than 64";
		if (s->depth == MEMO_DEPTH) {
			s->memo_from = s->at;
			s->memo_values = s->values;
		}
		s->values++;
		break;
	case '}':
	case ']':
		if (s->depth == MEMO_DEPTH)
			scan_object_end(s);
		s->depth--;
		break;
	case ',': s->values++; break;
	case '\n':
		s->line++;
		s->line_start = s->at + 1;
		break;
	default: break;
	}
	if (s->values > JSON_MAX_VALUES)
		return "more than 262144 values";
	scan_emit(s, s->text + s->at, 1);
	s->at++;
	return NULL;
}

static int
scan_run(struct scan *s, char err[JSON_ERR_MAX])
{
	s->line = 1;
	while (s->at < s->len) {
		char c = s->text[s->at];
		const char *what = NULL;

		if (c == '"')
			scan_string(s);
		else if (c == '-' || is_digit(c))
			scan_number(s);
		else
			what = scan_byte(s);
		if (what != NULL) {
			say(err, s->line, s->at - s->line_start + 1, what);
			return s->depth > JSON_MAX_DEPTH ? -EINVAL : -EMSGSIZE;
		}
	}
	return 0;
}

/* jansson's own texts quote the input, so they are replaced (invariant 2). */
static const char *
explain(enum json_error_code code)
{
	switch (code) {
	case json_error_invalid_utf8: return "invalid UTF-8";
	case json_error_premature_end_of_input: return "the text ends too early";
	case json_error_end_of_input_expected: return "something follows the JSON value";
	case json_error_null_character:
	case json_error_null_byte_in_key: return "NUL (\\u0000) is not permitted in strings";
	case json_error_duplicate_key: return "the same key twice in one object";
	case json_error_numeric_overflow: return "a number is too large for a double";
	case json_error_out_of_memory: return "out of memory";
	default: return "not valid JSON";
	}
}

static int
parse_scanned(const char *text, size_t len, json_t **ret, char err[JSON_ERR_MAX])
{
	json_error_t e = { .line = 1 };
	json_t *value = json_loadb(text, len, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES, &e);

	if (value == NULL) {
		/* where jansson has no memory for a value it fails without a text, as it never does for what it read */
		enum json_error_code code = e.text[0] != '\0' ? json_error_code(&e) : json_error_out_of_memory;

		say(err, e.line, e.column > 0 ? (size_t)e.column : 1, explain(code));
		return code == json_error_out_of_memory ? -ENOMEM : -EINVAL;
	}
	*ret = value;
	return 0;
}

int
json_parse(const char *text, size_t len, json_t **ret, char err[JSON_ERR_MAX])
{
	uint64_t known;

	return json_parse_known(NULL, text, len, ret, &known, err);
}

int
json_parse_known(
    struct json_memo *memo, const char *text, size_t len, json_t **ret, uint64_t *ret_known, char err[JSON_ERR_MAX])
{
	struct scan s = { .text = text, .len = len, .values = 1 };
	char *copy = NULL;
	int r;

	if (len > JSON_MAX_BYTES) {
		snprintf(err, JSON_ERR_MAX, "%zu bytes, at most %zu are permitted", len, JSON_MAX_BYTES);
		return -EMSGSIZE;
	}
	r = scan_run(&s, err);
	if (r < 0)
		return r;
	if (memo != NULL && s.memo.len > 0 && s.wide == 0 &&
	    json_memo_parse(memo, text, len, &s.memo, ret, ret_known) == 0)
		return 0;
	*ret_known = 0;
	if (s.wide == 0)
		return parse_scanned(text, len, ret, err);

	copy = malloc(len + 2 * s.wide);
	if (copy == NULL) {
		say(err, 1, 1, "out of memory");
		return -ENOMEM;
	}
	s = (struct scan){ .text = text, .len = len, .values = 1, .out = copy };
	r = scan_run(&s, err);
	if (r == 0)
		r = parse_scanned(copy, s.out_len, ret, err);
	free(copy);
	return r;
}

char *
json_text(const json_t *value)
{
	struct textbuf tb = { 0 };

	textbuf_json(&tb, value);
	return textbuf_take(&tb);
}

const char *
json_str(const json_t *object, const char *key)
{
	return json_string_value(json_object_get(object, key));
}

/* jansson 2.14 on 64 bit: a value has 24 to 64 bytes, a key some 80 and its text, a place in a list 8; malloc adds 16. */
#define WEIGHT_VALUE 64
#define WEIGHT_KEY   96
#define WEIGHT_PLACE 16

size_t
json_weight(const json_t *value)
{
	json_t *map = (json_t *)value; /* jansson's iterators are not const */
	size_t n = WEIGHT_VALUE;

	if (value == NULL)
		return 0;
	if (json_is_string(value))
		return n + json_string_length(value);
	for (size_t i = 0; i < json_array_size(value); i++)
		n += WEIGHT_PLACE + json_weight(json_array_get(value, i));
	for (void *iter = json_object_iter(map); iter != NULL; iter = json_object_iter_next(map, iter))
		n += WEIGHT_KEY + json_object_iter_key_len(iter) + json_weight(json_object_iter_value(iter));
	return n;
}
