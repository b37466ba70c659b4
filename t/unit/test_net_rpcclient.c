/* test_net_rpcclient.c - each call is answered once, from the loop, in time, whatever the other side does
 *
 * Client, server and canned peers share one loop. T_CERTS names a folder of development certificates.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/listener.h>

#include "hyper/base/clock.h"
#include "hyper/base/fd.h"
#include "hyper/net/listen.h"
#include "hyper/net/rpcclient.h"
#include "hyper/net/rpcserver.h"
#include "hyper/wire/json.h"

static struct event_base *base;
static bool with_lanes; /* each test is run both ways */
static struct rpc_call *pending[8];
static size_t n_pending;

/* ---- the other side: a real server ---- */

static void
serve(struct rpc_call *call, void *arg)
{
	const struct rpc_request *r = rpc_call_request(call);

	(void)arg;
	if (strcmp(r->method, "echo") == 0)
		rpc_call_answer(call, rpc_ok(json_incref(r->params)));
	else if (strcmp(r->method, "never") == 0 && n_pending < ARRAY_LEN(pending))
		pending[n_pending++] = call;
	else if (strcmp(r->method, "big") == 0) {
		size_t len = JSON_MAX_BYTES + 1000;
		char *text = malloc(len);

		memset(text, 'x', len);
		rpc_call_answer(call, rpc_ok(json_stringn(text, len)));
		free(text);
	} else {
		rpc_call_answer(call, rpc_fail(7, json_pack("{ss}", "why", "asked"), "failed as asked"));
	}
}

static struct rpc_server *
server_new(struct conf_rpc_server *conf)
{
	char err[RPC_SERVER_ERR_MAX];
	struct rpc_server *srv;

	conf->bind_address = (char *)"127.0.0.1:0";
	conf->path = (char *)"/jsonrpc";
	conf->max_connections = 16;
	conf->request_timeout_ms = 10000;
	if (rpc_server_new(base, conf, NULL, serve, NULL, &srv, err) != 0)
		fail_msg("%s", err);
	return srv;
}

static void
server_free(struct rpc_server *srv)
{
	rpc_server_free(srv);
	while (n_pending > 0)
		rpc_call_answer(pending[--n_pending], rpc_ok(NULL));
}

/* ---- the other side: canned bytes, whatever is asked ---- */

struct canned {
	struct evconnlistener *listener;
	const char *bytes;
	bool hold; /* keep the connection open afterwards */
	char heard[4096];
	uint16_t port;
	int accepted;
};

static void
on_canned_written(struct bufferevent *bev, void *arg)
{
	struct canned *c = arg;

	if (!c->hold)
		bufferevent_free(bev);
}

static void
on_canned_event(struct bufferevent *bev, short what, void *arg)
{
	(void)what;
	(void)arg;
	bufferevent_free(bev);
}

static void
on_canned_read(struct bufferevent *bev, void *arg)
{
	struct canned *c = arg;
	size_t at = strlen(c->heard);

	at += bufferevent_read(bev, c->heard + at, sizeof(c->heard) - 1 - at);
	c->heard[at] = '\0';
	if (strstr(c->heard, "\r\n\r\n") == NULL || strstr(c->heard, "}") == NULL)
		return;
	bufferevent_setcb(bev, NULL, on_canned_written, on_canned_event, c);
	bufferevent_write(bev, c->bytes, strlen(c->bytes));
	if (c->bytes[0] == '\0')
		bufferevent_free(bev);
}

static void
on_canned_accept(struct evconnlistener *l, evutil_socket_t fd, struct sockaddr *sa, int len, void *arg)
{
	struct bufferevent *bev = bufferevent_socket_new(base, fd, BEV_OPT_CLOSE_ON_FREE);

	(void)l;
	(void)sa;
	(void)len;
	((struct canned *)arg)->accepted++;
	bufferevent_setcb(bev, on_canned_read, NULL, on_canned_event, arg);
	bufferevent_enable(bev, EV_READ | EV_WRITE);
}

static void
canned_open(struct canned *c, const char *bytes, bool hold)
{
	struct listeners l;
	char err[LISTEN_ERR_MAX];

	memset(c, 0, sizeof(*c));
	assert_int_equal(listeners_open("127.0.0.1:0", &l, err), 0);
	c->bytes = bytes;
	c->hold = hold;
	c->port = l.port;
	c->listener = evconnlistener_new(base, on_canned_accept, c, LEV_OPT_CLOSE_ON_FREE, 0, l.fd[0]);
}

/* ---- our side ---- */

struct result {
	int calls;
	bool started; /* rpc_client_call() has returned */
	struct rpc_answer answer;
	char reason[32];
	int64_t at_ms;
	struct rpc_client *free_me;
	struct rpc_client *call_again;
};

static void
on_reply(struct rpc_answer *a, void *arg)
{
	struct result *r = arg;
	const char *reason = a->data != NULL ? json_str(a->data, "reason") : NULL;

	assert_true(r->started);
	r->calls++;
	r->at_ms = clock_now_ms();
	snprintf(r->reason, sizeof(r->reason), "%s", reason != NULL ? reason : "");
	rpc_answer_fini(&r->answer);
	r->answer = *a;
	memset(a, 0, sizeof(*a)); /* taken */
	if (r->call_again != NULL) {
		struct rpc_client *cl = r->call_again;

		r->call_again = NULL;
		r->started = false;
		rpc_client_call(cl, "echo", NULL, "again", 5000, on_reply, r);
		r->started = true;
	}
	if (r->free_me != NULL) {
		rpc_client_free(r->free_me);
		r->free_me = NULL;
	}
}

static void
run_until(const int *value, int want)
{
	int64_t end = clock_now_ms() + 20000;
	struct timeval tick = { .tv_usec = 20000 };

	while (*value < want && clock_now_ms() < end) {
		event_base_loopexit(base, &tick);
		event_base_loop(base, EVLOOP_ONCE);
	}
	assert_int_equal(*value, want);
}

/* What is still to happen (a second answer, say) gets its chance. */
static void
run_for(int64_t ms)
{
	struct timeval tv = { .tv_usec = ms * 1000 };

	event_base_loopexit(base, &tv);
	event_base_dispatch(base);
}

static struct rpc_client *
client_new(struct conf_rpc_client *conf, const char *scheme, unsigned port, const char *path)
{
	static char endpoint[8][200];
	static int n;
	char err[RPC_CLIENT_ERR_MAX];
	struct rpc_client *cl;

	conf->endpoint = endpoint[n++ % 8];
	snprintf(conf->endpoint, sizeof(endpoint[0]), "%s:%u%s", scheme, port, path);
	if (rpc_client_new(base, conf, &cl, err) != 0)
		fail_msg("%s", err);
	if (with_lanes)
		rpc_client_use_lanes(cl, 0);
	return cl;
}

static void
call(struct rpc_client *cl, const char *method, json_t *params, int64_t timeout_ms, struct result *r)
{
	r->started = false;
	rpc_client_call(cl, method, params, "id", timeout_ms, on_reply, r);
	r->started = true;
	json_decref(params);
}

static void
test_answers(void **state)
{
	/* one connection an hour: the second call works only on the first one's connection */
	struct conf_rate rate = { .window_ms = 3600000, .limit = 1 };
	struct conf_rpc_server sconf = { .tcp_rate_limits = { &rate, 1 } };
	struct rpc_server *srv = server_new(&sconf);
	struct conf_rpc_client conf = { .endpoint = NULL };
	struct rpc_client *cl = client_new(&conf, "http://127.0.0.1", rpc_server_port(srv), "/jsonrpc");
	struct result r = { .calls = 0 };

	(void)state;
	call(cl, "echo", json_pack("{ss}", "a", "b"), 5000, &r);
	run_until(&r.calls, 1);
	assert_int_equal(r.answer.code, 0);
	assert_string_equal(json_str(r.answer.result, "a"), "b");
	call(cl, "fail", json_object(), 5000, &r);
	run_until(&r.calls, 2);
	assert_int_equal(r.answer.code, 7);
	assert_string_equal(r.answer.message, "failed as asked");
	assert_string_equal(json_str(r.answer.data, "why"), "asked");
	r.call_again = cl;
	call(cl, "echo", json_object(), 5000, &r);
	run_until(&r.calls, 4);
	assert_int_equal(r.answer.code, 0);
	rpc_answer_fini(&r.answer);
	rpc_client_free(cl);
	server_free(srv);
}

static void
test_limits(void **state)
{
	struct conf_rpc_server sconf = { .path = NULL };
	struct rpc_server *srv = server_new(&sconf);
	struct conf_rpc_client conf = { .endpoint = NULL }, lost = { .endpoint = NULL };
	struct rpc_client *cl = client_new(&conf, "http://localhost", rpc_server_port(srv), "/jsonrpc");
	struct rpc_client *wrong = client_new(&lost, "http://u:secret@127.0.0.1", rpc_server_port(srv), "/other");
	struct result r = { .calls = 0 };
	int64_t since = clock_now_ms();

	(void)state;
	call(cl, "never", json_object(), 300, &r);
	run_until(&r.calls, 1);
	assert_string_equal(r.reason, "deadline");
	assert_in_range(r.at_ms - since, 290, 3000); /* libevent reads the coarse clock */
	call(cl, "never", json_object(), 0, &r);
	run_until(&r.calls, 2);
	assert_string_equal(r.reason, "deadline");
	call(cl, "big", json_object(), 15000, &r);
	run_until(&r.calls, 3);
	assert_string_equal(r.reason, "internal");
	assert_non_null(strstr(r.answer.message, "limit of 4194304"));
	call(wrong, "echo", json_object(), 5000, &r);
	run_until(&r.calls, 4);
	assert_string_equal(r.reason, "internal");
	assert_non_null(strstr(r.answer.message, "HTTP status 404"));
	assert_non_null(strstr(r.answer.message, "/other"));
	assert_null(strstr(r.answer.message, "secret"));
	run_for(50);
	assert_int_equal(r.calls, 4);
	rpc_answer_fini(&r.answer);
	rpc_client_free(cl);
	rpc_client_free(wrong);
	server_free(srv);
}

static void
test_stopped(void **state)
{
	struct conf_rpc_server sconf = { .path = NULL };
	struct rpc_server *srv = server_new(&sconf);
	struct conf_rpc_client conf = { .endpoint = NULL };
	struct rpc_client *cl = client_new(&conf, "http://127.0.0.1", rpc_server_port(srv), "/jsonrpc");
	struct result r[3] = { { .calls = 0 } }, in_cb = { .calls = 0 };
	size_t i;

	(void)state;
	/* in flight, not even begun, and one whose callback calls the client that is being freed */
	call(cl, "never", json_object(), 5000, &r[0]);
	run_for(100);
	call(cl, "never", json_object(), 5000, &r[1]);
	call(cl, "echo", json_object(), 5000, &r[2]);
	r[2].call_again = cl;
	rpc_client_free(cl);
	assert_int_equal(r[0].calls, 1);
	assert_int_equal(r[1].calls, 1);
	run_until(&r[2].calls, 2);
	for (i = 0; i < 3; i++) {
		assert_string_equal(r[i].reason, "stopped");
		rpc_answer_fini(&r[i].answer);
	}
	/* freed by a callback, with another call in flight */
	cl = client_new(&conf, "http://127.0.0.1", rpc_server_port(srv), "/jsonrpc");
	in_cb.free_me = cl;
	memset(r, 0, sizeof(r));
	call(cl, "never", json_object(), 5000, &r[0]);
	call(cl, "echo", json_object(), 5000, &in_cb);
	run_until(&in_cb.calls, 1);
	assert_string_equal(r[0].reason, "stopped");
	assert_int_equal(in_cb.answer.code, 0);
	rpc_answer_fini(&r[0].answer);
	rpc_answer_fini(&in_cb.answer);
	rpc_client_free(NULL);
	server_free(srv);
}

static void
test_canned(void **state)
{
	static const struct {
		const char *bytes;
		bool hold;
		const char *reason; /* "" for an answer */
		const char *message;
	} cases[] = {
		{ "HTTP/1.1 200 OK\r\nContent-Length: 38\r\n\r\n{\"jsonrpc\":\"2.0\",\"result\":{},\"id\":\"id\"}",
		    false, "internal", "no JSON-RPC answer" }, /* cut short by one */
		{ "HTTP/1.1 200 OK\r\nContent-Length: 39\r\n\r\n{\"jsonrpc\":\"2.0\",\"result\":{},\"id\":\"id\"}",
		    false, "", NULL },
		{ "HTTP/1.1 500 Oops\r\nContent-Length: 39\r\n\r\n{\"jsonrpc\":\"2.0\",\"result\":{},\"id\":null}",
		    false, "", NULL },
		{ "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"jsonrpc\"", false, "unreachable", NULL },
		{ "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"jsonrpc\"", true, "deadline", "no answer in time" },
		{ "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n", false, "internal",
		    "HTTP status 302" },
		{ "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", false, "internal", "no JSON-RPC answer" },
		{ "HTTP/1.1 200 OK\r\nContent-Length: 9999999999\r\n\r\n", true, "deadline", NULL },
		{ "SSH-2.0-OpenSSH_9.2\r\n", false, "unreachable", NULL },
		{ "", false, "unreachable", NULL },
		{ "HTTP/1.1 200 OK\r\nTransfer-Encoding: "
		  "chunked\r\n\r\n27\r\n{\"jsonrpc\":\"2.0\",\"result\":{},\"id\":"
		  "\"id\"}\r\n0\r\n\r\n",
		    false, "", NULL },
		{ "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxx\r\n", false, "unreachable", NULL },
		{ "HTTP/1.0 200 OK\r\n\r\n{\"jsonrpc\":\"2.0\",\"result\":{},\"id\":\"id\"}", false, "", NULL },
		{ "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 39\r\n\r\n{\"jsonrpc\":\"2.0\","
		  "\"result\":{},\"id\":\"id\"}",
		    false, "", NULL },
		{ "HTTP/1.1 2", true, "deadline", NULL },
	};
	size_t i, before = fd_count();

	(void)state;
	for (i = 0; i < ARRAY_LEN(cases); i++) {
		struct conf_rpc_client conf = { .endpoint = NULL };
		struct result r = { .calls = 0 };
		const char *reason = cases[i].reason;
		struct rpc_client *cl;
		struct canned c;

		canned_open(&c, cases[i].bytes, cases[i].hold);
		cl = client_new(&conf, "http://127.0.0.1", c.port, "/jsonrpc");
		call(cl, "echo", json_pack("{ss}", "k", "v"), cases[i].hold ? 300 : 5000, &r);
		run_until(&r.calls, 1);
		if (with_lanes) {
			int before_call;

			run_until(&c.accepted, 2); /* libcurl's and a lane, which waits */
			run_for(50);
			before_call = c.accepted;
			c.heard[0] = '\0';
			call(cl, "echo", json_pack("{ss}", "k", "v"), cases[i].hold ? 300 : 5000, &r);
			run_until(&r.calls, 2);
			assert_int_equal(c.accepted, before_call + (cases[i].bytes[0] == '\0'));
		}
		/* what no answer of ours can be is not waited for */
		if (with_lanes && strstr(cases[i].bytes, "9999999999"))
			reason = "internal";
		if (strcmp(r.reason, reason) != 0 ||
		    (cases[i].message != NULL && strstr(r.answer.message, cases[i].message) == NULL))
			fail_msg("case %zu: %s, %s", i, r.reason, r.answer.message);
		assert_int_equal(r.answer.code, cases[i].reason[0] != '\0' ? RPC_INTERNAL : 0);
		assert_non_null(strstr(c.heard, "POST /jsonrpc HTTP/1.1\r\n"));
		assert_non_null(strstr(c.heard, "\r\nContent-Type: application/json\r\n"));
		assert_non_null(strstr(c.heard, "\r\nAccept: application/json\r\n"));
		assert_null(strstr(c.heard, "\r\nExpect:"));
		assert_non_null(strstr(
		    c.heard, "{\"jsonrpc\":\"2.0\",\"method\":\"echo\",\"params\":{\"k\":\"v\"},\"id\":\"id\"}"));
		rpc_client_free(cl);
		evconnlistener_free(c.listener);
		run_for(20);
		rpc_answer_fini(&r.answer);
	}
	assert_int_equal(fd_count(), before);
}

static void
test_proxies(void **state)
{
	struct conf_rpc_server sconf = { .path = NULL };
	struct rpc_server *srv = server_new(&sconf);
	struct conf_rpc_client conf = { .endpoint = NULL };
	struct rpc_client *cl;
	struct result r = { .calls = 0 };
	struct canned c;
	char proxy[64];

	(void)state;
	/* the environment's are not asked */
	setenv("http_proxy", "http://127.0.0.1:1", 1);
	setenv("all_proxy", "http://127.0.0.1:1", 1);
	cl = client_new(&conf, "http://127.0.0.1", rpc_server_port(srv), "/jsonrpc");
	call(cl, "echo", json_object(), 5000, &r);
	run_until(&r.calls, 1);
	assert_int_equal(r.answer.code, 0);
	rpc_client_free(cl);
	/* the setting's is, whatever no_proxy says */
	setenv("no_proxy", "*", 1);
	canned_open(&c,
	    "HTTP/1.1 200 OK\r\nContent-Length: 42\r\n\r\n{\"jsonrpc\":\"2.0\",\"result\":\"via\",\"id\":\"id\"}",
	    false);
	snprintf(proxy, sizeof(proxy), "http://127.0.0.1:%u", (unsigned)c.port);
	conf.proxy_url = proxy;
	cl = client_new(&conf, "http://far.example", 80, "/jsonrpc");
	call(cl, "echo", json_object(), 5000, &r);
	run_until(&r.calls, 2);
	assert_int_equal(r.answer.code, 0);
	assert_non_null(strstr(c.heard, "POST http://far.example"));
	rpc_client_free(cl);
	evconnlistener_free(c.listener);
	unsetenv("http_proxy");
	unsetenv("all_proxy");
	unsetenv("no_proxy");
	rpc_answer_fini(&r.answer);
	server_free(srv);
}

static void
test_unreachable(void **state)
{
	struct conf_rpc_client conf = { .endpoint = NULL };
	struct result r = { .calls = 0 };
	struct rpc_client *cl;
	struct listeners l;
	char err[LISTEN_ERR_MAX];
	unsigned port;

	(void)state;
	assert_int_equal(listeners_open("127.0.0.1:0", &l, err), 0);
	port = l.port;
	listeners_close(&l);
	cl = client_new(&conf, "http://127.0.0.1", port, "/jsonrpc");
	call(cl, "echo", json_object(), 5000, &r);
	run_until(&r.calls, 1);
	assert_int_equal(r.answer.code, RPC_INTERNAL);
	assert_string_equal(r.reason, "unreachable");
	assert_non_null(strstr(r.answer.message, conf.endpoint));
	rpc_answer_fini(&r.answer);
	rpc_client_free(cl);
}

static char *
cert(const char *name, const char *ext)
{
	const char *dir = getenv("T_CERTS");
	char *path = NULL;

	if (asprintf(&path, "%s/%s.%s", dir != NULL ? dir : ".", name, ext) < 0)
		abort();
	return path;
}

static void
tls_set(struct conf_tls *tls, char **ca, const char *name, const char *server_name)
{
	*ca = cert("root", "crt");
	memset(tls, 0, sizeof(*tls));
	tls->ca_certificate_files.v = ca;
	tls->ca_certificate_files.n = 1;
	tls->certificate_file = name != NULL ? cert(name, "crt") : NULL;
	tls->key_file = name != NULL ? cert(name, "key") : NULL;
	tls->server_name = (char *)(uintptr_t)server_name;
	tls->verify_client = true;
}

static void
tls_unset(struct conf_tls *tls)
{
	free(tls->ca_certificate_files.v[0]);
	free(tls->certificate_file);
	free(tls->key_file);
}

static void
test_tls(void **state)
{
	static const struct {
		const char *host, *cert, *server_name, *reason;
	} cases[] = {
		{ "https://localhost", "hd-1", "hd-1", "" },
		{ "https://127.0.0.1", "hd-1", "hd-1", "" },
		{ "https://127.0.0.1", "hd-2", "hd-1", "" },
		{ "https://localhost", "hd-1", "sub.hd-1.local", "" }, /* SAN *.hd-1.local */
		{ "https://localhost", "hd-1", "hd-2", "tls" },
		{ "https://localhost", "hd-1", NULL, "tls" },
		{ "https://127.0.0.1", "hd-1", NULL, "tls" },
		{ "https://localhost", "hd-1", "d-1", "tls" },
		{ "https://localhost", NULL, "hd-1", "tls" },
	};
	struct conf_tls stls;
	struct conf_rpc_server sconf = { .tls = &stls };
	struct rpc_server *srv;
	char *sca;
	size_t i;

	(void)state;
	if (getenv("T_CERTS") == NULL)
		skip();
	tls_set(&stls, &sca, "hd-1", NULL);
	srv = server_new(&sconf);
	for (i = 0; i < ARRAY_LEN(cases); i++) {
		struct conf_tls tls;
		struct conf_rpc_client conf = { .tls = &tls };
		struct result r = { .calls = 0 };
		struct rpc_client *cl;
		char *ca;

		tls_set(&tls, &ca, cases[i].cert, cases[i].server_name);
		cl = client_new(&conf, cases[i].host, rpc_server_port(srv), "/jsonrpc");
		for (int k = 1; k <= 4; k++) { /* with lanes: libcurl's, then over one */
			call(cl, "echo", json_object(), 10000, &r);
			run_until(&r.calls, k);
			run_for(30);
		}
		if (strcmp(r.reason, cases[i].reason) != 0)
			fail_msg("case %zu: %s, %s", i, r.reason, r.answer.message);
		assert_int_equal(r.answer.code, cases[i].reason[0] != '\0' ? RPC_INTERNAL : 0);
		rpc_answer_fini(&r.answer);
		rpc_client_free(cl);
		tls_unset(&tls);
	}
	server_free(srv);
	tls_unset(&stls);
}

/* Each answer to its own call, while calls overlap, lanes come and go, and some calls are given up. */
static void
test_many(void **state)
{
	enum { N = 300 };
	struct conf_rpc_server sconf = { .path = NULL };
	struct rpc_server *srv = server_new(&sconf);
	struct conf_rpc_client conf = { .endpoint = NULL };
	struct rpc_client *cl = client_new(&conf, "http://127.0.0.1", rpc_server_port(srv), "/jsonrpc");
	static struct result r[N];
	char large[70000], number[16];
	int i, k;

	(void)state;
	memset(large, 'x', sizeof(large) - 1);
	large[sizeof(large) - 1] = '\0';
	memset(r, 0, sizeof(r));
	for (i = 0; i < N; i += k) {
		for (k = 0; k < 10; k++) {
			snprintf(number, sizeof(number), "%d", i + k);
			if (i == 100 && k < 2)
				call(cl, "never", json_object(), 50, &r[i + k]);
			else
				call(cl, "echo", json_pack("{ssss}", "n", number, "t", k == 3 ? large : ""), 10000,
				    &r[i + k]);
		}
		for (k = 0; k < 10; k++)
			run_until(&r[i + k].calls, 1);
	}
	for (i = 0; i < N; i++) {
		snprintf(number, sizeof(number), "%d", i);
		if (i == 100 || i == 101) {
			assert_string_equal(r[i].reason, "deadline");
		} else {
			assert_int_equal(r[i].answer.code, 0);
			assert_string_equal(json_str(r[i].answer.result, "n"), number);
		}
		rpc_answer_fini(&r[i].answer);
	}
	rpc_client_free(cl);
	server_free(srv);
}

static void
test_refused(void **state)
{
	struct conf_tls none = { .certificate_file = NULL };
	char *missing[] = { (char *)"/nonexistent/ca.crt" };
	struct conf_tls lost = { .ca_certificate_files = { missing, 1 } };
	const struct {
		const char *endpoint, *proxy;
		struct conf_tls *tls;
		int want;
		const char *why;
	} cases[] = {
		{ "file:///etc/passwd", NULL, NULL, -EINVAL, "" },
		{ "", NULL, NULL, -EINVAL, "is expected" },
		{ "x y", NULL, NULL, -EINVAL, "is expected" },
		{ "https://x:1/y", NULL, NULL, -EINVAL, "needs the settings group tls" },
		{ "https://x:1/y", NULL, &none, -EINVAL, "at least one file" },
		{ "https://x:1/y", NULL, &lost, -ENOENT, "/nonexistent/ca.crt" },
		{ "https://user:secret@x:1/y?key=secret", NULL, NULL, -EINVAL, "'https://x:1/y': https:// needs" },
		{ "ftp://user:secret@x/y", NULL, NULL, -EINVAL, "only http" },
		{ "http://user:secret@x y/", NULL, NULL, -EINVAL, "is expected" },
		{ "http://x:1/y", "socks5://x:1", NULL, -EINVAL, "proxy_url" },
		{ "http://x:1/y", "https://user:secret@x:1", NULL, -EINVAL, "proxy_url" },
	};
	size_t i;

	(void)state;
	for (i = 0; i < ARRAY_LEN(cases); i++) {
		struct conf_rpc_client conf = { .endpoint = (char *)(uintptr_t)cases[i].endpoint,
			.proxy_url = (char *)(uintptr_t)cases[i].proxy,
			.tls = cases[i].tls };
		struct rpc_client *cl = (void *)&conf;
		char err[RPC_CLIENT_ERR_MAX];
		int rc = rpc_client_new(base, &conf, &cl, err);

		if (rc != cases[i].want || strstr(err, cases[i].why) == NULL)
			fail_msg("case %zu: %d %s", i, rc, err);
		assert_null(strstr(err, "secret"));
		assert_ptr_equal(cl, &conf);
	}
}

static int
setup(void **state)
{
	with_lanes = *state != NULL;
	base = event_base_new();
	return base != NULL ? 0 : -1;
}

static int
teardown(void **state)
{
	(void)state;
	run_for(20);
	event_base_free(base);
	return 0;
}

int
main(void)
{
	static int lanes;
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_answers, setup, teardown),
		cmocka_unit_test_setup_teardown(test_limits, setup, teardown),
		cmocka_unit_test_setup_teardown(test_stopped, setup, teardown),
		cmocka_unit_test_setup_teardown(test_canned, setup, teardown),
		cmocka_unit_test_setup_teardown(test_proxies, setup, teardown),
		cmocka_unit_test_setup_teardown(test_unreachable, setup, teardown),
		cmocka_unit_test_setup_teardown(test_tls, setup, teardown),
		cmocka_unit_test_setup_teardown(test_refused, setup, teardown),
		{ "test_limits, lanes", test_limits, setup, teardown, &lanes },
		{ "test_stopped, lanes", test_stopped, setup, teardown, &lanes },
		{ "test_canned, lanes", test_canned, setup, teardown, &lanes },
		{ "test_proxies, lanes", test_proxies, setup, teardown, &lanes },
		{ "test_unreachable, lanes", test_unreachable, setup, teardown, &lanes },
		{ "test_tls, lanes", test_tls, setup, teardown, &lanes },
		{ "test_many, lanes", test_many, setup, teardown, &lanes },
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
