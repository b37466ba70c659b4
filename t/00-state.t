#!/usr/bin/perl
# Guards: what a master leaves for its successor comes out as it went in, and bytes that are anything else are refused as a whole.
exec "$ENV{HYPER_BUILD}/t/unit/test_state" or die "cannot run: $!";
