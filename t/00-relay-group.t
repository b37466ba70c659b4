#!/usr/bin/perl
# Guards: a limit in bytes a second that several pairs share is kept, divided fairly, and costs nobody else anything.
exec "$ENV{HYPER_BUILD}/t/unit/test_relay_group" or die "cannot run: $!";
