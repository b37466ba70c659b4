#!/usr/bin/perl
# Guards: requestConnection is answered exactly once, whichever of B's answer, the sockets and the program's end comes first.
exec "$ENV{HYPER_BUILD}/t/unit/test_brokering" or die "cannot run: $!";
