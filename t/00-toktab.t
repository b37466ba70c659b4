#!/usr/bin/perl
# Guards: the token table tells each reader the truth or "try again", and only its creator can write it.
exec "$ENV{HYPER_BUILD}/t/unit/test_toktab" or die "cannot run: $!";
