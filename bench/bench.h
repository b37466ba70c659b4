/* bench.h - what the load generator's files share: loop, sockets, pattern, CPU of the relays, latencies, HTTP
 *
 * A load that cannot do its work ends at once with a message (bench_die): a figure from a broken run is worse
 * than none. Nothing here is part of an installed program.
 */
#ifndef BENCH_H
#define BENCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <openssl/ssl.h>

#include "hyper/base/attr.h"

#define TOKEN 32 /* bytes */

#define NS_PER_S  1000000000LL
#define NS_PER_MS 1000000LL
#define PIDS_MAX  16

/* How the two ends of a pair come together. */
enum meet_mode {
	MEET_FORWARD, /* A dials the relay (or, directly, the sink), which dials our listener */
	MEET_TOKEN,   /* both dial the endpoint with a token from requestConnection; we play the proxy's hyper */
	MEET_PREAMBLE /* both dial the relay with bytes from a file (bench/strelay) */
};

/* key=value arguments of `load`; ports are on 127.0.0.1 */
struct conf {
	enum meet_mode mode;
	uint16_t dial;   /* relay, or endpoint */
	uint16_t listen; /* MEET_FORWARD: our sink */
	uint16_t rpc;    /* MEET_TOKEN: the proxy's JSON-RPC port */
	uint16_t hyper;  /* MEET_TOKEN: our port, where the proxy calls its hyper */
	size_t pairs;
	size_t active; /* ping-pong: so many of them have a ball, 0 all; then it stays until its standard input ends */
	size_t count;  /* stop after this many, 0: by time */
	size_t size;   /* calls: bytes of a text among the parameters, which _ping sends back */
	size_t in_flight; /* pairing rate: at the same time */
	bool both;        /* bulk: both directions */
	bool ahead;       /* pairing rate: tokens are issued before the clock starts */
	double warm;      /* seconds before the measured window */
	double seconds;   /* of the window */
	size_t per_s;     /* pairing rate: so many a second at most, 0: as fast as it goes; attack: its pace */
	size_t source;    /* attack: from 127.source.0.0/16 */
	size_t sources;   /* attack: addresses of that */
	const char *preambles, *ca, *cert, *key, *host, *method, *kind;
	pid_t pid[PIDS_MAX]; /* roots of the process trees whose CPU is counted */
	size_t n_pid;
};

/* --- base.c --- */

void bench_die(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));

/* CPU time of all threads of all these processes and their children, in ns. */
int64_t cpu_of(const struct conf *);

struct ev { /* first member of whatever waits for its descriptor */
	int fd;
	void (*on_event)(struct ev *, uint32_t events);
};

int loop_new(void) ATTR_MUST_USE;
void loop_add(int ep, struct ev *, uint32_t events);
void loop_set(int ep, struct ev *, uint32_t events);
void loop_turn(int ep, int timeout_ms);

/* A non-blocking listener on 127.0.0.1, whose port may have been in use a moment ago. */
int tcp_listen(uint16_t port) ATTR_MUST_USE;

/* All that dial from now on have the smallest buffers and segments: what they do not read is stuck in the relay, whose
 * own send buffers then stay small as well. */
void tcp_be_meagre(bool on);

/* Connected (blocking connect on loopback), then non-blocking, without Nagle. `source` > 0 spreads the local
 * addresses, so that closed connections do not use up the ports of one. */
int tcp_dial(uint16_t port, unsigned source) ATTR_MUST_USE;
int tcp_try_dial(uint16_t port, unsigned source) ATTR_MUST_USE; /* or -errno */
int tcp_accept(int listener) ATTR_MUST_USE;                     /* waits up to 10 s */
void tcp_tune(int fd);
void write_exactly(int fd, const void *data, size_t len);
void read_exactly(int fd, void *ret, size_t len); /* 10 s at most */

/* An endless stream of bytes for each `seed`; at least PATTERN_RUN are valid behind the returned pointer. */
#define PATTERN_RUN ((size_t)128 * 1024)
void pattern_init(void);
const uint8_t *pattern_at(uint64_t seed, uint64_t pos);

/* Latencies: log-linear, about 1 % wide. */
#define HIST_SUB 64
struct hist {
	uint64_t n, bucket[64 * HIST_SUB];
};
void hist_add(struct hist *, int64_t ns);
double hist_us(const struct hist *, double quantile);

/* --- meet.c --- */

struct pair_fds {
	int a, b;
};

/* Makes `n` pairs and checks that each end talks to its other one. The caller frees. */
struct pair_fds *meet_pairs(const struct conf *, size_t n);

/* --- http.c: HTTP/1.1 with Content-Length, keep-alive, on plain TCP or TLS --- */

struct http {
	struct ev ev;
	int ep;
	SSL *ssl; /* NULL: plain */
	bool is_client, wants_write;
	bool takes_refusals; /* client: an answer that is no 200 is an answer too */
	char *in;
	size_t n_in, cap_in;
	char *out;
	size_t n_out, cap_out;
	/* `body` is valid until it returns and NUL-terminated */
	void (*on_message)(struct http *, char *body, size_t len);
	void (*on_end)(struct http *); /* may be NULL: then an end is fatal */
	void *arg;
	struct http *next; /* its owner's */
	int64_t sent_ns;
};

/* `fd` is given. A TLS client is connected when it returns. */
struct http *http_new(int ep, int fd, SSL_CTX *ctx, bool is_client);
void http_free(struct http *);
void http_request(struct http *, const char *host, const char *body);
void http_answer(struct http *, const char *body);

/* plane.c: the token in a request or an answer. */
void plane_token(const char *body, uint8_t ret[TOKEN]);
/* plane.c: "yes" to the proxy's request, under its id. */
void plane_confirm(struct http *, const char *body);
SSL_CTX *http_ctx(const struct conf *, bool is_server);

/* --- broker.c: plays A, B and the proxy's hyper --- */

/* Joins `n` pairs with real tokens. */
void broker_pairs(const struct conf *, struct pair_fds *ret, size_t n);

/* --- workloads; each prints one JSON line --- */
int work_bulk(const struct conf *);
int work_pingpong(const struct conf *);
int work_idle(const struct conf *);
int work_rate(const struct conf *);  /* connections or brokered pairs per second */
int work_calls(const struct conf *); /* JSON-RPC calls end to end */

/* --- attack.c --- */

#define ATTACKER "attacker" /* the operator whose connections nobody dials: broker.c only says yes to him */
int work_attack(const struct conf *);

#endif
