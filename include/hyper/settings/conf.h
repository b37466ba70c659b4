/* conf.h - the checked settings of each program as plain structs
 *
 * Filled by settings_load_*() (settings.h). A struct and all it points to is
 * owned by whoever took it and freed by its conf_*_free(). Strings are never
 * NULL unless "may be NULL" is said. Paths are absolute or relative to the
 * current folder (the loader resolved them against the file they stood in).
 * Key names and defaults: protocol.md section 8 and "Settings, ours".
 */
#ifndef HYPER_SETTINGS_CONF_H
#define HYPER_SETTINGS_CONF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "hyper/base/log.h"

struct conf_strings {
	char **v;
	size_t n;
};

/* protocol.md 8.6 "tls" */
struct conf_tls {
	struct conf_strings ca_certificate_files; /* at least one */
	char *certificate_file;                   /* may be NULL for a client without a certificate */
	char *key_file;                           /* NULL exactly when certificate_file is */
	char *server_name;                        /* may be NULL: the dialled host */
	bool verify_client;                       /* servers: client certificate required; default true */
};

/* protocol.md 8.6 "tcp_rate_limits": connections per remote address per window */
struct conf_rate {
	int64_t window_ms; /* 1,000, 60,000 or 3,600,000; calendar aligned */
	unsigned limit;    /* >= 1 */
};
struct conf_rates {
	struct conf_rate *v;
	size_t n;
};

/* protocol.md 8.6 "cors" */
struct conf_cors {
	struct conf_strings allowed_hosts; /* POSIX extended regular expressions */
	struct conf_strings allowed_headers;
	struct conf_strings allowed_methods;
};

struct conf_rpc_server {
	char *bind_address;                  /* host:port, port 0 = the kernel chooses */
	char *path;                          /* default /jsonrpc */
	struct conf_tls *tls;                /* NULL: plain HTTP */
	struct conf_cors *cors;              /* may be NULL */
	struct conf_rates tcp_rate_limits;   /* may be empty */
	struct conf_strings allowed_clients; /* names of client certificates; empty: see the program's default */
	unsigned max_connections;            /* default 1024 */
	int64_t request_timeout_ms;          /* from the first byte to the whole request; default 30 s */
};

struct conf_rpc_client {
	char *endpoint;       /* http:// or https:// URL */
	char *proxy_url;      /* may be NULL */
	struct conf_tls *tls; /* NULL: plain HTTP */
};

struct conf_grpc_server {
	char *bind_address; /* default localhost:4444 */
	struct conf_tls *tls;
	struct conf_rates tcp_rate_limits;
	unsigned max_connections; /* default 1024 */
};

struct conf_grpc_client {
	struct conf_tls *tls;
	bool use_proxy; /* key useProxy, default true */
};

/* Directory as a client sees it: protocol.md 6.6 and 8.2 */
enum conf_directory_type { CONF_DIRECTORY_API, CONF_DIRECTORY_JSON };
struct conf_directory {
	enum conf_directory_type type;
	/* json */
	char *path; /* a file or a folder of *.json; NULL for api */
	/* api */
	struct conf_strings endpoints;            /* URLs; the first is used */
	struct conf_strings server_names;         /* name checked on the certificate of the endpoint, same index */
	int64_t cache_entries_for_ms;             /* default 5 s, 0..3600 s */
	int64_t max_stale_ms;                     /* default 24 h */
	struct conf_rpc_client *rpc_client;       /* key jsonrpc_client; its endpoint is not used */
	struct conf_strings ca_certificate_files; /* roots for record signatures */
	struct conf_strings ca_intermediate_certificate_files;
	char *store; /* file that keeps the accepted chain over restarts; NULL: not kept */
};

/* hyper: protocol.md 8.2 "signing"; used by `hyper sd` */
struct conf_signing {
	char *name;
	char *certificate_file;
	char *key_file;
	struct conf_strings ca_certificate_files;
	struct conf_strings ca_intermediate_certificate_files;
};

enum conf_channel_type { CONF_CH_JSONRPC_SERVER, CONF_CH_JSONRPC_CLIENT, CONF_CH_GRPC_SERVER, CONF_CH_GRPC_CLIENT };
struct conf_channel {
	char *name;
	enum conf_channel_type type;
	union {
		struct conf_rpc_server *rpc_server;
		struct conf_rpc_client *rpc_client;
		struct conf_grpc_server *grpc_server;
		struct conf_grpc_client *grpc_client;
	};
};

/* /metrics, /healthz, /readyz and the status page */
struct conf_metrics {
	char *bind_address; /* NULL: not served */
};

/* What log_setup() needs, of any of the three below. */
#define CONF_LOG(c) \
	(&(struct log_conf){ .level = (c)->log_level, .format = (c)->log_format, .ip = (c)->log_ip, .to = (c)->log })

struct conf_hyper {
	char *name; /* own operator */
	char *log;  /* default "stderr"; see log_to_parse() */
	enum log_format log_format;
	enum log_ip log_ip;
	enum log_level log_level;
	struct conf_metrics *metrics; /* may be NULL */
	char *admin_socket;           /* NULL: none */
	struct conf_directory *directory;
	struct conf_signing *signing;  /* may be NULL */
	struct conf_channel *channels; /* in configuration order, at most one of each type */
	size_t n_channels;
	int64_t call_timeout_ms;            /* deadline of every call; default 30 s */
	int64_t drain_timeout_ms;           /* TERM: how long calls in flight may take to end; default 30 s */
	int64_t reconnect_min_ms;           /* standing streams; default 100 */
	int64_t reconnect_max_ms;           /* default 30,000 */
	struct conf_strings endpoint_allow; /* host:port a connectionRequest may name, "*" = any (default) */
	size_t max_in_flight;               /* default 4096 requests */
	size_t max_in_flight_bytes;         /* of their parameters; default 256 MiB */
};

struct conf_sd {
	char *log; /* default "stderr"; see log_to_parse() */
	enum log_format log_format;
	enum log_ip log_ip;
	enum log_level log_level;
	struct conf_metrics *metrics;       /* may be NULL */
	char *admin_socket;                 /* NULL: none */
	struct conf_rpc_server *rpc_server; /* key jsonrpc_server */
	char *store_path;                   /* store = { type = "sqlite"; path = ...; } */
	struct conf_strings ca_certificate_files;
	struct conf_strings ca_intermediate_certificate_files;
};

struct conf_proxy_public {
	char *name;                  /* own operator */
	char *internal_bind_address; /* the endpoint; default localhost:9999 */
	char *internal_endpoint;     /* told to the peers; default localhost:9999 */
	struct conf_rates tcp_rate_limits;
	struct conf_rpc_client *rpc_client;
	struct conf_rpc_server *rpc_server;
	int64_t accept_timeout_ms;  /* from accept to 32 token bytes; default 10 s */
	int64_t token_timeout_ms;   /* life of a token from its creation; default 5 s, protocol.md "Defaults" */
	int64_t drain_timeout_ms;   /* TERM: how long pairs and tokens may take to end; default 30 s */
	int64_t call_timeout_ms;    /* _connectionRequest to B; default 30 s, bounded by the token's life */
	unsigned workers;           /* default one per CPU */
	size_t table_slots;         /* capacity of the token table; default 65,536 */
	size_t max_unauthenticated; /* sockets per worker that have not sent a token; default 1,024 */
	/* Source: an IPv4 address or an IPv6 /64, as each worker sees it. 0: no limit. */
	size_t max_unauthenticated_per_source; /* default 256 */
	size_t max_bad_tokens_per_source;      /* a minute; default 1,000 */
	int64_t barred_source_time_ms;         /* how long who had more is closed at once; default 10 s */
	size_t max_pairs;                      /* per worker; default 0: 4,096 or what the descriptors permit */
	size_t max_pipes;                      /* per worker; default 0: 1,024 or what the descriptors permit */
	/* Operator: the one that asked for the connection. 0: no limit of its own. */
	size_t max_tokens_per_operator;      /* issued and not used yet; default 1,024 */
	size_t max_outstanding_per_operator; /* requestConnections not answered yet; default 256 */
	size_t max_outstanding_per_target;   /* the same by the operator that is called; default 1024 */
	size_t request_rate_per_operator;    /* requestConnections a second, burst the same; default 0 */
	size_t request_rate_per_target;      /* the same by the operator that is called; default 0 */
	size_t max_parked;                   /* of all; default 0: what the descriptors permit */
	size_t max_parked_per_operator;      /* default 1,024 */
	size_t max_pairs_total; /* of all workers; default 0: workers x max_pairs, or what the descriptors permit */
	size_t max_pairs_per_operator;        /* default 0 */
	size_t bytes_per_second_per_operator; /* both directions of all its pairs; default 0 */
	size_t pipe_size;                     /* bytes per pipe; default 262,144 */
	bool copy_mode;                       /* read/write instead of splice; the test oracle. Default false */
	bool copy_small_messages;             /* default true */
	int64_t idle_timeout_ms;              /* of a pair; default 0: none */
	int64_t half_closed_timeout_ms;       /* default 0: idle_timeout_ms */
	int64_t keepalive_idle_ms, keepalive_interval_ms; /* of pairs; whole seconds. Default 15 s, 5 s */
	unsigned keepalive_count;                         /* default 3 */
	int64_t user_timeout_ms;                          /* of pairs; default 30 s, 0 the kernel's */
};

struct conf_proxy {
	char *log; /* default "stderr"; see log_to_parse() */
	enum log_format log_format;
	enum log_ip log_ip;
	enum log_level log_level;
	struct conf_metrics *metrics;     /* may be NULL */
	char *admin_socket;               /* NULL: none */
	struct conf_proxy_public *public; /* NULL when the settings have none */
};

void conf_hyper_free(struct conf_hyper *);
void conf_sd_free(struct conf_sd *);
void conf_proxy_free(struct conf_proxy *);

#endif
