#!/usr/bin/perl
# Every end reason and step has one word of its own.
exec "$ENV{HYPER_BUILD}/t/unit/test_words" or die "cannot run: $!";
