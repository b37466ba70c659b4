#!/usr/bin/perl
# Every option has its type, range and default, and a wrong value is named with what was expected.
exec "$ENV{HYPER_BUILD}/t/unit/test_settings_values" or die "cannot run: $!";
