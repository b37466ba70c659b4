#!/usr/bin/perl
# What was read from a socket and written to it is what the kernel counts: with ends, resets, shut windows, urgent and lost segments.
exec "$ENV{HYPER_BUILD}/t/unit/test_tcpsum" or die "cannot run: $!";
