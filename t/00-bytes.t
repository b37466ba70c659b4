#!/usr/bin/perl
# Hex, base64, SHA-256, random bytes and UTF-8 mean one thing only, and bad texts are refused.
exec "$ENV{HYPER_BUILD}/t/unit/test_bytes" or die "cannot run: $!";
