#!/usr/bin/perl
# A log line is one escaped line, is never waited for, and is counted when it is lost.
exec "$ENV{HYPER_BUILD}/t/unit/test_log" or die "cannot run: $!";
