#!/usr/bin/perl
# The reference's chain verifies; a changed, misplaced or unauthorised record never does.
exec "$ENV{HYPER_BUILD}/t/unit/test_records" or die "cannot run: $!";
