/* certs.c - see the header; files are read when asked, so a renewed one shows at once */
#include "hyper/net/certs.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <openssl/asn1.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include "hyper/base/clock.h"
#include "hyper/net/metrics.h"
#include "hyper/net/status.h"

#define DAY_S     86400
#define WARN_DAYS 30
#define BAD_DAYS  7

int
certs_not_after(const char *file, int64_t *ret_utc_s)
{
	BIO *bio = BIO_new_file(file, "r");
	X509 *cert = bio ? PEM_read_bio_X509(bio, NULL, NULL, NULL) : NULL;
	struct tm tm;
	bool ok = cert && ASN1_TIME_to_tm(X509_get0_notAfter(cert), &tm) == 1;

	if (ok)
		*ret_utc_s = (int64_t)timegm(&tm);
	X509_free(cert);
	BIO_free(bio);
	ERR_clear_error();
	return ok ? 0 : bio ? -EINVAL : -ENOENT;
}

static bool
has_certificate(const struct conf_tls *const *tls, size_t i)
{
	if (!tls[i] || !tls[i]->certificate_file)
		return false;
	for (size_t k = 0; k < i; k++)
		if (tls[k] && tls[k]->certificate_file &&
		    strcmp(tls[k]->certificate_file, tls[i]->certificate_file) == 0)
			return false;
	return true;
}

void
certs_metrics_of(struct evbuffer *out, const struct conf_tls *const *tls, size_t n)
{
	static const struct metrics_family f = { "hyper_cert_not_after_seconds", METRICS_GAUGE,
		"Until when our own certificate is valid, seconds since 1970." };
	bool has_begun = false;
	char label[512];
	int64_t utc_s;

	for (size_t i = 0; i < n; i++) {
		if (!has_certificate(tls, i) || certs_not_after(tls[i]->certificate_file, &utc_s) < 0)
			continue;
		if (!has_begun)
			metrics_begin(out, &f);
		has_begun = true;
		metrics_label(label, sizeof(label), "file", tls[i]->certificate_file);
		metrics_real(out, &f, label, (double)utc_s);
	}
}

void
certs_metrics(struct evbuffer *out, const struct conf_tls *tls)
{
	certs_metrics_of(out, &tls, 1);
}

json_t *
certs_tile_of(const struct conf_tls *const *tls, size_t n)
{
	int64_t utc_s, first_s = INT64_MAX, days;

	for (size_t i = 0; i < n; i++) {
		if (!has_certificate(tls, i))
			continue;
		if (certs_not_after(tls[i]->certificate_file, &utc_s) < 0)
			return status_tile("certificate: cannot be read", json_string("-"), "", "bad");
		first_s = utc_s < first_s ? utc_s : first_s;
	}
	if (first_s == INT64_MAX)
		return status_tile("certificate: none, plain HTTP", json_string("-"), "", "");
	days = (first_s - clock_wall_utc_ns() / 1000000000) / DAY_S;
	return status_tile("certificate, time left", json_integer(days), STATUS_DAYS,
	    days < BAD_DAYS    ? "bad"
	    : days < WARN_DAYS ? "warn"
			       : "");
}

json_t *
certs_tile(const struct conf_tls *tls)
{
	return certs_tile_of(&tls, 1);
}
