#!/usr/bin/perl
# Guards: an end of stream passes on after its last byte, and the other direction lives on until it ends itself.
use strict;
use warnings;
use HyperTest;
use RelayTest;
use Test::More;

both_modes(sub {
	my ($d, $mode) = @_;
	for my $first (0, 1) {
		my @s = pair($d);
		my $id = pop @s;
		my ($x, $y) = $first ? reverse @s : @s;
		my $big = join '', map { chr($_ * 7 % 251) } 1 .. 300_000;
		my $who = "$mode, side " . ($first ? 'b' : 'a') . ' first';

		send_all($x, $big);
		half_close($x);
		my ($got, $how) = read_to_end($y);
		is($how, 'eof', "$who: its end is seen");
		ok($got eq $big, "$who: after all of its bytes");
		ok(!defined end_of($d, $id, 0.2), "$who: the pair lives on");
		for my $i (1 .. 3) {
			send_all($y, "answer $i");
			is(read_exactly($x, 8), "answer $i", "$who: an answer to the half-closed side");
		}
		send_all($y, $big);
		half_close($y);
		($got, $how) = read_to_end($x);
		is($how, 'eof', "$who: the other end is seen");
		ok($got eq $big, "$who: after all of its bytes");
		my $end = end_of($d, $id);
		is($end->{reason}, 'closed', "$who: a clean end");
		is($end->{ab} + $end->{ba}, 2 * 300_000 + 24, "$who: every byte was counted");
	}
});
