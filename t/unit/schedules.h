/* schedules.h - for test_schedules: the world around the master's tables, and the model that says what must happen
 *
 *   schedules_world.c   clock, worker processes, peers, memory and log, all played
 *   schedules_model.c   what each message must lead to
 *   schedules_holds.c   what must hold after each step
 *   schedules_life.c    requests, start and end
 *   schedules_steps.c   the steps that a schedule is made of
 *   test_schedules.c    draws them at random, the search for a short failing schedule
 *
 * Real are: token table, sessions, parked sockets, quotas, meetings, slots, channels, and all sockets.
 */
#ifndef SCHEDULES_H
#define SCHEDULES_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#include "hyper/base/attr.h"
#include "hyper/proxy/worker_abi.h"
#include "hyper/wire/chanmsg.h"
#include "proxy/master/meet.h"
#include "proxy/master/quota.h"
#include "proxy/master/session.h"
#include "proxy/master/slots.h"

#define MAP_SIZE  4096 /* the largest table here */
#define N_SLOTS   3
#define N_TOKENS  4
#define N_CONNS   6
#define N_PAIRS   64 /* of one schedule */
#define N_ANSWERS 256
#define N_PIPES   16 /* numbers of a worker's ledger */
#define N_SEATS   N_PAIRS
#define MAX_PIPES 2
#define LIFE_NS   INT64_C(20000000000)
#define MS        INT64_C(1000000)

/* What one schedule is played with; drawn from its seed. */
struct knobs {
	size_t table_slots, max_pairs;
	struct quota_conf quota;
	bool copy_mode;
	bool answers_at_once; /* A gets its answer where the session ends */
	uint64_t seed;        /* tokens are made of it */
};

/* --- the world --- */

struct answer { /* owed to a worker, in this order */
	enum chan_type type;
	uint64_t conn, pair;
	enum end_reason reason;
	bool or_internal; /* there was no memory for it */
	int first;        /* PAIR, ADOPT: the connection that must come along */
	enum chan_part part;
	size_t held; /* ADOPT of a pipe: its bytes */
};

/* The process of a slot. */
struct proc {
	unsigned slot;
	uint32_t gen;
	pid_t pid;     /* 0: none, or reaped */
	int chan;      /* its end, -1 once it is dead */
	bool is_dead;  /* until the next one lives in this slot */
	bool is_ready; /* READY was sent */
	bool is_told_to_stop;
	bool is_wrong;  /* it said something for which it must die */
	bool is_frozen; /* no heartbeat */
	struct worker_stats *page;
	struct worker_ledger *ledger;
	int pipes[N_PIPES];    /* -1 none */
	bool is_lent[N_PIPES]; /* it came with a pair that was not taken yet */
	struct slot *served;   /* the master has its READY */
	bool was_killed;       /* by the master, which knows that it is dead */
	int64_t rest_until_ns;
	int status;
	unsigned n_said, n_heard; /* well-formed messages but READY */
	unsigned n_lost;          /* on_lost for this process */
	int64_t started_ns;
	struct answer answers[N_ANSWERS];
	size_t n_answers;
};

/* A TCP connection: `srv` is what a worker has accepted. */
struct conn {
	int srv, cli;
	uint64_t cookie;
	bool is_reset, is_fin, has_data; /* what its peer did */
	bool is_spoiled;                 /* its end was passed on: of no use any more */
	bool is_given_up;                /* its worker did not wait for the answer */
	unsigned unread[N_SLOTS];        /* its ARRIVED from each worker that the master has not read */
};

struct world {
	int64_t now_ns;
	uint64_t random;
	struct event_base *base;
	struct proc procs[N_SLOTS];
	struct conn conns[N_CONNS];
	unsigned activity;       /* counts whatever happens */
	unsigned spawn_failures; /* the next so many starts of a worker fail */
	int alloc_next;          /* in what the next message or request leads to, this allocation fails; 0 none */
	int alloc_fail;          /* the same, from now on */
	bool alloc_failed;
	bool is_verbose, is_stopping;
	int64_t stop_ns;
};
extern struct world w;

void world_init(void);
/* As if nothing had been before: a schedule is what its seed says, whatever was played in this process. */
void world_start(uint64_t seed);
void world_fini(void);
/* Peers that broke their connections get new ones. */
void conns_renew(void);
int conn_of_socket(int fd);
bool conn_is_gone(const struct conn *); /* nothing will ever come of it */
/* Its peer has seen a reset, or will within seconds. */
bool conn_saw_reset(struct conn *);
void conn_do(struct conn *, char what); /* 'r'eset, 'f'in, 'd'ata; waits until it has arrived */
/* Its worker says that it is over, who has the master's answer to come: 's'hut down, shut down and the 'p'eer goes on
 * sending, 'd'isconnected. */
void conn_give_up(struct conn *, char how);

struct proc *proc_of_slot(const struct slot *);
void proc_say(struct proc *, const struct chan_msg *, int fd);
void proc_say_bytes(struct proc *, const void *, size_t);
void proc_die(struct proc *, int status);
/* Reads what the master sent to it. */
void proc_read(struct proc *);
/* The loop until nothing happens any more. */
void pump(void);
size_t fds_open(void);

/* Ends this process with a message: the parent takes it from there. */
_Noreturn void schedule_failed(const char *fmt, ...) ATTR_PRINTF(1, 2);
#define MUST(cond, ...)                               \
	do {                                          \
		if (!(cond))                          \
			schedule_failed(__VA_ARGS__); \
	} while (0)
void say_verbose(const char *fmt, ...) ATTR_PRINTF(1, 2);

/* --- the model --- */

enum token_state { T_NONE, T_ISSUED, T_PARKED, T_PAIRED, T_ENDED };

struct tok {
	enum token_state state;
	struct token token;
	uint8_t hash[32];
	char id[SESSION_ID_MAX];
	int64_t deadline_ns;
	bool is_asking;          /* A's answer is owed */
	struct session *session; /* while it lives or is_asking */
	int conn;                /* PARKED */
	int64_t parked_ns;       /* likewise */
	unsigned op;             /* who asked */
};

enum mpair_state { P_WAITING, P_HANDING, P_LIVE, P_DONE };

struct mpair {
	uint64_t id;
	enum mpair_state state;
	bool is_new; /* HANDING: by PAIR */
	unsigned slot, op;
	int conn[2]; /* second party, first party: a, b */
	int64_t entered_ns;
	int64_t waits_ns;   /* nobody moves its bytes since then; 0 somebody does */
	bool is_given_back; /* MOVED is on its way */
	int seat;           /* -1 none */
	size_t held[2];     /* bytes of each direction in a pipe */
	int pipe[2];        /* and the pipe's number; -1 none */
	uint32_t flags;
	uint64_t bytes[2];
	bool suspect;
	unsigned crashes;
	int64_t crash_ns;
	/* What must become of it at its worker's death. */
	bool must_end;
	bool is_clean, is_judged; /* DONE: without a reset; its peers were asked */
	enum end_reason reason;
};

struct model {
	struct knobs knobs;
	struct toktab *table;
	struct toktab_head *map; /* the same, read-only */
	struct quota *quota;
	struct sessions *sessions;
	struct meet *meet;
	struct slots *slots;
	struct tok toks[N_TOKENS];
	struct mpair pairs[N_PAIRS];
	size_t n_pairs;
	size_t fds_before; /* before the schedule */
	uint64_t n_tokens; /* made so far */
	uint64_t last_conn;
	bool is_empty; /* on_empty came */
};
extern struct model m;

void model_start(const struct knobs *);
/* Ends the schedule: stops in order or, with `abruptly`, as after a failed start. */
void model_finish(bool abruptly, bool now);
void model_stop(bool now);
void model_issue(unsigned t);
void model_answer(unsigned t);
void model_cancel(unsigned t);
void model_check(void);   /* what holds after each step */
void model_settled(void); /* and when nothing is left to do */
struct mpair *model_pair(uint64_t id);
/* Parked, or of a pair. */
bool model_keeps(int conn);
/* No worker has it otherwise: all its ARRIVED were read, and it is not kept. */
bool model_is_free(int conn);
/* -1: of any operator, in any slot */
size_t model_count_toks(enum token_state, int op);
size_t model_count_asking(int op);
size_t model_count_pairs(int op, int slot);

/* What the master is doing: whose log lines are to be expected. */
enum doing { DO_NOTHING, DO_ARRIVED, DO_ENDED, DO_MOVED, DO_LOST, DO_CANCEL, DO_STOP, DO_FREE };
struct now {
	enum doing what;
	struct tok *tok;
	struct mpair *pair;
	unsigned slot;
	int conn;
	enum end_reason reason;
	struct answer expect;
};
extern struct now now;

bool model_is_over(size_t have, enum quota_limit);
void model_allocs_begin(void); /* an allocation that was to fail may do so now */

/* From the world. */
bool model_wants(const char *event);
void model_on_log(const char *event, const char *text);
void model_on_answer(struct proc *, const struct chan_msg *, int *fd);
void model_take_seat(struct mpair *);
bool model_may_kill(const struct proc *);
extern const struct slots_ops model_ops;

/* --- the steps --- */

struct op {
	const char *name, *what;
	unsigned weight; /* how often */
	void (*run)(unsigned a, unsigned b);
};
extern const struct op ops[];
extern const size_t n_ops;
void do_read(unsigned a, unsigned b); /* each worker does so at the start */

#endif
