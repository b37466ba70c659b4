#!/usr/bin/perl
# Guards: bytes that a short read left in a socket are found without an event, and a pair that is silent wakes nobody.
exec "$ENV{HYPER_BUILD}/t/unit/test_relay_doubt" or die "cannot run: $!";
