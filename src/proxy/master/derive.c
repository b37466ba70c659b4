/* derive.c - what the settings mean to each part of the master
 *
 * Always true: these only compute; so a start and a reload with the same settings come to the same.
 *
 * Not here: what the descriptors permit (limits.c).
 */
#include "proxy/master/derive.h"

#include "hyper/base/log.h"

/* The strictest of those with this window, 0 when there is none. */
static uint64_t
rate_limit(const struct conf_rates *rates, int64_t window_ms)
{
	uint64_t least = 0;
	size_t i;

	for (i = 0; i < rates->n; i++)
		if (rates->v[i].window_ms == window_ms && (least == 0 || rates->v[i].limit < least))
			least = rates->v[i].limit;
	return least;
}

struct quota_conf
derive_quota(const struct conf_proxy_public *c, const struct limits *l)
{
	struct quota_conf qc = { 0 };

#define X(n, setting, what) qc.max[QUOTA_LIMIT_##n] = c->setting;
	QUOTA_LIMITS(X)
#undef X
	qc.max[QUOTA_LIMIT_PARKED_ALL] = l->max_parked;
	qc.max[QUOTA_LIMIT_PAIRS_ALL] = l->max_pairs_total;
	/* So many can hold something. A name beyond that holds nothing, it only waits for its rate to be whole. */
	qc.max[QUOTA_LIMIT_NAMES] = 2 * (c->table_slots + c->rpc_server->max_connections) + l->max_pairs_total;
	return qc;
}

struct meet_conf
derive_meet(const struct conf_proxy_public *c, const struct limits *l)
{
	return (struct meet_conf){ .workers = c->workers,
		.max_pairs = l->max_pairs,
		.max_pipes = l->max_pipes,
		.pipe_size = c->pipe_size,
		.operator_rate = c->bytes_per_second_per_operator,
		.copy_mode = c->copy_mode };
}

struct chan_settings
derive_worker(const struct conf_proxy *conf, const struct limits *l)
{
	const struct conf_proxy_public *c = conf->public;

	return (struct chan_settings){ .accept_timeout_ms = (uint64_t)c->accept_timeout_ms,
		.max_unauthenticated = c->max_unauthenticated,
		.max_pairs = l->max_pairs,
		.pipe_size = c->pipe_size,
		.per_second = rate_limit(&c->tcp_rate_limits, 1000),
		.per_minute = rate_limit(&c->tcp_rate_limits, 60000),
		.per_hour = rate_limit(&c->tcp_rate_limits, 3600000),
		.copy_mode = c->copy_mode,
		.log_level = (uint8_t)conf->log_level,
		.log_format = (uint8_t)conf->log_format,
		.log_ip = (uint8_t)conf->log_ip,
		.log_to = (uint8_t)log_share().to,
		.max_per_source = c->max_unauthenticated_per_source,
		.max_bad_tokens = c->max_bad_tokens_per_source,
		.barred_ms = (uint64_t)c->barred_source_time_ms,
		.copy_small = c->copy_small_messages,
		.idle_timeout_ms = (uint64_t)c->idle_timeout_ms,
		.half_closed_timeout_ms = (uint64_t)c->half_closed_timeout_ms,
		.keepalive_idle_s = (uint32_t)(c->keepalive_idle_ms / 1000),
		.keepalive_interval_s = (uint32_t)(c->keepalive_interval_ms / 1000),
		.keepalive_count = c->keepalive_count,
		.user_timeout_ms = (uint64_t)c->user_timeout_ms };
}
