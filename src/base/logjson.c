/* logjson.c - a log line as one JSON object: the line's keys become its members
 *
 *   "peer=%s ms=%d why=\"%s\""  -->  ,"peer":"...","ms":12,"why":"..."
 *
 * The format is marked before it is printed: \1 key \2 kind value \1 key ... So it is the
 * program's own text that says where a value begins and ends, never a stranger's.
 *
 * Always true:
 *  1. What comes out is one JSON object of at most `cap` bytes, in one line, in UTF-8.
 *  2. No name stands in it twice: the second one is name_2. time, program, pid, level and event are first.
 *  3. A value is a number where the format prints one, else a string.
 *
 * Where the marks cannot be trusted, since a value holds such bytes, the whole rest is the member "text".
 */
#include "base/logjson.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "base/utf8.h"
#include "hyper/base/log.h"

#define MEMBERS_MAX 40
#define KEY_LEN_MAX 48
#define TAIL        2 /* what a string and the object still need: "} */

enum kind {
	KIND_TEXT = 't',   /* one string */
	KIND_NUMBER = 'n', /* printed by conversions of numbers */
	KIND_PAIRS = 'p',  /* text that was printed elsewhere: key=value ... */
	KIND_MIXED = 'm'   /* a value, then such text */
};

struct obj {
	char *buf;
	size_t len, cap;
	size_t n;
	struct {
		const char *key;
		size_t len;
	} seen[MEMBERS_MAX];
};

static bool
put(struct obj *o, const char *s, size_t n)
{
	if (o->len + n + TAIL > o->cap)
		return false;
	memcpy(o->buf + o->len, s, n);
	o->len += n;
	return true;
}

/* The character at `p` of `n` bytes (0: no character) as it stands in a JSON string. */
static size_t
escape(const uint8_t *p, size_t n, char ret[8])
{
	if (n == 0)
		return (size_t)snprintf(ret, 8, "\\\\x%02X", *p);
	if (*p == '"' || *p == '\\')
		return (size_t)snprintf(ret, 8, "\\%c", *p);
	if (n == 1 && (*p < 0x20 || *p == 0x7f))
		return (size_t)snprintf(ret, 8, "\\u%04X", *p);
	if (n == 2 && p[0] == 0xc2 && p[1] < 0xa0)
		return (size_t)snprintf(ret, 8, "\\u%04X", p[1]);
	memcpy(ret, p, n);
	return n;
}

/* Cut between two characters where it does not fit. */
static void
put_string(struct obj *o, const char *s, size_t len)
{
	const uint8_t *p = (const uint8_t *)s;
	char one[8];
	size_t n;

	put(o, "\"", 1);
	while (len > 0) {
		n = utf8_span(p, len);
		if (!put(o, one, escape(p, n, one)))
			break;
		n = n ? n : 1;
		p += n;
		len -= n;
	}
	o->buf[o->len++] = '"'; /* TAIL kept its place */
}

/* JSON's grammar of numbers, without exponents. */
static bool
is_number(const char *s, size_t len)
{
	size_t i = len > 0 && s[0] == '-', start = i;

	while (i < len && s[i] >= '0' && s[i] <= '9')
		i++;
	if (i == start || (s[start] == '0' && i > start + 1) || len > 24)
		return false;
	if (i == len)
		return true;
	if (s[i++] != '.' || i == len)
		return false;
	while (i < len && s[i] >= '0' && s[i] <= '9')
		i++;
	return i == len;
}

/* How often a member of this name stands in the object. */
static size_t
count_seen(const struct obj *o, const char *key, size_t len)
{
	size_t n = 0;

	for (size_t i = 0; i < o->n; i++)
		n += o->seen[i].len == len && memcmp(o->seen[i].key, key, len) == 0;
	return n;
}

static void
member(struct obj *o, const char *key, size_t klen, const char *value, size_t len, bool may_be_number)
{
	size_t before = count_seen(o, key, klen);
	bool is_num = may_be_number && is_number(value, len);
	char name[KEY_LEN_MAX + 32];
	int n;

	if (klen > KEY_LEN_MAX || o->n == MEMBERS_MAX)
		return;
	if (before)
		n = snprintf(name, sizeof(name), ",\"%.*s_%zu\":", (int)klen, key, before + 1);
	else
		n = snprintf(name, sizeof(name), ",\"%.*s\":", (int)klen, key);
	if (o->len + (size_t)n + (is_num ? len : 2) + TAIL > o->cap)
		return;
	put(o, name + (o->n == 0), (size_t)n - (o->n == 0));
	if (is_num)
		put(o, value, len);
	else
		put_string(o, value, len);
	o->seen[o->n].key = key;
	o->seen[o->n++].len = klen;
}

static bool
is_key_char(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '.';
}

/* Bytes of the key in front of a '=' at `s`, 0 when there is none. */
static size_t
key_len(const char *s)
{
	size_t n = 0;

	while (is_key_char(s[n]) && n < KEY_LEN_MAX)
		n++;
	return s[n] == '=' ? n : 0;
}

/* Where the value behind an opening quote ends: at a quote with a space or nothing behind it. */
static const char *
quote_end(const char *s)
{
	const char *end = strstr(s, "\" ");
	size_t len = strlen(s);

	if (end)
		return end;
	return len > 0 && s[len - 1] == '"' ? s + len - 1 : s + len;
}

/* Text that was printed before it came here: key=value key="value" words. */
static void
put_pairs(struct obj *o, const char *s)
{
	const char *end, *value;
	size_t klen;

	while (*(s += strspn(s, " "))) {
		klen = key_len(s);
		if (klen == 0) { /* words up to the next key */
			end = s;
			do {
				value = end + strcspn(end, " ");
				end = value + strspn(value, " ");
			} while (*end && key_len(end) == 0);
			member(o, "text", 4, s, (size_t)(value - s), false);
			s = end;
			continue;
		}
		value = s + klen + 1;
		end = *value == '"' ? quote_end(++value) : value + strcspn(value, " ");
		/* session ids may look like numbers, and are none */
		member(o, s, klen, value, (size_t)(end - value),
		    value[-1] != '"' && !(klen == 7 && memcmp(s, "session", 7) == 0));
		s = end + (*end == '"');
	}
}

/* --- the marks --------------------------------------------------------------- */

struct marks {
	char *text;
	size_t len, cap, n;
};

static void
mark_put(struct marks *m, const char *s, size_t n)
{
	if (m->len + n < m->cap)
		memcpy(m->text + m->len, s, n);
	m->len += n;
}

/* Bytes of the conversion at `s` ("%-5.2f"), its letter in *ret. */
static size_t
conversion(const char *s, char *ret)
{
	size_t n = 1 + strspn(s + 1, "#0- +'123456789.*hljztL");

	*ret = s[n];
	return n + (s[n] != '\0');
}

/* Bytes of the value at `s`, up to `end`; what it is in *ret. */
static size_t
value_scan(const char *s, char end, enum kind *ret)
{
	size_t n = 0, texts = 0, last_end = 0;
	bool is_mixed = false; /* "%d%s": a value, and text that was printed elsewhere behind it */
	char c = 0;

	while (s[n] && s[n] != end) {
		if (s[n] != '%') {
			n++;
			continue;
		}
		is_mixed = n > 0 && n == last_end;
		n += conversion(s + n, &c);
		last_end = n;
		is_mixed = is_mixed && c == 's' && end == ' ';
		texts += c != '%' && !strchr("diuf", c);
	}
	*ret = texts == 0 ? KIND_NUMBER : is_mixed ? KIND_MIXED : KIND_TEXT;
	return n;
}

static void
mark(struct marks *m, const char *key, size_t klen, enum kind kind, const char *value, size_t len)
{
	const char k = (char)kind;

	mark_put(m, "\1", 1);
	mark_put(m, key, klen);
	mark_put(m, "\2", 1);
	mark_put(m, &k, 1);
	mark_put(m, value, len);
	m->n++;
}

/* False when the format is too long. */
static bool
mark_format(struct marks *m, const char *fmt)
{
	enum kind kind;
	size_t klen, n;

	while (*(fmt += strspn(fmt, " "))) {
		klen = key_len(fmt);
		if (klen == 0) {
			n = value_scan(fmt, ' ', &kind);
			mark(m, "", 0, KIND_PAIRS, fmt, n);
			fmt += n;
		} else if (fmt[klen + 1] == '"') {
			n = value_scan(fmt + klen + 2, '"', &kind);
			mark(m, fmt, klen, KIND_TEXT, fmt + klen + 2, n);
			fmt += klen + 2 + n;
			fmt += *fmt == '"';
		} else {
			n = value_scan(fmt + klen + 1, ' ', &kind);
			mark(m, fmt, klen, kind, fmt + klen + 1, n);
			fmt += klen + 1 + n;
		}
	}
	if (m->len >= m->cap)
		return false;
	m->text[m->len] = '\0';
	return true;
}

static size_t
count_byte(const char *s, char c)
{
	size_t n = 0;

	for (; *s; s++)
		n += *s == c;
	return n;
}

/* The printed, marked text, piece by piece. It is cut into strings. */
static void
put_marked(struct obj *o, char *text)
{
	static char words[LOG_LINE_MAX * 2]; /* pieces without a key, one after the other */
	size_t used = 0;
	char *key, *value, *end;

	for (key = text; *key == '\1'; key = end) {
		key++;
		value = strchr(key, '\2') + 2;
		end = value + strcspn(value, "\1");
		if (value[-1] == KIND_PAIRS) {
			int n = snprintf(words + used, sizeof(words) - used, " %.*s", (int)(end - value), value);

			used += n > 0 && (size_t)n < sizeof(words) - used ? (size_t)n : 0;
			continue;
		}
		if (value[-1] == KIND_MIXED) {
			size_t n = strcspn(value, " \1");
			int w = snprintf(
			    words + used, sizeof(words) - used, "%.*s", (int)((size_t)(end - value) - n), value + n);

			used += w > 0 && (size_t)w < sizeof(words) - used ? (size_t)w : 0;
			member(o, key, (size_t)(value - 2 - key), value, n, true);
			continue;
		}
		member(o, key, (size_t)(value - 2 - key), value, (size_t)(end - value), value[-1] == KIND_NUMBER);
	}
	words[used] = '\0';
	put_pairs(o, words);
}

/* The format of the caller with marks around each value is no literal. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
size_t
logjson_make(char *buf, size_t cap, const struct logjson_head *h, const char *fmt, va_list ap)
{
	struct obj o = { .buf = buf, .cap = cap };
	char marked[1024], text[LOG_LINE_MAX * 2], number[24];
	struct marks m = { .text = marked, .cap = sizeof(marked) };
	va_list again;

	put(&o, "{", 1);
	member(&o, "time", 4, h->time, h->time_len, false);
	member(&o, "program", 7, h->program, strlen(h->program), false);
	snprintf(number, sizeof(number), "%d", h->pid);
	member(&o, "pid", 3, number, strlen(number), true);
	member(&o, "level", 5, h->level, strlen(h->level), false);
	member(&o, "event", 5, h->event, strlen(h->event), false);
	if (h->suppressed) {
		snprintf(number, sizeof(number), "%llu", h->suppressed);
		member(&o, "suppressed", 10, number, strlen(number), true);
	}
	va_copy(again, ap);
	if (mark_format(&m, fmt) && vsnprintf(text, sizeof(text), marked, ap) >= 0 && count_byte(text, 1) == m.n &&
	    count_byte(text, 2) == m.n) {
		put_marked(&o, text);
	} else {
		vsnprintf(text, sizeof(text), fmt, again);
		member(&o, "text", 4, text, strlen(text), false);
	}
	va_end(again);
	o.buf[o.len++] = '}';
	return o.len;
}
#pragma GCC diagnostic pop
