#!/usr/bin/perl
# An address is cut in one way only, and a method that does not fit it is seen.
exec "$ENV{HYPER_BUILD}/t/unit/test_address" or die "cannot run: $!";
