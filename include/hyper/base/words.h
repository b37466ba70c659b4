/* words.h - the one list of end reasons and the eight steps of a brokering
 *
 * Log lines, JSON-RPC error data, admin output and man pages use these very
 * words (protocol.md "Errors of ours", "The eight steps").
 */
#ifndef HYPER_BASE_WORDS_H
#define HYPER_BASE_WORDS_H

/* X(NAME, "word", "what it means"). New ones at the end: a running worker and a new master speak of them by number. */
#define END_REASONS(X)                                                                                             \
	X(CLOSED, "closed", "both sides ended cleanly")                                                            \
	X(RESET, "reset", "one side reset the connection, passed on as a reset")                                   \
	X(PEER_GONE, "peer_gone", "a parked peer hung up before the other one came")                               \
	X(EXPIRED, "expired", "the token's time was over before both peers had come")                              \
	X(UNKNOWN_TOKEN, "unknown_token", "no live token matches: wrong, used, revoked or expired")                \
	X(SHORT_TOKEN, "short_token", "the connection ended before all 32 token bytes had come")                   \
	X(SILENT, "silent", "the 32 token bytes did not arrive within accept_timeout")                             \
	X(BUSY, "busy", "the token table or the descriptors are used up: try again later")                         \
	X(QUOTA, "quota", "the operator's quota is used up")                                                       \
	X(DEADLINE, "deadline", "no answer in time")                                                               \
	X(DRAINING, "draining", "the program drains or shuts down and takes nothing new")                          \
	X(NOT_CONNECTED, "not_connected", "the target operator has no standing connection")                        \
	X(UNREACHABLE, "unreachable", "the next program did not answer or could not be dialled")                   \
	X(REFUSED, "refused", "the target operator refused")                                                       \
	X(DENIED, "denied", "the directory does not permit this call")                                             \
	X(UNKNOWN_OPERATOR, "unknown_operator", "the directory has no entry of that name")                         \
	X(BAD_REQUEST, "bad_request", "the request is malformed")                                                  \
	X(STALE, "stale", "the directory could not be refreshed for longer than max_stale")                        \
	X(TLS, "tls", "the TLS handshake or the check of the peer's name failed")                                  \
	X(WORKER_LOST, "worker_lost", "the worker that held the connection died")                                  \
	X(STOPPED, "stopped", "the program was stopped")                                                           \
	X(INTERNAL, "internal", "a resource failed on our side; the log says which")                               \
	X(RATE, "rate", "too many connections from one address: tcp_rate_limits of the proxy")                     \
	X(CROWDED, "crowded", "too many connections from one address have sent no token yet")                      \
	X(BARRED, "barred", "too many bad tokens came from this address lately")                                   \
	X(IDLE, "idle", "no byte was delivered over the pair within idle_timeout")                                 \
	X(KICKED, "kicked", "an operator of the proxy ended it: proxy kick")                                       \
	X(HALF_CLOSED, "half_closed", "one side had ended, and the other sent nothing within half_closed_timeout") \
	X(PROBE, "probe", "the connection ended before its first byte: somebody looked whether the port is open")  \
	X(VANISHED, "vanished", "a peer of the pair was not heard of any more: its machine or its network is gone")

enum end_reason {
#define X(n, word, help) END_##n,
	END_REASONS(X)
#undef X
	    END_REASON_MAX
};

/* The word, "?" when out of range. Static. */
const char *end_reason_word(enum end_reason);
const char *end_reason_help(enum end_reason);
/* What whoever meets it can do, for error data and `proxy explain`. Static. */
const char *end_reason_advice(enum end_reason);

/* protocol.md "The eight steps": X(NAME, number, "word", "meaning") */
#define BROKER_STEPS(X)                                           \
	X(ASKED, 1, "asked", "P received requestConnection")      \
	X(ISSUED, 2, "issued", "the token is in the table")       \
	X(TOLD, 3, "told", "B has the connectionRequest")         \
	X(PARKED, 4, "parked", "one party's token arrived")       \
	X(CONFIRMED, 5, "confirmed", "B answered")                \
	X(ANSWERED, 6, "answered", "A has token and endpoint")    \
	X(PAIRED, 7, "paired", "the other party's token arrived") \
	X(SECURED, 8, "secured", "A and B finished TLS")

enum broker_step {
	STEP_NONE,
#define X(n, num, word, help) STEP_##n = num,
	BROKER_STEPS(X)
#undef X
	    BROKER_STEP_MAX
};

/* The word, "?" when out of range. Static. */
const char *broker_step_word(enum broker_step);

#endif
