/* form.h - the closed forms of record sections (protocol.md 6.2a), for src/directory only */
#ifndef DIRECTORY_FORM_H
#define DIRECTORY_FORM_H

#include <jansson.h>

#include "hyper/base/attr.h"
#include "hyper/directory/record.h"

/* protocol.md 6.2 "record.section" */
#define RECORD_SECTIONS(X)              \
	X(CHANNELS, "channels")         \
	X(CERTIFICATES, "certificates") \
	X(SERVICES, "services")         \
	X(PREFERENCES, "preferences")   \
	X(SETTINGS, "settings")         \
	X(GROUPS, "groups")

enum record_section {
#define X(n, word) SECTION_##n,
	RECORD_SECTIONS(X)
#undef X
	    SECTION_MAX
};

/* SECTION_MAX for another word. */
enum record_section record_section_parse(const char *word);
const char *record_section_word(enum record_section);

/* `data` of a record in its closed form: unknown keys dropped, defaults filled
 * in. 0 with *ret taken, or -EINVAL, -ENOMEM with *ret untouched and `err`
 * naming the member and what was expected. */
int form_data(
    enum record_section, const json_t *data, enum record_forms, json_t **ret, char err[RECORD_ERR_MAX]) ATTR_MUST_USE;

#endif
