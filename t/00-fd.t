#!/usr/bin/perl
# A descriptor arrives with a well-formed message or is closed: with 0 to 4 of them and at the descriptor limit nothing leaks.
exec "$ENV{HYPER_BUILD}/t/unit/test_fd" or die "cannot run: $!";
