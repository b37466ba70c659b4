/* master.c - `proxy run public`: start, wiring, signals, stop
 *
 *   A's and B's hyper --JSON-RPC--> broker --sessions--> token table (workers read it)
 *   workers --channel--> slots --> meet --> sessions, pairs
 *
 * Always true:
 *  1. One loop, one thread: every state change of a token happens here, in order.
 *  2. Nothing here waits: not for a peer, not for a worker, not for our hyper.
 *  3. After the start only our own wrong memory (BUG) and a stop end the process.
 *
 * Not here: what each part does; see the files named above.
 */
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "hyper/base/bug.h"
#include "hyper/base/clock.h"
#include "hyper/base/daemon.h"
#include "hyper/base/fd.h"
#include "hyper/base/log.h"
#include "hyper/base/notify.h"
#include "hyper/net/activate.h"
#include "hyper/net/admin.h"
#include "hyper/net/listen.h"
#include "hyper/net/rpcclient.h"
#include "hyper/net/rpcserver.h"
#include "hyper/proxy/programs.h"
#include "hyper/proxy/toktab.h"
#include "proxy/master/back.h"
#include "proxy/master/derive.h"
#include "proxy/master/drain.h"
#include "proxy/master/master.h"
#include "proxy/master/reload.h"
#include "proxy/master/selftest.h"
#include "proxy/master/tally.h"
#include "proxy/master/tell.h"
#include "proxy/master/upgrade.h"

#define PIDS_MAX 1024

static const struct {
	const char *name;
	unsigned to;
} master_tab[] = {
#define X(n, to) { #n, to },
	MASTER_STATES(X)
#undef X
};

void
master_enter(struct master *m, enum master_state to, const char *why)
{
	BUG_ON(!(master_tab[m->state].to & (1u << to)));
	log_debug("master_state", "%s>%s why=\"%s\"", master_tab[m->state].name, master_tab[to].name, why);
	m->state = to;
	m->view.state = to == MASTER_STARTING   ? "starting"
			: to == MASTER_SERVING  ? "serving"
			: to == MASTER_DRAINING ? "draining"
						: "stopping";
}

/* --- wiring --- */

static int
on_message(struct slot *s, const struct chan_msg *msg, int *fd, bool lost, void *arg)
{
	struct master *m = arg;

	return meet_on_message(m->meet, s, msg, fd, lost);
}

static void
on_serving(struct slot *s, void *arg)
{
	struct master *m = arg;

	upgrade_served(m->upgrade);
	meet_on_serving(m->meet, s);
}

static void
on_room(struct slot *s, void *arg)
{
	struct master *m = arg;

	meet_on_room(m->meet, s);
}

static void
on_lost(struct slot *s, int status, void *arg)
{
	struct master *m = arg;

	meet_on_lost(m->meet, s, status);
}

/* notify_describe_cb */
static void
describe(char ret[NOTIFY_STATUS_MAX], void *arg)
{
	const struct master *m = arg;
	struct toktab_counts tokens = toktab_counts(m->table);

	snprintf(ret, NOTIFY_STATUS_MAX, "%s: %zu pairs, %zu tokens, %zu of them parked%s",
	    upgrade_is_running(m->upgrade) ? "upgrading" : m->view.state, quota_held(m->quota, QUOTA_PAIRS),
	    (size_t)tokens.issued + tokens.parked, (size_t)tokens.parked,
	    tally_get()->last_reload_failed ? "; the last reload failed, see the log" : "");
}

static void
on_ready(void *arg)
{
	struct master *m = arg;
	char pids[PIDS_MAX];

	if (m->state != MASTER_STARTING)
		return;
	master_enter(m, MASTER_SERVING, "all workers serve");
	slots_pids(m->slots, pids, sizeof(pids));
	notify_describe(describe, m);
	daemon_ready("port=%u jsonrpc_port=%u metrics_port=%u endpoint=%s workers=%s", (unsigned)m->listeners.port,
	    (unsigned)rpc_server_port(m->server), (unsigned)status_port(m->show), m->endpoint, pids);
	if (m->owes_reload)
		json_decref(reload_settings(m, false));
}

static void
on_empty(void *arg)
{
	struct master *m = arg;

	log_info("stopped", "code=%d", EXIT_OK);
	daemon_stop(m->daemon, EXIT_OK);
}

static void
on_tick(void *arg)
{
	struct master *m = arg;

	meet_on_tick(m->meet);
	quota_tick(m->quota, clock_now_ns());
	upgrade_tick(m->upgrade);
}

static const struct slots_ops slots_ops = { on_message, on_serving, on_room, on_lost, on_ready, on_empty, on_tick };

void
master_stop(struct master *m, bool now)
{
	if (m->state != MASTER_STOPPING) {
		master_enter(m, MASTER_STOPPING, now ? "now" : "drained");
		log_info("stopping", "deadline_ms=%d", now ? 0 : POOL_STOP_MS);
		notify_stopping(MASTER_END_MS);
		upgrade_stop(m->upgrade);
		drain_over(m);
		brokering_drain(m->broker, true);
		sessions_end_all(m->sessions, END_STOPPED);
		meet_stop(m->meet);
		slots_stop(m->slots, now);
		listeners_close(&m->listeners);
	} else if (now) {
		slots_stop(m->slots, true);
	}
}

static void
master_reload(struct master *m)
{
	if (m->state == MASTER_STARTING || upgrade_is_running(m->upgrade))
		m->owes_reload = true;
	else if (m->state != MASTER_STOPPING)
		json_decref(reload_settings(m, false));
}

static void
on_upgrade_failed(const char *why, void *arg)
{
	struct master *m = arg;
	struct admin_call *call = m->upgrade_call;

	notify_ready();
	m->upgrade_call = NULL;
	if (call)
		admin_answer(call, admin_error("%s", why));
	if (m->owes_reload && m->state == MASTER_SERVING) {
		m->owes_reload = false;
		master_reload(m);
	}
}

static bool
may_upgrade(void *arg)
{
	const struct master *m = arg;

	return m->state == MASTER_SERVING || (m->state == MASTER_STARTING && upgrade_goes_back(m->upgrade));
}

/* `call`: who waits for the outcome, NULL nobody. A successful one ends its connection without an answer, as the new
 * program knows nothing of it: the client asks that one then. */
static void
master_upgrade(struct master *m, struct admin_call *call)
{
	const char *why = NULL;

	if (m->state != MASTER_SERVING)
		why = "the proxy does not serve yet, or is about to stop";
	else if (upgrade_is_running(m->upgrade))
		why = "an upgrade is under way already";
	if (why) {
		log_error("upgrade_failed", "why=\"%s\"", why);
		if (call)
			admin_answer(call, admin_error("%s", why));
		return;
	}
	m->upgrade_call = call;
	notify_reloading();
	if (upgrade_begin(m->upgrade) < 0)
		on_upgrade_failed("the check of the last one has not ended yet", m);
}

static void
on_signal(enum daemon_signal sig, void *arg)
{
	struct master *m = arg;

	switch (sig) {
	case DAEMON_STOP: drain_then_stop(m, m->conf->public->drain_timeout_ms); break;
	case DAEMON_STOP_NOW: master_stop(m, true); break;
	case DAEMON_RELOAD: master_reload(m); break;
	case DAEMON_REOPEN:
		if (log_share().to != LOG_TO_STDERR)
			slots_log(m->slots);
		break;
	case DAEMON_UPGRADE: master_upgrade(m, NULL); break;
	case DAEMON_CHILD:
		upgrade_reap(m->upgrade);
		slots_reap(m->slots);
		break;
	}
}

/* --- start --- */

/* What the service manager hands over. */
static int
take_sockets(const struct conf_proxy *conf, char err[LISTEN_ERR_MAX])
{
	const struct activate_name names[] = {
		{ "relay", "public.internal_bind_address", conf->public->internal_bind_address },
		{ "rpc", "public.jsonrpc_server.bind_address", conf->public->rpc_server->bind_address },
		{ "status", "metrics.bind_address", conf->metrics ? conf->metrics->bind_address : NULL },
	};

	return activate_sockets(names, ARRAY_LEN(names), err);
}

/* What the descriptors permit. 0 or -EMFILE. */
static int
check_limits(struct master *m)
{
	char err[LIMITS_ERR_MAX];
	struct rlimit rl = { 0 };
	size_t fds;
	int rc;

	if (getrlimit(RLIMIT_NOFILE, &rl) < 0)
		return -errno;
	fds = rl.rlim_cur > SIZE_MAX ? SIZE_MAX : (size_t)rl.rlim_cur;
	rc = limits_of(m->conf->public, fds, &m->limits, err);
	if (rc < 0)
		log_error("descriptors", "%s", err);
	else
		log_info("descriptors",
		    "limit=%zu reserved=%zu parked_max=%zu pairs_max=%zu pairs_per_worker=%zu pipes_per_worker=%zu "
		    "table_slots=%zu",
		    fds, m->limits.reserved, m->limits.max_parked, m->limits.max_pairs_total, m->limits.max_pairs,
		    m->limits.max_pipes, m->conf->public->table_slots);
	return rc;
}

/* internal_endpoint, verbatim; with port 0 (a test's) the port that we got. */
void
master_set_endpoint(struct master *m, const struct conf_proxy_public *conf)
{
	const char *text = conf->internal_endpoint;
	size_t len = strlen(text);

	snprintf(m->endpoint, sizeof(m->endpoint), "%s", text);
	if (len > 2 && len < sizeof(m->endpoint) - 8 && strcmp(text + len - 2, ":0") == 0)
		snprintf(m->endpoint + len - 1, sizeof(m->endpoint) - len + 1, "%u", (unsigned)m->listeners.port);
}

static int
open_endpoint(struct master *m, char err[LISTEN_ERR_MAX])
{
	int rc = listeners_open(m->conf->public->internal_bind_address, &m->listeners, err), off = 0;
	size_t i;

	if (rc < 0)
		return rc;
	/* Data of a SYN may be delivered twice (faults.md); some systems switch it on for all listeners. */
	for (i = 0; i < m->listeners.n; i++) {
		(void)setsockopt(m->listeners.fd[i], IPPROTO_TCP, TCP_FASTOPEN, &off, sizeof(off));
		fd_notice_vanished(m->listeners.fd[i]); /* for all that is accepted */
	}
	master_set_endpoint(m, m->conf->public);
	return 0;
}

static int
start_broker(struct master *m, char err[LISTEN_ERR_MAX])
{
	const struct conf_proxy_public *c = m->conf->public;
	struct event_base *base = daemon_base(m->daemon);
	struct brokering_conf bc = { .base = base,
		.name = c->name,
		.endpoint = m->endpoint,
		.token_timeout_ms = c->token_timeout_ms,
		.call_timeout_ms = c->call_timeout_ms };
	int rc;

	_Static_assert(
	    RPC_CLIENT_ERR_MAX <= LISTEN_ERR_MAX && RPC_SERVER_ERR_MAX <= LISTEN_ERR_MAX, "one buffer for all");
	rc = rpc_client_new(base, c->rpc_client, &m->client, err);
	if (rc < 0)
		return rc;
	rpc_client_use_lanes(m->client, RPC_CLIENT_LOAD);
	bc.client = m->client;
	bc.sessions = m->sessions;
	m->broker = brokering_new(&bc);
	if (!m->broker)
		return -ENOMEM;
	rc = rpc_server_new(base, c->rpc_server, c->name, brokering_on_call, m->broker, &m->server, err);
	if (rc == 0)
		rpc_server_remember_clients(m->server);
	return rc;
}

/* sessions_on_end: the broker is made after the sessions it uses. */
static void
on_session_end(struct session *s, enum end_reason reason, void *arg)
{
	struct master *m = arg;

	brokering_on_session_end(s, reason, m->broker);
}

/* sessions_on_parked */
static void
on_session_parked(struct session *s, void *arg)
{
	struct master *m = arg;

	brokering_on_session_parked(s, m->broker);
}

static int
start_slots(struct master *m, const struct state *inherited)
{
	const struct conf_proxy_public *c = m->conf->public;
	const struct meet_conf mc = derive_meet(c, &m->limits);
	const struct slots_conf pc = { .workers = c->workers,
		.table_fd = toktab_fd(m->table),
		.listeners = &m->listeners,
		.settings = derive_worker(m->conf, &m->limits),
		.n_pipes = (uint32_t)m->limits.ledger_pipes,
		.n_seats = (uint32_t)m->limits.ledger_seats };
	int rc;

	m->meet = meet_new(m->sessions, m->quota, &mc);
	if (!m->meet)
		return -ENOMEM;
	if (inherited)
		upgrade_restore(inherited, m->sessions, m->meet);
	rc = slots_new(daemon_base(m->daemon), &pc, &slots_ops, m, &m->slots);
	if (rc == 0 && inherited)
		upgrade_restore_counts(inherited, m->slots);
	m->view.pairs = meet_pairs(m->meet);
	m->view.slots = m->slots;
	return rc;
}

static void
on_admin(struct admin_call *call, const char *verb, const json_t *args, void *arg)
{
	struct master *m = arg;
	json_t *answer = NULL;

	if (drain_on_admin(m, call, verb, args)) /* it answers, now or later */
		return;
	if (strcmp(verb, "upgrade") == 0) { /* likewise */
		master_upgrade(m, call);
		return;
	}
	if (strcmp(verb, "reload") == 0 && upgrade_is_running(m->upgrade))
		answer = admin_error("an upgrade is under way: ask again when it is done");
	else if (strcmp(verb, "reload") == 0)
		answer = reload_on_admin(m, args);
	else if (strcmp(verb, "selftest") == 0)
		answer = selftest_answer(m, args);
	else if (!tell_answer(&m->view, verb, args, &answer))
		answer = admin_error("this proxy knows no verb %s", verb);
	admin_answer(call, answer);
}

/* Page, metrics and verbs. */
static int
start_views(struct master *m, char err[LISTEN_ERR_MAX])
{
	const struct conf_proxy *all = m->conf;
	int rc = 0;

	_Static_assert(STATUS_ERR_MAX <= LISTEN_ERR_MAX && ADMIN_ERR_MAX <= LISTEN_ERR_MAX, "one buffer for all");
	m->view = (struct view){ .conf = m->conf->public,
		.table = m->table,
		.quota = m->quota,
		.sessions = m->sessions,
		.endpoint = m->endpoint,
		.max_pairs = m->limits.max_pairs_total,
		.start_ms = clock_now_ms(),
		.state = "starting" };
	if (all->metrics && all->metrics->bind_address)
		rc = show_new(daemon_base(m->daemon), all->metrics->bind_address, &m->view, &m->show, err);
	if (rc == 0 && all->admin_socket)
		rc = admin_new(daemon_base(m->daemon), all->admin_socket, on_admin, m, &m->admin, err);
	return rc;
}

static int
start_upgrade(struct master *m, const struct state *inherited)
{
	const struct upgrade_conf uc = { .base = daemon_base(m->daemon),
		.server = m->server,
		.sessions = m->sessions,
		.meet = m->meet,
		.slots = m->slots,
		.on_failed = on_upgrade_failed,
		.may_go_on = may_upgrade,
		.arg = m };

	/* until here the predecessor can go on where we cannot */
	return upgrade_new(&uc, inherited, back_forget(), &m->upgrade);
}

/* Of an upgrade: the old program goes on. Returns when there is none. */
static void
start_failed(const char *what, const char *err)
{
	char why[BACK_WHY_MAX];

	snprintf(why, sizeof(why), "%.60s: %.180s", what, err);
	back_go(why);
}

/* An exit code. `inherited`: NULL, or what a predecessor left. */
static int
master_start(struct master *m, const struct state *inherited)
{
	char err[LISTEN_ERR_MAX] = "";
	const char *what = "limits";
	int rc = check_limits(m);

	if (rc == 0) {
		what = "sockets";
		rc = take_sockets(m->conf, err);
	}
	if (rc == 0) {
		what = "public.internal_bind_address";
		rc = open_endpoint(m, err);
	}
	if (rc == 0) {
		what = "token table";
		rc = toktab_new(m->conf->public->table_slots, &m->table);
	}
	if (rc == 0) {
		const struct quota_conf qc = derive_quota(m->conf->public, &m->limits);

		m->quota = quota_new(&qc);
		rc = m->quota ? 0 : -ENOMEM;
	}
	if (rc == 0)
		rc = sessions_new(
		    daemon_base(m->daemon), m->table, m->quota, on_session_end, on_session_parked, m, &m->sessions);
	if (rc == 0) {
		what = "JSON-RPC";
		rc = start_broker(m, err);
	}
	if (rc == 0) {
		what = "metrics.bind_address, admin_socket";
		rc = start_views(m, err);
	}
	if (rc == 0) { /* late: no worker may accept what a predecessor could go on with */
		what = "workers";
		rc = start_slots(m, inherited);
	}
	if (rc == 0) {
		what = "upgrade";
		rc = start_upgrade(m, inherited);
	}
	if (rc == 0) {
		m->view.upgrades = upgrade_count(m->upgrade);
		m->view.came_back = upgrade_came_back();
		listeners_drop_given();
		return EXIT_OK;
	}
	log_error("start", "what=\"%s\" err=\"%s\"", what, err[0] ? err : strerror(-rc));
	start_failed(what, err[0] ? err : strerror(-rc));
	return rc == -EINVAL || rc == -ENOENT || rc == -EMFILE ? EXIT_SETTINGS : EXIT_UNAVAILABLE;
}

static void
master_fini(struct master *m)
{
	status_free(m->show);
	drain_fini(m); /* answers calls of the admin socket */
	admin_free(m->admin);
	if (m->broker && m->sessions)
		sessions_end_all(m->sessions, END_STOPPED);
	upgrade_free(m->upgrade);
	meet_free(m->meet); /* pairs point at slots */
	slots_free(m->slots);
	rpc_client_free(m->client); /* the calls in flight still point at the broker's asks */
	rpc_server_free(m->server);
	brokering_free(m->broker);
	sessions_free(m->sessions);
	if (m->state == MASTER_STOPPING)
		quota_log_totals(m->quota);
	quota_free(m->quota);
	toktab_free(m->table);
	listeners_close(&m->listeners);
	conf_proxy_free(m->own);
	daemon_free(m->daemon);
}

int
proxy_master_run(const struct conf_proxy *conf)
{
	struct master m = { .conf = conf };
	char err[STATE_ERR_MAX];
	struct state inherited = { 0 };
	int code, rc;

	back_arm();
	rc = upgrade_inherit(&inherited, err);
	if (rc < 0 && rc != -ENOENT) {
		log_error("start", "what=\"state of the predecessor\" err=\"%s\"", err);
		back_go(err);
		return EXIT_FAIL;
	}
	if (daemon_new(on_signal, &m, &m.daemon) < 0) {
		log_error("start", "what=loop err=\"%s\"", strerror(errno));
		back_go("no loop");
		state_fini(&inherited);
		return EXIT_FAIL;
	}
	code = master_start(&m, rc == 0 ? &inherited : NULL);
	state_fini(&inherited);
	if (code == EXIT_OK)
		code = daemon_run(m.daemon);
	master_fini(&m);
	return code;
}

void
proxy_master_go_back(const char *why)
{
	back_go(why);
}
