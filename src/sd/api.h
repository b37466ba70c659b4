/* api.h - the methods of the service directory (protocol.md 6.5); for src/sd only */
#ifndef SD_API_H
#define SD_API_H

#include "hyper/net/rpcserver.h"
#include "sd/book.h"

/* Answers the call, now. */
void api_serve(struct book *, struct rpc_call *);

#endif
