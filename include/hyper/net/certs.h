/* certs.h - how long our own certificates are still good, for metrics and the status page */
#ifndef HYPER_NET_CERTS_H
#define HYPER_NET_CERTS_H

#include <stdint.h>

#include <jansson.h>

#include "hyper/base/attr.h"
#include "hyper/settings/conf.h"

struct evbuffer;

/* The first certificate of a PEM file: until when it is valid, seconds since
 * 1970. 0, or -errno (-EINVAL: no certificate in it) with *ret_utc_s untouched. */
int certs_not_after(const char *file, int64_t *ret_utc_s) ATTR_MUST_USE;

/* hyper_cert_not_after_seconds{file="..."}; `tls` NULL or without a certificate: nothing. */
void certs_metrics(struct evbuffer *out, const struct conf_tls *tls);

/* Days left as a tile: "warn" below 30, "bad" below 7. NULL when out of memory. */
json_t *certs_tile(const struct conf_tls *tls);

/* Both for several; a file that stands there twice is one. The tile tells of the one that ends first. */
#define CERTS_MAX 8
void certs_metrics_of(struct evbuffer *out, const struct conf_tls *const *tls, size_t n);
json_t *certs_tile_of(const struct conf_tls *const *tls, size_t n);

#endif
