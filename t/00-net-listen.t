#!/usr/bin/perl
# Listeners bind every address of a name or none, and rate limits count per address in a bounded table.
exec "$ENV{HYPER_BUILD}/t/unit/test_net_listen" or die "cannot run: $!";
