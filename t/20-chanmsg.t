#!/usr/bin/perl
# A channel message has its documented bytes, and no other bytes are taken for one.
exec "$ENV{HYPER_BUILD}/t/unit/test_chanmsg" or die "cannot run: $!";
