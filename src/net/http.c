/* http.c - HTTP/1.1 requests as bytes: strict head, chunked bodies, status words
 *
 * Always true:
 *  1. A request has one length that every reader agrees on, or it is refused
 *     (RFC 9112 sections 6.1 and 6.3): no smuggling behind a front-end.
 *  2. No byte is looked at twice while a head drips in, and nothing is held
 *     beyond HTTP_HEAD_MAX, HTTP_LINE_MAX, HTTP_TRAILER_MAX and the caller's `max`.
 *
 * evhttp (libevent 2.1.12) is not used: docs/decisions/010-http-server.md says why.
 *
 * Not here: sockets and deadlines (rpcconn.c), what a path or method means (rpcjudge.c).
 */
#include "net/http.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <event2/buffer.h>

ssize_t
http_head_scan(const char *data, size_t len, size_t *scanned)
{
	size_t i, end = len < HTTP_HEAD_MAX ? len : HTTP_HEAD_MAX;

	for (i = *scanned; i < end; i++) {
		unsigned char c = (unsigned char)data[i];
		bool after_cr = i > 0 && data[i - 1] == '\r';

		if (after_cr != (c == '\n'))
			return -EINVAL;
		if (c == '\n' && i >= 3 && data[i - 2] == '\n')
			return (ssize_t)(i + 1);
		if (c == 0x7f || (c < 0x20 && c != '\t' && c != '\r' && c != '\n'))
			return -EINVAL;
	}
	*scanned = end;
	return end == HTTP_HEAD_MAX ? -EMSGSIZE : 0;
}

/* RFC 9110 "token" */
static bool
is_token(const char *s, size_t len)
{
	static const char others[] = "!#$%&'*+-.^_`|~";
	size_t i;

	for (i = 0; i < len; i++) {
		bool alnum =
		    (s[i] >= '0' && s[i] <= '9') || (s[i] >= 'a' && s[i] <= 'z') || (s[i] >= 'A' && s[i] <= 'Z');

		if (!alnum && (s[i] == '\0' || strchr(others, s[i]) == NULL))
			return false;
	}
	return len > 0;
}

/* Cuts the line at `p` off and moves on behind it; the scan made sure of CRLF. */
static char *
next_line(char **p)
{
	char *line = *p, *end = strstr(line, "\r\n");

	if (end == NULL)
		return NULL;
	*end = '\0';
	*p = end + 2;
	return line;
}

static char *
trim(char *s)
{
	size_t len;

	s += strspn(s, " \t");
	len = strlen(s);
	while (len > 0 && (s[len - 1] == ' ' || s[len - 1] == '\t'))
		s[--len] = '\0';
	return s;
}

/* "/path?query", "*", or the absolute form that proxies send */
static const char *
target_path(char *target)
{
	char *path = target, *query;

	if (strncasecmp(target, "http://", 7) == 0 || strncasecmp(target, "https://", 8) == 0) {
		path = strchr(strchr(target, ':') + 3, '/');
		if (path == NULL)
			return "/";
	} else if (target[0] != '/' && strcmp(target, "*") != 0) {
		return NULL;
	}
	query = strpbrk(path, "?#");
	if (query != NULL)
		*query = '\0';
	return path;
}

static int
parse_request_line(char *line, struct http_head *h, const char **ret_why)
{
	char *target = strchr(line, ' '), *version = target != NULL ? strchr(target + 1, ' ') : NULL;

	*ret_why = "the first line is not an HTTP request: METHOD /path HTTP/1.1 is expected";
	if (version == NULL)
		return 400;
	*target++ = '\0';
	*version++ = '\0';
	if (!is_token(line, strlen(line)) || strncmp(version, "HTTP/", 5) != 0)
		return 400;
	if (strcmp(version, "HTTP/1.1") != 0 && strcmp(version, "HTTP/1.0") != 0) {
		*ret_why = "only HTTP/1.1 is spoken here";
		return 505;
	}
	h->method = line;
	h->http11 = version[7] == '1';
	h->keep = h->http11;
	h->path = target_path(target);
	return h->path != NULL ? 0 : 400;
}

static bool
parse_length(const char *value, int64_t *ret)
{
	int64_t v = 0;
	size_t i;

	for (i = 0; value[i] >= '0' && value[i] <= '9' && i < 18; i++)
		v = v * 10 + (value[i] - '0');
	if (i == 0 || value[i] != '\0')
		return false;
	*ret = v;
	return true;
}

/* Is `word` an element of a comma-separated list? */
static bool
list_has(const char *list, const char *word)
{
	size_t len = strlen(word), n;

	while (*list != '\0') {
		list += strspn(list, " \t,");
		n = strcspn(list, " \t,");
		if (n == len && strncasecmp(list, word, len) == 0)
			return true;
		list += n;
	}
	return false;
}

/* A text that may come once only. */
static int
set_once(const char **ret, const char *value, const char *why, const char **ret_why)
{
	if (*ret != NULL) {
		*ret_why = why;
		return 400;
	}
	*ret = value;
	return 0;
}

static int
parse_transfer_encoding(struct http_head *h, const char *value, const char **ret_why)
{
	if (!h->http11 || h->chunked) {
		*ret_why = "Transfer-Encoding: once, and in HTTP/1.1 only";
		return 400;
	}
	if (strcasecmp(value, "chunked") != 0) {
		*ret_why = "Transfer-Encoding: only chunked is understood";
		return 501;
	}
	h->chunked = true;
	return 0;
}

static int
parse_field(struct http_head *h, const char *name, const char *value, const char **ret_why)
{
	if (strcasecmp(name, "Host") == 0)
		return set_once(&h->host, value, "Host: once is expected", ret_why);
	if (strcasecmp(name, "Content-Type") == 0)
		return set_once(&h->content_type, value, "Content-Type: once is expected", ret_why);
	if (strcasecmp(name, "Origin") == 0)
		return set_once(&h->origin, value, "Origin: once is expected", ret_why);
	if (strcasecmp(name, "Access-Control-Request-Headers") == 0)
		return set_once(&h->acr_headers, value, "Access-Control-Request-Headers: once is expected", ret_why);
	if (strcasecmp(name, "Transfer-Encoding") == 0)
		return parse_transfer_encoding(h, value, ret_why);
	if (strcasecmp(name, "Content-Length") == 0 && (h->length >= 0 || !parse_length(value, &h->length))) {
		*ret_why = "Content-Length: one decimal number is expected";
		return 400;
	}
	if (strcasecmp(name, "Connection") == 0) {
		if (list_has(value, "close"))
			h->keep = false;
		else if (!h->http11 && list_has(value, "keep-alive"))
			h->keep = true;
	}
	if (strcasecmp(name, "Expect") == 0) {
		*ret_why = "Expect: only 100-continue is understood";
		if (strcasecmp(value, "100-continue") != 0)
			return 417;
		h->expect_continue = h->http11;
	}
	return 0;
}

int
http_head_parse(char *text, size_t len, struct http_head *ret, const char **ret_why)
{
	struct http_head h = { .length = -1 };
	char *p = text, *line;
	int rc, n = 0;

	*ret_why = "the request is malformed";
	text[len] = '\0';
	line = next_line(&p);
	if (line == NULL)
		return 400;
	rc = parse_request_line(line, &h, ret_why);
	while (rc == 0 && (line = next_line(&p)) != NULL && line[0] != '\0') {
		char *colon = strchr(line, ':');

		*ret_why = "a header line is malformed: Name: value is expected, without folding";
		if (colon == NULL || !is_token(line, (size_t)(colon - line)) || ++n > HTTP_FIELDS_MAX)
			return 400;
		*colon = '\0';
		rc = parse_field(&h, line, trim(colon + 1), ret_why);
	}
	if (rc != 0)
		return rc;
	if (h.chunked && h.length >= 0) {
		*ret_why = "Content-Length and Transfer-Encoding exclude each other";
		return 400;
	}
	if (h.http11 && h.host == NULL) {
		*ret_why = "Host: is missing";
		return 400;
	}
	*ret = h;
	return 0;
}

bool
http_is_json(const char *content_type)
{
	static const char json[] = "application/json";

	if (content_type == NULL || strncasecmp(content_type, json, sizeof(json) - 1) != 0)
		return false;
	content_type += sizeof(json) - 1;
	content_type += strspn(content_type, " \t");
	return *content_type == '\0' || *content_type == ';';
}

const char *
http_status_text(int status)
{
	static const struct {
		int status;
		const char *text;
	} words[] = {
		{ 200, "OK" },
		{ 400, "Bad Request" },
		{ 403, "Forbidden" },
		{ 404, "Not Found" },
		{ 405, "Method Not Allowed" },
		{ 408, "Request Timeout" },
		{ 413, "Content Too Large" },
		{ 417, "Expectation Failed" },
		{ 431, "Request Header Fields Too Large" },
		{ 500, "Internal Server Error" },
		{ 501, "Not Implemented" },
		{ 503, "Service Unavailable" },
		{ 505, "HTTP Version Not Supported" },
	};
	size_t i;

	for (i = 0; i < ARRAY_LEN(words); i++)
		if (words[i].status == status)
			return words[i].text;
	return "Unknown";
}

int
http_body_append(struct http_body *b, struct evbuffer *in, size_t n)
{
	size_t have = evbuffer_get_length(in), cap = b->cap != 0 ? b->cap : 4096;
	int moved;

	if (n > have)
		n = have;
	while (cap - b->len < n)
		cap *= 2;
	if (cap != b->cap) {
		char *data = realloc(b->data, cap);

		if (data == NULL)
			return -ENOMEM;
		b->data = data;
		b->cap = cap;
	}
	moved = evbuffer_remove(in, b->data + b->len, n);
	if (moved > 0)
		b->len += (size_t)moved;
	return 0;
}

void
http_body_fini(struct http_body *b)
{
	free(b->data);
	memset(b, 0, sizeof(*b));
}

/* A line of at most HTTP_LINE_MAX bytes into `ret`, without its CRLF. 1, 0 not there yet, or -EINVAL. */
static int
take_line(struct evbuffer *in, char ret[HTTP_LINE_MAX + 1], size_t *ret_len)
{
	size_t eol_len = 0;
	struct evbuffer_ptr eol = evbuffer_search_eol(in, NULL, &eol_len, EVBUFFER_EOL_CRLF_STRICT);

	if (eol.pos < 0)
		return evbuffer_get_length(in) > HTTP_LINE_MAX + 1 ? -EINVAL : 0;
	if (eol.pos > HTTP_LINE_MAX)
		return -EINVAL;
	evbuffer_remove(in, ret, (size_t)eol.pos);
	ret[eol.pos] = '\0';
	*ret_len = (size_t)eol.pos;
	evbuffer_drain(in, eol_len);
	return 1;
}

static int
parse_chunk_size(const char *line, size_t *ret)
{
	size_t digits = strspn(line, "0123456789abcdefABCDEF");
	const char *rest = line + digits;

	rest += strspn(rest, " \t");
	if (digits == 0 || digits > 8 || (*rest != '\0' && *rest != ';'))
		return -EINVAL;
	*ret = strtoul(line, NULL, 16);
	return 0;
}

/* 1: go on, 0: more bytes are needed, -errno */
static int
chunk_size_line(struct http_chunks *c, struct evbuffer *in, const struct http_body *body, size_t max)
{
	char line[HTTP_LINE_MAX + 1];
	size_t len;
	int rc = take_line(in, line, &len);

	if (rc <= 0)
		return rc;
	/* strlen: a NUL inside would hide the rest of the line */
	if (strlen(line) != len || parse_chunk_size(line, &c->left) != 0)
		return -EINVAL;
	if (c->left > max - body->len)
		return -EMSGSIZE;
	c->at = c->left == 0 ? CHUNK_TRAILER : CHUNK_DATA;
	return 1;
}

static int
chunk_data(struct http_chunks *c, struct evbuffer *in, struct http_body *body)
{
	size_t before = body->len;
	int rc = http_body_append(body, in, c->left);

	if (rc != 0)
		return rc;
	c->left -= body->len - before;
	if (c->left > 0)
		return 0;
	c->at = CHUNK_DATA_END;
	return 1;
}

static int
chunk_data_end(struct http_chunks *c, struct evbuffer *in)
{
	char crlf[2];

	if (evbuffer_get_length(in) < sizeof(crlf))
		return 0;
	evbuffer_remove(in, crlf, sizeof(crlf));
	if (crlf[0] != '\r' || crlf[1] != '\n')
		return -EINVAL;
	c->at = CHUNK_SIZE;
	return 1;
}

int
http_chunks_step(struct http_chunks *c, struct evbuffer *in, struct http_body *body, size_t max)
{
	char line[HTTP_LINE_MAX + 1];
	size_t len = 0;
	int rc = 1;

	while (rc == 1) {
		switch (c->at) {
		case CHUNK_SIZE: rc = chunk_size_line(c, in, body, max); break;
		case CHUNK_DATA: rc = chunk_data(c, in, body); break;
		case CHUNK_DATA_END: rc = chunk_data_end(c, in); break;
		case CHUNK_TRAILER: /* read over: nobody asked for them */
			rc = take_line(in, line, &len);
			if (rc == 1 && len == 0)
				return 1;
			c->trailer += len + 2;
			if (c->trailer > HTTP_TRAILER_MAX)
				return -EINVAL;
			break;
		}
	}
	return rc;
}
