#!/usr/bin/perl
# A client of the directory goes only forward: extensions and later roots are taken, all else is refused, also after a restart.
exec "$ENV{HYPER_BUILD}/t/unit/test_directory" or die "cannot run: $!";
