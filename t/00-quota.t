#!/usr/bin/perl
# Each limit of what an operator may hold stops at its number, concerns nobody else, and all counts return to zero.
exec "$ENV{HYPER_BUILD}/t/unit/test_quota" or die "cannot run: $!";
