/* proxy_admin.h - the verbs of `proxy` that ask the running one over its admin socket */
#ifndef HYPER_CLI_PROXY_ADMIN_H
#define HYPER_CLI_PROXY_ADMIN_H

struct cmd_args;

/* Each returns an exit code: 0, 1 (it said no), 69 (nobody answers), 78. Option 0 is --json. */
int proxy_admin_status(const struct cmd_args *);
int proxy_admin_pairs(const struct cmd_args *);
int proxy_admin_tokens(const struct cmd_args *);
int proxy_admin_kick(const struct cmd_args *);
int proxy_admin_explain(const struct cmd_args *);
int proxy_admin_upgrade(const struct cmd_args *); /* returns when the new program serves, or the old one goes on */
int proxy_admin_top(const struct cmd_args *);

#endif
