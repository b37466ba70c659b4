/* words.c - the words of words.h as tables */
#include "hyper/base/words.h"

#include "hyper/base/attr.h"

static const struct {
	const char *word, *help;
} end_tab[] = {
#define X(n, word, help) { word, help },
	END_REASONS(X)
#undef X
};

static const char *const advice_tab[END_REASON_MAX] = {
	[END_CLOSED] = "nothing to do",
	[END_RESET] = "the log of the side that broke it off has this session and says why",
	[END_PEER_GONE] = "the log of the party that came first has this session and says why it gave up",
	[END_EXPIRED] =
	    "each party must dial internal_endpoint within token_timeout: is the way there open, the machine busy?",
	[END_UNKNOWN_TOKEN] = "ask for a new connection: a token works once, and for token_timeout only",
	[END_SHORT_TOKEN] = "the endpoint takes 32 token bytes first: is it a hyper server that dials here?",
	[END_SILENT] = "the endpoint takes 32 token bytes first: is it a hyper server that dials here?",
	[END_BUSY] = "ask again later; if it happens often, raise the limit that the message or the log names",
	[END_QUOTA] = "ask again later, or have the setting raised that the message or the log names",
	[END_DEADLINE] =
	    "the log of the target's server has this session: is it overloaded, or its way to the endpoint closed?",
	[END_DRAINING] = "ask another proxy, or this one when it is back",
	[END_NOT_CONNECTED] = "is the target's server running, and is this its `proxy` in the directory?",
	[END_UNREACHABLE] = "is the program at the named address running, and the way to it open?",
	[END_REFUSED] = "the message and the log of the target's server say why it refused",
	[END_DENIED] = "an admin of the directory can permit the caller's group to call this method",
	[END_UNKNOWN_OPERATOR] = "check the spelling; a new operator needs its records in the directory",
	[END_BAD_REQUEST] = "correct what the message names",
	[END_STALE] = "is sd running, and can the program whose directory it is reach it?",
	[END_TLS] = "compare certificate, CA and name of both sides with the directory; the message names the fault",
	[END_WORKER_LOST] = "connect again; the proxy's log says why the worker ended",
	[END_STOPPED] = "ask again when the program is back",
	[END_INTERNAL] = "the log of the program that failed names the resource: memory, descriptors, disk",
	[END_RATE] = "come more slowly, or have tcp_rate_limits of the proxy raised",
	[END_CROWDED] = "send the token at once after connecting, or have max_unauthenticated_per_source raised",
	[END_BARRED] = "stop sending bad tokens; after barred_source_time the address is let in again",
	[END_IDLE] = "connect again; send something now and then, or have idle_timeout raised",
	[END_KICKED] = "ask who operates the proxy why; connecting again is permitted",
	[END_HALF_CLOSED] = "end both directions, or have half_closed_timeout raised",
	[END_PROBE] = "nothing to do",
	[END_VANISHED] = "connect again when its machine and its network are back",
};

static const char *const step_tab[BROKER_STEP_MAX] = {
#define X(n, num, word, help) [num] = word,
	BROKER_STEPS(X)
#undef X
};

_Static_assert(ARRAY_LEN(end_tab) == END_REASON_MAX, "one row for each reason");

const char *
end_reason_word(enum end_reason r)
{
	return (unsigned)r < END_REASON_MAX ? end_tab[r].word : "?";
}

const char *
end_reason_help(enum end_reason r)
{
	return (unsigned)r < END_REASON_MAX ? end_tab[r].help : "?";
}

const char *
end_reason_advice(enum end_reason r)
{
	return (unsigned)r < END_REASON_MAX && advice_tab[r] ? advice_tab[r] : "?";
}

const char *
broker_step_word(enum broker_step s)
{
	return (unsigned)s < BROKER_STEP_MAX && step_tab[s] ? step_tab[s] : "?";
}
