#!/usr/bin/perl
# requestConnection reports all faults of its parameters at once and passes on only what B may see.
exec "$ENV{HYPER_BUILD}/t/unit/test_form" or die "cannot run: $!";
