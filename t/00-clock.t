#!/usr/bin/perl
# RFC 3339 times survive a round trip to the nanosecond, and impossible ones are refused.
exec "$ENV{HYPER_BUILD}/t/unit/test_clock" or die "cannot run: $!";
