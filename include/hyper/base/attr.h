/* attr.h - compiler attributes under short names */
#ifndef HYPER_BASE_ATTR_H
#define HYPER_BASE_ATTR_H

#define ATTR_PRINTF(fmt, first) __attribute__((format(printf, fmt, first)))
#define ATTR_MUST_USE           __attribute__((warn_unused_result))
#define ARRAY_LEN(a)            (sizeof(a) / sizeof((a)[0]))

#endif
