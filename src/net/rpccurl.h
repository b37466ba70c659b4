/* rpccurl.h - POST requests to one endpoint over libcurl's multi interface, driven by libevent; private to src/net */
#ifndef NET_RPCCURL_H
#define NET_RPCCURL_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/queue.h>

#include <curl/curl.h>

#include "hyper/base/attr.h"
#include "hyper/base/words.h"

struct curl_xfer;
struct event_base;
struct rpc_curl;
struct rpc_endpoint;

/* How a transfer ended. All texts are borrowed until the callback returns. */
struct curl_end {
	enum { CURL_END_BODY, CURL_END_TOO_BIG, CURL_END_FAILED } how;
	long status;                                     /* BODY: of HTTP */
	const char *body;                                /* BODY: not NULL, `len` bytes */
	size_t len;                                      /* bytes */
	enum end_reason reason;                          /* FAILED */
	const char *why;                                 /* FAILED: libcurl's words */
	enum { CONN_UNSURE, CONN_KEPT, CONN_ENDS } seen; /* BODY: does the server keep its connections? */
};

/* From the loop, once for each transfer that was not cancelled. It may start other transfers and cancel them, but not
 * free the rpc_curl. */
typedef void (*curl_xfer_cb)(const struct curl_end *, void *arg);

/* One request under way: the caller's memory, all zero at first and from the callback on; all is rpccurl.c's. */
struct curl_xfer {
	struct rpc_curl *rc; /* NULL: not under way, and nothing to end */
	CURL *easy;
	char *body; /* what has come */
	size_t len, cap;
	bool too_big;
	curl_xfer_cb cb;
	void *arg;
	char why[CURL_ERROR_SIZE];
	TAILQ_ENTRY(curl_xfer) link;
};

/* Both are borrowed until rpc_curl_free(). curl_global_init() was done. 0 with *ret taken, or -ENOMEM. */
int rpc_curl_new(struct event_base *, const struct rpc_endpoint *, struct rpc_curl **ret) ATTR_MUST_USE;

/* No transfer may be under way any more. NULL is fine. */
void rpc_curl_free(struct rpc_curl *);

/* `request` is borrowed until the transfer's end. 0, or -ENOMEM: libcurl takes no more (then no callback comes). */
int
rpc_curl_start(struct rpc_curl *, const char *request, curl_xfer_cb cb, void *arg, struct curl_xfer *) ATTR_MUST_USE;

/* Its callback does not come. One that is not under way is fine. */
void curl_xfer_cancel(struct curl_xfer *);

/* Under way, and still without a connection to send on? */
bool curl_xfer_is_connecting(const struct curl_xfer *);

#endif
