#!/usr/bin/perl
# A worker that crashes is started after a pause that grows to ten seconds, one that was killed from outside is not, and the log says what each death means.
exec "$ENV{HYPER_BUILD}/t/unit/test_backoff" or die "cannot run: $!";
