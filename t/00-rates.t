#!/usr/bin/perl
# Guards: the rate limit of an address counts by the calendar's windows, IPv6 by /64, in a table that does not grow.
exec "$ENV{HYPER_BUILD}/t/unit/test_rates" or die "cannot run: $!";
