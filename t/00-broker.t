#!/usr/bin/perl
# The broker decides on one parsed address, in the words of the protocol, and answers each call once and in time.
exec "$ENV{HYPER_BUILD}/t/unit/test_broker" or die "cannot run: $!";
