/* names.h - one copy of each operator's name, however many pairs it has */
#ifndef HYPER_PROXY_MASTER_NAMES_H
#define HYPER_PROXY_MASTER_NAMES_H

/* A copy that all who take the same name share, until names_give(). NULL when out of memory. */
const char *names_take(const char *name);
/* What names_take() gave; NULL is fine. */
void names_give(const char *name);

#endif
