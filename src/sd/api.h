/* api.h - the methods of the service directory (protocol.md 6.5); for src/sd only */
#ifndef SD_API_H
#define SD_API_H

#include "hyper/net/rpcserver.h"
#include "sd/book.h"

#define API_METHODS 6 /* the last one stands for all unknown ones */

/* Answers the call, now. The method's number, for counting. */
size_t api_serve(struct book *, struct rpc_call *);
/* Its name; "unknown" for the last. Static. */
const char *api_method_name(size_t method);

#endif
