#!/usr/bin/perl
# A token survives its base64, and its hash and session id are the documented ones.
exec "$ENV{HYPER_BUILD}/t/unit/test_token" or die "cannot run: $!";
