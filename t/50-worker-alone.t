#!/usr/bin/perl
# Guards: a worker takes the right bytes from strangers, the right messages from its master, and survives all of them.
exec "$ENV{HYPER_BUILD}/t/unit/test_worker" or die "cannot run: $!";
