/* selftest_steps.h - what `proxy selftest` tries, step by step; for selftest.c */
#ifndef HYPER_CLI_SELFTEST_STEPS_H
#define HYPER_CLI_SELFTEST_STEPS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cli/selftest.h"
#include "hyper/base/attr.h"
#include "hyper/net/listen.h"
#include "hyper/wire/token.h"

#define SELFTEST_PAYLOAD ((size_t)1024 * 1024)

/* Exit codes of monitoring plugins. */
enum { OK, WARNING, CRITICAL, UNKNOWN = SELFTEST_UNKNOWN };

enum step { ST_TOKEN, ST_CONNECT, ST_PARK, ST_PAIR, ST_ECHO, ST_CLOSE, STEP_COUNT };

struct selftest {
	char *socket;
	const char *endpoint_wanted; /* NULL: what the proxy says */
	double warning_ms, critical_ms;
	int64_t end_ms; /* the deadline */
	bool json;

	int64_t issued_ns; /* the master's clock, which is ours */
	char endpoint[HOSTPORT_MAX], session[SESSION_ID_MAX], state[16];
	struct token token;
	int fd[2]; /* A, B */
	uint8_t *payload;
	double ms[STEP_COUNT]; /* -1: not done */
	int code;              /* of what failed */
	char error[512];
};

/* What is wrong, in words; the first ones count. Returns -EIO. */
int selftest_fail(struct selftest *, int code, const char *fmt, ...) ATTR_PRINTF(3, 4);

/* Tries one after the other until one fails. How many were done. */
int selftest_steps(struct selftest *);
const char *selftest_step_word(int step);

#endif
