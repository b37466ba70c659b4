#!/usr/bin/perl
# Guards: a worker survives used-up descriptors and a slow or late master, and ends on a wrong one.
exec "$ENV{HYPER_BUILD}/t/unit/test_worker_faults" or die "cannot run: $!";
