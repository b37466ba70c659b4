#!/usr/bin/perl
# Guards: engines killed at random moments lose no byte of their pairs; copying ones do, and say which.
exec "$ENV{HYPER_BUILD}/t/unit/test_relay_kill" or die "cannot run: $!";
