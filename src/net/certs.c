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

void
certs_metrics(struct evbuffer *out, const struct conf_tls *tls)
{
	static const struct metrics_family f = { "hyper_cert_not_after_seconds", METRICS_GAUGE,
		"Until when our own certificate is valid, seconds since 1970." };
	char label[512];
	int64_t utc_s;

	if (!tls || !tls->certificate_file || certs_not_after(tls->certificate_file, &utc_s) < 0)
		return;
	metrics_label(label, sizeof(label), "file", tls->certificate_file);
	metrics_begin(out, &f);
	metrics_real(out, &f, label, (double)utc_s);
}

json_t *
certs_tile(const struct conf_tls *tls)
{
	int64_t utc_s, days;

	if (!tls || !tls->certificate_file)
		return status_tile("certificate: none, plain HTTP", json_string("-"), "", "");
	if (certs_not_after(tls->certificate_file, &utc_s) < 0)
		return status_tile("certificate: cannot be read", json_string("-"), "", "bad");
	days = (utc_s - clock_wall_utc_ns() / 1000000000) / DAY_S;
	return status_tile("certificate, time left", json_integer(days), STATUS_DAYS,
	    days < BAD_DAYS    ? "bad"
	    : days < WARN_DAYS ? "warn"
			       : "");
}
