/* calls.c - JSON-RPC calls end to end: some clients, each with one kept mTLS connection and one call in flight
 *
 * Always true: connections are secured before the clock starts; each answer is checked to be a result.
 */
#include "bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hyper/base/clock.h"

#define STUCK_MS 15000

static struct hist latency;
static bool is_measuring, is_over;
static uint64_t n_done, n_started;

struct caller {
	const struct conf *conf;
	struct http *http;
};

/* The parameters of every call: taken for the life of the program. */
static char *
params_text(size_t size)
{
	static const char head[] = "{\"text\":\"";
	char *text = malloc(sizeof(head) + size + 2);

	if (!text)
		bench_die("out of memory");
	if (!size)
		return memcpy(text, "{}", 3);
	memcpy(text, head, sizeof(head) - 1);
	memset(text + sizeof(head) - 1, 'x', size);
	memcpy(text + sizeof(head) - 1 + size, "\"}", 3);
	return text;
}

static void
call(struct caller *c)
{
	static char *params, *body;
	size_t cap = 512 + c->conf->size;

	if (is_over || (c->conf->count && n_started == c->conf->count))
		return;
	n_started++;
	if (!body) {
		params = params_text(c->conf->size);
		body = malloc(cap);
		if (!body)
			bench_die("out of memory");
	}
	snprintf(body, cap, "{\"jsonrpc\":\"2.0\",\"method\":\"%s\",\"params\":%s,\"id\":\"%llu\"}", c->conf->method,
	    params, (unsigned long long)n_started);
	http_request(c->http, c->conf->host, body);
}

static void
on_answer(struct http *h, char *body, size_t len)
{
	struct caller *c = h->arg;

	(void)len;
	if (!strstr(body, "\"result\""))
		bench_die("a call failed: %.400s", body);
	if (is_measuring)
		hist_add(&latency, clock_now_ns() - h->sent_ns);
	n_done++;
	call(c);
}

static void
run_until(int ep, int64_t end_ns, uint64_t want)
{
	uint64_t last = n_done;
	int64_t now = clock_now_ns(), moved = now;

	for (; now < end_ns && n_done < want; now = clock_now_ns()) {
		loop_turn(ep, 100);
		if (n_done != last) {
			last = n_done;
			moved = now;
		} else if (now - moved > STUCK_MS * NS_PER_MS) {
			bench_die("calls: no answer for %d ms", STUCK_MS);
		}
	}
}

int
work_calls(const struct conf *c)
{
	struct caller *callers = calloc(c->pairs, sizeof(*callers));
	SSL_CTX *ctx = http_ctx(c, false);
	int64_t t0, t1, cpu0, cpu1;
	int ep = loop_new();

	if (!callers)
		bench_die("out of memory");
	for (size_t i = 0; i < c->pairs; i++) {
		callers[i] = (struct caller){ c, http_new(ep, tcp_dial(c->rpc, 0), ctx, true) };
		callers[i].http->on_message = on_answer;
		callers[i].http->arg = &callers[i];
	}
	is_measuring = c->count > 0;
	cpu0 = cpu_of(c);
	t0 = clock_now_ns();
	for (size_t i = 0; i < c->pairs; i++)
		call(&callers[i]);
	if (!c->count) {
		run_until(ep, t0 + (int64_t)(c->warm * 1e9), UINT64_MAX);
		is_measuring = true;
		n_done = 0;
		cpu0 = cpu_of(c);
		t0 = clock_now_ns();
	}
	run_until(ep, c->count ? INT64_MAX : t0 + (int64_t)(c->seconds * 1e9), c->count ? c->count : UINT64_MAX);
	t1 = clock_now_ns();
	cpu1 = cpu_of(c);
	is_measuring = false;
	is_over = true;
	printf("{\"seconds\":%.4f,\"calls\":%llu,\"per_s\":%.1f,\"p50_us\":%.1f,\"p99_us\":%.1f,\"cpu_us_per_call\":%."
	       "2f}\n",
	    (double)(t1 - t0) / 1e9, (unsigned long long)n_done, (double)n_done / ((double)(t1 - t0) / 1e9),
	    hist_us(&latency, 0.5), hist_us(&latency, 0.99),
	    n_done ? (double)(cpu1 - cpu0) / 1000.0 / (double)n_done : 0.0);
	return 0;
}
