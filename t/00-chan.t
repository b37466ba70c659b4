#!/usr/bin/perl
# A worker's hostile message ends its channel and leaks no descriptor; a worker that does not read loses no answer.
exec "$ENV{HYPER_BUILD}/t/unit/test_chan" or die "cannot run: $!";
