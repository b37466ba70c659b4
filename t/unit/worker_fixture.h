/* worker_fixture.h - the master's side of one worker, and peers that dial it, for test_worker*.c
 *
 * The worker is the test program itself exec'ed again with `worker SLOT GEN`,
 * as the proxy does it; so the tests need no settings, no TLS and no master.
 */
#ifndef T_UNIT_WORKER_FIXTURE_H
#define T_UNIT_WORKER_FIXTURE_H

#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/types.h>

#include <cmocka.h>

#include "hyper/base/clock.h"
#include "hyper/base/fd.h"
#include "hyper/proxy/toktab.h"
#include "hyper/proxy/worker_abi.h"
#include "hyper/wire/chanmsg.h"
#include "hyper/wire/token.h"

#define GEN     7u
#define WAIT_MS 10000 /* nothing takes long; this is when the test gives up */

struct master {
	pid_t pid;
	int chan, listener, table_fd;
	uint16_t port;
	struct toktab *table;
	struct worker_stats *stats;
	struct worker_ledger *ledger;
	uint64_t pairs;
	bool wants; /* the test itself answers WANT */
	struct chan_settings settings;
};

extern struct master m; /* of the running test */

/* The master. `table_fd` -1: m.table; `fds` 0: no descriptor limit. expect() and
 * friends fail the test when nothing comes within WAIT_MS. */
int listen_any(uint16_t *port);
void spawn(int table_fd, rlim_t fds);
/* 1 a message, 0 none within `ms`, -1 the channel's end. */
int try_recv(struct chan_msg *ret, int *ret_fd, int ms);
struct chan_msg expect(enum chan_type type, int *ret_fd);
void expect_nothing(int ms);
void send_msg(struct chan_msg msg, int fd);
void send_settings(void);
void start(void);
/* Exit status, 128 + signal, or -1. */
int wait_exit(void);
void stop(void);
int teardown(void **state);
/* How often the worker went to sleep so far: who spins does so never, who polls too often. -1 when it is gone. */
long sleeps(void);
/* Milliseconds of processor time it has used. */
long cpu_ms(void);

/* Peers. get(): "eof", "reset", "timeout", "error" or what came. */
int dial(void);
int dial_from(uint32_t source); /* 127.0.0.`source` */
void put(int fd, const void *data, size_t len);
const char *get(int fd, int ms);
struct token issue(int64_t deadline_ns, uint32_t *ret_slot);
struct chan_msg expect_arrived(const struct token *t, int *ret_fd);
/* The parked descriptor, as the master has it. */
int park(const struct token *t, int *ret_client);
uint64_t send_pair(uint64_t conn, int *first_fd);
/* Two joined peers; the pair's number. */
uint64_t make_pair(int *ret_first, int *ret_second);

/* main() of the tests: `worker SLOT GEN` becomes the worker, with its log in the file T_WORKER_LOG. */
int worker_main(int argc, char **argv, const struct CMUnitTest *tests, size_t n);

#define T(f) cmocka_unit_test_teardown(f, teardown)

#define UNTIL(cond)                                                         \
	do {                                                                \
		int64_t until_ = clock_now_ms() + WAIT_MS;                  \
		while (!(cond)) {                                           \
			if (clock_now_ms() > until_)                        \
				fail_msg("not within the time: %s", #cond); \
			poll(NULL, 0, 2);                                   \
		}                                                           \
	} while (0)

#define FIXTURE_PIPES 16
#define FIXTURE_SEATS 1000

#define STAT(field) __atomic_load_n(&m.stats->field, __ATOMIC_RELAXED)

#endif
