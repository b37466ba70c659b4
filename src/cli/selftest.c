/* selftest.c - see the header
 *
 * Always true: the first line of the output is one that monitoring programs
 * understand, and it names the step that failed.
 *
 * Not here: the steps (selftest_steps.c).
 */
#include "cli/selftest.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "cli/cmd.h"
#include "cli/selftest_steps.h"
#include "hyper/base/bytes.h"
#include "hyper/base/clock.h"
#include "hyper/base/fd.h"

#define TIMEOUT_MS 10000

static double
total(const struct selftest *t)
{
	double sum = 0;

	for (int i = 0; i < STEP_COUNT; i++)
		sum += t->ms[i] > 0 ? t->ms[i] : 0;
	return sum;
}

static void
judge(struct selftest *t)
{
	double ms = total(t);

	if (ms > t->critical_ms)
		selftest_fail(t, CRITICAL, "slow: %.3f ms, over --critical %g", ms, t->critical_ms);
	else if (ms > t->warning_ms)
		selftest_fail(t, WARNING, "slow: %.3f ms, over --warning %g", ms, t->warning_ms);
}

static const char *const words[] = { "OK", "WARNING", "CRITICAL", "UNKNOWN" };

static void
print_text(const struct selftest *t, int done)
{
	bool is_draining = strcmp(t->state, "draining") == 0;

	printf("SELFTEST %s: ", words[t->code]);
	if (t->error[0])
		printf("%s%s%s", done < STEP_COUNT ? selftest_step_word(done) : "", done < STEP_COUNT ? ": " : "",
		    t->error);
	else
		printf("%.3f ms through %s", total(t), t->endpoint);
	if (t->session[0])
		printf(", session %s", t->session);
	if (is_draining)
		printf(", the proxy is draining: it takes nothing new from operators");
	printf(" | total=%.3fms", total(t));
	if (isfinite(t->warning_ms) || isfinite(t->critical_ms)) {
		putchar(';');
		if (isfinite(t->warning_ms))
			printf("%g", t->warning_ms);
		if (isfinite(t->critical_ms))
			printf(";%g", t->critical_ms);
	}
	for (int i = 0; i < done; i++)
		printf(" %s=%.3fms", selftest_step_word(i), t->ms[i]);
	putchar('\n');
	for (int i = 0; i < STEP_COUNT; i++)
		if (i < done)
			printf("%-10s %10.3f ms\n", selftest_step_word(i), t->ms[i]);
		else
			printf("%-10s %s\n", selftest_step_word(i), i == done ? "failed" : "not tried");
}

static void
print_json(const struct selftest *t, int done)
{
	json_t *ms = json_object(), *all;
	char *text;

	for (int i = 0; i < done; i++)
		json_object_set_new(ms, selftest_step_word(i), json_real(t->ms[i]));
	all = json_pack("{s:s, s:i, s:s, s:s, s:s, s:o, s:f, s:I}", "status", words[t->code], "code", t->code,
	    "session", t->session, "endpoint", t->endpoint, "state", t->state, "steps_ms", ms, "total_ms", total(t),
	    "bytes", (json_int_t)(done > ST_ECHO ? SELFTEST_PAYLOAD : 0));
	if (all && done < STEP_COUNT)
		json_object_set_new(all, "failed_step", json_string(selftest_step_word(done)));
	if (all && t->error[0])
		json_object_set_new(all, "error", json_string(t->error));
	text = all ? json_dumps(all, JSON_INDENT(2) | JSON_REAL_PRECISION(6)) : NULL;
	puts(text ? text : "{}");
	free(text);
	json_decref(all);
}

/* 0, or -EINVAL with the words in t->error. */
static int
number(struct selftest *t, const char *option, const char *text, double max, double *ret)
{
	char *end;
	double n;

	if (!text)
		return 0;
	n = strtod(text, &end);
	if (*end || end == text || !isfinite(n) || n < 0 || n > max) {
		selftest_fail(t, UNKNOWN, "--%s: expected a number of 0..%g, found '%.32s'", option, max, text);
		return -EINVAL;
	}
	*ret = n;
	return 0;
}

static int
options(struct selftest *t, const struct cmd_args *args)
{
	double timeout_s = TIMEOUT_MS / 1000.0;

	t->json = args->opt[SELFTEST_OPT_JSON] != NULL;
	t->endpoint_wanted = args->opt[SELFTEST_OPT_ENDPOINT];
	if (number(t, "warning", args->opt[SELFTEST_OPT_WARNING], 1e9, &t->warning_ms) < 0 ||
	    number(t, "critical", args->opt[SELFTEST_OPT_CRITICAL], 1e9, &t->critical_ms) < 0 ||
	    number(t, "timeout", args->opt[SELFTEST_OPT_TIMEOUT], 3600, &timeout_s) < 0)
		return -EINVAL;
	t->end_ms = clock_now_ms() + (int64_t)(timeout_s * 1000);
	return 0;
}

static int
prepare(struct selftest *t, int code)
{
	if (code != 0)
		return selftest_fail(t, UNKNOWN, "the settings could not be read, see standard error");
	if (!t->socket)
		return selftest_fail(t, UNKNOWN, "the settings have no admin_socket: add one, restart the proxy");
	t->payload = malloc(SELFTEST_PAYLOAD);
	if (!t->payload)
		return selftest_fail(t, UNKNOWN, "out of memory");
	for (size_t i = 0; i < SELFTEST_PAYLOAD; i += 256)
		random_bytes(t->payload + i, 256);
	return 0;
}

int
selftest_run(char *socket, int code, const struct cmd_args *args)
{
	struct selftest t = { .socket = socket, .warning_ms = INFINITY, .critical_ms = INFINITY, .fd = { -1, -1 } };
	int done = 0;

	for (int i = 0; i < STEP_COUNT; i++)
		t.ms[i] = -1;
	if (options(&t, args) == 0 && prepare(&t, code) == 0) {
		done = selftest_steps(&t);
		if (done == STEP_COUNT)
			judge(&t);
	}
	if (t.json)
		print_json(&t, done);
	else
		print_text(&t, done);
	fd_close(&t.fd[0]);
	fd_close(&t.fd[1]);
	explicit_bzero(&t.token, sizeof(t.token));
	free(t.payload);
	free(socket);
	return t.code;
}
