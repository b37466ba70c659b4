#!/usr/bin/perl
# JSON-RPC requests, ids and error bodies are those of the reference's wire.
exec "$ENV{HYPER_BUILD}/t/unit/test_rpc" or die "cannot run: $!";
