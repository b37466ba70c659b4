#!/usr/bin/perl
# An HTTP request head has one meaning or is refused; a chunked body is decoded the same in any pieces.
exec "$ENV{HYPER_BUILD}/t/unit/test_net_http" or die "cannot run: $!";
