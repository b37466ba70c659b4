/* internal.h - the methods that every operator's server answers itself: _ping, _directory, _connections, _connectionRequest */
#ifndef SERVER_INTERNAL_H
#define SERVER_INTERNAL_H

#include "hyper/base/attr.h"
#include "hyper/settings/conf.h"
#include "server/channel.h"

struct directory;
struct event_base;
struct internal;

/* All borrowed until internal_free(). NULL when out of memory; taken. */
struct internal *internal_new(struct event_base *, const struct conf_hyper *, struct directory *);
void internal_free(struct internal *);
void internal_apply(struct internal *, const struct conf_hyper *); /* a reload */

/* For broker_set_internal(). */
extern const struct channel_ops internal_ops;

/* Who takes _connectionRequest (protocol.md 7.1). Without one: "no channel accepted the request". */
typedef int (*internal_accept)(void *arg, const struct request *, deliver_cb cb, void *cb_arg);
void internal_set_accept(struct internal *, internal_accept, void *arg);

/* Who adds lines to _connections: each appends objects {operator, kind, via,
 * session, age_ms, calls, timeline} to the array. */
#define INTERNAL_MAX_LISTERS 4
typedef void (*internal_list)(void *arg, json_t *array);
void internal_add_lister(struct internal *, internal_list, void *arg);

/* All of them. A new array; NULL when out of memory. */
json_t *internal_connections_list(const struct internal *);

/* One such object, appended. `timeline` is borrowed and may be NULL. */
struct connection_line {
	const char *name;
	const char *kind; /* "direct", "brokered", "standing-in", "standing-out", "accepted" */
	const char *via;  /* "" none */
	const char *session;
	int64_t since_ms;
	uint64_t calls;
	json_t *timeline;
};
void connection_line_append(json_t *array, const struct connection_line *);

#endif
