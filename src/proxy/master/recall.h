/* recall.h - what `explain` tells of the last brokerings, over an exec */
#ifndef HYPER_PROXY_MASTER_RECALL_H
#define HYPER_PROXY_MASTER_RECALL_H

#include <jansson.h>

/* The notes of tally.h, the oldest first; taken, NULL when out of memory. */
json_t *recall_save(void);

/* Those that can be read; before sessions and pairs are restored. NULL is fine. */
void recall_restore(const json_t *notes);

#endif
