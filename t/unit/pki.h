/* pki.h - a small certificate authority for unit tests, made anew in a folder of its own */
#ifndef T_UNIT_PKI_H
#define T_UNIT_PKI_H

#include "hyper/settings/conf.h"

/* Makes `dir` (a mkdtemp template, filled in) with ca.crt and ca.key. */
void pki_open(char *dir);

/* NAME.crt, NAME.key with CN and DNS SAN = name, signed by ca. */
void pki_issue(const char *dir, const char *name);

/* A tls group for conf users over those files; `name` NULL: no own certificate. pki_conf_fini(). */
struct conf_tls pki_conf(const char *dir, const char *name);
void pki_conf_fini(struct conf_tls *);

/* Removes the folder and what pki_* put there. */
void pki_close(const char *dir);

#endif
