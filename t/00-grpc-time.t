#!/usr/bin/perl
# Guards: a gRPC peer that vanished, idles or stops reading is noticed in time, a quiet one is left alone.
exec "$ENV{HYPER_BUILD}/t/unit/test_grpc_time" or die "cannot run: $!";
