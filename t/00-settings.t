#!/usr/bin/perl
# Settings are read, merged, included and refused exactly as documented, with file and line of every fault.
exec "$ENV{HYPER_BUILD}/t/unit/test_settings" or die "cannot run: $!";
