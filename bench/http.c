/* http.c - the generator's HTTP/1.1: one message at a time, Content-Length, kept alive, plain or mTLS
 *
 * Always true: between two events all that came was read; what could not be written waits in `out`.
 * It speaks to our own programs only and dies on what they would not send.
 */
#include "bench.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <openssl/err.h>

#include "hyper/base/clock.h"
#include "hyper/base/fd.h"

#define MESSAGE_MAX ((size_t)8 * 1024 * 1024)

static void
die_of_tls(const char *what)
{
	char text[256];

	ERR_error_string_n(ERR_get_error(), text, sizeof(text));
	bench_die("%s: %s", what, text);
}

SSL_CTX *
http_ctx(const struct conf *c, bool is_server)
{
	SSL_CTX *ctx;

	if (!c->cert)
		return NULL;
	ctx = SSL_CTX_new(is_server ? TLS_server_method() : TLS_client_method());
	if (!ctx || SSL_CTX_use_certificate_chain_file(ctx, c->cert) != 1 ||
	    SSL_CTX_use_PrivateKey_file(ctx, c->key, SSL_FILETYPE_PEM) != 1 ||
	    SSL_CTX_load_verify_locations(ctx, c->ca, NULL) != 1)
		die_of_tls("certificates");
	SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | (is_server ? SSL_VERIFY_FAIL_IF_NO_PEER_CERT : 0), NULL);
	return ctx;
}

/* >0: bytes, 0: end, -1: later */
static ssize_t
raw_read(struct http *h, void *buf, size_t cap)
{
	ssize_t n;
	int err;

	if (!h->ssl) {
		n = recv(h->ev.fd, buf, cap, 0);
		return n >= 0 ? n : errno == EAGAIN ? -1 : 0;
	}
	ERR_clear_error();
	n = SSL_read(h->ssl, buf, (int)cap);
	if (n > 0)
		return n;
	err = SSL_get_error(h->ssl, (int)n);
	return err == SSL_ERROR_WANT_READ || err == SSL_ERROR_WANT_WRITE ? -1 : 0;
}

static ssize_t
raw_write(struct http *h, const void *buf, size_t len)
{
	ssize_t n;
	int err;

	if (!h->ssl) {
		n = send(h->ev.fd, buf, len, MSG_NOSIGNAL);
		return n >= 0 ? n : errno == EAGAIN ? -1 : 0;
	}
	ERR_clear_error();
	n = SSL_write(h->ssl, buf, (int)len);
	if (n > 0)
		return n;
	err = SSL_get_error(h->ssl, (int)n);
	return err == SSL_ERROR_WANT_READ || err == SSL_ERROR_WANT_WRITE ? -1 : 0;
}

static void
http_flush(struct http *h)
{
	bool wants;

	while (h->n_out) {
		ssize_t n = raw_write(h, h->out, h->n_out);

		if (n < 0)
			break;
		if (n == 0)
			return; /* the read side tells */
		memmove(h->out, h->out + n, h->n_out - (size_t)n);
		h->n_out -= (size_t)n;
	}
	/* A server that still shakes hands gets its turn with the peer's next bytes. */
	wants = h->n_out && (!h->ssl || SSL_is_init_finished(h->ssl));
	if (wants != h->wants_write) {
		h->wants_write = wants;
		loop_set(h->ep, &h->ev, EPOLLIN | (wants ? EPOLLOUT : 0u));
	}
}

/* Length of a whole message at the front of `in`, 0: not there yet; *ret_body its body. */
static size_t
whole_message(struct http *h, size_t *ret_body)
{
	char *end, *p;
	size_t len = 0;

	h->in[h->n_in] = '\0';
	end = strstr(h->in, "\r\n\r\n");
	if (!end)
		return 0;
	if (h->is_client && !h->takes_refusals && strncmp(h->in, "HTTP/1.1 200", 12) != 0)
		bench_die("the answer is no 200: %.500s", h->in);
	*end = '\0';
	p = strcasestr(h->in, "\r\ncontent-length:");
	if (!p)
		bench_die("a message without Content-Length: %.500s", h->in);
	len = strtoul(p + 17, NULL, 10);
	*end = '\r';
	*ret_body = (size_t)(end + 4 - h->in);
	if (len > MESSAGE_MAX)
		bench_die("a message of %zu bytes", len);
	return h->n_in >= *ret_body + len ? *ret_body + len : 0;
}

/* False when the connection ended. */
static bool
http_fill(struct http *h)
{
	ssize_t n;

	for (;;) {
		if (h->cap_in - h->n_in < 4096) {
			h->cap_in = h->cap_in ? 2 * h->cap_in : 16384;
			h->in = realloc(h->in, h->cap_in + 1);
			if (!h->in || h->cap_in > 4 * MESSAGE_MAX)
				bench_die("out of memory");
		}
		n = raw_read(h, h->in + h->n_in, h->cap_in - h->n_in);
		if (n <= 0)
			return n < 0;
		h->n_in += (size_t)n;
	}
}

static void
http_on_event(struct ev *ev, uint32_t events)
{
	struct http *h = (struct http *)ev;
	bool is_open;
	size_t len, body;

	(void)events;
	is_open = http_fill(h);
	while (h->n_in && (len = whole_message(h, &body)) > 0) {
		char saved = h->in[len];

		h->in[len] = '\0';
		h->on_message(h, h->in + body, len - body);
		h->in[len] = saved;
		memmove(h->in, h->in + len, h->n_in - len);
		h->n_in -= len;
	}
	if (is_open) {
		http_flush(h);
		return;
	}
	if (!h->on_end)
		bench_die("an HTTP connection ended");
	h->on_end(h);
}

struct http *
http_new(int ep, int fd, SSL_CTX *ctx, bool is_client)
{
	struct http *h = calloc(1, sizeof(*h));

	if (!h)
		bench_die("out of memory");
	h->ev = (struct ev){ .fd = fd, .on_event = http_on_event };
	h->ep = ep;
	h->is_client = is_client;
	if (ctx) {
		h->ssl = SSL_new(ctx);
		if (!h->ssl || SSL_set_fd(h->ssl, fd) != 1)
			die_of_tls("TLS");
		if (is_client)
			SSL_set_connect_state(h->ssl);
		else
			SSL_set_accept_state(h->ssl);
	}
	while (is_client && ctx) {
		struct pollfd p = { .fd = fd, .events = POLLIN };
		int rc = SSL_do_handshake(h->ssl);

		if (rc == 1)
			break;
		if (SSL_get_error(h->ssl, rc) != SSL_ERROR_WANT_READ || poll(&p, 1, 10000) != 1)
			die_of_tls("TLS handshake");
	}
	loop_add(ep, &h->ev, EPOLLIN);
	return h;
}

void
http_free(struct http *h)
{
	fd_close(&h->ev.fd);
	SSL_free(h->ssl);
	free(h->in);
	free(h->out);
	free(h);
}

static void
http_send(struct http *h, const char *head, const char *body)
{
	size_t need = h->n_out + strlen(head) + strlen(body) + 128;

	if (need > h->cap_out) {
		h->cap_out = 2 * need;
		h->out = realloc(h->out, h->cap_out);
		if (!h->out)
			bench_die("out of memory");
	}
	h->n_out += (size_t)snprintf(h->out + h->n_out, h->cap_out - h->n_out,
	    "%sContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s", head, strlen(body), body);
	http_flush(h);
}

void
http_request(struct http *h, const char *host, const char *body)
{
	char head[256];

	snprintf(head, sizeof(head), "POST /jsonrpc HTTP/1.1\r\nHost: %s\r\n", host);
	h->sent_ns = clock_now_ns();
	http_send(h, head, body);
}

void
http_answer(struct http *h, const char *body)
{
	http_send(h, "HTTP/1.1 200 OK\r\n", body);
}
