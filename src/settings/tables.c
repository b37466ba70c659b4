/* tables.c - every key of every program: type, range, default, unit and what it is for
 *
 * A key exists by its row here and nowhere else: reading, defaults, freeing,
 * --help and the manual's check all follow the row. Where a row's member is
 * CFG_NOWHERE the key is checked and dropped: the reference has it or a later
 * version will use it, and a file that holds it must load today.
 *
 * Key names: protocol.md section 8 and "Settings, ours". Long, because it is a
 * list: each program's part can be read alone.
 */
#include <sched.h>
#include <stddef.h>
#include <strings.h>

#include "settings/option.h"

/* clang-format off */
#define AT(s, m)    .offset = offsetof(struct s, m), .size = sizeof(((struct s *)0)->m)
#define DROPPED     .offset = CFG_NOWHERE, .size = sizeof(bool)
#define FROM(lo, hi) .min = (lo), .max = (hi)
#define SECONDS(lo, hi, d) .type = CFG_T_SECONDS, .min = (lo), .max = (hi), .def = (d), .unit = "seconds"
#define END         { .key = NULL }

static const struct cfg_word log_levels[] = {
	{ "error", LOG_LVL_ERROR }, { "warn", LOG_LVL_WARN }, { "info", LOG_LVL_INFO }, { "debug", LOG_LVL_DEBUG },
	{ NULL, 0 }
};

static const struct cfg_word log_formats[] = { { "text", LOG_FORMAT_TEXT }, { "json", LOG_FORMAT_JSON }, { NULL, 0 } };
static const struct cfg_word log_ips[] = {
	{ "full", LOG_IP_FULL }, { "prefix", LOG_IP_PREFIX }, { "none", LOG_IP_NONE }, { NULL, 0 }
};

/* ---- common blocks, protocol.md 8.6 ---- */

#define TLS_TRUST \
	{ .key = "ca_certificate_files", .type = CFG_T_FILE, .is_list = true, .is_required = true, \
	  AT(conf_tls, ca_certificate_files), .help = "Certificates of the authorities that peers are verified against." }
#define TLS_REST \
	{ .key = "server_name", .type = CFG_T_STRING, AT(conf_tls, server_name), \
	  .help = "Clients: the name that the server's certificate must have. Default: the dialled host." }, \
	{ .key = "verify_client", .type = CFG_T_BOOL, AT(conf_tls, verify_client), .def = "true", \
	  .help = "Servers: refuse clients without a valid certificate." }, \
	{ .key = "request_client_cert", .type = CFG_T_BOOL, DROPPED, .def = "false", \
	  .help = "Accepted and ignored: verify_client decides." }, \
	{ .key = "insecure_skip_verify", .type = CFG_T_BOOL, DROPPED, .def = "false", \
	  .why_not_true = "peers are always verified; name their authority in ca_certificate_files", \
	  .help = "Only false is accepted: peers are always verified." }

static const struct cfg_option tls_server[] = {
	TLS_TRUST,
	{ .key = "certificate_file", .type = CFG_T_FILE, .is_required = true, AT(conf_tls, certificate_file),
	  .help = "Own certificate, followed by its intermediates (PEM)." },
	{ .key = "key_file", .type = CFG_T_KEY_FILE, .is_required = true, AT(conf_tls, key_file),
	  .help = "The certificate's key (PEM). A file that all users may read is refused." },
	TLS_REST,
	END
};

static const struct cfg_option tls_client[] = {
	TLS_TRUST,
	{ .key = "certificate_file", .type = CFG_T_FILE, AT(conf_tls, certificate_file),
	  .help = "Own certificate, followed by its intermediates (PEM)." },
	{ .key = "key_file", .type = CFG_T_KEY_FILE, AT(conf_tls, key_file),
	  .help = "The certificate's key (PEM). A file that all users may read is refused." },
	TLS_REST,
	END
};

static void
check_tls_client(struct cfg_apply *a, const struct cfg_node *group, void *base)
{
	const struct conf_tls *tls = base;

	if (tls->certificate_file && !tls->key_file)
		cfg_say(a, &group->at, "key_file", "expected the key of certificate_file, found nothing");
	if (!tls->certificate_file && tls->key_file)
		cfg_say(a, &group->at, "certificate_file", "expected the certificate of key_file, found nothing");
}

#define TLS_SERVER(s, needed) \
	{ .key = "tls", .type = CFG_T_GROUP, .sub = tls_server, .alloc = sizeof(struct conf_tls), .is_required = (needed), \
	  AT(s, tls), .help = "TLS of this server." }
#define TLS_CLIENT(s, needed) \
	{ .key = "tls", .type = CFG_T_GROUP, .sub = tls_client, .alloc = sizeof(struct conf_tls), .is_required = (needed), \
	  AT(s, tls), .check = check_tls_client, .help = "TLS of this client." }

static const struct cfg_word windows[] = { { "second", 1000 }, { "minute", 60000 }, { "hour", 3600000 }, { NULL, 0 } };

static const struct cfg_option rate[] = {
	{ .key = "type", .type = CFG_T_WORD, .words = windows, .is_required = true, AT(conf_rate, window_ms),
	  .help = "Length of the window; it begins with the calendar's." },
	{ .key = "limit", .type = CFG_T_INTEGER, FROM(1, 1e9), .unit = "connections", .is_required = true,
	  AT(conf_rate, limit), .help = "Connections of one remote address within a window; more are closed at once." },
	END
};

#define RATES(s) \
	{ .key = "tcp_rate_limits", .type = CFG_T_GROUPS, .sub = rate, .alloc = sizeof(struct conf_rate), \
	  .offset = offsetof(struct s, tcp_rate_limits.v), .n_offset = offsetof(struct s, tcp_rate_limits.n), \
	  .help = "Connections permitted to each remote address." }

static const struct cfg_word methods[] = {
	{ "GET", 0 }, { "POST", 0 }, { "PATCH", 0 }, { "PUT", 0 }, { "DELETE", 0 }, { "OPTIONS", 0 }, { NULL, 0 }
};

static const struct cfg_option cors[] = {
	{ .key = "allowed_hosts", .type = CFG_T_REGEX, .is_list = true, AT(conf_cors, allowed_hosts),
	  .help = "Origins that browsers may call from." },
	{ .key = "allowed_headers", .type = CFG_T_STRING, .is_list = true, AT(conf_cors, allowed_headers),
	  .help = "Request headers that browsers may send." },
	{ .key = "allowed_methods", .type = CFG_T_WORD, .words = methods, .is_list = true, AT(conf_cors, allowed_methods),
	  .help = "Methods that browsers may use." },
	END
};

static const struct cfg_option rpc_server[] = {
	{ .key = "bind_address", .type = CFG_T_HOST_PORT, .is_required = true, AT(conf_rpc_server, bind_address), .needs_restart = true,
	  .help = "Where to listen; every address of the host is bound. Port 0: the kernel chooses." },
	{ .key = "path", .type = CFG_T_STRING, AT(conf_rpc_server, path), .def = "/jsonrpc", .help = "Path of the URL." },
	TLS_SERVER(conf_rpc_server, false),
	{ .key = "cors", .type = CFG_T_GROUP, .sub = cors, .alloc = sizeof(struct conf_cors), AT(conf_rpc_server, cors),
	  .help = "What browsers of other origins may do. Default: nothing." },
	RATES(conf_rpc_server),
	{ .key = "allowed_clients", .type = CFG_T_STRING, .is_list = true, AT(conf_rpc_server, allowed_clients),
	  .help = "Names, one of which a client's certificate must have. Default: the own operator; sd: any of the authority." },
	{ .key = "max_connections", .type = CFG_T_INTEGER, FROM(1, 65535), .def = "1024", .unit = "connections",
	  AT(conf_rpc_server, max_connections), .help = "Open at the same time." },
	{ .key = "request_timeout", SECONDS(0.1, 3600, "30"), AT(conf_rpc_server, request_timeout_ms),
	  .help = "From a request's first byte to its last." },
	END
};

#define RPC_SERVER(s, k) \
	{ .key = (k), .type = CFG_T_GROUP, .sub = rpc_server, .alloc = sizeof(struct conf_rpc_server), .is_required = true, \
	  AT(s, rpc_server), .help = "JSON-RPC over HTTP: what this program serves." }

#define RPC_CLIENT_REST \
	{ .key = "proxy_url", .type = CFG_T_URL, AT(conf_rpc_client, proxy_url), .help = "HTTP proxy to go through." }, \
	{ .key = "local", .type = CFG_T_BOOL, DROPPED, .def = "true", .help = "Accepted and ignored." }, \
	TLS_CLIENT(conf_rpc_client, false)

static const struct cfg_option rpc_client[] = {
	{ .key = "endpoint", .type = CFG_T_URL, .is_required = true, AT(conf_rpc_client, endpoint),
	  .help = "URL that requests are posted to." },
	RPC_CLIENT_REST,
	END
};

static const struct cfg_option rpc_client_of_directory[] = {
	{ .key = "endpoint", .type = CFG_T_URL, AT(conf_rpc_client, endpoint),
	  .help = "Accepted and ignored: endpoints of the directory is used." },
	RPC_CLIENT_REST,
	END
};

static void
check_rpc_client(struct cfg_apply *a, const struct cfg_node *group, void *base)
{
	const struct conf_rpc_client *c = base;

	if (strncasecmp(c->endpoint, "https:", 6) == 0 && !c->tls)
		cfg_say(a, &group->at, "tls", "expected a group { ... } since endpoint is an https URL, found nothing");
}

static const struct cfg_option metrics[] = {
	{ .key = "bind_address", .type = CFG_T_HOST_PORT, AT(conf_metrics, bind_address), .needs_restart = true,
	  .help = "Where /metrics, /healthz, /readyz and the status page are served by plain HTTP. Default: nowhere." },
	END
};

/* The reference's sd has such a group in `directory` and never uses it. */
static const struct cfg_option metrics_dropped[] = {
	{ .key = "bind_address", .type = CFG_T_HOST_PORT, DROPPED, .help = "Accepted and ignored: see metrics.bind_address." },
	END
};
#define METRICS_DROPPED \
	{ .key = "metrics", .type = CFG_T_GROUP, .sub = metrics_dropped, .offset = CFG_NOWHERE, \
	  .help = "Accepted and ignored: see metrics.bind_address." }

#define METRICS(s) \
	{ .key = "metrics", .type = CFG_T_GROUP, .sub = metrics, .alloc = sizeof(struct conf_metrics), AT(s, metrics), \
	  .help = "Numbers of now, for monitoring and for people." }
#define ADMIN_SOCKET(s) \
	{ .key = "admin_socket", .type = CFG_T_PATH, AT(s, admin_socket), .needs_restart = true, \
	  .help = "UNIX socket that the verbs ask: status, reload and others. Default: none." }
#define LOG_LEVEL(s) \
	{ .key = "log_level", .type = CFG_T_WORD, .words = log_levels, AT(s, log_level), .def = "info", \
	  .help = "Least important lines that are logged." }
#define LOG(s) \
	LOG_LEVEL(s), \
	{ .key = "log", .type = CFG_T_LOG, AT(s, log), .def = "stderr", \
	  .help = "Where lines go: stderr, syslog, syslog:/socket, or file:/path, which SIGUSR1 opens again." }, \
	{ .key = "log_format", .type = CFG_T_WORD, .words = log_formats, AT(s, log_format), .def = "text", \
	  .help = "text: key=value; json: an object a line." }, \
	{ .key = "log_ip", .type = CFG_T_WORD, .words = log_ips, AT(s, log_ip), .def = "full", \
	  .help = "Peers' addresses in lines: full, prefix (IPv4 /24, IPv6 /48) or none." }
#define DATASTORE(what) { .key = "datastore", .type = CFG_T_REFUSED, .help = (what) }
#define CAS(s) \
	{ .key = "ca_certificate_files", .type = CFG_T_FILE, .is_list = true, .is_required = true, \
	  AT(s, ca_certificate_files), .help = "Roots that the signatures of records are verified against." }, \
	{ .key = "ca_intermediate_certificate_files", .type = CFG_T_FILE, .is_list = true, \
	  AT(s, ca_intermediate_certificate_files), .help = "Certificates between a root and the signers." }

/* ---- hyper, protocol.md 8.2 ---- */

static const struct cfg_option directory_api[] = {
	{ .key = "endpoints", .type = CFG_T_URL, .is_list = true, .is_required = true, AT(conf_directory, endpoints),
	  .help = "URLs of the service directory; the first is used." },
	{ .key = "server_names", .type = CFG_T_STRING, .is_list = true, AT(conf_directory, server_names),
	  .help = "For each of endpoints the name that its certificate must have." },
	{ .key = "cache_entries_for", SECONDS(0, 3600, "5"), AT(conf_directory, cache_entries_for_ms),
	  .help = "Age up to which what is known is used without asking." },
	{ .key = "max_stale", SECONDS(0, 31536000, "86400"), AT(conf_directory, max_stale_ms),
	  .help = "Age up to which what is known is used while the directory cannot be reached." },
	{ .key = "jsonrpc_client", .type = CFG_T_GROUP, .sub = rpc_client_of_directory,
	  .alloc = sizeof(struct conf_rpc_client), .is_required = true, AT(conf_directory, rpc_client),
	  .help = "How the directory is asked." },
	CAS(conf_directory),
	{ .key = "store", .type = CFG_T_PATH, AT(conf_directory, store), .needs_restart = true,
	  .help = "File that keeps the accepted records over restarts, so that an older directory is refused." },
	END
};

static const struct cfg_option directory_json[] = {
	{ .key = "path", .type = CFG_T_EXISTING, .is_required = true, AT(conf_directory, path),
	  .help = "File, or folder of *.json files, with unsigned records; for tests." },
	END
};

static void
check_directory_api(struct cfg_apply *a, const struct cfg_node *group, void *base)
{
	const struct conf_directory *d = base;

	if (d->server_names.n && d->server_names.n != d->endpoints.n)
		cfg_say(a, &cfg_node_find(group, "server_names")->at, "server_names",
			"expected one name for each of endpoints (%zu), found %zu", d->endpoints.n, d->server_names.n);
	if (strncasecmp(d->endpoints.v[0], "https:", 6) == 0 && !d->rpc_client->tls)
		cfg_say(a, &cfg_node_find(group, "jsonrpc_client")->at, "jsonrpc_client.tls",
			"expected a group { ... } since endpoints holds an https URL, found nothing");
}

static const struct cfg_word directory_types[] = { { "api", CONF_DIRECTORY_API }, { "json", CONF_DIRECTORY_JSON }, { NULL, 0 } };
static const struct cfg_variant directory_variants[] = {
	[CONF_DIRECTORY_API] = { directory_api, 0, check_directory_api },
	[CONF_DIRECTORY_JSON] = { directory_json, 0, NULL },
};

static const struct cfg_option directory[] = {
	{ .key = "type", .type = CFG_T_WORD, .words = directory_types, .is_required = true, AT(conf_directory, type), .needs_restart = true,
	  .help = "api: ask a service directory; json: read local files." },
	{ .key = "settings", .type = CFG_T_VARIANT, .variants = directory_variants, .tags = directory_types,
	  .tag = offsetof(struct conf_directory, type), .is_required = true, .help = "Settings of that type." },
	END
};

static const struct cfg_option signing[] = {
	{ .key = "name", .type = CFG_T_OPERATOR, .is_required = true, AT(conf_signing, name),
	  .help = "Operator who signs." },
	{ .key = "certificate_file", .type = CFG_T_FILE, .is_required = true, AT(conf_signing, certificate_file),
	  .help = "The signer's certificate (PEM)." },
	{ .key = "key_file", .type = CFG_T_KEY_FILE, .is_required = true, AT(conf_signing, key_file),
	  .help = "Its EC key (PEM). A file that all users may read is refused." },
	CAS(conf_signing),
	END
};

static const struct cfg_option grpc_server[] = {
	{ .key = "bind_address", .type = CFG_T_HOST_PORT, AT(conf_grpc_server, bind_address), .needs_restart = true, .def = "localhost:4444",
	  .help = "Where to listen; every address of the host is bound. Port 0: the kernel chooses." },
	TLS_SERVER(conf_grpc_server, true),
	RATES(conf_grpc_server),
	{ .key = "max_connections", .type = CFG_T_INTEGER, FROM(1, 65535), .def = "1024", .unit = "connections",
	  AT(conf_grpc_server, max_connections), .help = "Open at the same time." },
	END
};

static const struct cfg_option grpc_client[] = {
	TLS_CLIENT(conf_grpc_client, true),
	{ .key = "useProxy", .type = CFG_T_BOOL, AT(conf_grpc_client, use_proxy), .def = "true",
	  .help = "Reach operators through the proxy that their directory entry names." },
	END
};

static const struct cfg_word channel_types[] = {
	{ "jsonrpc_server", CONF_CH_JSONRPC_SERVER }, { "jsonrpc_client", CONF_CH_JSONRPC_CLIENT },
	{ "grpc_server", CONF_CH_GRPC_SERVER }, { "grpc_client", CONF_CH_GRPC_CLIENT }, { NULL, 0 }
};
static const struct cfg_variant channel_variants[] = {
	[CONF_CH_JSONRPC_SERVER] = { rpc_server, sizeof(struct conf_rpc_server), NULL },
	[CONF_CH_JSONRPC_CLIENT] = { rpc_client, sizeof(struct conf_rpc_client), check_rpc_client },
	[CONF_CH_GRPC_SERVER] = { grpc_server, sizeof(struct conf_grpc_server), NULL },
	[CONF_CH_GRPC_CLIENT] = { grpc_client, sizeof(struct conf_grpc_client), NULL },
};

static const struct cfg_option channel[] = {
	{ .key = "name", .type = CFG_T_STRING, .is_required = true, AT(conf_channel, name),
	  .help = "Names the channel in log lines." },
	{ .key = "type", .type = CFG_T_WORD, .words = channel_types, .is_required = true, AT(conf_channel, type), .needs_restart = true,
	  .help = "Kind of channel; each at most once." },
	{ .key = "settings", .type = CFG_T_VARIANT, .variants = channel_variants, .tags = channel_types,
	  .tag = offsetof(struct conf_channel, type), .is_required = true, AT(conf_channel, rpc_server),
	  .help = "Settings of that kind." },
	END
};

static void
check_hyper(struct cfg_apply *a, const struct cfg_node *group, void *base)
{
	const struct conf_hyper *c = base;
	const struct cfg_node *list = cfg_node_find(group, "channels");

	for (size_t i = 0; i < c->n_channels; i++)
		for (size_t k = 0; k < i; k++)
			if (c->channels[i].type == c->channels[k].type)
				cfg_say(a, &list->child[i]->at, "channels", "expected each type at most once, found %s again",
					channel_types[c->channels[i].type].word);
	if (c->reconnect_min_ms > c->reconnect_max_ms)
		cfg_say(a, &group->at, "reconnect_min", "expected at most reconnect_max (%g), found %g",
			(double)c->reconnect_max_ms / 1000, (double)c->reconnect_min_ms / 1000);
}

static const struct cfg_option hyper[] = {
	{ .key = "name", .type = CFG_T_OPERATOR, .is_required = true, AT(conf_hyper, name), .needs_restart = true,
	  .help = "Own operator, as in the directory." },
	LOG(conf_hyper),
	METRICS(conf_hyper),
	ADMIN_SOCKET(conf_hyper),
	{ .key = "directory", .type = CFG_T_GROUP, .sub = directory, .alloc = sizeof(struct conf_directory),
	  .is_required = true, AT(conf_hyper, directory), .help = "Where operators are looked up." },
	{ .key = "signing", .type = CFG_T_GROUP, .sub = signing, .alloc = sizeof(struct conf_signing),
	  AT(conf_hyper, signing), .help = "Who signs records; needed by hyper sd submit-records." },
	{ .key = "channels", .type = CFG_T_GROUPS, .sub = channel, .alloc = sizeof(struct conf_channel),
	  .offset = offsetof(struct conf_hyper, channels), .n_offset = offsetof(struct conf_hyper, n_channels), .needs_restart = true,
	  .help = "Ways in and out; a request goes to the first that can deliver it." },
	{ .key = "call_timeout", SECONDS(0.1, 3600, "30"), AT(conf_hyper, call_timeout_ms), .help = "Deadline of every call." },
	{ .key = "drain_timeout", SECONDS(0, 86400, "30"), AT(conf_hyper, drain_timeout_ms),
	  .help = "How long a stop waits for the calls in flight; then they are refused." },
	{ .key = "reconnect_min", SECONDS(0.01, 3600, "0.1"), AT(conf_hyper, reconnect_min_ms),
	  .help = "Pause before the first new try of a lost standing stream; it doubles each time." },
	{ .key = "reconnect_max", SECONDS(0.01, 3600, "30"), AT(conf_hyper, reconnect_max_ms), .help = "Longest such pause." },
	{ .key = "endpoint_allow", .type = CFG_T_STRING, .is_list = true, AT(conf_hyper, endpoint_allow), .def = "*",
	  .help = "host:port that a connectionRequest may name; \"*\" is any." },
	{ .key = "max_in_flight", .type = CFG_T_INTEGER, FROM(1, 1048576), .def = "4096", .unit = "requests",
	  AT(conf_hyper, max_in_flight), .help = "Requests that may wait for an answer at the same time." },
	{ .key = "max_in_flight_bytes", .type = CFG_T_INTEGER, FROM(67108864, 68719476736), .def = "268435456", .unit = "bytes",
	  AT(conf_hyper, max_in_flight_bytes), .help = "Memory that their parameters may take together." },
	END
};

const struct cfg_program cfg_hyper = { "hyper", "HYPER_SETTINGS", hyper, sizeof(struct conf_hyper), check_hyper };

/* ---- sd, protocol.md 8.3 ---- */

static const struct cfg_word store_types[] = { { "sqlite", 0 }, { NULL, 0 } };

static const struct cfg_option store[] = {
	{ .key = "type", .type = CFG_T_WORD, .words = store_types, DROPPED, .is_required = true, .help = "Kind of store." },
	{ .key = "path", .type = CFG_T_PATH, .is_required = true, AT(conf_sd, store_path), .needs_restart = true,
	  .help = "Database file; created when it is not there." },
	END
};

static const struct cfg_option sd_directory[] = {
	CAS(conf_sd),
	METRICS_DROPPED,
	DATASTORE("write store = { type = \"sqlite\"; path = \"...\"; }; at the top instead"),
	END
};

static const struct cfg_option sd[] = {
	LOG(conf_sd),
	METRICS(conf_sd),
	ADMIN_SOCKET(conf_sd),
	RPC_SERVER(conf_sd, "jsonrpc_server"),
	{ .key = "store", .type = CFG_T_GROUP, .sub = store, .is_required = true, .help = "Where records are kept." },
	{ .key = "directory", .type = CFG_T_GROUP, .sub = sd_directory, .is_required = true,
	  .help = "How records are verified." },
	END
};

const struct cfg_program cfg_sd = { "sd", "SD_SETTINGS", sd, sizeof(struct conf_sd), NULL };

/* ---- proxy, protocol.md 8.4 ---- */

static void
check_public(struct cfg_apply *a, const struct cfg_node *group, void *base)
{
	struct conf_proxy_public *p = base;
	cpu_set_t cpus;

	(void)a;
	(void)group;
	if (p->workers == 0)
		p->workers = sched_getaffinity(0, sizeof(cpus), &cpus) == 0 ? (unsigned)CPU_COUNT(&cpus) : 1;
}

static const struct cfg_option public[] = {
	{ .key = "name", .type = CFG_T_OPERATOR, .is_required = true, AT(conf_proxy_public, name), .needs_restart = true, .help = "Own operator." },
	{ .key = "internal_bind_address", .type = CFG_T_HOST_PORT, AT(conf_proxy_public, internal_bind_address), .needs_restart = true,
	  .def = "localhost:9999", .help = "Where operators bring their tokens; every address of the host is bound." },
	{ .key = "internal_endpoint", .type = CFG_T_HOST_PORT, AT(conf_proxy_public, internal_endpoint),
	  .def = "localhost:9999", .help = "What operators are told to dial." },
	{ .key = "tls_bind_address", .type = CFG_T_HOST_PORT, DROPPED, .def = NULL,
	  .help = "Accepted and ignored: TLS is not passed through yet." },
	RATES(conf_proxy_public),
	{ .key = "jsonrpc_client", .type = CFG_T_GROUP, .sub = rpc_client, .alloc = sizeof(struct conf_rpc_client),
	  .is_required = true, AT(conf_proxy_public, rpc_client), .check = check_rpc_client,
	  .help = "The proxy's own hyper server." },
	RPC_SERVER(conf_proxy_public, "jsonrpc_server"),
	{ .key = "accept_timeout", SECONDS(0.01, 3000, "10"), AT(conf_proxy_public, accept_timeout_ms),
	  .help = "From accept to the token's last byte." },
	{ .key = "token_timeout", SECONDS(0.1, 3600, "5"), AT(conf_proxy_public, token_timeout_ms),
	  .help = "Life of a token from its creation." },
	{ .key = "call_timeout", SECONDS(0.1, 3600, "30"), AT(conf_proxy_public, call_timeout_ms),
	  .help = "Longest wait for the answer of the called operator; a token's life ends it too." },
	{ .key = "drain_timeout", SECONDS(0, 86400, "30"), AT(conf_proxy_public, drain_timeout_ms),
	  .help = "How long a stop waits for pairs and tokens to come to their end; then pairs are reset." },
	{ .key = "workers", .type = CFG_T_INTEGER, FROM(1, 256), .unit = "processes", AT(conf_proxy_public, workers),
	  .help = "Worker processes. Default: one for each CPU." },
	{ .key = "table_slots", .type = CFG_T_INTEGER, FROM(1, 1048576), .def = "65536", .unit = "tokens",
	  AT(conf_proxy_public, table_slots), .needs_restart = true, .help = "Tokens that may be alive at the same time." },
	{ .key = "max_unauthenticated", .type = CFG_T_INTEGER, FROM(1, 1048576), .def = "1024", .unit = "connections",
	  AT(conf_proxy_public, max_unauthenticated), .help = "Connections of each worker that have not sent a token yet." },
	{ .key = "max_unauthenticated_per_source", .type = CFG_T_INTEGER, FROM(0, 1048576), .def = "256", .unit = "connections",
	  AT(conf_proxy_public, max_unauthenticated_per_source), .help = "The same from one address (IPv6: /64). 0: no limit." },
	{ .key = "max_bad_tokens_per_source", .type = CFG_T_INTEGER, FROM(0, 1048576), .def = "1000", .unit = "connections",
	  AT(conf_proxy_public, max_bad_tokens_per_source), .help = "Connections a minute from one address, at each worker, that brought no good token. 0: no limit." },
	{ .key = "barred_source_time", SECONDS(0.01, 3600, "10"), AT(conf_proxy_public, barred_source_time_ms),
	  .help = "How long an address with more of them is closed at once." },
	{ .key = "max_pairs", .type = CFG_T_INTEGER, FROM(0, 1048576), .def = "0", .unit = "pairs",
	  AT(conf_proxy_public, max_pairs), .help = "Joined connections of each worker. 0: 4096, or what the descriptors permit." },
	{ .key = "max_pipes", .type = CFG_T_INTEGER, FROM(0, 65536), .def = "0", .unit = "pipes",
	  AT(conf_proxy_public, max_pipes), .help = "Pipes of each worker. 0: 1024, or what the descriptors permit." },
	{ .key = "max_tokens_per_operator", .type = CFG_T_INTEGER, FROM(0, 1048576), .def = "1024", .unit = "tokens",
	  AT(conf_proxy_public, max_tokens_per_operator), .help = "Tokens of each calling operator that are not used yet. 0: no limit." },
	{ .key = "max_outstanding_per_operator", .type = CFG_T_INTEGER, FROM(0, 1048576), .def = "256", .unit = "requests",
	  AT(conf_proxy_public, max_outstanding_per_operator), .help = "Requests of each calling operator that wait for an answer. 0: no limit." },
	{ .key = "max_outstanding_per_target", .type = CFG_T_INTEGER, FROM(0, 1048576), .def = "1024", .unit = "requests",
	  AT(conf_proxy_public, max_outstanding_per_target), .help = "Requests to each called operator that wait for an answer. 0: no limit." },
	{ .key = "request_rate_per_operator", .type = CFG_T_INTEGER, FROM(0, 1000000), .def = "0", .unit = "requests",
	  AT(conf_proxy_public, request_rate_per_operator), .help = "Requests a second of each calling operator, and its burst. 0: no limit." },
	{ .key = "request_rate_per_target", .type = CFG_T_INTEGER, FROM(0, 1000000), .def = "0", .unit = "requests",
	  AT(conf_proxy_public, request_rate_per_target), .help = "Requests a second to each called operator, and its burst. 0: no limit." },
	{ .key = "max_parked", .type = CFG_T_INTEGER, FROM(0, 1048576), .def = "0", .unit = "connections",
	  AT(conf_proxy_public, max_parked), .help = "Connections that wait for their other party. 0: what the descriptors permit." },
	{ .key = "max_parked_per_operator", .type = CFG_T_INTEGER, FROM(0, 1048576), .def = "1024", .unit = "connections",
	  AT(conf_proxy_public, max_parked_per_operator), .help = "The same for the tokens of each calling operator. 0: no limit." },
	{ .key = "max_pairs_total", .type = CFG_T_INTEGER, FROM(0, 1048576), .def = "0", .unit = "pairs",
	  AT(conf_proxy_public, max_pairs_total), .help = "Joined connections of all workers. 0: workers x max_pairs, or what the descriptors permit." },
	{ .key = "max_pairs_per_operator", .type = CFG_T_INTEGER, FROM(0, 1048576), .def = "0", .unit = "pairs",
	  AT(conf_proxy_public, max_pairs_per_operator), .help = "Joined connections of each calling operator. 0: no limit." },
	{ .key = "bytes_per_second_per_operator", .type = CFG_T_INTEGER, FROM(0, 1099511627776), .def = "0", .unit = "bytes",
	  AT(conf_proxy_public, bytes_per_second_per_operator), .help = "What all pairs of each calling operator may move, both directions together. 0: no limit." },
	{ .key = "pipe_size", .type = CFG_T_INTEGER, FROM(4096, 1048576), .def = "262144", .unit = "bytes",
	  AT(conf_proxy_public, pipe_size), .help = "Size of each pipe that bytes are spliced through." },
	{ .key = "copy_mode", .type = CFG_T_BOOL, AT(conf_proxy_public, copy_mode), .def = "false",
	  .help = "Copy bytes instead of splicing them; to compare the two." },
	{ .key = "copy_small_messages", .type = CFG_T_BOOL, AT(conf_proxy_public, copy_small_messages), .def = "true",
	  .help = "Move what is small through the worker's memory, which costs less CPU than splicing it." },
	{ .key = "idle_timeout", SECONDS(0, 31536000, "0"), AT(conf_proxy_public, idle_timeout_ms),
	  .help = "A pair over which no byte went for so long ends. 0: never." },
	{ .key = "half_closed_timeout", SECONDS(0, 31536000, "0"), AT(conf_proxy_public, half_closed_timeout_ms),
	  .help = "The same once one of its peers has ended its stream. 0: idle_timeout." },
	{ .key = "keepalive_idle", SECONDS(1, 32767, "15"), AT(conf_proxy_public, keepalive_idle_ms),
	  .help = "Silence of a pair's peer after which TCP asks whether it is there; whole seconds." },
	{ .key = "keepalive_interval", SECONDS(1, 32767, "5"), AT(conf_proxy_public, keepalive_interval_ms),
	  .help = "How long it waits for the answer; whole seconds." },
	{ .key = "keepalive_count", .type = CFG_T_INTEGER, FROM(1, 127), .def = "3", .unit = "probes",
	  AT(conf_proxy_public, keepalive_count), .help = "Unanswered ones after which the peer is gone." },
	{ .key = "user_timeout", SECONDS(0, 86400, "30"), AT(conf_proxy_public, user_timeout_ms),
	  .help = "A peer that answers nothing for so long while bytes are on their way is gone. 0: the kernel's, a quarter of an hour." },
	DATASTORE("the proxy keeps its tokens in memory; remove the key"),
	END
};

static const struct cfg_option proxy[] = {
	LOG(conf_proxy),
	METRICS(conf_proxy),
	ADMIN_SOCKET(conf_proxy),
	{ .key = "public", .type = CFG_T_GROUP, .sub = public, .alloc = sizeof(struct conf_proxy_public),
	  AT(conf_proxy, public), .check = check_public, .help = "What proxy run public does." },
	{ .key = "private", .type = CFG_T_REFUSED, .help = "this version has no private proxy yet; remove the group" },
	END
};

const struct cfg_program cfg_proxy = { "proxy", "PROXY_SETTINGS", proxy, sizeof(struct conf_proxy), NULL };
/* clang-format on */
