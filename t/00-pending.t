#!/usr/bin/perl
# One id is in flight once for each client, and a second request of a user gets an id of its own.
exec "$ENV{HYPER_BUILD}/t/unit/test_pending" or die "cannot run: $!";
