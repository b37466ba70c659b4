#!/usr/bin/perl
# Only certificates of the listed CAs with the expected name are believed, and bad files are refused in words.
use HyperTest;
$ENV{T_CERTS} = certs();
exec "$ENV{HYPER_BUILD}/t/unit/test_net_tls" or die "cannot run: $!";
