/* file.h - files and folders of unsigned change records, for src/directory only */
#ifndef DIRECTORY_FILE_H
#define DIRECTORY_FILE_H

#include <stdint.h>

#include <jansson.h>

#include "hyper/base/attr.h"
#include "hyper/directory/record.h"

/* The whole of a descriptor's file, at most `cap` bytes, and a NUL behind it.
 * 0 with *ret taken, or -errno (-EFBIG: longer) with outputs untouched. */
int file_read(int fd, size_t cap, char **ret, size_t *ret_len) ATTR_MUST_USE;

/* Entries from a file, or from all *.json of a folder in name order (directory
 * type `json`): object name -> entry, taken. 0, or -errno with `err`. */
int file_entries(const char *path, json_t **ret, char err[RECORD_ERR_MAX]) ATTR_MUST_USE;

/* Changes whenever a file that file_entries() would read has changed; 0 when the path cannot be read. */
uint64_t file_stamp(const char *path);

#endif
