/* load.c - the load generator's command line: load WORK key=value ...
 *
 *   bulk pingpong idle rate calls      the workloads, docs/performance.md
 *   attack                             attack.c
 *
 * One JSON line on success; otherwise a message and exit status 1. Loopback only.
 */
#include "bench.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

static const struct {
	const char *name;
	int (*work)(const struct conf *);
} works[] = {
	{ "bulk", work_bulk },
	{ "pingpong", work_pingpong },
	{ "idle", work_idle },
	{ "rate", work_rate },
	{ "calls", work_calls },
	{ "attack", work_attack },
};

static const char *const modes[] = { [MEET_FORWARD] = "forward", [MEET_TOKEN] = "token", [MEET_PREAMBLE] = "preamble" };

static double
number(const char *key, const char *text, double max)
{
	char *end;
	double v = strtod(text, &end);

	if (end == text || *end || v < 0 || v > max)
		bench_die("%s=%s: expected a number from 0 to %.0f", key, text, max);
	return v;
}

static bool
set_text(struct conf *c, const char *key, const char *value)
{
	const struct {
		const char *key, **at;
	} tab[] = { { "preambles", &c->preambles }, { "ca", &c->ca }, { "cert", &c->cert }, { "key", &c->key },
		{ "host", &c->host }, { "method", &c->method }, { "kind", &c->kind } };

	for (size_t i = 0; i < sizeof(tab) / sizeof(tab[0]); i++) {
		if (strcmp(key, tab[i].key) == 0) {
			*tab[i].at = value;
			return true;
		}
	}
	return false;
}

static bool
set_number(struct conf *c, const char *key, const char *value)
{
	const struct {
		const char *key;
		uint16_t *port;
		size_t *size;
		double *seconds;
		bool *flag;
		double max;
	} tab[] = {
		{ "dial", &c->dial, NULL, NULL, NULL, 65535 },
		{ "listen", &c->listen, NULL, NULL, NULL, 65535 },
		{ "rpc", &c->rpc, NULL, NULL, NULL, 65535 },
		{ "hyper", &c->hyper, NULL, NULL, NULL, 65535 },
		{ "pairs", NULL, &c->pairs, NULL, NULL, 10000 },
		{ "active", NULL, &c->active, NULL, NULL, 10000 },
		{ "count", NULL, &c->count, NULL, NULL, 1000000 },
		{ "size", NULL, &c->size, NULL, NULL, 4000000 },
		{ "in_flight", NULL, &c->in_flight, NULL, NULL, 1024 },
		{ "per_s", NULL, &c->per_s, NULL, NULL, 100000 },
		{ "source", NULL, &c->source, NULL, NULL, 255 },
		{ "sources", NULL, &c->sources, NULL, NULL, 50000 },
		{ "warm", NULL, NULL, &c->warm, NULL, 60 },
		{ "seconds", NULL, NULL, &c->seconds, NULL, 600 },
		{ "both", NULL, NULL, NULL, &c->both, 1 },
		{ "ahead", NULL, NULL, NULL, &c->ahead, 1 },
	};

	for (size_t i = 0; i < sizeof(tab) / sizeof(tab[0]); i++) {
		double v;

		if (strcmp(key, tab[i].key) != 0)
			continue;
		v = number(key, value, tab[i].max);
		if (tab[i].port)
			*tab[i].port = (uint16_t)v;
		else if (tab[i].size)
			*tab[i].size = (size_t)v;
		else if (tab[i].seconds)
			*tab[i].seconds = v;
		else
			*tab[i].flag = v > 0;
		return true;
	}
	return false;
}

static void
set(struct conf *c, const char *key, const char *value)
{
	if (strcmp(key, "pid") == 0) {
		if (c->n_pid == PIDS_MAX)
			bench_die("at most %d pids", PIDS_MAX);
		c->pid[c->n_pid++] = (pid_t)number(key, value, 1e9);
	} else if (strcmp(key, "mode") == 0) {
		for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
			if (strcmp(value, modes[i]) == 0) {
				c->mode = (enum meet_mode)i;
				return;
			}
		}
		bench_die("mode=%s: forward, token or preamble", value);
	} else if (!set_text(c, key, value) && !set_number(c, key, value)) {
		bench_die("unknown key %s", key);
	}
}

/* What it still has ends with it: freeing thousands of connections one by one would be no part of the work. */
static void
leave(int code)
{
	fflush(stdout);
	_exit(code);
}

int
main(int argc, char **argv)
{
	struct conf c = { .pairs = 1, .in_flight = 64, .warm = 0.3, .seconds = 1, .sources = 1, .host = "localhost" };
	struct rlimit rl;

	signal(SIGPIPE, SIG_IGN);
	if (getrlimit(RLIMIT_NOFILE, &rl) == 0) {
		rl.rlim_cur = rl.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &rl);
	}
	for (int i = 2; i < argc; i++) {
		char *eq = strchr(argv[i], '=');

		if (!eq)
			bench_die("%s: expected key=value", argv[i]);
		*eq = '\0';
		set(&c, argv[i], eq + 1);
	}
	if (c.pairs == 0 || c.in_flight == 0 || c.sources == 0)
		bench_die("pairs, in_flight and sources must be positive");
	pattern_init();
	for (size_t i = 0; argc > 1 && i < sizeof(works) / sizeof(works[0]); i++)
		if (strcmp(argv[1], works[i].name) == 0)
			leave(works[i].work(&c));
	bench_die("usage: load bulk|pingpong|idle|rate|calls|attack key=value ...");
}
