/* grpcmsg.h - the protobuf messages of protocol.md 3.1 <-> JSON, and gRPC's 5-byte frame */
#ifndef HYPER_WIRE_GRPCMSG_H
#define HYPER_WIRE_GRPCMSG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "hyper/base/attr.h"
#include "hyper/wire/rpc.h"

#define GRPC_MAX_MESSAGE ((size_t)4194304) /* protocol.md 3.2 "max message" */
#define GRPC_FRAME_HEAD  5

struct grpc_request {
	char *method;
	char *id;
	char *client_name;
	json_t *params; /* an object */
};
void grpc_request_fini(struct grpc_request *);

struct grpc_response {
	char *id;
	struct rpc_answer answer;
};
void grpc_response_fini(struct grpc_response *);

/* Pack: *ret is the gRPC frame (5 bytes and the message), taken, free(). 0, -ENOMEM,
 * or -EMSGSIZE when the message is over GRPC_MAX_MESSAGE, -EINVAL for a string
 * with NUL or invalid UTF-8, for nesting over JSON_MAX_DEPTH. Results and error
 * data that are no map travel as {"_": value}. */
int grpc_request_pack(const struct grpc_request *, uint8_t **ret, size_t *ret_len) ATTR_MUST_USE;
int grpc_response_pack(const struct grpc_response *, uint8_t **ret, size_t *ret_len) ATTR_MUST_USE;

/* Unpack a message without its frame. Depth, number of values and fields, sizes, NUL and
 * UTF-8 are judged on the way (protocol.md "Numbers", faults.md "protobuf
 * recursion"). 0 with *ret taken, or -EINVAL, -ENOMEM untouched.
 * {"_": value} is unwrapped in a response. With `as_text` a result may come as
 * answer.result_text instead of answer.result: for whoever only passes it on. */
int grpc_request_unpack(const uint8_t *msg, size_t len, struct grpc_request *ret) ATTR_MUST_USE;
int grpc_response_unpack(const uint8_t *msg, size_t len, bool as_text, struct grpc_response *ret) ATTR_MUST_USE;

/* gRPC status codes we send or act on (grpc's statuscodes.md) */
enum grpc_status {
	GRPC_OK = 0,
	GRPC_CANCELLED = 1,
	GRPC_UNKNOWN = 2,
	GRPC_DEADLINE_EXCEEDED = 4,
	GRPC_RESOURCE_EXHAUSTED = 8,
	GRPC_UNIMPLEMENTED = 12,
	GRPC_INTERNAL = 13,
	GRPC_UNAVAILABLE = 14
};

/* Percent-encoding of grpc-message (PROTOCOL-HTTP2.md "Status-Message"); NULL when out of memory. */
char *grpc_message_encode(const char *text);
char *grpc_message_decode(const char *text, size_t len);

#endif
