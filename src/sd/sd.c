/* sd.c - the process `sd run`
 *
 *   start: signals -> trust, store, chain verified -> listen -> ready -> serve -> stop
 *
 * Always true:
 *  1. Nothing is listened on before the whole chain has been verified.
 *  2. Every call is answered at once, so stopping never leaves one open.
 *  3. After a write whose outcome is unknown the submitter gets its error and
 *     the process ends with EXIT_FAIL; reads are served until then. Whoever
 *     restarts it gets a verified chain.
 *
 * Handlers run from the loop and may do anything.
 *
 * Not here: methods (api.c), what is accepted (book.c).
 */
#include "hyper/sd/sd.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <event2/event.h>

#include "hyper/base/daemon.h"
#include "hyper/base/log.h"
#include "hyper/base/notify.h"
#include "hyper/net/activate.h"
#include "hyper/net/admin.h"
#include "hyper/net/rpcserver.h"
#include "sd/api.h"
#include "sd/book.h"
#include "sd/reload.h"
#include "sd/show.h"

#define POISON_GRACE_MS 300 /* for the answer to leave */

struct sd {
	const struct conf_sd *conf; /* in use: the start's (borrowed) or `own` */
	struct conf_sd *own;        /* of the last reload; NULL before the first */
	struct admin *admin;        /* NULL: no admin_socket */
	struct daemon *daemon;
	struct book *book;
	struct rpc_server *server;
	struct event *end_ev;
	struct status *show; /* NULL: no metrics.bind_address */
	uint64_t calls[API_METHODS];
};

/* As sd_reload(). */
static json_t *
reload(struct sd *sd, bool dry)
{
	struct conf_sd *fresh = NULL;
	json_t *report = sd_reload(sd->conf, sd->server, sd->book, dry, &fresh);

	if (fresh) {
		sd_show_apply(sd->show, fresh);
		conf_sd_free(sd->own);
		sd->conf = sd->own = fresh;
	}
	return report;
}

/* Each call is answered at once, so nothing is ever in flight here. */
static void
stop_on_admin(struct sd *sd, struct admin_call *call)
{
	log_info("stopping", "records=%zu why=\"the verb stop\"", book_length(sd->book));
	admin_answer(call, json_pack("{s:b, s:i}", "ok", 1, "pid", (int)getpid()));
	daemon_stop(sd->daemon, EXIT_OK);
}

static void
on_admin(struct admin_call *call, const char *verb, const json_t *args, void *arg)
{
	struct sd *sd = arg;

	if (strcmp(verb, "reload") == 0)
		admin_answer(call, reload(sd, json_is_true(json_object_get(args, "dry"))));
	else if (strcmp(verb, "stop") == 0)
		stop_on_admin(sd, call);
	else
		admin_answer(call, admin_error("this service directory knows no verb %s", verb));
}

static void
on_signal(enum daemon_signal sig, void *arg)
{
	struct sd *sd = arg;

	switch (sig) {
	case DAEMON_STOP:
	case DAEMON_STOP_NOW:
		log_info("stopping", "records=%zu", book_length(sd->book));
		daemon_stop(sd->daemon, EXIT_OK);
		break;
	case DAEMON_RELOAD: json_decref(reload(sd, false)); break;
	case DAEMON_REOPEN:
	case DAEMON_UPGRADE:
	case DAEMON_CHILD: break;
	}
}

static void
on_end(evutil_socket_t fd, short what, void *arg)
{
	struct sd *sd = arg;

	(void)fd;
	(void)what;
	daemon_stop(sd->daemon, EXIT_FAIL);
}

static void
on_call(struct rpc_call *call, void *arg)
{
	const struct timeval grace = { 0, POISON_GRACE_MS * 1000 };
	struct sd *sd = arg;

	sd->calls[api_serve(sd->book, call)]++;
	if (book_is_poisoned(sd->book) && !event_pending(sd->end_ev, EV_TIMEOUT, NULL)) {
		log_error("store_poisoned", "note=\"a write failed and nobody knows what is on the disk: ending, check "
					    "the disk, start again\"");
		event_add(sd->end_ev, &grace);
	}
}

/* A file size limit is an error of write(2) like a full disk, not the end of the process. */
static void
ignore_file_size_signal(void)
{
	struct sigaction ignore = { .sa_handler = SIG_IGN };

	sigaction(SIGXFSZ, &ignore, NULL);
}

/* notify_describe_cb */
static void
describe(char ret[NOTIFY_STATUS_MAX], void *arg)
{
	const struct sd *sd = arg;

	snprintf(ret, NOTIFY_STATUS_MAX, "serving: %zu records", book_length(sd->book));
}

static int
take_sockets(const struct conf_sd *conf, char err[LISTEN_ERR_MAX])
{
	const struct activate_name names[] = {
		{ "rpc", "jsonrpc_server.bind_address", conf->rpc_server->bind_address },
		{ "status", "metrics.bind_address", conf->metrics ? conf->metrics->bind_address : NULL },
	};

	return activate_sockets(names, ARRAY_LEN(names), err);
}

static int
sd_open(struct sd *sd, const struct conf_sd *conf)
{
	char err[BOOK_ERR_MAX] = "out of memory";
	char why[RPC_SERVER_ERR_MAX > LISTEN_ERR_MAX ? RPC_SERVER_ERR_MAX : LISTEN_ERR_MAX] = "out of memory";

	if (book_open(conf, &sd->book, err) < 0) {
		log_error("start_failed", "err=\"%s\"", err);
		return EXIT_FAIL;
	}
	if (take_sockets(conf, why) < 0) {
		log_error("start_failed", "err=\"%s\"", why);
		return EXIT_SETTINGS;
	}
	if (daemon_new(on_signal, sd, &sd->daemon) < 0 ||
	    !(sd->end_ev = evtimer_new(daemon_base(sd->daemon), on_end, sd)) ||
	    rpc_server_new(daemon_base(sd->daemon), conf->rpc_server, NULL, on_call, sd, &sd->server, why) < 0) {
		log_error("start_failed", "err=\"%s\"", why);
		return EXIT_FAIL;
	}
	if (conf->metrics && sd_show_new(daemon_base(sd->daemon), conf, sd->book, sd->calls, &sd->show, why) < 0) {
		log_error("start_failed", "what=metrics.bind_address err=\"%s\"", why);
		return EXIT_FAIL;
	}
	if (conf->admin_socket &&
	    admin_new(daemon_base(sd->daemon), conf->admin_socket, on_admin, sd, &sd->admin, why) < 0) {
		log_error("start_failed", "err=\"%s\"", why);
		return EXIT_FAIL;
	}
	return EXIT_OK;
}

int
sd_run(const struct conf_sd *conf)
{
	struct sd sd = { .conf = conf };
	int code;

	ignore_file_size_signal();
	code = sd_open(&sd, conf);
	if (code == EXIT_OK) {
		notify_describe(describe, &sd);
		daemon_ready("jsonrpc_port=%u metrics_port=%u records=%zu store=%s", rpc_server_port(sd.server),
		    (unsigned)status_port(sd.show), book_length(sd.book), conf->store_path);
		code = daemon_run(sd.daemon);
		event_base_loop(daemon_base(sd.daemon), EVLOOP_NONBLOCK); /* the answer to `stop` leaves */
	}
	status_free(sd.show);
	rpc_server_free(sd.server);
	if (sd.end_ev)
		event_free(sd.end_ev);
	admin_free(sd.admin);
	daemon_free(sd.daemon);
	conf_sd_free(sd.own);
	book_close(sd.book);
	log_info("stopped", "exit=%d", code);
	return code;
}
