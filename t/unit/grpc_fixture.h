/* grpc_fixture.h - two of our ends over loopback: a listener, a client, and what each stream of theirs saw */
#ifndef T_UNIT_GRPC_FIXTURE_H
#define T_UNIT_GRPC_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>
#include <event2/event.h>

#include "hyper/base/clock.h"
#include "hyper/net/grpc.h"

#define WAIT_MS 20000

extern struct event_base *base;
extern struct conf_tls server_tls, client_tls, bare_tls, other_tls;
extern SSL_CTX *client_ctx;

/* One side of a stream. */
struct side {
	struct grpc_stream *s;
	struct grpc_conn *conn;
	const char *mode; /* what it does; a server's is the path */
	unsigned messages, half_closes, ends;
	size_t bytes, last_len;
	uint8_t last_first, last_last; /* first and last byte of the last message */
	int status;
	char message[300];
	struct grpc_conn **free_me; /* freed and set NULL in the callback that mode says */
};

struct fixture {
	struct conf_grpc_server conf;
	struct grpc_listener *listener;
	char address[64];
	struct grpc_conn *client, *server;
	unsigned accepted, secured_client, secured_server, closed_client, closed_server;
	bool refuse_client, refuse_server, free_on_secured, free_on_stream, free_on_closed;
	enum end_reason client_reason, server_reason;
	char client_why[GRPC_ERR_MAX], server_why[GRPC_ERR_MAX];
	struct side sides[400]; /* the server's, in order of arrival */
	size_t n_sides;
	size_t fds;
};

extern struct fixture *fx;
extern const struct grpc_stream_ops stream_ops;
extern const struct grpc_conn_ops client_ops, server_ops;

/* Runs the loop until the condition holds. */
#define UNTIL(cond)                                                 \
	do {                                                        \
		int64_t end_ = clock_now_ms() + WAIT_MS;            \
		while (!(cond) && clock_now_ms() < end_)            \
			if (event_base_loop(base, EVLOOP_ONCE) < 0) \
				abort();                            \
		if (!(cond))                                        \
			fail_msg("not reached in time: %s", #cond); \
	} while (0)

/* A few turns more, for what must not happen. */
void turns(int n);

/* A frame of `len` bytes `fill`; taken. And the same sent. */
uint8_t *frame_of(size_t len, uint8_t fill);
int send_fill(struct grpc_stream *, size_t len, uint8_t fill);

/* Binds f->conf, sets f->listener and f->address. */
void listen_now(struct fixture *f);

/* A fixture with a listener; its end, which checks that all descriptors are back. */
int setup(void **state);
int teardown(void **state);
int group_setup(void **state);
int group_teardown(void **state);

/* f->client dials; and is secured on both sides. */
void dial(struct fixture *f, SSL_CTX *ctx, const char *name);
void dial_ready(struct fixture *f);

/* A client stream that writes down what it sees in `d`. */
void open_side(struct fixture *f, const char *path, struct side *d);

#define TEST(t) cmocka_unit_test_setup_teardown(t, setup, teardown)

#endif
