/* derive.h - what the settings mean to each part of the master: at the start, and again at each reload */
#ifndef HYPER_PROXY_MASTER_DERIVE_H
#define HYPER_PROXY_MASTER_DERIVE_H

#include "hyper/settings/conf.h"
#include "hyper/wire/chanmsg.h"
#include "proxy/master/limits.h"
#include "proxy/master/meet.h"
#include "proxy/master/quota.h"

struct quota_conf derive_quota(const struct conf_proxy_public *, const struct limits *);
struct meet_conf derive_meet(const struct conf_proxy_public *, const struct limits *);
struct chan_settings derive_worker(const struct conf_proxy *, const struct limits *);

#endif
