/* look.h - asking a running program by its admin socket and printing what it said, for the verbs that only look */
#ifndef HYPER_CLI_LOOK_H
#define HYPER_CLI_LOOK_H

#include <jansson.h>

/* An exit code, with *ret taken where it is EXIT_OK; else it was said why. `socket` and `args` are taken; `code` is
 * returned where it is not EXIT_OK. */
int look_ask(char *socket, int code, const char *verb, json_t *args, json_t **ret);

long long look_number(const json_t *row, const char *key);
const char *look_text(const json_t *row, const char *key); /* never NULL; borrowed */

/* "1.5M", "312", for columns of five; "12s", "3h05m". Both return `ret`. */
const char *look_bytes(long long n, char ret[24]);
const char *look_time(long long ms, char ret[24]);

/* Prints the answer (given). EXIT_OK. */
int look_json(json_t *answer);

/* One of the stories of `explain`. */
void look_story(const json_t *story);

#endif
