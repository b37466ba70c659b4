#!/usr/bin/perl
# Guards: a gRPC connection may be freed anywhere, and whoever is refused or sends garbage leaves nothing behind.
exec "$ENV{HYPER_BUILD}/t/unit/test_grpc_conn" or die "cannot run: $!";
