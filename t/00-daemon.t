#!/usr/bin/perl
# Signals reach a program through its loop, the first exit code wins, the service manager hears READY.
exec "$ENV{HYPER_BUILD}/t/unit/test_daemon" or die "cannot run: $!";
