#!/usr/bin/perl
# Whatever comes in whatever order, a token joins exactly its two connections, once, or ends with one reason, and nothing is left over.
exec "$ENV{HYPER_BUILD}/t/unit/test_schedules" or die "cannot run: $!";
