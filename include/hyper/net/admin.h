/* admin.h - the admin socket of a long-running program: UNIX, 0600, same user or root; and its client, the verbs
 *
 *   frame = length (4 bytes, big-endian) + one msgpack value of at most ADMIN_FRAME_MAX bytes
 *   request = map { "verb": str, "args": map }   answer = map { "ok": bool, ... }
 *
 * One request a connection; the answer may come much later (`drain` waits).
 */
#ifndef HYPER_NET_ADMIN_H
#define HYPER_NET_ADMIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <jansson.h>

#include "hyper/base/attr.h"

#define ADMIN_FRAME_MAX ((size_t)16 * 1024 * 1024)
#define ADMIN_ASK_MAX   ((size_t)64 * 1024) /* of a request */
#define ADMIN_CONNS_MAX 32
#define ADMIN_ERR_MAX   256

struct event_base;
struct admin;
struct admin_call;

/* A request; from the loop. Exactly one admin_answer() is owed, now or later.
 * `args` is borrowed until it returns. */
typedef void (*admin_on_call)(struct admin_call *, const char *verb, const json_t *args, void *arg);

/* Makes the socket at `path` (its folder must be there), replacing one that
 * nobody listens on. 0 with *ret taken, or -errno (-EADDRINUSE: another process
 * answers there) with *ret untouched and `err` saying what to do. */
int admin_new(struct event_base *, const char *path, admin_on_call, void *arg, struct admin **ret,
    char err[ADMIN_ERR_MAX]) ATTR_MUST_USE;

/* Calls that wait are answered with "stopped". NULL is fine. */
void admin_free(struct admin *);

/* For a program that executes itself anew: leaves the socket's file for its successor. */
void admin_keep_file(struct admin *);

/* Answers and ends the call; `answer` is stolen (NULL: out of memory). One whose
 * client has gone takes it too. */
void admin_answer(struct admin_call *, json_t *answer);

/* Nobody is there any more to take the answer; it is owed all the same. */
bool admin_is_gone(const struct admin_call *);

/* The frequent answer: {"ok": false, "error": text}. */
json_t *admin_error(const char *fmt, ...) ATTR_PRINTF(1, 2);

/* The client: sends and waits. 0 with *ret taken; -ECONNREFUSED or -ENOENT (nobody
 * serves there), -EACCES, -ETIMEDOUT, -EPROTO with *ret untouched and `err` filled. */
int admin_ask(const char *path, const char *verb, const json_t *args, int64_t timeout_ms, json_t **ret,
    char err[ADMIN_ERR_MAX]) ATTR_MUST_USE;

#endif
