#!/usr/bin/perl
# Guards: gRPC between two of our ends over TLS: every message whole, one end for each stream, frees legal anywhere.
exec "$ENV{HYPER_BUILD}/t/unit/test_grpc" or die "cannot run: $!";
