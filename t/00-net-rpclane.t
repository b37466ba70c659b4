#!/usr/bin/perl
# An answer without end of the message server leaves other events of the loop their turns, and ends at the cap.
use HyperTest;
$ENV{T_CERTS} = certs();
exec "$ENV{HYPER_BUILD}/t/unit/test_net_rpclane" or die "cannot run: $!";
