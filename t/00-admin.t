#!/usr/bin/perl
# The admin socket gives back what was sent, refuses msgpack bombs and other users, and can answer late.
exec "$ENV{HYPER_BUILD}/t/unit/test_admin" or die "cannot run: $!";
