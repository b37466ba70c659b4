/* broker.h - takes a request, decides who may send it and which channel delivers it */
#ifndef SERVER_BROKER_H
#define SERVER_BROKER_H

#include <stddef.h>
#include <stdint.h>

#include <jansson.h>

#include "hyper/base/attr.h"
#include "hyper/settings/conf.h"
#include "server/channel.h"

struct broker;
struct directory;
struct event_base;

/* All borrowed until broker_free(). NULL when out of memory; taken. */
struct broker *broker_new(struct event_base *, const struct conf_hyper *, struct directory *);

/* Answers what still waits. The directory must have been freed before (it
 * answers its own waiters) and every channel have let go of its calls. NULL is fine. */
void broker_free(struct broker *);

/* Channels are asked in the order in which they are added: the settings' order.
 * `internal` serves internal methods of this operator before all channels. All borrowed. */
#define BROKER_MAX_CHANNELS 8
void broker_add_channel(struct broker *, const struct channel_ops *, void *channel);
void broker_set_internal(struct broker *, const struct channel_ops *, void *internal);

/* One request. `client` is who sends it (own name: local applications and this
 * server itself). With `is_edge` a user chose the id: `~N` where it is in
 * flight already. Everything is copied (`params` shared). timeout_ms 0: the
 * setting. 0: `cb` comes later, its `failed` means an internal error of this
 * broker that has no code of its own in the protocol (3.4, 4.2 "broker
 * error"). -ENOMEM: it never comes. */
struct broker_in {
	const char *client;
	const char *method;
	const char *id;
	json_t *params;
	int64_t timeout_ms;
	bool is_edge;
	bool is_inner; /* part of a call in flight: a drain does not refuse it */
	bool as_text;  /* the answer is only passed on: its result may come as result_text */
};
int broker_call(struct broker *, const struct broker_in *, deliver_cb cb, void *arg) ATTR_MUST_USE;

/* A reload: the settings of before are borrowed no more. Limits hold for new requests. */
void broker_apply(struct broker *, const struct conf_hyper *);

/* While on, new requests are answered -32004; those in flight go on, with what they need of others. */
void broker_drain(struct broker *, bool on);
/* For good: those in flight are answered so, too. */
void broker_drain_now(struct broker *);
size_t broker_in_flight(const struct broker *);
size_t broker_bytes(const struct broker *); /* of their parameters, about */

#endif
