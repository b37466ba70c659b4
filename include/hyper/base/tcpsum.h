/* tcpsum.h - how many bytes were read from a TCP socket, and written to it, since it was accepted: the kernel's own count
 *
 * Whoever had the socket, and however it died: what a read took and a write gave is in these numbers, no more and
 * no less. For sockets that were accepted; of one that dialled, its SYN counts as a byte written.
 */
#ifndef HYPER_BASE_TCPSUM_H
#define HYPER_BASE_TCPSUM_H

#include <stdint.h>

#include "hyper/base/attr.h"

/* Bytes that reads took out of it; its peer's FIN is none. Also of one that was reset, whose error this may take from it.
 * 0, -ENOTSUP (no TCP, or a kernel that does not count), -EAGAIN (what comes never let two looks agree), -errno. */
int tcpsum_read(int fd, uint64_t *ret) ATTR_MUST_USE;

/* Bytes that writes put into it, whether they were acknowledged or not; our FIN is none. Likewise; -ENOTCONN: it is closed,
 * and nothing that is written reaches its peer any more. */
int tcpsum_written(int fd, uint64_t *ret) ATTR_MUST_USE;

#endif
