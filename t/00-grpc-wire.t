#!/usr/bin/perl
# Guards: the frames of our gRPC ends are those of protocol.md 3.2, header by header and byte by byte.
exec "$ENV{HYPER_BUILD}/t/unit/test_grpc_wire" or die "cannot run: $!";
