#!/usr/bin/perl
# The record hash gives the reference's bytes on its own vectors, and what could collide is refused.
exec "$ENV{HYPER_BUILD}/t/unit/test_rechash" or die "cannot run: $!";
