#!/usr/bin/perl
# Protobuf messages survive the round trip, and no bytes of a peer reach protobuf-c unchecked.
exec "$ENV{HYPER_BUILD}/t/unit/test_grpcmsg" or die "cannot run: $!";
