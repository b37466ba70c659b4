#!/usr/bin/perl
# The rate that the status page draws is a counter's growth in a second, and nothing where the counter shrank.
exec "$ENV{HYPER_BUILD}/t/unit/test_rate" or die "cannot run: $!";
