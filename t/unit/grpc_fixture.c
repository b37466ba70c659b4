/* grpc_fixture.c - two of our ends over loopback and real TLS */
#include "grpc_fixture.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "hyper/base/fd.h"
#include "hyper/base/log.h"
#include "pki.h"
#include "unit_tmp.h"

static char pki_dir[UNIT_TMP_MAX], other_dir[UNIT_TMP_MAX];
struct event_base *base;
struct conf_tls server_tls, client_tls, bare_tls, other_tls;
SSL_CTX *client_ctx;

struct fixture *fx;

static void
on_tick(evutil_socket_t sock, short what, void *arg)
{
	(void)sock;
	(void)what;
	(void)arg;
}

/* A few turns more, for what must not happen. */
void
turns(int n)
{
	while (n-- > 0)
		event_base_loop(base, EVLOOP_ONCE);
}

uint8_t *
frame_of(size_t len, uint8_t fill)
{
	uint8_t *f = malloc(GRPC_FRAME_HEAD + len);

	assert_non_null(f);
	f[0] = 0;
	f[1] = (uint8_t)(len >> 24);
	f[2] = (uint8_t)(len >> 16);
	f[3] = (uint8_t)(len >> 8);
	f[4] = (uint8_t)len;
	memset(f + GRPC_FRAME_HEAD, fill, len);
	return f;
}

int
send_fill(struct grpc_stream *s, size_t len, uint8_t fill)
{
	return grpc_stream_send(s, frame_of(len, fill), GRPC_FRAME_HEAD + len);
}

static void
maybe_free(struct side *d, const char *when)
{
	if (d->free_me == NULL || *d->free_me == NULL || strcmp(d->mode, when) != 0)
		return;
	grpc_conn_free(*d->free_me);
	*d->free_me = NULL;
}

static void
on_message(struct grpc_stream *s, const uint8_t *msg, size_t len, void *arg)
{
	struct side *d = arg;

	d->messages++;
	d->bytes += len;
	d->last_len = len;
	d->last_first = len > 0 ? msg[0] : 0;
	if (strcmp(d->mode, "/T/echo") == 0)
		assert_int_equal(send_fill(s, len, d->last_first), 0);
	if (strcmp(d->mode, "/T/first") == 0)
		grpc_stream_finish(s, GRPC_OK, "one is enough");
	maybe_free(d, "free on message");
	maybe_free(d, "/T/free-on-message");
	/* still readable, whatever was ended above */
	d->last_last = len > 0 ? msg[len - 1] : 0;
}

static void
on_half_close(struct grpc_stream *s, void *arg)
{
	struct side *d = arg;

	d->half_closes++;
	maybe_free(d, "/T/free-on-half-close");
	if (d->conn == NULL || strcmp(d->mode, "/T/hang") == 0 || strncmp(d->mode, "/T/free", 7) == 0)
		return;
	if (strcmp(d->mode, "/T/late") == 0)
		for (int i = 0; i < 10; i++)
			assert_int_equal(send_fill(s, 1000, (uint8_t)i), 0);
	grpc_stream_finish(s, GRPC_OK, "");
}

static void
on_end(struct grpc_stream *s, int status, const char *message, void *arg)
{
	struct side *d = arg;

	(void)s;
	d->ends++;
	d->status = status;
	d->s = NULL;
	snprintf(d->message, sizeof d->message, "%s", message);
	maybe_free(d, "free on end");
	maybe_free(d, "/T/free-on-end");
}

const struct grpc_stream_ops stream_ops = { on_message, on_half_close, on_end };

static bool
client_secured(struct grpc_conn *c, const struct tls_peer *peer, void *arg)
{
	struct fixture *f = arg;

	f->secured_client++;
	assert_true(tls_peer_has_name(peer, "hd-2"));
	assert_int_equal(strlen(peer->fingerprint), 64);
	assert_true(grpc_conn_is_ready(c));
	assert_true(grpc_conn_heard_ms(c) > 0 && grpc_conn_heard_ms(c) <= grpc_conn_secured_ms(c));
	if (f->free_on_secured) {
		grpc_conn_free(c);
		f->client = NULL;
	}
	return !f->refuse_client;
}

static void
client_closed(struct grpc_conn *c, enum end_reason reason, const char *why, void *arg)
{
	struct fixture *f = arg;

	assert_int_equal(grpc_conn_streams(c), 0);
	f->closed_client++;
	f->client_reason = reason;
	snprintf(f->client_why, sizeof f->client_why, "%s", why);
	if (f->free_on_closed) {
		grpc_conn_free(c);
		f->client = NULL;
	}
}

const struct grpc_conn_ops client_ops = { client_secured, NULL, client_closed };

static bool
server_secured(struct grpc_conn *c, const struct tls_peer *peer, void *arg)
{
	struct fixture *f = arg;

	f->secured_server++;
	if (f->conf.tls->verify_client)
		assert_true(tls_peer_has_name(peer, "hd-1"));
	(void)c;
	return !f->refuse_server;
}

static bool
server_stream(struct grpc_conn *c, struct grpc_stream *s, const char *path, void *arg)
{
	struct fixture *f = arg;
	struct side *d = &f->sides[f->n_sides % ARRAY_LEN(f->sides)];

	if (strncmp(path, "/T/", 3) != 0)
		return false;
	f->n_sides++;
	memset(d, 0, sizeof *d);
	d->s = s;
	d->conn = c;
	d->mode = strdup(path);
	d->free_me = &f->server;
	grpc_stream_set(s, &stream_ops, d);
	if (strcmp(path, "/T/fail") == 0)
		grpc_stream_finish(s, 7, "nicht erlaubt: \xc3\xbc 100%");
	if (f->free_on_stream) {
		grpc_conn_free(c);
		f->server = NULL;
	}
	return true;
}

static void
server_closed(struct grpc_conn *c, enum end_reason reason, const char *why, void *arg)
{
	struct fixture *f = arg;

	f->closed_server++;
	f->server_reason = reason;
	snprintf(f->server_why, sizeof f->server_why, "%s", why);
	if (c == f->server)
		f->server = NULL;
	grpc_conn_free(c);
}

const struct grpc_conn_ops server_ops = { server_secured, server_stream, server_closed };

static void *
on_conn(struct grpc_conn *c, void *arg)
{
	struct fixture *f = arg;

	f->accepted++;
	f->server = c;
	return f;
}

void
listen_now(struct fixture *f)
{
	char err[GRPC_ERR_MAX];

	if (grpc_listener_new(base, &f->conf, &server_ops, on_conn, f, &f->listener, err) != 0)
		fail_msg("%s", err);
	snprintf(f->address, sizeof f->address, "localhost:%u", grpc_listener_port(f->listener));
}

int
setup(void **state)
{
	fx = calloc(1, sizeof *fx);
	assert_non_null(fx);
	fx->fds = fd_count();
	fx->conf.bind_address = strdup("localhost:0");
	fx->conf.tls = &server_tls;
	fx->conf.max_connections = 16;
	listen_now(fx);
	*state = fx;
	return 0;
}

int
teardown(void **state)
{
	struct fixture *f = *state;
	size_t i;

	grpc_conn_free(f->client);
	if (f->listener != NULL)
		UNTIL(f->closed_server == f->accepted || f->server == NULL || f->client == NULL);
	grpc_conn_free(f->server);
	grpc_listener_free(f->listener);
	/* all memory and descriptors are back a turn later, connections the test left to themselves as well */
	UNTIL(fd_count() == f->fds);
	turns(2);
	for (i = 0; i < f->n_sides && i < ARRAY_LEN(f->sides); i++) {
		assert_int_equal(f->sides[i].ends, 1);
		free((char *)(uintptr_t)f->sides[i].mode);
	}
	free(f->conf.bind_address);
	free(f);
	fx = NULL;
	return 0;
}

void
dial(struct fixture *f, SSL_CTX *ctx, const char *name)
{
	assert_int_equal(grpc_conn_dial(base, ctx, f->address, name, 5000, &client_ops, f, &f->client), 0);
}

void
dial_ready(struct fixture *f)
{
	dial(f, client_ctx, "hd-2");
	UNTIL(f->secured_client > 0 && f->secured_server > 0);
}

void
open_side(struct fixture *f, const char *path, struct side *d)
{
	memset(d, 0, sizeof *d);
	d->conn = f->client;
	d->mode = "";
	d->free_me = &f->client;
	assert_int_equal(grpc_stream_open(f->client, path, "hd-2", &stream_ops, d, &d->s), 0);
	assert_non_null(d->s);
	assert_ptr_equal(grpc_stream_conn(d->s), f->client);
}

int
group_setup(void **state)
{
	static const struct timeval tick = { .tv_usec = 20000 };
	char err[TLS_ERR_MAX];
	struct event *ev;

	(void)state;
	signal(SIGPIPE, SIG_IGN); /* as daemon_new() does */
	log_open("test_grpc", getenv("T_DEBUG") != NULL ? LOG_LVL_DEBUG : LOG_LVL_ERROR);
	pki_open(unit_tmp(pki_dir, "hyper-grpc"));
	pki_issue(pki_dir, "hd-1");
	pki_issue(pki_dir, "hd-2");
	pki_open(unit_tmp(other_dir, "hyper-grpc"));
	pki_issue(other_dir, "hd-1");
	server_tls = pki_conf(pki_dir, "hd-2");
	client_tls = pki_conf(pki_dir, "hd-1");
	bare_tls = pki_conf(pki_dir, NULL);
	other_tls = pki_conf(other_dir, "hd-1");
	if (tls_ctx_new(&client_tls, TLS_CLIENT, TLS_ALPN_H2, &client_ctx, err) != 0)
		fail_msg("%s", err);
	base = event_base_new();
	ev = event_new(base, -1, EV_PERSIST, on_tick, NULL); /* so that UNTIL looks at its clock */
	assert_int_equal(event_add(ev, &tick), 0);
	*state = ev;
	return 0;
}

int
group_teardown(void **state)
{
	event_free(*state);
	event_base_free(base);
	SSL_CTX_free(client_ctx);
	pki_conf_fini(&server_tls);
	pki_conf_fini(&client_tls);
	pki_conf_fini(&bare_tls);
	pki_conf_fini(&other_tls);
	pki_close(pki_dir);
	pki_close(other_dir);
	return 0;
}
