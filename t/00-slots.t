#!/usr/bin/perl
# A worker that is wrong, dead or frozen is replaced, ever more slowly, and has only the descriptors meant for it.
exec "$ENV{HYPER_BUILD}/t/unit/test_slots" or die "cannot run: $!";
