#!/usr/bin/perl
# Guards: pairs without bytes in flight hold no pipe and no buffer, only their two sockets.
use strict;
use warnings;
use HyperTest;
use RelayTest;
use Test::More;

both_modes(sub {
	my ($d, $mode) = @_;
	my ($fds, $pipes) = ($d->fds, pipes_of($d));    # prove may have left it some
	my @pairs = map { [ pair($d) ] } 1 .. 100;
	is(pipes_of($d), $pipes, "$mode: a hundred fresh pairs, no pipe");
	for my $p (@pairs) {
		send_all($p->[0], 'x' x 1000);
		send_all($p->[1], 'y' x 1000);
	}
	my $ok = grep { read_exactly($_->[0], 1000) eq 'y' x 1000 && read_exactly($_->[1], 1000) eq 'x' x 1000 } @pairs;
	is($ok, 100, "$mode: all of them moved bytes");
	wait_until { pipes_of($d) <= $pipes + 2 * 4 }; # the last byte is here before its pipe is back
	cmp_ok(pipes_of($d), '<=', $pipes + 2 * 4, "$mode: then only the pool's pipes are left");
	cmp_ok($d->fds, '<=', $fds + 200 + 2 * 4, "$mode: two descriptors a pair");
	for my $p (@pairs) {
		close $p->[0];
		close $p->[1];
	}
	is(scalar(grep { (end_of($d, $_->[2]) // {})->{reason} eq 'closed' } @pairs), 100, "$mode: clean ends");
});
