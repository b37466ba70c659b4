/* chanmsg.h - the messages between proxy master and worker, to the byte in docs/ipc.md
 *
 * A message is a flat msgpack array of at most CHAN_SCALARS_MAX scalars [version,
 * type, generation, fields ...], checked by its bytes before msgpack-c sees it.
 * One SEQPACKET datagram holds 1 to CHAN_DATAGRAM_MSGS of them, one behind the other.
 */
#ifndef HYPER_WIRE_CHANMSG_H
#define HYPER_WIRE_CHANMSG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "hyper/base/attr.h"
#include "hyper/base/words.h"

#define CHAN_VERSION       2
#define CHAN_MSG_MAX       256 /* bytes of one message */
#define CHAN_SCALARS_MAX   27  /* of 9 bytes each, what a message holds */
#define CHAN_DATAGRAM_MSGS 16  /* messages of one datagram */
#define CHAN_DATAGRAM_MAX  (CHAN_DATAGRAM_MSGS * CHAN_MSG_MAX)

/* X(NAME, number, fd) odd: worker to master, even: master to worker; fd: a
 * descriptor rides along. Compared with docs/ipc.md by tools/check-ipc. */
#define CHAN_TYPES(X)     \
	X(READY, 1, 0)    \
	X(SETTINGS, 2, 0) \
	X(ARRIVED, 3, 1)  \
	X(PARKED, 4, 0)   \
	X(ENDED, 5, 0)    \
	X(PAIR, 6, 1)     \
	X(PAIRED, 7, 0)   \
	X(REFUSED, 8, 0)  \
	X(DRAINED, 9, 0)  \
	X(DRAIN, 10, 0)   \
	X(WANT, 11, 0)    \
	X(STOP, 12, 0)    \
	X(FREED, 13, 0)   \
	X(PIPE, 14, 1)    \
	X(MOVED, 15, 0)   \
	X(NOPIPE, 16, 0)  \
	X(ADOPT, 18, 1)   \
	X(RESUME, 20, 0)  \
	X(MOVE, 22, 0)    \
	X(RATE, 24, 0)    \
	X(LOG, 26, 1)     \
	X(END, 28, 0)

enum chan_type {
#define X(n, num, fd) CHAN_##n = num,
	CHAN_TYPES(X)
#undef X
};

/* READY    pid                                      the worker serves
 * SETTINGS settings                                 limits and mode, right after the start and on reload
 * ARRIVED  conn, token + socket                     32 bytes read, a live record exists
 * PARKED   conn                                     answer to ARRIVED, first party: drop your copy
 * PAIR     conn, pair, session, asker, rate + B's socket  answer to ARRIVED, second party: splice yours with this one
 * REFUSED  conn, reason                             answer to ARRIVED: close yours
 * PAIRED   pair                                     answer to PAIR and RESUME: the worker moves its bytes now
 * ENDED    pair, reason, bytes_ab, bytes_ba, ms     exactly one for each pair; `a` is the second party
 * DRAIN    -                                        accept no more, run pairs to their end, then DRAINED
 * DRAINED  -
 * STOP     -                                        close all and exit
 * WANT     n                                        so many more pipes would be used: PIPE for each, or NOPIPE
 * PIPE     pipe + pipe                              an empty one
 * NOPIPE   -                                        there are no more
 * FREED    pipe                                     the worker has closed this one
 * ADOPT    pair, part, pipe + descriptor            one part of a pair that goes on here
 * RESUME   pair, session, flags, bytes, suspect, asker, rate  all parts have come: go on. Answer PAIRED, or MOVED: not possible
 * MOVE     pair                                     give it back
 * RATE     asker, rate                              what its pairs of this operator may move together from now on
 * LOG      - + file or socket                      the log was opened again: this is descriptor 2 from now on
 * END      pair, reason                             reset it. Answer: ENDED with this reason, or what is on its way
 * MOVED    pair, flags, bytes, pipes                here it is; our descriptors are closed
 */
enum chan_part { CHAN_PART_SOCKET_A, CHAN_PART_SOCKET_B, CHAN_PART_PIPE_AB, CHAN_PART_PIPE_BA, CHAN_PART_MAX };

#define CHAN_NO_PIPE UINT32_MAX /* in MOVED: no bytes of this direction are in a pipe */

struct chan_settings {
	uint64_t accept_timeout_ms;
	uint64_t max_unauthenticated;
	uint64_t max_pairs;
	uint64_t pipe_size;
	uint64_t per_second, per_minute, per_hour; /* connections of one remote address, in each worker; 0: no limit */
	bool copy_mode;
	uint8_t log_level;       /* enum log_level */
	uint64_t max_per_source; /* unauthenticated ones of one remote address; 0: no limit */
	uint64_t max_bad_tokens; /* of one remote address in a minute, 0: no limit; then closed at once for barred_ms */
	uint64_t barred_ms;
	bool copy_small;                                  /* as in relay_conf, with what follows */
	uint64_t idle_timeout_ms, half_closed_timeout_ms; /* 0: never */
	uint32_t keepalive_idle_s, keepalive_interval_s, keepalive_count;
	uint64_t user_timeout_ms; /* 0: the kernel's own */
	uint8_t log_format;       /* enum log_format */
	uint8_t log_ip;           /* enum log_ip */
	uint8_t log_to;           /* enum log_to: what descriptor 2 is */
};

struct chan_msg {
	enum chan_type type;
	uint32_t gen;      /* generation of the worker slot; a message of an older one is dropped */
	uint64_t conn;     /* the worker's number of a connection */
	uint64_t pair;     /* the master's number of a pair */
	uint8_t token[32]; /* secret: wipe it, never log it */
	char session[13];  /* session id, for the worker's log lines */
	enum end_reason reason;
	uint64_t bytes_ab, bytes_ba; /* delivered from the second party to the first, and back */
	uint64_t ms;                 /* life of the pair */
	uint32_t pid;
	uint32_t n;                /* pipes wanted */
	uint32_t pipe;             /* number of a pipe, in this worker's ledger */
	uint32_t pipe_ab, pipe_ba; /* pipes with bytes, or CHAN_NO_PIPE */
	uint32_t flags;            /* RELAY_* of relay_seat */
	uint8_t part;              /* enum chan_part */
	bool suspect;              /* its turn was in progress when its worker died */
	uint64_t asker;            /* number of the operator that the pair counts for; 0: no limit of bytes a second */
	uint64_t
	    rate; /* bytes a second of this operator's pairs at this worker; for PAIR and RESUME: unless it has such */
	struct chan_settings settings;
};

/* Bytes written to `buf`, or -EMSGSIZE, -EINVAL (unknown type, reason or level;
 * a session that is not at most 12 printable ASCII characters). */
int chan_pack(const struct chan_msg *, uint8_t buf[CHAN_MSG_MAX]) ATTR_MUST_USE;

/* 0 with *ret filled (fields that the type lacks are zero), or with *ret untouched
 * -EPROTO: wrong version, unknown type, wrong number, kind or range of fields,
 * trailing bytes, anything nested; or -ENOMEM, which is not the sender's fault. */
int chan_unpack(const uint8_t *buf, size_t len, struct chan_msg *ret) ATTR_MUST_USE;

/* All messages of one datagram: how many, with *ret_fds, how many descriptors belong to them: in their order,
 * to those of which chan_has_fd() is true. Or -errno as above; then `ret` may hold some. */
int
chan_unpack_all(const uint8_t *buf, size_t len, struct chan_msg ret[CHAN_DATAGRAM_MSGS], size_t *ret_fds) ATTR_MUST_USE;

/* Must this message carry a descriptor? */
bool chan_has_fd(enum chan_type);
const char *chan_type_name(enum chan_type);

#endif
