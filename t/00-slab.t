#!/usr/bin/perl
# Items of a slab never overlap and begin empty, and a map finds each number's item and no other, while it grows and shrinks.
exec "$ENV{HYPER_BUILD}/t/unit/test_slab" or die "cannot run: $!";
