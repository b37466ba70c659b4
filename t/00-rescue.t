#!/usr/bin/perl
# A dead worker's ledger decides what becomes of its own pairs, whatever it holds, and of nobody else's; a pair that kills workers ends, one that nobody takes ends after 60 s.
exec "$ENV{HYPER_BUILD}/t/unit/test_rescue" or die "cannot run: $!";
