#!/usr/bin/perl
# A reader of the token table beside its writer gets whole records of the token it asked for, or none, and never waits for long.
exec "$ENV{HYPER_BUILD}/t/unit/test_toktab_threads" or die "cannot run: $!";
