#!/usr/bin/perl
# Who may call whom, exactly as the permission rule of protocol.md section 5 says it.
exec "$ENV{HYPER_BUILD}/t/unit/test_entry" or die "cannot run: $!";
