/* merge.h - entries from records (protocol.md 6.1), for src/directory only */
#ifndef DIRECTORY_MERGE_H
#define DIRECTORY_MERGE_H

#include <jansson.h>

#include "hyper/base/attr.h"

/* Replaces one section of the entry that the normalised `record` names in
 * `entries` (object: name -> entry). `signed_record` is kept in the entry's
 * list of records; NULL for an unsigned one. Nothing is copied: entries share
 * their parts with the records. 0, or -ENOMEM with `entries` half changed. */
int entries_merge(json_t *entries, const json_t *record, const json_t *signed_record) ATTR_MUST_USE;

#endif
