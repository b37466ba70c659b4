#!/usr/bin/perl
# Guards: an address is held to its own limit of silent connections and of bad tokens, in a table that does not grow.
exec "$ENV{HYPER_BUILD}/t/unit/test_sources" or die "cannot run: $!";
