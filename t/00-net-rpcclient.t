#!/usr/bin/perl
# Each JSON-RPC call is answered once, from the loop and in time, whatever the other side does.
use HyperTest;
$ENV{T_CERTS} = certs();
exec "$ENV{HYPER_BUILD}/t/unit/test_net_rpcclient" or die "cannot run: $!";
